package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// times are when a destination got each of its events.
type times struct {
	mu  sync.Mutex
	all []time.Time // guarded by mu
}

func (s *times) note(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.all = append(s.all, time.Now())
	}
}

func (s *times) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// first is when the first event came.
func (s *times) first() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[0]
}

// most is the largest number of events within any span of time.
func (s *times) most(span time.Duration) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.all, time.Time.Compare)
	most := 0
	for from := range s.all {
		to := from
		for to < len(s.all) && s.all[to].Sub(s.all[from]) < span {
			to++
		}
		most = max(most, to-from)
	}
	return most
}

func numbered(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
	}
	return ids
}

func TestRateBoundsEventsNotCalls(t *testing.T) {
	for _, batched := range []bool{false, true} {
		t.Run(fmt.Sprintf("batched=%v", batched), func(t *testing.T) {
			run(t, func(t *testing.T, b *bench) {
				var got times
				d := &destination{limits: sdk.BatchLimits{Events: 50}, answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
					got.note(len(events))
					return delivered(ctx, events)
				}}
				var f sdk.Forwarder = d
				if batched {
					f = batching{d}
				}
				b.append(numbered(110)...)
				b.start("shop", f, func(c *Config) { c.Rate = &Rate{PerSecond: 10, Burst: 20}; c.Batch.MaxWait = 0 })
				b.later(4900 * time.Millisecond)
				if n := got.count(); n < 60 || n > 69 {
					t.Errorf("%d events in 4.9 s at 10/s with a burst of 20", n)
				}
				b.later(time.Minute)
				if n := got.count(); n != 110 {
					t.Errorf("%d of 110 events", n)
				}
				if most := got.most(time.Second); most > 30 {
					t.Errorf("%d events within a second", most)
				}
			})
		})
	}
}

// A destination that asks for less stops the whole lane for as long as it asks,
// then gets one call at a time.
func TestThrottledSlowsTheLane(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		began := time.Now()
		var got times
		running, most := 0, 0
		var mu sync.Mutex
		d := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			if time.Since(began) < time.Second {
				time.Sleep(10 * time.Millisecond)
				return []sdk.Outcome{sdk.Throttled(time.Minute, "429")}
			}
			got.note(1)
			mu.Lock()
			running++
			if got.count() < 4 {
				most = max(most, running)
			}
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return delivered(ctx, events)
		}}
		b.append(numbered(100)...)
		b.start("shop", d, nil)
		b.later(59 * time.Second)
		if n := len(d.seen()); n > 8 {
			t.Errorf("%d calls before the minute is over, want those that were running", n)
		}
		if s := b.lanes["shop"].Status(); s.ThrottledUntil.Before(began.Add(time.Minute)) || s.Breaker != "closed" {
			t.Errorf("status %+v", s)
		}
		b.later(10 * time.Minute)
		if n := got.count(); n != 100 {
			t.Errorf("%d of 100 events", n)
		}
		if first := got.first().Sub(began); first < time.Minute || first > 62*time.Second {
			t.Errorf("went on after %s", first)
		}
		if most > 2 {
			t.Errorf("%d calls at once just after the pause", most)
		}
		b.progress("shop", journal.Progress{})
	})
}

func TestPauseAndResume(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		var up atomic.Bool
		d := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			if !up.Load() {
				return sdk.Each(len(events), sdk.Retry(0, errors.New("503")))
			}
			return delivered(ctx, events)
		}}
		b.append("a")
		b.start("shop", d, func(c *Config) { c.Retry.GiveUpAfter = time.Hour })
		synctest.Wait()
		lane := b.lanes["shop"]
		lane.Pause()
		synctest.Wait()
		b.append("b")
		calls := len(d.seen())
		b.later(3 * time.Hour)
		if n := len(d.seen()); n != calls || !lane.Status().Paused {
			t.Errorf("%d calls while paused", n-calls)
		}
		lane.Resume()
		b.later(time.Second)
		if letters := b.letters("shop"); len(letters) != 0 {
			t.Errorf("the pause counted towards giving up: %+v", letters)
		}
		up.Store(true)
		b.later(time.Hour)
		b.progress("shop", journal.Progress{})
	})
}

// Time without a lane does not count towards giving up either.
func TestRestartDoesNotGiveUp(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		d := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			return sdk.Each(len(events), sdk.Retry(0, errors.New("503")))
		}}
		b.append("a")
		change := func(c *Config) { c.Retry.GiveUpAfter = time.Hour }
		stop := b.start("shop", d, change)
		b.later(time.Minute)
		stop()
		b.later(5 * time.Hour)
		stop = b.start("shop", d, change)
		b.later(30 * time.Minute)
		if letters := b.letters("shop"); len(letters) != 0 {
			t.Errorf("given up: %+v", letters)
		}
		b.later(2 * time.Hour)
		if letters := b.letters("shop"); len(letters) != 1 {
			t.Errorf("not given up after all: %+v", b.lanes["shop"].Status())
		}
		stop()
	})
}
