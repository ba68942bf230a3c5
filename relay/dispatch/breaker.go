package dispatch

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"
)

// The failures of the last minute count towards a breaker's ratio, in steps of
// ten seconds.
const (
	breakerWindow = time.Minute
	breakerBucket = 10 * time.Second
)

// What a breaker is told of a call that did not succeed.
var (
	errCallFailed   = errors.New("the call failed")
	errCallExcluded = errors.New("the call says nothing about the destination")
)

// circuit stops a lane whose destination fails. It is used by one goroutine.
//
// It holds gobreaker's state machine, and three things around it: a count of
// its own of failures in a row, because a window forgets those of a slow lane;
// a clock of its own for the probes, because the library lets its open state
// end only when somebody asks, always after the same time, and has no deadline
// for a probe; and the knowledge of whose failures they are, because one event
// that is never accepted must not stop the others.
type circuit struct {
	config Breaker
	gate   *gobreaker.TwoStepCircuitBreaker[struct{}]
	state  gobreaker.State // as the library reported it last

	row     int       // failures in a row
	several bool      // they are of several events
	failed  int64     // the first event of the last call that failed
	mixed   time.Time // when another event failed than the one that failed before it
	last    time.Time // of the last failure

	since   time.Time // when it opened
	openFor time.Duration
	probeAt time.Time     // when the next probe is due
	reason  string        // the failure that opened it
	probed  map[int64]int // the probes that each event has been since then
	probing bool          // a probe is running
}

func newCircuit(config Breaker) *circuit {
	c := &circuit{config: config}
	c.gate = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: 1, Interval: breakerWindow, BucketPeriod: breakerBucket,
		Timeout:       time.Nanosecond, // probeAt decides
		ReadyToTrip:   c.trips,
		OnStateChange: func(_ string, _, to gobreaker.State) { c.state = to },
		IsExcluded:    func(err error) bool { return errors.Is(err, errCallExcluded) },
	})
	return c
}

// trips is called by the library, under its lock, within failure.
func (c *circuit) trips(counts gobreaker.Counts) bool {
	if c.several && c.row >= c.config.Failures {
		return true
	}
	asked := int(counts.TotalSuccesses + counts.TotalFailures)
	return c.last.Sub(c.mixed) < breakerWindow && asked >= c.config.MinRequests &&
		float64(counts.TotalFailures) >= c.config.Ratio*float64(asked)
}

func (c *circuit) closed() bool { return c.state == gobreaker.StateClosed }

// allow lets a call pass: any call while the breaker is closed, and a probe
// when one is due and none is running. What becomes of the call must be told
// once, to success, failure or exclude with its done.
func (c *circuit) allow(now time.Time) (done func(error), ok bool) {
	if !c.closed() && !c.wantsProbe(now) {
		return nil, false
	}
	done, err := c.gate.Allow()
	c.probing = !c.closed() && err == nil
	return done, err == nil
}

// wantsProbe reports whether a probe is due and none is running.
func (c *circuit) wantsProbe(now time.Time) bool {
	return !c.closed() && !c.probing && !now.Before(c.probeAt)
}

// success tells of a call that the destination has accepted. It reports whether
// the breaker has closed.
func (c *circuit) success(done func(error)) bool {
	was := c.closed()
	if was {
		c.row, c.several = 0, false
	}
	done(nil)
	if was || !c.closed() {
		return false
	}
	c.row, c.several, c.failed, c.probed = 0, false, 0, nil
	return true
}

// failure tells of a call whose first event is seq, that failed. It reports
// whether the breaker has opened.
func (c *circuit) failure(done func(error), now time.Time, seq int64, reason string) bool {
	before := c.state
	if before == gobreaker.StateClosed {
		if other := c.failed != seq; other && c.failed != 0 {
			c.several, c.mixed = c.several || c.row > 0, now
		}
		c.failed, c.last = seq, now
		c.row++
	}
	done(errCallFailed)
	switch {
	case c.state == before || c.state != gobreaker.StateOpen:
		return false // also a call from before it opened, whose end makes the library half open
	case before == gobreaker.StateClosed:
		c.since, c.openFor, c.reason, c.probed = now, c.config.OpenFor, reason, make(map[int64]int)
	default: // a probe
		c.openFor = min(2*c.openFor, c.config.MaxOpenFor)
	}
	c.probeAt = now.Add(c.openFor)
	return before == gobreaker.StateClosed
}

// exclude tells of a call that says nothing about whether the destination
// works. After a probe the next one may follow at once.
func (c *circuit) exclude(done func(error)) { done(errCallExcluded) }

// choose is the index of the event to probe with: the one that has been tried
// least often, of those the oldest. Events that are to blame themselves thus do
// not stand before others that are not.
func (c *circuit) choose(items []*item) int {
	tried := func(i *item) int { return i.Attempts + c.probed[i.Seq] }
	best := 0
	for n, i := range items {
		if p, q := tried(i), tried(items[best]); p < q || p == q && i.Seq < items[best].Seq {
			best = n
		}
	}
	return best
}
