package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// readBytes bounds the bodies that one read takes from the database.
const readBytes = 8 << 20

// after returns up to limit events that follow seq, in order.
func (j *Journal) after(ctx context.Context, seq int64, limit int) ([]Entry, error) {
	if entries, ok := j.tail.after(seq, limit); ok {
		return entries, nil
	}
	j.opening.RLock()
	defer j.opening.RUnlock()
	rows, err := j.store.selectAfter.QueryContext(ctx, seq, limit)
	if err != nil {
		return nil, fmt.Errorf("read events after %d: %w", seq, j.watch(err))
	}
	defer rows.Close()
	var entries []Entry
	for size := 0; size < readBytes && rows.Next(); {
		entry, err := scanEntry(rows)
		if err != nil {
			return nil, fmt.Errorf("read events after %d: %w", seq, j.watch(err))
		}
		size += len(entry.Event.Body)
		entries = append(entries, entry)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read events after %d: %w", seq, j.watch(err))
	}
	return entries, nil
}

// one returns the event with the number seq. One that has gone from the
// journal is damaged.
func (j *Journal) one(ctx context.Context, seq int64) (Entry, error) {
	j.opening.RLock()
	defer j.opening.RUnlock()
	entry, err := scanEntry(j.store.selectOne.QueryRowContext(ctx, seq))
	if errors.Is(err, sql.ErrNoRows) {
		return Entry{Seq: seq, Damaged: &DamagedError{Seq: seq}}, nil
	}
	if err != nil {
		return Entry{}, fmt.Errorf("read event %d: %w", seq, j.watch(err))
	}
	return entry, nil
}

// read returns the events of the items, in their order, with what the items
// say of them. With an error it returns those before it.
func (j *Journal) read(ctx context.Context, items []*item) ([]Entry, error) {
	var entries []Entry
	for _, i := range items {
		e, err := j.one(ctx, i.seq)
		if err != nil {
			return entries, err
		}
		e.Key, e.Attempts, e.First, e.Outage, e.Replayed, e.reason = i.key, i.attempts, i.first, i.outage, i.replayed, i.reason
		e.Event.Replayed = i.replayed
		entries = append(entries, e)
	}
	return entries, nil
}

// lastBefore is the last number whose event was received before t; 0 for none.
// Events stand in the order in which they were received, but for moments.
func (j *Journal) lastBefore(ctx context.Context, t time.Time) (int64, error) {
	j.opening.RLock()
	defer j.opening.RUnlock()
	var low int64 // an event at or below it is before t, or there is none
	for high := j.head.Load() + 1; low+1 < high; {
		middle := low + (high-low)/2
		var seq, received int64
		err := j.store.selectReceived.QueryRowContext(ctx, middle).Scan(&seq, &received)
		switch {
		case err != nil && !errors.Is(err, sql.ErrNoRows):
			return 0, fmt.Errorf("find the event of %s: %w", t.Format(time.RFC3339), err)
		case err == nil && seq < high && received < t.UnixMicro():
			low = seq
		default:
			high = middle
		}
	}
	return low, nil
}

func scanEntry(rows interface{ Scan(...any) error }) (Entry, error) {
	var r row
	var sum int64
	err := rows.Scan(&r.seq, &r.source, &r.id, &r.kind, &r.subject, &r.time, &r.received, &r.entity, &r.extra, &r.body, &r.total, &sum)
	if err != nil {
		return Entry{}, err
	}
	r.checksum = uint32(sum)
	event, damaged := r.event()
	return Entry{Seq: r.seq, Event: event, Damaged: damaged, total: r.total, size: r.size()}, nil
}
