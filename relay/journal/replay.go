package journal

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Filter chooses stored events: those that fit all fields that are set.
type Filter struct {
	// From and To bound the time at which the event was received: not
	// before From, and before To.
	From, To time.Time
	Types    []string
	Entity   string
	IDs      []string
}

func (f *Filter) where() (string, []any) {
	conditions, args := []string{"true"}, []any{}
	if !f.From.IsZero() {
		conditions, args = append(conditions, "received >= ?"), append(args, micros(f.From))
	}
	if !f.To.IsZero() {
		conditions, args = append(conditions, "received < ?"), append(args, micros(f.To))
	}
	if f.Entity != "" {
		conditions, args = append(conditions, "entity = ?"), append(args, f.Entity)
	}
	for column, values := range map[string][]string{"type": f.Types, "id": f.IDs} {
		if len(values) == 0 {
			continue
		}
		conditions = append(conditions, column+" IN ("+placeholders(len(values))+")")
		for _, v := range values {
			args = append(args, v)
		}
	}
	return strings.Join(conditions, " AND "), args
}

// scanEvents is how many numbers one read of a replay goes through.
const scanEvents = 10_000

// Replay makes stored events due again for the forwarder, marked as replayed,
// and returns how many. What the forwarder has not settled yet, or is wanted
// again already, is left as it is.
func (j *Journal) Replay(ctx context.Context, forwarder string, f Filter) (int, error) {
	c := j.known(forwarder)
	if c == nil {
		return 0, fmt.Errorf("replay: the journal has no forwarder %q", forwarder)
	}
	from, end, err := j.replayRange(ctx, f)
	n := 0
	for err == nil && from < end {
		to := min(from+scanEvents, end)
		var done int
		done, err = c.replay(ctx, f, from, to)
		n, from = n+done, to
	}
	if err != nil {
		return n, fmt.Errorf("replay to forwarder %q, %d events were taken: %w", forwarder, n, err)
	}
	return n, nil
}

// replayRange bounds the numbers that a replay has to look at, the first not
// included.
func (j *Journal) replayRange(ctx context.Context, f Filter) (from, end int64, err error) {
	first, err := j.before(ctx, 0)
	if err != nil {
		return 0, 0, err
	}
	from = first.seq
	if !f.From.IsZero() {
		// Around a moment, events may stand in another order than they
		// were received in.
		last, err := j.lastBefore(ctx, f.From.Add(-time.Minute))
		if err != nil {
			return 0, 0, err
		}
		from = max(from, last)
	}
	return from, j.head.Load(), nil
}

// replay requeues the events above from and up to to that fit the filter.
func (c *Cursor) replay(ctx context.Context, f Filter, from, to int64) (int, error) {
	chosen, err := c.j.choose(ctx, f, from, to)
	n := 0
	for err == nil && len(chosen) > 0 {
		step := chosen[:min(len(chosen), shedEvents)]
		chosen = chosen[len(step):]
		var done int
		done, err = c.requeue(ctx, step, nil)
		n += done
	}
	return n, err
}

func (j *Journal) choose(ctx context.Context, f Filter, from, to int64) ([]deadRow, error) {
	where, args := f.where()
	j.opening.RLock()
	defer j.opening.RUnlock()
	rows, err := j.store.read.QueryContext(ctx, fmt.Sprintf("SELECT seq, %d + length(extra) + length(body) FROM events WHERE seq > ? AND seq <= ? AND %s ORDER BY seq", 2*rowBytes, where),
		append([]any{from, to}, args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var chosen []deadRow
	for rows.Next() {
		var d deadRow
		if err := rows.Scan(&d.seq, &d.size); err != nil {
			return nil, err
		}
		chosen = append(chosen, d)
	}
	return chosen, rows.Err()
}

// revive requeues the events of dead letters and deletes these.
func (c *Cursor) revive(ctx context.Context, chosen []deadRow) error {
	gone := make(map[int64]tally)
	_, err := c.requeue(ctx, chosen, func(s *store) error { return s.dropDead(chosen, gone) })
	if err == nil {
		c.j.count(gone, -1)
	}
	return err
}

// requeue makes the events due again, marked as replayed, in one transaction
// with then, and returns how many were not due already. What the cursor has
// settled up to then is written with it, so that the tables say which events
// those are.
func (c *Cursor) requeue(ctx context.Context, chosen []deadRow, then func(*store) error) (int, error) {
	j := c.j
	j.settling.Lock()
	defer j.settling.Unlock()
	p := c.collectAll()
	isSettled := decodeWindow(p.watermark, p.settled)
	var taken []deadRow
	err := j.apply(ctx, func(s *store) error {
		if err := p.write(s); err != nil {
			return err
		}
		for _, d := range chosen {
			if !isSettled.isSettled(d.seq) {
				continue
			}
			result, err := s.insertRequeue.Exec(c.id, d.seq, true, d.size)
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil {
				return err
			} else if n > 0 {
				taken = append(taken, d)
			}
		}
		if then == nil {
			return nil
		}
		return then(s)
	})
	p.finish(err)
	if err != nil {
		return 0, err
	}
	c.requeuedNow(taken)
	return len(taken), nil
}

// requeuedNow takes note of rows that were added to the table requeued.
func (c *Cursor) requeuedNow(added []deadRow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range added {
		c.waiting.requeued++
		c.waiting.bytes += d.size
		c.waiting.requeuedRead = min(c.waiting.requeuedRead, d.seq-1)
	}
	c.wakeUp()
}
