package journal

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// flushAt is the number of settlements after which a cursor is written without
// waiting for the second to pass.
const flushAt = 1000

// answerBytes bounds what a dead letter keeps of a destination's last answer.
const answerBytes = 2 << 10

// settlements are the changes of one cursor on their way to disk.
type settlements struct {
	c     *Cursor
	count int
	// What has become of events that are or were rows outside the window.
	changes map[int64]change
	dead    []DeadLetter

	// Filled by collect: the place that goes with them.
	watermark int64
	settled   []byte
	// Filled by write: the dead letters that were not there before.
	added map[int64]tally
}

// change says where an event no longer waits, and where it does: put is nil if
// nowhere.
type change struct {
	drop table // a set
	put  *item
}

// touches reports whether the settlements change where the event waits. There
// may be none.
func (p *settlements) touches(seq int64) bool {
	if p == nil {
		return false
	}
	_, ok := p.changes[seq]
	return ok
}

// DeadLetter is an event that a forwarder will not get any more, unless a
// person asks for it.
type DeadLetter struct {
	// Number identifies the dead letter; 0 until it is on disk.
	Number int64
	// Forwarder is empty for a delivery that could not be read: it belongs
	// to its source.
	Forwarder string
	Source    string
	// Seq is the event's number; 0 for a delivery that could not be read.
	Seq  int64
	ID   string
	Type string
	// Reason says why in one line; Answer is what the destination answered
	// last, at most 2 KiB.
	Reason string
	Answer string
	// Attempts is the number of deliveries tried, First and Last when the
	// first and the last of them ended.
	Attempts    int
	First, Last time.Time
	// Body is set for a delivery that could not be read.
	Body []byte

	cursor, size int64
}

func newSettlements(c *Cursor) *settlements {
	return &settlements{c: c, changes: make(map[int64]change)}
}

// Retry is an event whose delivery has failed and is tried again.
type Retry struct {
	Seq int64
	// Key is what later events must not overtake it by; empty for none.
	Key string
	Due time.Time
	// Attempts is how many have failed, First when the first of them ended,
	// and Outage the time since then that does not count towards giving up.
	Attempts int
	First    time.Time
	Outage   time.Duration
	// Reason is for people.
	Reason string
}

// Delivered settles events that need nothing more from the forwarder: they
// were delivered, or do not match. It is on disk within a second; a crash
// before that delivers them again. Here as in the other ways to settle, an
// event that is not in the lane's hands is left alone.
func (c *Cursor) Delivered(seqs ...int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, seq := range seqs {
		c.leave(seq, nil)
	}
}

// RetryAt settles the event for now: Next hands it out again when it is due.
func (c *Cursor) RetryAt(r Retry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave(r.Seq, &item{
		from: retriesTable, seq: r.Seq, key: r.Key, attempts: r.Attempts,
		first: r.First, due: r.Due, outage: r.Outage, reason: r.Reason,
	})
}

// Park settles the event for the window: it waits, for Unpark, behind an
// earlier one with the same key. What is known of attempts is lost, so an
// event that was tried before gets a RetryAt instead. It reports false and does
// nothing when 100,000 events are parked.
func (c *Cursor) Park(seq int64, key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting.nParked >= maxParked {
		return false
	}
	c.leave(seq, &item{from: parkedTable, seq: seq, key: key})
	return true
}

// Dead settles the event as a dead letter of the forwarder.
func (c *Cursor) Dead(letter DeadLetter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if size, ok := c.leave(letter.Seq, nil); ok {
		c.bury(letter, size)
	}
}

// bury makes a dead letter of an event that has been settled. The caller holds
// mu.
func (c *Cursor) bury(letter DeadLetter, size int64) {
	letter.Forwarder, letter.cursor, letter.size = c.name, c.id, size
	letter.Answer = cut(letter.Answer, answerBytes)
	c.dirty.dead = append(c.dirty.dead, letter)
}

// leave takes the event out of the lane's hands, to next if that is not nil,
// and returns its size, or false if the lane does not have it. The caller holds
// mu.
func (c *Cursor) leave(seq int64, next *item) (size int64, ok bool) {
	var from table
	if seq > c.window.watermark && seq <= c.read.seq && c.handed.size(seq) > 0 {
		size = c.handed.size(seq)
		c.handed.drop(seq)
		c.window.settle(seq)
	} else if i := c.waiting.settle(seq); i != nil {
		from, size = i.from, i.size
		if next != nil {
			next.replayed = i.replayed
		}
	} else {
		return 0, false
	}
	if next != nil {
		next.size = size
		c.waiting.add(next)
	}
	if from != noTable || next != nil {
		c.dirty.add(seq, change{drop: from, put: next})
	}
	c.dirty.count++
	if c.dirty.count >= flushAt {
		select {
		case c.j.hurry <- struct{}{}:
		default:
		}
	}
	return size, true
}

// add puts a change after what is known of the event already.
func (p *settlements) add(seq int64, next change) {
	if before, ok := p.changes[seq]; ok {
		next.drop |= before.drop
		if before.put != nil {
			next.drop |= before.put.from
		}
	}
	p.changes[seq] = next
}

// collect takes what has been settled since it was last called, or nil. The
// caller holds settling.
func (c *Cursor) collect() *settlements {
	c.mu.Lock()
	idle := c.dirty.count == 0
	c.mu.Unlock()
	if idle {
		return nil
	}
	return c.collectAll()
}

