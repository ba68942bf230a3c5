package journal

import (
	"context"
	"fmt"
)

// DeadLetterFilter chooses dead letters.
type DeadLetterFilter struct {
	// Forwarder is the forwarder whose dead letters are wanted; empty for
	// the deliveries of Source that could not be read.
	Forwarder string
	Source    string
	// Limit is the largest number of them; 0 means 100.
	Limit int
}

// DeadLetters returns dead letters, the newest first.
func (j *Journal) DeadLetters(ctx context.Context, f DeadLetterFilter) ([]DeadLetter, error) {
	if f.Limit <= 0 {
		f.Limit = 100
	}
	j.opening.RLock()
	defer j.opening.RUnlock()
	rows, err := j.store.read.QueryContext(ctx, `SELECT number, forwarder, source, seq, id, type, reason, answer, attempts, first, last, body
		FROM dead_letters WHERE forwarder = ? AND (? = '' OR source = ?) ORDER BY number DESC LIMIT ?`, f.Forwarder, f.Source, f.Source, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	defer rows.Close()
	var letters []DeadLetter
	for rows.Next() {
		var d DeadLetter
		var first, last int64
		if err := rows.Scan(&d.Number, &d.Forwarder, &d.Source, &d.Seq, &d.ID, &d.Type, &d.Reason, &d.Answer, &d.Attempts, &first, &last, &d.Body); err != nil {
			return nil, fmt.Errorf("read dead letters: %w", err)
		}
		d.First, d.Last = fromMicros(first), fromMicros(last)
		letters = append(letters, d)
	}
	return letters, rows.Err()
}
