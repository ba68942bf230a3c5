package journal

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// Entry is an event that is due for a forwarder.
type Entry struct {
	Seq   int64
	Event sdk.Event
	// Key is what the event was parked or is retried under.
	Key string
	// Attempts is how many have failed, and First when the first of them
	// ended; zero for an event's first delivery.
	Attempts int
	First    time.Time
	// Outage is the time since First that does not count towards giving up.
	Outage time.Duration
	// Replayed is true if a person asked for this delivery although the
	// event had been settled before. Event.Replayed says the same.
	Replayed bool
	// Damaged is a *DamagedError if the row on disk is not what was stored.
	// Event then has only its id, type and source.
	Damaged error

	total, size int64  // as the event's row has them
	reason      string // of the last failed attempt
}

// Cursor is one forwarder's place in the journal. One lane uses it at a time;
// its methods may be called concurrently.
type Cursor struct {
	j    *Journal
	id   int64 // of its row
	name string
	wake chan struct{}

	mu      sync.Mutex
	window  window   // guarded by mu, as all below
	read    position // of the last event handed out for the first time
	handed  hand     // events handed out for the first time and not settled
	waiting waiting
	dirty   *settlements // not yet given to the writer
	writing *settlements // given to the writer, or nil
	limits  CursorLimits
	gone    time.Time // since when the configuration does not name the forwarder; zero if it does
	until   int64     // if it is gone, the last event that it was to get
}

// maxRetries bounds the events that wait for their next attempt. At the bound
// the cursor hands out no further new events until some are settled.
const maxRetries = 10_000

// maxParked bounds the events that wait behind an earlier one with their key.
const maxParked = 100_000

// restart makes everything due again that was handed out and not settled.
func (c *Cursor) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for seq := c.read.seq; seq > c.window.watermark; seq-- {
		if size := c.handed.size(seq); size > 0 {
			c.handed.drop(seq)
			c.read.total -= size
		}
	}
	c.read.seq = min(c.read.seq, c.window.watermark)
	for _, i := range c.waiting.out {
		c.waiting.takeBack(i)
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
	if len(c.waiting.retries) == 0 {
		return time.Time{}, false
	}
	return c.waiting.retries[0].due, true
}

// BlockedKeys are the keys of the events that wait for a retry, sorted: a lane
// that keeps the order parks what follows them.
func (c *Cursor) BlockedKeys() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	keys := make(map[string]struct{})
	for _, i := range c.waiting.retries {
		if i.key != "" {
			keys[i.key] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

// ParkedKeys are the keys that have parked events, sorted.
func (c *Cursor) ParkedKeys() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.waiting.parked))
}

// Next hands out up to limit events: retries due at now, the earliest first,
// then what is to be delivered again and events that the forwarder has not had
// yet, each in their order. An event is handed out once, until it is settled
// with a later attempt or the cursor is opened again. It returns none if there
// is nothing to do.
func (c *Cursor) Next(ctx context.Context, now time.Time, limit int) ([]Entry, error) {
	entries, err := c.nextRetries(ctx, now, limit)
	if err != nil || len(entries) == limit {
		return entries, err
	}
	if c.crowded() {
		return entries, nil
	}
	again, err := c.nextRequeued(ctx, (limit-len(entries)+1)/2)
	entries = append(entries, again...)
	if err != nil || len(entries) == limit {
		return entries, err
	}
	fresh, err := c.nextNew(ctx, math.MaxInt64, limit-len(entries))
	return append(entries, fresh...), err
}

func (c *Cursor) nextRetries(ctx context.Context, now time.Time, limit int) ([]Entry, error) {
	c.mu.Lock()
	var due []*item
	for len(due) < limit {
		i := c.waiting.takeDue(now)
		if i == nil {
			break
		}
		due = append(due, i)
	}
	c.mu.Unlock()
	return c.entries(ctx, due)
}

// entries reads the events of items that were handed out. What cannot be read
// waits again.
func (c *Cursor) entries(ctx context.Context, items []*item) ([]Entry, error) {
	entries, err := c.j.read(ctx, items)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, left := range items[len(entries):] {
			c.waiting.takeBack(left)
		}
	}
	return entries, err
}

