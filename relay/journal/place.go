package journal

import (
	"container/heap"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Start says where a forwarder begins that the journal has not seen yet.
type Start struct {
	// Beginning is true for the oldest event that is kept, and Since is the
	// time from which on events were received; without either, the forwarder
	// gets what is appended from now on.
	Beginning bool
	Since     time.Time
	// RenamedFrom is the forwarder whose place, with everything that waits,
	// is taken over, if the journal has one of that name. Its lane must have
	// ended.
	RenamedFrom string
}

// Cursor opens the place of the named forwarder, and makes it durably if the
// journal has not seen the forwarder yet. A forwarder has one Cursor: another
// call returns the same, with everything that was handed out and not settled
// due again.
func (j *Journal) Cursor(ctx context.Context, forwarder string, start Start) (*Cursor, error) {
	j.creating.Lock()
	defer j.creating.Unlock()
	if c := j.known(forwarder); c != nil {
		c.restart()
		return c, nil
	}
	if start.RenamedFrom != "" {
		if c, err := j.rename(ctx, start.RenamedFrom, forwarder); c != nil || err != nil {
			return c, err
		}
	}
	c := newCursor(j, forwarder)
	if err := c.create(ctx, start); err != nil {
		return nil, fmt.Errorf("open cursor %q: %w", forwarder, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cursors[forwarder] = c
	return c, nil
}

func (j *Journal) known(forwarder string) *Cursor {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cursors[forwarder]
}

func newCursor(j *Journal, name string) *Cursor {
	c := &Cursor{j: j, name: name, wake: make(chan struct{}, 1), waiting: newWaiting()}
	c.dirty = newSettlements(c)
	return c
}

func (c *Cursor) create(ctx context.Context, start Start) error {
	at, err := c.j.locate(ctx, start)
	if err != nil {
		return err
	}
	c.place(at, nil)
	return c.j.apply(ctx, func(s *store) error {
		return s.write.QueryRowContext(context.Background(), `INSERT INTO cursors (forwarder, watermark, settled, updated) VALUES (?, ?, x'', ?)
			ON CONFLICT (forwarder) DO UPDATE SET watermark=excluded.watermark, settled=excluded.settled, updated=excluded.updated, gone=0, until=0, forgotten=0
			RETURNING id`, c.name, at.seq, time.Now().UnixMicro()).Scan(&c.id)
	})
}

// locate is where a forwarder starts.
func (j *Journal) locate(ctx context.Context, start Start) (position, error) {
	switch {
	case start.Beginning:
		return j.before(ctx, 0)
	case !start.Since.IsZero():
		last, err := j.lastBefore(ctx, start.Since)
		if err != nil {
			return position{}, err
		}
		return j.before(ctx, last)
	default:
		return j.end(), nil
	}
}

func (c *Cursor) place(at position, settled []byte) {
	c.window = decodeWindow(at.seq, settled)
	c.read = at
}

// before is the position in front of the first event that follows seq, or the
// end of the journal.
func (j *Journal) before(ctx context.Context, seq int64) (position, error) {
	j.opening.RLock()
	defer j.opening.RUnlock()
	return j.store.before(ctx, seq, j.end())
}

func (s *store) before(ctx context.Context, seq int64, end position) (position, error) {
	entry, err := scanEntry(s.selectAfter.QueryRowContext(ctx, seq, 1))
	if errors.Is(err, sql.ErrNoRows) {
		return end, nil
	}
	if err != nil {
		return position{}, fmt.Errorf("read the event after %d: %w", seq, err)
	}
	return position{entry.Seq - 1, entry.total - entry.size}, nil
}

// loadCursors takes up the places that forwarders have, where the condition is
// true.
func (j *Journal) loadCursors(ctx context.Context, condition string, args ...any) error {
	j.opening.RLock()
	defer j.opening.RUnlock()
	rows, err := j.store.read.QueryContext(ctx, "SELECT id, forwarder, watermark, settled, gone, until FROM cursors WHERE forgotten = 0 AND "+condition, args...)
	if err != nil {
		return fmt.Errorf("read cursors: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var id, watermark, gone, until int64
		var settled []byte
		if err := rows.Scan(&id, &name, &watermark, &settled, &gone, &until); err != nil {
			return fmt.Errorf("read cursors: %w", err)
		}
		c := newCursor(j, name)
		c.id, c.gone, c.until = id, fromMicros(gone), until
		if err := c.load(ctx, watermark, settled); err != nil {
			return fmt.Errorf("read cursor %q: %w", name, err)
		}
		j.mu.Lock()
		j.cursors[name] = c
		j.mu.Unlock()
	}
	return rows.Err()
}

func (c *Cursor) load(ctx context.Context, watermark int64, settled []byte) error {
	at, err := c.j.store.before(ctx, watermark, c.j.end())
	if err != nil {
		return err
	}
	c.place(position{watermark, at.total}, settled)
	db := c.j.store.read
	w := &c.waiting
	if err := db.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(size), 0) FROM requeued WHERE cursor = ?", c.id).Scan(&w.requeued, &w.bytes); err != nil {
		return err
	}
	if err := c.loadRetries(ctx); err != nil {
		return err
	}
	return c.loadParked(ctx)
}

func (c *Cursor) loadRetries(ctx context.Context) error {
	rows, err := c.j.store.read.QueryContext(ctx, "SELECT seq, key, attempts, first, due, outage, replayed, size, reason FROM retries WHERE cursor = ?", c.id)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var first, due, outage int64
		i := &item{from: retriesTable}
		if err := rows.Scan(&i.seq, &i.key, &i.attempts, &first, &due, &outage, &i.replayed, &i.size, &i.reason); err != nil {
			return err
		}
		i.index = len(c.waiting.retries)
		i.first, i.due, i.outage = fromMicros(first), fromMicros(due), time.Duration(outage)*time.Microsecond
		c.waiting.bytes += i.size
		c.waiting.retries = append(c.waiting.retries, i)
	}
	heap.Init(&c.waiting.retries)
	return rows.Err()
}

func (c *Cursor) loadParked(ctx context.Context) error {
	rows, err := c.j.store.read.QueryContext(ctx, "SELECT seq, key, size FROM parked WHERE cursor = ? ORDER BY seq", c.id)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		i := &item{from: parkedTable}
		if err := rows.Scan(&i.seq, &i.key, &i.size); err != nil {
			return err
		}
		c.waiting.add(i)
	}
	return rows.Err()
}
