package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// ErrFull is returned by Append, with the reason, when the journal takes no
// more events.
var ErrFull = errors.New("the journal is full")

// CursorLimits bound what waits for one forwarder. The zero value has the
// defaults.
type CursorLimits struct {
	// BacklogAge is how old, since it was received, an event may become
	// that the forwarder has not settled; 0 means any age.
	BacklogAge time.Duration
	// BacklogSize is how many bytes of them may wait; 0 means half of the
	// journal's size limit.
	BacklogSize sdk.Size
	// Refuse is true if the journal takes no more events while the backlog
	// is over a limit; otherwise its oldest events become dead letters.
	Refuse bool
	// DeadLetterAge and DeadLetterSize bound the dead letters: the oldest
	// beyond them are deleted. 0 means 30 days and 1 GiB.
	DeadLetterAge  time.Duration
	DeadLetterSize sdk.Size
	// Wants reports whether the forwarder wants an event at all: one that
	// it does not want never becomes a dead letter of a backlog that is over
	// its limit. nil means that it wants everything.
	Wants func(*sdk.Event) bool
}

const (
	defaultDeadLetterAge  = 30 * 24 * time.Hour
	defaultDeadLetterSize = 1 << 30
)

// SetLimits replaces the limits. They are kept within a few seconds.
func (c *Cursor) SetLimits(l CursorLimits) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits = l
}

// limitsNow are the limits with their defaults filled in.
func (c *Cursor) limitsNow() CursorLimits {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.limits
	l.BacklogSize = cmp.Or(l.BacklogSize, c.j.config.Retention.Size/2)
	l.DeadLetterAge = cmp.Or(l.DeadLetterAge, defaultDeadLetterAge)
	l.DeadLetterSize = cmp.Or(l.DeadLetterSize, defaultDeadLetterSize)
	return l
}

// backlogBytes is about what the events take that are not settled.
func (c *Cursor) backlogBytes() sdk.Size {
	c.mu.Lock()
	defer c.mu.Unlock()
	return sdk.Size(max(c.j.total.Load()-c.read.total, 0) + c.handed.bytes + c.waiting.bytes)
}

// shedEvents is how many events of a backlog become dead letters in one step.
const shedEvents = 500

// overflow brings a backlog back within its limits, or returns why the journal
// has to refuse events, which is empty if it has not.
func (c *Cursor) overflow(ctx context.Context, now time.Time) (refusal string, err error) {
	l := c.limitsNow()
	e := excess{upTo: math.MaxInt64}
	if l.BacklogAge > 0 {
		if e.old, err = c.j.lastBefore(ctx, now.Add(-l.BacklogAge)); err != nil {
			return "", err
		}
	}
	shed := 0
	for ctx.Err() == nil && c.exceeds(l, &e) {
		if l.Refuse {
			return fmt.Sprintf("forwarder %q: %s: see to its destination, raise the limit, or set backlog.overflow to dead_letter", c.name, e.reason), nil
		}
		n, err := c.shed(ctx, e, l.Wants)
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
		shed += n
	}
	if shed > 0 {
		c.j.log.Warn("backlog over its limit, its oldest events became dead letters", "forwarder", c.name, "events", shed, "err", e.reason)
	}
	return "", nil
}

// excess is what a backlog has too much of.
type excess struct {
	old    int64 // the last number that is too old; 0 for none
	aged   bool  // only events that are too old, as opposed to the oldest
	upTo   int64
	reason string
}

// exceeds reports whether the backlog is over a limit, and completes e.
func (c *Cursor) exceeds(l CursorLimits, e *excess) bool {
	switch {
	case c.backlogBytes() > l.BacklogSize:
		e.aged, e.upTo = false, math.MaxInt64
		e.reason = fmt.Sprintf("the backlog is over its limit of %s", l.BacklogSize)
	case c.oldest() <= e.old:
		e.aged, e.upTo = true, e.old
		e.reason = fmt.Sprintf("the backlog is older than its limit of %s", l.BacklogAge)
	default:
		return false
	}
	return true
}

