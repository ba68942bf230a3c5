package dispatch

import (
	"sync"
	"time"

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

// Status is a lane at one moment.
type Status struct {
	Name   string
	Plugin string
	journal.Progress
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
	return Status{
		Name: l.Name, Plugin: l.config.Plugin, Progress: l.Cursor.Progress(),
		Delivered: l.state.delivered, LastDelivered: l.state.lastDelivered,
		Failing: l.state.failing, FailingSince: l.state.failingSince, LastError: l.state.lastError, LastErrorAt: l.state.lastErrorAt,
	}
}