// collectAll is collect, and gives the place also if nothing has been settled.
func (c *Cursor) collectAll() *settlements {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.dirty
	p.watermark, p.settled = c.window.watermark, c.window.encode()
	c.dirty, c.writing = newSettlements(c), p
	return p
}

// write runs in the writer's transaction.
func (p *settlements) write(s *store) error {
	for seq, change := range p.changes {
		if err := s.writeChange(p.c.id, seq, change); err != nil {
			return fmt.Errorf("write what waits of forwarder %q: %w", p.c.name, err)
		}
	}
	p.added = make(map[int64]tally)
	for i := range p.dead {
		if err := s.writeDead(&p.dead[i], p.added); err != nil {
			return err
		}
	}
	if _, err := s.updateCursor.Exec(p.watermark, p.settled, time.Now().UnixMicro(), p.c.id); err != nil {
		return fmt.Errorf("write cursor %q: %w", p.c.name, err)
	}
	return nil
}

func (s *store) writeChange(cursor, seq int64, c change) error {
	if c.put != nil {
		c.drop &^= c.put.from
	}
	for _, t := range [...]struct {
		table
		remove *sql.Stmt
	}{{retriesTable, s.deleteRetry}, {parkedTable, s.deleteParked}, {requeuedTable, s.deleteRequeue}} {
		if c.drop&t.table == 0 {
			continue
		}
		if _, err := t.remove.Exec(cursor, seq); err != nil {
			return err
		}
	}
	if c.put == nil {
		return nil
	}
	var err error
	switch i := c.put; i.from {
	case retriesTable:
		_, err = s.upsertRetry.Exec(cursor, seq, i.key, i.attempts, micros(i.first), micros(i.due), i.outage.Microseconds(), i.replayed, i.size, i.reason)
	case parkedTable:
		_, err = s.insertParked.Exec(cursor, seq, i.key, i.size)
	}
	return err
}

// writeDead keeps a dead letter, or replaces what is known of the event's
// earlier one, and counts what was added.
func (s *store) writeDead(d *DeadLetter, added map[int64]tally) error {
	result, err := s.insertDead.Exec(d.cursor, d.Source, d.Seq, d.ID, d.Type, d.Reason, d.Answer, d.Attempts, micros(d.First), micros(d.Last), d.size, d.Body)
	var n int64
	if err == nil {
		n, err = result.RowsAffected()
	}
	if err == nil && n == 0 {
		_, err = s.updateDead.Exec(d.Reason, d.Answer, d.Attempts, micros(d.Last), d.cursor, d.Seq)
	}
	if err != nil {
		return fmt.Errorf("write dead letter of forwarder %q: %w", d.Forwarder, err)
	}
	added[d.cursor] = added[d.cursor].plus(n, n*d.size)
	return nil
}

// finish is called with the result of the transaction. What could not be
// written goes back to the cursor.
func (p *settlements) finish(err error) {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = nil
	if err == nil {
		c.j.count(p.added, 1)
		return
	}
	newer := c.dirty
	c.dirty = p
	p.count += newer.count
	for seq, change := range newer.changes {
		p.add(seq, change)
	}
	p.dead = append(p.dead, newer.dead...)
}

// AppendUnreadable keeps a delivery whose signature is right and whose body is
// no event, as a dead letter of its source. It is on disk on return; the body
// is kept and ctx ends the wait as with Append.
func (j *Journal) AppendUnreadable(ctx context.Context, source string, body []byte, reason string, received time.Time) error {
	letter := DeadLetter{Source: source, Reason: reason, First: received, Last: received, Body: body, size: rowBytes + int64(len(body))}
	if refusal := j.refusal.Load(); refusal != nil {
		return *refusal
	}
	added := make(map[int64]tally)
	err := j.submitChange(ctx, &request{arrival: true, apply: func(s *store) error { return s.writeDead(&letter, added) }})
	if err == nil {
		j.count(added, 1)
	}
	return err
}

// cut shortens s to at most n bytes without cutting a character.
func cut(s string, n int) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Progress is where a forwarder stands.
type Progress struct {
	// Backlog is the number of events that the forwarder has not settled,
	// the ones that wait for a retry, are parked or wanted again included.
	Backlog int64
	// Retrying is the number of events whose last attempt failed.
	Retrying int64
	// Parked is the number of events that wait behind an earlier one with
	// the same key, and Requeued of those that are wanted again.
	Parked, Requeued int64
	// DeadLetters is the number of dead letters that are kept.
	DeadLetters int64
}

// Progress counts what is before the forwarder.
func (c *Cursor) Progress() Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := Progress{Retrying: int64(len(c.waiting.retries)), Parked: int64(c.waiting.nParked), Requeued: c.waiting.requeued}
	p.DeadLetters = c.j.countDead(c.id).count + int64(len(c.dirty.dead))
	if c.writing != nil {
		p.DeadLetters += int64(len(c.writing.dead))
	}
	for _, i := range c.waiting.out {
		switch i.from {
		case retriesTable:
			p.Retrying++
		case parkedTable:
			p.Parked++
		}
	}
	open := c.j.head.Load() - c.window.watermark - c.window.settledAbove()
	p.Backlog = max(open, 0) + p.Retrying + p.Parked + p.Requeued
	return p
}
