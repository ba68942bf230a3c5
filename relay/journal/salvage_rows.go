package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// idPassage goes through the ids.
func (x *salvage) idPassage() *passage {
	return &passage{db: x.wreck.db, query: "SELECT seq, hash, seen FROM ids WHERE seq > ? ORDER BY seq LIMIT ?", scan: func(rows *sql.Rows) (piece, error) {
		var seq, seen int64
		var hash []byte
		err := rows.Scan(&seq, &hash, &seen)
		return piece{seq, 64, func(s *store) error {
			return s.exec("INSERT OR IGNORE INTO ids (seq, hash, seen) VALUES (?, ?, ?)", seq, hash, seen)
		}}, err
	}}
}

// eventPassage goes through the events.
func (x *salvage) eventPassage() *passage {
	query := "SELECT " + eventColumns + " FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
	return &passage{db: x.wreck.db, query: query, scan: func(rows *sql.Rows) (piece, error) {
		r, err := scanRow(rows)
		return piece{r.seq, len(r.body) + len(r.extra), func(s *store) error { return x.putEvent(s, r) }}, err
	}}
}

// waitingStages go through what waits for a forwarder, in each table by its key,
// and by its index where that has gaps.
func (x *salvage) waitingStages(cursor int64) []stage {
	var all []stage
	for _, table := range waitingTables {
		replayed := "replayed"
		if table == "parked" {
			replayed = "0"
		}
		where := " WHERE cursor = ? AND seq > ? ORDER BY seq LIMIT ?"
		byKey := &passage{db: x.wreck.db, query: "SELECT seq, " + replayed + " FROM " + table + " NOT INDEXED" + where, args: []any{cursor}}
		byIndex := &passage{db: x.wreck.db, query: "SELECT seq, 0 FROM " + table + " INDEXED BY " + table + "_seq" + where, args: []any{cursor}}
		byKey.scan = func(rows *sql.Rows) (piece, error) {
			var seq int64
			var again bool
			err := rows.Scan(&seq, &again)
			return piece{seq, 64, func(s *store) error { return x.putWaiting(s, cursor, seq, again) }}, err
		}
		byIndex.scan = byKey.scan
		all = append(all, stage{byKey, byIndex})
	}
	return all
}

// deadPassage goes through the dead letters.
func (x *salvage) deadPassage() *passage {
	columns := "cursor, source, seq, id, type, reason, answer, attempts, first, last, size, body"
	query := "SELECT number, " + columns + " FROM dead_letters WHERE number > ? ORDER BY number LIMIT ?"
	return &passage{db: x.wreck.db, query: query, scan: func(rows *sql.Rows) (piece, error) {
		var number, first, last int64
		d := &DeadLetter{}
		err := rows.Scan(&number, &d.cursor, &d.Source, &d.Seq, &d.ID, &d.Type, &d.Reason, &d.Answer, &d.Attempts, &first, &last, &d.size, &d.Body)
		d.First, d.Last = fromMicros(first), fromMicros(last)
		return piece{number, 256 + len(d.Body), func(s *store) error { return x.putDead(s, d) }}, err
	}}
}

// putEvent gives an event back to the journal, under its old number, and makes it
// due for the forwarders that had not settled it. One whose row is damaged, too:
// it becomes a dead letter where it was wanted.
func (x *salvage) putEvent(s *store, r *row) error {
	again := false
	if r.sum() != r.checksum {
		x.step.Lost++
	} else {
		x.step.Events++
		var err error
		if again, err = x.remember(s, r); err != nil {
			return err
		}
	}
	var due []*Cursor
	for _, c := range x.cursors {
		if x.isDue(c, r.seq) && !(again && c.goneSince().IsZero()) {
			due = append(due, c)
		}
	}
	if again && len(due) == 0 {
		return nil
	}
	err := s.exec("INSERT OR IGNORE INTO events ("+eventColumns+") VALUES (?,?,?,?,?,?,?,?,?,?,0,?)",
		r.seq, r.source, r.id, r.kind, r.subject, r.time, r.received, r.entity, r.extra, r.body, int64(r.checksum))
	if err != nil {
		return fmt.Errorf("give event %d back: %w", r.seq, err)
	}
	for _, c := range due {
		if err := x.requeue(s, c, r.seq, r.size(), false); err != nil {
			return err
		}
	}
	return nil
}

// remember keeps the event's id, and reports whether the event has arrived again
// in the meantime, under a new number.
func (x *salvage) remember(s *store, r *row) (again bool, err error) {
	hash := idHash(r.source, r.id)
	if err := s.exec("INSERT OR IGNORE INTO ids (seq, hash, seen) VALUES (?, ?, ?)", r.seq, hash, r.received); err != nil {
		return false, fmt.Errorf("remember id: %w", err)
	}
	var seq int64
	err = s.write.QueryRowContext(context.Background(), "SELECT seq FROM ids WHERE hash = ?", hash).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) { // another event has its number: the row's own is damaged
		return false, nil
	}
	return seq > x.first, err
}

// isDue reports whether the forwarder had not settled the event. A forwarder
// whose place is lost counts as one that has settled nothing.
func (x *salvage) isDue(c *Cursor, seq int64) bool {
	place, known := x.places[c.id]
	return known && !place.window.isSettled(seq) || !known && !x.complete
}

// putLost makes dead letters, in the end, of events that cannot be read: they are
// made due, and the lane finds them damaged.
func (x *salvage) putLost(s *store, seq int64) error {
	x.step.Lost++
	for _, c := range x.cursors {
		if x.isDue(c, seq) {
			if err := x.requeue(s, c, seq, rowBytes, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// putWaiting makes an event due that waited for the forwarder.
func (x *salvage) putWaiting(s *store, cursor, seq int64, replayed bool) error {
	c := x.cursors[cursor]
	if c == nil {
		return nil
	}
	size, known, err := s.knows(seq)
	if err != nil || !known {
		return err
	}
	return x.requeue(s, c, seq, size, replayed)
}

// knows reports whether the journal has the event, or remembers it, and about
// its size. It has neither if the event has arrived again under a new number.
func (s *store) knows(seq int64) (size int64, known bool, err error) {
	err = s.write.QueryRowContext(context.Background(), `SELECT coalesce((SELECT length(extra) + length(body) FROM events WHERE seq = ?1), 0),
		EXISTS (SELECT 1 FROM events WHERE seq = ?1) OR EXISTS (SELECT 1 FROM ids WHERE seq = ?1)`, seq).Scan(&size, &known)
	return size + 2*rowBytes, known, err
}

func (x *salvage) requeue(s *store, c *Cursor, seq, size int64, replayed bool) error {
	result, err := s.insertRequeue.Exec(c.id, seq, replayed, size)
	if err != nil {
		return fmt.Errorf("requeue event %d: %w", seq, err)
	}
	n, err := result.RowsAffected()
	if err != nil || n == 0 {
		return err
	}
	x.step.Requeued++
	x.added[c] = append(x.added[c], deadRow{seq: seq, size: size})
	return nil
}

// putDead gives a dead letter back, under a new number.
func (x *salvage) putDead(s *store, d *DeadLetter) error {
	if _, known := x.places[d.cursor]; d.cursor != 0 && !known {
		return nil // its forwarder gets everything again
	}
	if d.Seq > 0 {
		if _, known, err := s.knows(d.Seq); err != nil || !known {
			return err
		}
	}
	x.step.DeadLetters++
	return s.writeDead(d, x.dead)
}