// oldest is the lowest number that is not settled, but for what is wanted
// again: its age says nothing.
func (c *Cursor) oldest() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	lowest := c.window.watermark + 1
	for _, i := range c.waiting.outside() {
		if !i.replayed {
			lowest = min(lowest, i.seq)
		}
	}
	return lowest
}

// shed takes up to shedEvents of the oldest unsettled events, makes dead
// letters of those that the forwarder wants, and writes that. It returns how
// many it took.
func (c *Cursor) shed(ctx context.Context, x excess, wants func(*sdk.Event) bool) (int, error) {
	entries, err := c.takeOldest(ctx, x)
	if err != nil {
		return 0, err
	}
	until := c.wantedUntil()
	now, dead := time.Now(), 0
	for _, e := range entries {
		if e.Seq > until || e.Damaged == nil && e.Attempts == 0 && !e.Replayed && wants != nil && !wants(&e.Event) {
			c.Delivered(e.Seq)
			continue
		}
		why := x.reason
		if e.reason != "" {
			why += ": " + e.reason
		}
		first := e.First
		if first.IsZero() {
			first = now
		}
		c.Dead(DeadLetter{
			Source: e.Event.Source, Seq: e.Seq, ID: e.Event.ID, Type: e.Event.Type,
			Reason: why, Attempts: e.Attempts, First: first, Last: now,
		})
		dead++
	}
	c.j.metrics.shed.WithLabelValues(c.name).Add(float64(dead))
	c.wakeUp() // there may be room in the window
	return len(entries), c.j.settle()
}

// takeOldest hands out, to be settled at once, the oldest events that are not
// settled. What the lane has in its hands is spared as long as there is
// something else.
func (c *Cursor) takeOldest(ctx context.Context, x excess) ([]Entry, error) {
	c.mu.Lock()
	items := c.waiting.takeOldest(x, shedEvents)
	c.mu.Unlock()
	if len(items) > 0 {
		return c.entries(ctx, items)
	}
	if !x.aged {
		if again, err := c.nextRequeued(ctx, shedEvents); err != nil || len(again) > 0 {
			return again, err
		}
	}
	fresh, err := c.nextNew(ctx, x.upTo, shedEvents)
	if err != nil || len(fresh) > 0 || x.aged {
		return fresh, err
	}
	return c.inHand(ctx)
}

// inHand are the oldest events that the lane has.
func (c *Cursor) inHand(ctx context.Context) ([]Entry, error) {
	c.mu.Lock()
	var items []*item
	for seq := c.window.watermark + 1; seq <= c.read.seq; seq++ {
		if c.handed.size(seq) > 0 {
			items = append(items, &item{seq: seq})
		}
	}
	for _, i := range c.waiting.out {
		items = append(items, i)
	}
	c.mu.Unlock()
	slices.SortFunc(items, bySeq)
	return c.j.read(ctx, items[:min(len(items), shedEvents)])
}

func bySeq(a, b *item) int { return cmp.Compare(a.seq, b.seq) }

// outside is what waits for a retry or is parked.
func (w *waiting) outside() []*item {
	items := make([]*item, 0, len(w.retries)+w.nParked)
	items = append(items, w.retries...)
	for _, parked := range w.parked {
		items = append(items, parked...)
	}
	return items
}

// takeOldest hands out the oldest items that wait for a retry or are parked.
func (w *waiting) takeOldest(x excess, limit int) []*item {
	all := slices.DeleteFunc(w.outside(), func(i *item) bool { return i.seq > x.upTo || x.aged && i.replayed })
	slices.SortFunc(all, bySeq)
	taken := all[:min(limit, len(all))]
	for _, i := range taken {
		w.take(i)
	}
	return taken
}
