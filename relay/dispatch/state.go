package dispatch

import (
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/pimrelay/pimrelay/relay/journal"
)

// state is what a lane remembers to tell people.
type state struct {
	mu            sync.Mutex
	delivered     int64 // guarded by mu, as all below
	lastDelivered time.Time
	failing       bool
	failingSince  time.Time
	lastError     string
	lastErrorAt   time.Time
	now           Situation
}

// Situation is what a lane is doing at one moment.
type Situation struct {
	// Breaker is "closed", "open" or "half-open".
	Breaker string
	// BreakerReason is the failure that opened the breaker, BreakerSince
	// when, and NextProbe when the destination is tried next. They are zero
	// while it is closed.
	BreakerReason string
	BreakerSince  time.Time
	NextProbe     time.Time
	// ThrottledUntil is when the destination may be asked again that has
	// asked for less; zero or in the past if it has not.
	ThrottledUntil time.Time
	// InFlight is the number of calls of the forwarder that run, Overdue
	// how many of them ignore the end of their time.
	InFlight, Overdue int
}

func (s *state) succeeded(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delivered++
	s.lastDelivered, s.failing = now, false
}

// failed reports whether the last delivery before this one had succeeded.
func (s *state) failed(now time.Time, reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := !s.failing
	if changed {
		s.failingSince = now
	}
	s.failing, s.lastError, s.lastErrorAt = true, reason, now
	return changed
}

// show tells the state and the metrics what the lane is doing.
func (r *running) show() {
	now := Situation{Breaker: r.breaker.state.String(), ThrottledUntil: r.pace.until, InFlight: len(r.inFlight), Overdue: r.overdue}
	if !r.breaker.closed() {
		now.BreakerReason, now.BreakerSince, now.NextProbe = r.breaker.reason, r.breaker.since, r.breaker.probeAt
	}
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	if r.state.now.Breaker != now.Breaker {
		r.metrics.breaker.Set(breakerGauge[r.breaker.state])
	}
	r.state.now = now
}

var breakerGauge = map[gobreaker.State]float64{gobreaker.StateClosed: 0, gobreaker.StateHalfOpen: 1, gobreaker.StateOpen: 2}

// Status is a lane at one moment.
type Status struct {
	Name   string
	Plugin string
	journal.Progress
	Situation
	Paused bool
	// Delivered counts since the lane was started.
	Delivered     int64
	LastDelivered time.Time
	// Failing is true if the last delivery failed; FailingSince when the
	// first of the failed ones ended.
	Failing      bool
	FailingSince time.Time
	LastError    string
	LastErrorAt  time.Time
}

// Status describes the lane.
func (l *Lane) Status() Status {
	l.state.mu.Lock()
	defer l.state.mu.Unlock()
	s := Status{
		Name: l.Name, Plugin: l.Options.Plugin, Progress: l.Cursor.Progress(), Situation: l.state.now, Paused: l.paused.Load(),
		Delivered: l.state.delivered, LastDelivered: l.state.lastDelivered,
		Failing: l.state.failing, FailingSince: l.state.failingSince, LastError: l.state.lastError, LastErrorAt: l.state.lastErrorAt,
	}
	if s.Breaker == "" {
		s.Breaker = gobreaker.StateClosed.String() // not yet run
	}
	return s
}
