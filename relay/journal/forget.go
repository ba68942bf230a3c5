package journal

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// Keep tells the journal the forwarders that the configuration names. Any other
// is gone from now on: its backlog is kept for Config.ForgetAfter, in case it
// comes back, then what it was to get becomes dead letters and its place is
// forgotten. Call it after the cursors have been opened.
func (j *Journal) Keep(ctx context.Context, forwarders []string) error {
	defer j.keeping.Do(func() { close(j.kept) })
	j.creating.Lock()
	defer j.creating.Unlock()
	now, head := time.UnixMicro(time.Now().UnixMicro()), j.head.Load()
	for _, c := range j.allCursors() {
		gone, kept := c.goneSince(), slices.Contains(forwarders, c.name)
		var err error
		switch {
		case kept && !gone.IsZero():
			err = c.setGone(ctx, time.Time{}, 0)
		case !kept && gone.IsZero():
			err = c.setGone(ctx, now, head)
			j.log.Info("the configuration no longer names the forwarder, its backlog is kept for a while", "forwarder", c.name, "for", j.config.ForgetAfter)
		}
		if err != nil {
			return fmt.Errorf("keep the place of forwarder %q: %w", c.name, err)
		}
	}
	return nil
}

func (c *Cursor) setGone(ctx context.Context, since time.Time, until int64) error {
	err := c.j.apply(ctx, func(s *store) error {
		return s.exec("UPDATE cursors SET gone = ?, until = ? WHERE id = ?", micros(since), until, c.id)
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone, c.until = since, until
	return nil
}

func (c *Cursor) goneSince() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// wantedUntil is the last number of an event that the forwarder was to get.
func (c *Cursor) wantedUntil() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone.IsZero() {
		return math.MaxInt64
	}
	return c.until
}

// forget takes their places from forwarders that have been gone for too long.
func (k *keeper) forget(ctx context.Context, now time.Time) error {
	for _, c := range k.j.allCursors() {
		if gone := c.goneSince(); gone.IsZero() || now.Sub(gone) < k.j.config.ForgetAfter {
			continue
		}
		if err := k.j.forget(ctx, c); err != nil {
			return fmt.Errorf("forget forwarder %q: %w", c.name, err)
		}
	}
	return nil
}

// forget makes dead letters of what the forwarder was to get, and then forgets
// its place.
func (j *Journal) forget(ctx context.Context, c *Cursor) error {
	j.creating.Lock()
	defer j.creating.Unlock()
	if c.goneSince().IsZero() { // it has just come back
		return nil
	}
	c.restart()
	x := excess{upTo: c.wantedUntil(), reason: "the forwarder is no longer in the configuration"}
	dead := 0
	for {
		n, err := c.shed(ctx, x, c.limitsNow().Wants)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		dead += n
	}
	err := j.apply(ctx, func(s *store) error {
		for _, table := range []string{"retries", "parked", "requeued"} {
			if err := s.exec("DELETE FROM "+table+" WHERE cursor = ?", c.id); err != nil {
				return err
			}
		}
		return s.exec("UPDATE cursors SET forgotten = 1, gone = 0, until = 0 WHERE id = ?", c.id)
	})
	if err != nil {
		return err
	}
	j.mu.Lock()
	delete(j.cursors, c.name)
	j.mu.Unlock()
	j.log.Warn("forwarder forgotten, its backlog became dead letters", "forwarder", c.name, "events", dead)
	return nil
}

// rename gives the place of the forwarder from, if it has one, to another name.
func (j *Journal) rename(ctx context.Context, from, to string) (*Cursor, error) {
	old := j.known(from)
	if old == nil {
		return nil, nil
	}
	if err := j.settle(); err != nil {
		return nil, err
	}
	err := j.apply(ctx, func(s *store) error {
		// A forwarder of that name may have been forgotten and have left
		// dead letters.
		if err := s.exec("UPDATE OR REPLACE dead_letters SET cursor = ? WHERE cursor = (SELECT id FROM cursors WHERE forwarder = ?)", old.id, to); err != nil {
			return err
		}
		if err := s.exec("DELETE FROM cursors WHERE forwarder = ?", to); err != nil {
			return err
		}
		return s.exec("UPDATE cursors SET forwarder = ?, gone = 0, until = 0 WHERE id = ?", to, old.id)
	})
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	delete(j.cursors, from)
	j.mu.Unlock()
	if err := j.loadTallies(ctx); err != nil {
		return nil, err
	}
	if err := j.loadCursors(ctx, "forwarder = ?", to); err != nil {
		return nil, err
	}
	j.log.Info("forwarder renamed, it keeps its place", "forwarder", to, "from", from)
	return j.known(to), nil
}
