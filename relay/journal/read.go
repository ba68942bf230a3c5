package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// readBytes bounds the bodies that one read takes from the database.
const readBytes = 8 << 20

// after returns up to limit events that follow seq, in order.
func (j *Journal) after(ctx context.Context, seq int64, limit int) ([]Entry, error) {
	if events, ok := j.tail.after(seq, limit); ok {
		entries := make([]Entry, len(events))
		for i, e := range events {
			entries[i] = Entry{Seq: seq + 1 + int64(i), Event: *e}
		}
		return entries, nil
	}
	j.opening.RLock()
	defer j.opening.RUnlock()
	rows, err := j.store.selectAfter.QueryContext(ctx, seq, limit)
	if err != nil {
		return nil, fmt.Errorf("read events after %d: %w", seq, err)
	}
	defer rows.Close()
	var entries []Entry
	for size := 0; size < readBytes && rows.Next(); {
		entry, err := scanEntry(rows)
		if err != nil {
			return nil, fmt.Errorf("read events after %d: %w", seq, err)
		}
		size += len(entry.Event.Body)
		entries = append(entries, entry)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read events after %d: %w", seq, err)
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
		return Entry{}, fmt.Errorf("read event %d: %w", seq, err)
	}
	return entry, nil
}

func scanEntry(rows interface{ Scan(...any) error }) (Entry, error) {
	var r row
	var sum int64
	err := rows.Scan(&r.seq, &r.source, &r.id, &r.kind, &r.subject, &r.time, &r.received, &r.entity, &r.extra, &r.body, &sum)
	if err != nil {
		return Entry{}, err
	}
	r.checksum = uint32(sum)
	event, damaged := r.event()
	return Entry{Seq: r.seq, Event: event, Damaged: damaged}, nil
}
