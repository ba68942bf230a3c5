package journal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// DeadLetterFilter chooses dead letters: those that fit all fields that are
// set.
type DeadLetterFilter struct {
	Forwarder string
	Source    string
	Type      string
	// Unreadable is true for the deliveries that could not be read, which
	// belong to no forwarder.
	Unreadable bool
	// Reason is a part of the reason; upper and lower case of ASCII letters
	// are the same.
	Reason string
	// Since and Until bound the time of the last attempt: not before Since,
	// and before Until.
	Since, Until time.Time
	// Numbers are the dead letters themselves.
	Numbers []int64
	// After continues a listing behind the dead letter with this number.
	After int64
	// Limit is the largest number of them in a listing; 0 means 100.
	Limit int
}

// where is the filter as a condition.
func (f *DeadLetterFilter) where() (string, []any) {
	conditions, args := []string{"true"}, []any{}
	add := func(used bool, condition string, values ...any) {
		if used {
			conditions, args = append(conditions, condition), append(args, values...)
		}
	}
	add(f.Forwarder != "", "forwarder = ?", f.Forwarder)
	add(f.Source != "", "source = ?", f.Source)
	add(f.Type != "", "type = ?", f.Type)
	add(f.Unreadable, "cursor = 0")
	add(f.Reason != "", "instr(lower(reason), lower(?)) > 0", f.Reason)
	add(!f.Since.IsZero(), "last >= ?", micros(f.Since))
	add(!f.Until.IsZero(), "last < ?", micros(f.Until))
	add(f.After > 0, "number < ?", f.After)
	if len(f.Numbers) > 0 {
		conditions = append(conditions, "number IN ("+placeholders(len(f.Numbers))+")")
		for _, n := range f.Numbers {
			args = append(args, n)
		}
	}
	return strings.Join(conditions, " AND "), args
}

