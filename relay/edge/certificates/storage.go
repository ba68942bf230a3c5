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

	mu   sync.Mutex
	held map[string]bool // guarded by mu, as below
	none chan struct{}   // closed while none is held
}

func newStorage(dir string) *storage {
	s := &storage{FileStorage: &certmagic.FileStorage{Path: dir}, held: make(map[string]bool), none: make(chan struct{})}
	close(s.none)
	return s
}

// Lock is that of the directory.
func (s *storage) Lock(ctx context.Context, name string) error {
	err := s.FileStorage.Lock(ctx, name)
	if err == nil {
		s.took(name)
	}
	return err
}

// TryLock is that of the directory.
func (s *storage) TryLock(ctx context.Context, name string) (bool, error) {
	ok, err := s.FileStorage.TryLock(ctx, name)
	if ok {
		s.took(name)
	}
	return ok, err
}

func (s *storage) took(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) == 0 {
		s.none = make(chan struct{})
	}
	s.held[name] = true
}

// Unlock is that of the directory.
func (s *storage) Unlock(ctx context.Context, name string) error {
	err := s.FileStorage.Unlock(ctx, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[name] {
		if delete(s.held, name); len(s.held) == 0 {
			close(s.none)
		}
	}
	return err
}

// wait returns when no lock is held, or after atMost.
func (s *storage) wait(atMost time.Duration) {
	s.mu.Lock()
	none := s.none
	s.mu.Unlock()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-none:
	case <-timer.C:
	}
}
