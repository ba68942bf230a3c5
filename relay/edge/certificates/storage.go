package certificates

import (
	"context"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// storage is a directory that knows which locks are held in it. certmagic holds
// one during each of its jobs and does not wait for them when it is stopped; a
// process that ends earlier leaves its locks behind, and whoever comes next waits
// until they are stale.
type storage struct {
	*certmagic.FileStorage

	mu     sync.Mutex
	closed bool            // guarded by mu, as below: no lock is given any more
	held   map[string]bool // the locks that are held
	busy   int             // these, and those that somebody waits for
	none   chan struct{}   // closed while busy is 0
}

func newStorage(dir string) *storage {
	s := &storage{FileStorage: &certmagic.FileStorage{Path: dir}, held: make(map[string]bool), none: make(chan struct{})}
	close(s.none)
	return s
}

// Lock is that of the directory.
func (s *storage) Lock(ctx context.Context, name string) error {
	if err := s.enter(); err != nil {
		return err
	}
	err := s.FileStorage.Lock(ctx, name)
	s.took(name, err == nil)
	return err
}

// TryLock is that of the directory.
func (s *storage) TryLock(ctx context.Context, name string) (bool, error) {
	if err := s.enter(); err != nil {
		return false, err
	}
	ok, err := s.FileStorage.TryLock(ctx, name)
	s.took(name, ok)
	return ok, err
}

// enter announces somebody who wants a lock.
func (s *storage) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return context.Canceled
	}
	if s.busy == 0 {
		s.none = make(chan struct{})
	}
	s.busy++
	return nil
}

// took notes whether whoever has entered has the lock.
func (s *storage) took(name string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ok {
		s.held[name] = true
		return
	}
	s.leave()
}

// leave notes that somebody has gone. The caller holds mu.
func (s *storage) leave() {
	if s.busy--; s.busy == 0 {
		close(s.none)
	}
}

// Unlock is that of the directory.
func (s *storage) Unlock(ctx context.Context, name string) error {
	err := s.FileStorage.Unlock(ctx, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[name] {
		delete(s.held, name)
		s.leave()
	}
	return err
}

// close gives no lock any more, and returns when none is held, or after atMost.
func (s *storage) close(atMost time.Duration) {
	s.mu.Lock()
	s.closed = true
	none := s.none
	s.mu.Unlock()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-none:
	case <-timer.C:
	}
}