func placeholders(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

const fromDeadLetters = " FROM dead_letters d LEFT JOIN cursors c ON c.id = cursor WHERE "

// DeadLetters returns dead letters, the newest first, without those that were
// made in the last second.
func (j *Journal) DeadLetters(ctx context.Context, f DeadLetterFilter) ([]DeadLetter, error) {
	if f.Limit <= 0 {
		f.Limit = 100
	}
	where, args := f.where()
	j.opening.RLock()
	defer j.opening.RUnlock()
	rows, err := j.store.read.QueryContext(ctx, `SELECT number, coalesce(forwarder, ''), source, seq, d.id, type, reason, answer, attempts, first, last, body`+
		fromDeadLetters+where+" ORDER BY number DESC LIMIT ?", append(args, f.Limit)...)
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

// ErrNoDeadLetter says that there is no dead letter with the number asked for.
var ErrNoDeadLetter = errors.New("there is no such dead letter: it may have expired, or was retried or discarded")

// DeadLetter returns one dead letter with its event, which is nil for a delivery
// that could not be read.
func (j *Journal) DeadLetter(ctx context.Context, number int64) (DeadLetter, *sdk.Event, error) {
	letters, err := j.DeadLetters(ctx, DeadLetterFilter{Numbers: []int64{number}})
	switch {
	case err != nil:
		return DeadLetter{}, nil, err
	case len(letters) == 0:
		return DeadLetter{}, nil, fmt.Errorf("dead letter %d: %w", number, ErrNoDeadLetter)
	case letters[0].Seq == 0:
		return letters[0], nil, nil
	}
	entry, err := j.one(ctx, letters[0].Seq)
	if err == nil {
		err = entry.Damaged
	}
	if err != nil {
		return letters[0], nil, err
	}
	return letters[0], &entry.Event, nil
}

// RetryDeadLetters makes the events of all dead letters that fit the filter due
// again, marked as replayed, and returns how many. After and Limit do not
// count. It leaves out what has no event, or no forwarder in the journal any
// more.
func (j *Journal) RetryDeadLetters(ctx context.Context, f DeadLetterFilter) (int, error) {
	if err := j.settle(); err != nil {
		return 0, err
	}
	n := 0
	for _, c := range j.allCursors() {
		if f.Forwarder != "" && f.Forwarder != c.name {
			continue
		}
		f := f
		f.Forwarder = c.name
		done, err := j.eachDeadLetter(ctx, f, func(chosen []deadRow) error { return c.revive(ctx, chosen) })
		n += done
		if err != nil {
			return n, fmt.Errorf("retry dead letters of forwarder %q: %w", c.name, err)
		}
	}
	return n, nil
}

// DiscardDeadLetters deletes all dead letters that fit the filter and returns
// how many. After and Limit do not count.
func (j *Journal) DiscardDeadLetters(ctx context.Context, f DeadLetterFilter) (int, error) {
	if err := j.settle(); err != nil {
		return 0, err
	}
	n, err := j.eachDeadLetter(ctx, f, func(chosen []deadRow) error {
		return j.dropDeadLetters(ctx, chosen)
	})
	if err != nil {
		return n, fmt.Errorf("discard dead letters: %w", err)
	}
	return n, nil
}

// deadRow is what a step needs of a dead letter.
type deadRow struct{ number, cursor, seq, size int64 }

// eachDeadLetter calls step with the dead letters that fit the filter, in
// batches, the newest first, and returns how many there were.
func (j *Journal) eachDeadLetter(ctx context.Context, f DeadLetterFilter, step func([]deadRow) error) (int, error) {
	n := 0
	for f.After = 0; ; {
		chosen, err := j.chooseDeadLetters(ctx, f)
		if err != nil || len(chosen) == 0 {
			return n, err
		}
		if err := step(chosen); err != nil {
			return n, err
		}
		n += len(chosen)
		f.After = chosen[len(chosen)-1].number
	}
}

func (j *Journal) chooseDeadLetters(ctx context.Context, f DeadLetterFilter) ([]deadRow, error) {
	where, args := f.where()
	j.opening.RLock()
	defer j.opening.RUnlock()
	rows, err := j.store.read.QueryContext(ctx, "SELECT number, cursor, seq, size"+fromDeadLetters+where+" ORDER BY number DESC LIMIT ?", append(args, shedEvents)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var chosen []deadRow
	for rows.Next() {
		var d deadRow
		if err := rows.Scan(&d.number, &d.cursor, &d.seq, &d.size); err != nil {
			return nil, err
		}
		chosen = append(chosen, d)
	}
	return chosen, rows.Err()
}

// dropDeadLetters deletes them.
func (j *Journal) dropDeadLetters(ctx context.Context, chosen []deadRow) error {
	gone := make(map[int64]tally)
	err := j.apply(ctx, func(s *store) error { return s.dropDead(chosen, gone) })
	if err == nil {
		j.count(gone, -1)
	}
	return err
}

// dropDead deletes dead letters in the writer's transaction and counts those
// that were still there.
func (s *store) dropDead(chosen []deadRow, gone map[int64]tally) error {
	for _, d := range chosen {
		result, err := s.deleteDead.Exec(d.number)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return err
		}
		gone[d.cursor] = gone[d.cursor].plus(n, n*d.size)
	}
	return nil
}

// tally is how many dead letters there are of a cursor, and their sizes.
type tally struct{ count, bytes int64 }

func (t tally) plus(count, bytes int64) tally { return tally{t.count + count, t.bytes + bytes} }

// count adds the changes, times sign, to what is known of the dead letters on
// disk.
func (j *Journal) count(changes map[int64]tally, sign int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for cursor, t := range changes {
		j.dead[cursor] = j.dead[cursor].plus(sign*t.count, sign*t.bytes)
	}
}

func (j *Journal) countDead(cursor int64) tally {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.dead[cursor]
}

func (j *Journal) loadTallies(ctx context.Context) error {
	rows, err := j.store.read.QueryContext(ctx, "SELECT cursor, count(*), sum(size) FROM dead_letters GROUP BY cursor")
	if err != nil {
		return fmt.Errorf("count dead letters: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var cursor int64
		var t tally
		if err := rows.Scan(&cursor, &t.count, &t.bytes); err != nil {
			return fmt.Errorf("count dead letters: %w", err)
		}
		j.dead[cursor] = t
	}
	return rows.Err()
}

// deadLetters deletes dead letters beyond their limits.
func (k *keeper) deadLetters(ctx context.Context, now time.Time) error {
	names := map[int64]string{}
	limits := map[int64]CursorLimits{}
	for _, c := range k.j.allCursors() {
		names[c.id], limits[c.id] = c.name, c.limitsNow()
	}
	k.j.mu.Lock()
	for id := range k.j.dead {
		if _, ok := limits[id]; !ok { // a source's own, or those of a forwarder that is forgotten
			limits[id] = CursorLimits{DeadLetterAge: defaultDeadLetterAge, DeadLetterSize: defaultDeadLetterSize}
		}
	}
	k.j.mu.Unlock()
	for id, l := range limits {
		if err := k.expire(ctx, id, names[id], l, now); err != nil {
			return err
		}
	}
	return nil
}

func (k *keeper) expire(ctx context.Context, cursor int64, name string, l CursorLimits, now time.Time) error {
	old, expired := now.Add(-l.DeadLetterAge).UnixMicro(), 0
	for k.j.countDead(cursor).count > 0 {
		surplus := k.j.countDead(cursor).bytes - int64(l.DeadLetterSize)
		chosen, err := k.j.oldestDeadLetters(ctx, cursor, func(d deadRow, last int64) bool {
			over := surplus > 0
			surplus -= d.size
			return over || last < old
		})
		if err != nil {
			return fmt.Errorf("expire dead letters: %w", err)
		}
		if len(chosen) == 0 {
			break
		}
		if err := k.j.dropDeadLetters(ctx, chosen); err != nil {
			return fmt.Errorf("expire dead letters: %w", err)
		}
		expired += len(chosen)
	}
	if expired > 0 {
		k.j.metrics.expired.WithLabelValues(name).Add(float64(expired))
		k.j.log.Error("dead letters have expired: they are gone", "forwarder", name, "events", expired)
	}
	return nil
}

// oldestDeadLetters are the first of a cursor's, up to a step, as long as drop
// is true.
func (j *Journal) oldestDeadLetters(ctx context.Context, cursor int64, drop func(d deadRow, last int64) bool) ([]deadRow, error) {
	j.opening.RLock()
	defer j.opening.RUnlock()
	rows, err := j.store.read.QueryContext(ctx, "SELECT number, seq, size, last FROM dead_letters WHERE cursor = ? ORDER BY number LIMIT ?", cursor, shedEvents)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var chosen []deadRow
	for rows.Next() {
		d, last := deadRow{cursor: cursor}, int64(0)
		if err := rows.Scan(&d.number, &d.seq, &d.size, &last); err != nil {
			return nil, err
		}
		if !drop(d, last) {
			break
		}
		chosen = append(chosen, d)
	}
	return chosen, rows.Err()
}
