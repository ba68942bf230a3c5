package journal

import (
	"container/heap"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// Start says where a forwarder begins that the journal has not seen yet.
type Start struct {
	// Beginning is true for the oldest event that is kept; otherwise the
	// forwarder gets what is appended from now on.
	Beginning bool
}

// Entry is an event that is due for a forwarder.
type Entry struct {
	Seq   int64
	Event sdk.Event
	// Attempts is how many have failed, and First when the first of them
	// ended; zero for an event's first delivery.
	Attempts int
	First    time.Time
	// Damaged is a *DamagedError if the row on disk is not what was stored.
	// Event then has only its id, type and source.
	Damaged error
}

// Cursor is one forwarder's place in the journal. One lane uses it at a time;
// its methods may be called concurrently.
type Cursor struct {
	j    *Journal
	name string
	wake chan struct{}

	mu       sync.Mutex
	window   window           // guarded by mu, as all below
	read     int64            // the highest number handed out for the first time
	retries  retryHeap        // what waits for its next attempt
	inFlight map[int64]*retry // handed out a further time and not settled since
	dirty    *settlements     // not yet given to the writer
	dead     int64            // dead letters of the forwarder on disk or on their way
}

// maxRetries bounds the events that wait for their next attempt. At the bound
// the cursor hands out no further new events until some are settled.
const maxRetries = 10_000

// Cursor opens the place of the named forwarder, and makes it durably if the
// journal has not seen the forwarder yet. A forwarder has one Cursor: another
// call returns the same, with everything that was handed out and not settled
// due again.
func (j *Journal) Cursor(ctx context.Context, forwarder string, start Start) (*Cursor, error) {
	j.mu.Lock()
	c, ok := j.cursors[forwarder]
	j.mu.Unlock()
	if ok {
		c.restart()
		return c, nil
	}
	c = &Cursor{j: j, name: forwarder, wake: make(chan struct{}, 1), inFlight: make(map[int64]*retry)}
	if err := c.load(ctx, start); err != nil {
		return nil, fmt.Errorf("open cursor %q: %w", forwarder, err)
	}
	c.dirty = newSettlements(c)
	c.read = c.window.watermark
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cursors[forwarder] = c
	return c, nil
}

// load reads the cursor's rows, or makes them.
func (c *Cursor) load(ctx context.Context, start Start) error {
	j := c.j
	j.opening.RLock()
	defer j.opening.RUnlock()
	var settled []byte
	var watermark int64
	err := j.store.read.QueryRowContext(ctx, "SELECT watermark, settled FROM cursors WHERE forwarder = ?", c.name).Scan(&watermark, &settled)
	if errors.Is(err, sql.ErrNoRows) {
		return c.create(ctx, start)
	}
	if err != nil {
		return err
	}
	c.window = decodeWindow(watermark, settled)
	if err := j.store.read.QueryRowContext(ctx, "SELECT count(*) FROM dead_letters WHERE forwarder = ?", c.name).Scan(&c.dead); err != nil {
		return err
	}
	return c.loadRetries(ctx)
}

func (c *Cursor) create(ctx context.Context, start Start) error {
	if start.Beginning {
		var oldest sql.NullInt64
		if err := c.j.store.read.QueryRowContext(ctx, "SELECT min(seq) FROM events").Scan(&oldest); err != nil {
			return err
		}
		c.window.jump(max(oldest.Int64-1, 0))
	} else {
		c.window.jump(c.j.head.Load())
	}
	return c.j.apply(ctx, func(s *store) error {
		_, err := s.upsertCursor.Exec(c.name, c.window.watermark, []byte{}, time.Now().UnixMicro())
		return err
	})
}

func (c *Cursor) loadRetries(ctx context.Context) error {
	rows, err := c.j.store.read.QueryContext(ctx, "SELECT seq, attempts, first, due FROM retries WHERE forwarder = ? ORDER BY due, seq", c.name)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var first, due int64
		r := &retry{}
		if err := rows.Scan(&r.seq, &r.attempts, &first, &due); err != nil {
			return err
		}
		r.first, r.due = fromMicros(first), fromMicros(due)
		c.retries = append(c.retries, r)
	}
	return rows.Err()
}