// Unpark hands out up to limit parked events of the key, in order. They stay
// parked on disk until they are settled: a restart hands them out again.
func (c *Cursor) Unpark(ctx context.Context, key string, limit int) ([]Entry, error) {
	c.mu.Lock()
	items := c.waiting.takeParked(key, limit)
	c.mu.Unlock()
	return c.entries(ctx, items)
}

// nextRequeued hands out events that are wanted again.
func (c *Cursor) nextRequeued(ctx context.Context, limit int) ([]Entry, error) {
	items, err := c.takeRequeued(ctx, limit)
	if err != nil {
		return nil, err
	}
	return c.entries(ctx, items)
}

func (c *Cursor) takeRequeued(ctx context.Context, limit int) ([]*item, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting.requeued == 0 {
		return nil, nil
	}
	items, err := c.readRequeued(ctx, limit)
	for _, i := range items {
		c.waiting.out[i.seq] = i
		c.waiting.requeuedRead = i.seq
	}
	return items, err
}

// crowded reports that so much waits for a retry that nothing else is handed
// out.
func (c *Cursor) crowded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting.retries)+len(c.waiting.out) >= maxRetries
}

// readRequeued reads the next requeued events that are not out and not settled.
// The caller holds mu.
func (c *Cursor) readRequeued(ctx context.Context, limit int) ([]*item, error) {
	c.j.opening.RLock()
	defer c.j.opening.RUnlock()
	var items []*item
	rows, err := c.j.store.selectRequeued.QueryContext(ctx, c.id, c.waiting.requeuedRead)
	if err != nil {
		return nil, fmt.Errorf("read requeued events of forwarder %q: %w", c.name, c.j.watch(err))
	}
	defer rows.Close()
	for len(items) < limit && rows.Next() {
		i := &item{from: requeuedTable}
		if err := rows.Scan(&i.seq, &i.replayed, &i.size); err != nil {
			return nil, fmt.Errorf("read requeued events of forwarder %q: %w", c.name, c.j.watch(err))
		}
		if _, out := c.waiting.out[i.seq]; !out && !c.dirty.touches(i.seq) && !c.writing.touches(i.seq) {
			items = append(items, i)
		}
	}
	return items, c.j.watch(rows.Err())
}

// nextNew hands out events up to the number upTo that the forwarder has not had
// yet.
func (c *Cursor) nextNew(ctx context.Context, upTo int64, limit int) ([]Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for { // what is read may be settled already, all of it
		before := c.read.seq
		entries, err := c.readNew(ctx, upTo, limit)
		if err != nil || len(entries) > 0 || c.read.seq == before {
			return entries, err
		}
	}
}

// readNew reads on, at most limit events, and returns those that are not
// settled. The caller holds mu.
func (c *Cursor) readNew(ctx context.Context, upTo int64, limit int) ([]Entry, error) {
	limit = min(limit, int(c.window.watermark+WindowEvents-c.read.seq))
	if limit <= 0 || c.read.seq >= c.j.head.Load() {
		return nil, nil
	}
	entries, err := c.j.after(ctx, c.read.seq, limit)
	if err != nil {
		return nil, err
	}
	kept := entries[:0]
	for _, e := range entries {
		if e.Seq > upTo || !c.skipTo(e.Seq) {
			break
		}
		c.read = position{e.Seq, e.total}
		if !c.window.isSettled(e.Seq) {
			c.handed.take(e.Seq, e.size)
			kept = append(kept, e)
		}
	}
	return kept, nil
}

// skipTo settles the numbers between the last one read and seq: no event has
// them any more. It reports false if that has to wait until what is in flight
// is settled.
func (c *Cursor) skipTo(seq int64) bool {
	read := c.read.seq
	switch {
	case seq == read+1:
	case c.window.top == read && c.window.watermark == read:
		c.window.jump(seq - 1)
	case seq-c.window.watermark < WindowEvents:
		for n := read + 1; n < seq; n++ {
			c.window.settle(n)
		}
	default:
		return false
	}
	return true
}
