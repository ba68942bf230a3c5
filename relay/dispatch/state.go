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
	s.failing, s.lastError, s.lastErrorAt = true, reason, now
	return changed
}

// Status is a lane at one moment.
type Status struct {
	Name   string `json:"name"`
	Plugin string `json:"plugin"`
	journal.Progress
	// Delivered counts since the lane was started.
	Delivered     int64     `json:"delivered"`
	LastDelivered time.Time `json:"last_delivered,omitzero"`
	// Failing is true if the last delivery failed.
	Failing     bool      `json:"failing"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

// Status describes the lane.
func (l *Lane) Status() Status {
	l.state.mu.Lock()
	defer l.state.mu.Unlock()
	return Status{
		Name: l.Name, Plugin: l.config.Plugin, Progress: l.Cursor.Progress(),
		Delivered: l.state.delivered, LastDelivered: l.state.lastDelivered,
		Failing: l.state.failing, LastError: l.state.lastError, LastErrorAt: l.state.lastErrorAt,
	}
}