// restart makes everything due again that was handed out and not settled.
func (c *Cursor) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = c.window.watermark
	for seq, r := range c.inFlight {
		heap.Push(&c.retries, r)
		delete(c.inFlight, seq)
	}
	c.wakeUp()
}

func (c *Cursor) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Wake receives when Next may have something that it had not before: a new
// event, or room in the window. It does not receive when a retry is due: see
// NextRetry.
func (c *Cursor) Wake() <-chan struct{} { return c.wake }

// NextRetry is when the next retry is due, and false if there is none.
func (c *Cursor) NextRetry() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.retries) == 0 {
		return time.Time{}, false
	}
	return c.retries[0].due, true
}

// Next hands out up to limit events: retries due at now, the earliest first,
// then events in their order that the forwarder has not had yet. Each is
// handed out once, until it is settled with a later attempt or the cursor is
// opened again. It returns none if there is nothing to do.
func (c *Cursor) Next(ctx context.Context, now time.Time, limit int) ([]Entry, error) {
	entries, err := c.nextRetries(ctx, now, limit)
	if err != nil || len(entries) == limit {
		return entries, err
	}
	fresh, err := c.nextNew(ctx, limit-len(entries))
	return append(entries, fresh...), err
}

func (c *Cursor) nextRetries(ctx context.Context, now time.Time, limit int) ([]Entry, error) {
	c.mu.Lock()
	var due []*retry
	for len(due) < limit && len(c.retries) > 0 && !c.retries[0].due.After(now) {
		r := heap.Pop(&c.retries).(*retry)
		c.inFlight[r.seq] = r
		due = append(due, r)
	}
	c.mu.Unlock()
	var entries []Entry
	for i, r := range due {
		entry, err := c.j.one(ctx, r.seq)
		if err != nil {
			c.putBack(due[i:])
			return entries, err
		}
		entry.Attempts, entry.First = r.attempts, r.first
		entries = append(entries, entry)
	}
	return entries, nil
}

func (c *Cursor) putBack(retries []*retry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range retries {
		delete(c.inFlight, r.seq)
		heap.Push(&c.retries, r)
	}
}

func (c *Cursor) nextNew(ctx context.Context, limit int) ([]Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.retries)+len(c.inFlight) >= maxRetries {
		return nil, nil
	}
	limit = min(limit, int(c.window.watermark+WindowEvents-c.read))
	if limit <= 0 || c.read >= c.j.head.Load() {
		return nil, nil
	}
	entries, err := c.j.after(ctx, c.read, limit)
	if err != nil {
		return nil, err
	}
	kept := entries[:0]
	for _, e := range entries {
		if !c.skipTo(e.Seq) {
			break
		}
		c.read = e.Seq
		if !c.window.isSettled(e.Seq) {
			kept = append(kept, e)
		}
	}
	return kept, nil
}

// skipTo settles the numbers between the last one read and seq: no event has
// them any more. It reports false if that has to wait until what is in flight
// is settled.
func (c *Cursor) skipTo(seq int64) bool {
	gap := seq - c.read - 1
	switch {
	case gap == 0:
	case c.window.top == c.read && c.window.watermark == c.read:
		c.window.jump(seq - 1)
	case seq-c.window.watermark < WindowEvents:
		for n := c.read + 1; n < seq; n++ {
			c.window.settle(n)
		}
	default:
		return false
	}
	return true
}

// retry is an event that waits for its next attempt.
type retry struct {
	seq      int64
	attempts int
	first    time.Time
	due      time.Time
}

// retryHeap has the retry that is due first at its top; of equals, the older
// event.
type retryHeap []*retry

func (h retryHeap) Len() int { return len(h) }
func (h retryHeap) Less(i, k int) bool {
	if h[i].due.Equal(h[k].due) {
		return h[i].seq < h[k].seq
	}
	return h[i].due.Before(h[k].due)
}
func (h retryHeap) Swap(i, k int) { h[i], h[k] = h[k], h[i] }
func (h *retryHeap) Push(x any)   { *h = append(*h, x.(*retry)) }
func (h *retryHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
