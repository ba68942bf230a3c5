package simulator

import (
	"context"
	"time"
)

// clock is platform time: it starts at the wall clock's time and runs speed
// times as fast.
type clock struct {
	start time.Time
	speed float64
}

// now is the platform's time, in UTC.
func (c clock) now() time.Time {
	return c.start.Add(time.Duration(float64(time.Since(c.start)) * c.speed)).UTC()
}

// wall is how long d of platform time takes on the wall clock.
func (c clock) wall(d time.Duration) time.Duration {
	return time.Duration(float64(d) / c.speed)
}

// stamp writes a time as the Management API does: UTC with microseconds.
func stamp(t time.Time) string {
	return t.UTC().Format("2006-01-02T15:04:05.000000Z")
}

// sleep waits for d and reports whether ctx outlived it.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
