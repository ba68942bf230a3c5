package journal

import (
	"container/heap"
	"context"
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
	// What the retries and dead letters of these events have become.
	// A nil retry is one that is over.
	retries map[int64]*retryRow
	dead    []DeadLetter

	// Filled by collect: the place that goes with them.
	watermark int64
	settled   []byte
}

type retryRow struct {
	retry
	reason string
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
}

func newSettlements(c *Cursor) *settlements {
	return &settlements{c: c, retries: make(map[int64]*retryRow)}
}

// Delivered settles events that need nothing more from the forwarder: they
// were delivered, or do not match. It is on disk within a second; a crash
// before that delivers them again.
func (c *Cursor) Delivered(seqs ...int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, seq := range seqs {
		c.leave(seq, nil)
	}
}

// RetryAt settles the event for now: it is due again at that time, with
// attempts failed attempts since first. reason is for people.
func (c *Cursor) RetryAt(seq int64, at time.Time, attempts int, first time.Time, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &retryRow{retry: retry{seq: seq, attempts: attempts, first: first, due: at}, reason: reason}
	c.leave(seq, r)
	heap.Push(&c.retries, &r.retry)
}

// Dead settles the event as a dead letter of the forwarder.
func (c *Cursor) Dead(letter DeadLetter) {
	letter.Forwarder = c.name
	letter.Answer = cut(letter.Answer, answerBytes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave(letter.Seq, nil)
	c.dirty.dead = append(c.dirty.dead, letter)
	c.dead++
}

// leave takes the event out of the window and out of what is in flight; next
// is its row among the retries. The caller holds mu.
func (c *Cursor) leave(seq int64, next *retryRow) {
	_, again := c.inFlight[seq]
	delete(c.inFlight, seq)
	if again || next != nil {
		c.dirty.retries[seq] = next
	}
	c.window.settle(seq)
	c.dirty.count++
	if c.dirty.count >= flushAt {
		select {
		case c.j.full <- struct{}{}:
		default:
		}
	}
}

// collect takes what has been settled since it was last called, or nil.
func (c *Cursor) collect() *settlements {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dirty.count == 0 {
		return nil
	}
	p := c.dirty
	p.watermark, p.settled = c.window.watermark, c.window.encode()
	c.dirty = newSettlements(c)
	return p
}

// write runs in the writer's transaction.
func (p *settlements) write(s *store) error {
	name := p.c.name
	for seq, r := range p.retries {
		var err error
		if r == nil {
			_, err = s.deleteRetry.Exec(name, seq)
		} else {
			_, err = s.upsertRetry.Exec(name, seq, r.attempts, micros(r.first), micros(r.due), r.reason)
		}
		if err != nil {
			return fmt.Errorf("write retry of forwarder %q: %w", name, err)
		}
	}
	for i := range p.dead {
		if err := s.writeDead(&p.dead[i]); err != nil {
			return err
		}
	}
	if _, err := s.upsertCursor.Exec(name, p.watermark, p.settled, time.Now().UnixMicro()); err != nil {
		return fmt.Errorf("write cursor %q: %w", name, err)
	}
	return nil
}

func (s *store) writeDead(d *DeadLetter) error {
	_, err := s.insertDead.Exec(d.Forwarder, d.Source, d.Seq, d.ID, d.Type, d.Reason, d.Answer, d.Attempts, micros(d.First), micros(d.Last), d.Body)
	if err != nil {
		return fmt.Errorf("write dead letter of forwarder %q: %w", d.Forwarder, err)
	}
	return nil
}

// finish gives back to the cursor what could not be written.
func (p *settlements) finish(err error) {
	if err == nil {
		return
	}
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty.count += p.count
	for seq, r := range p.retries {
		if _, newer := c.dirty.retries[seq]; !newer {
			c.dirty.retries[seq] = r
		}
	}
	c.dirty.dead = append(p.dead, c.dirty.dead...)
}

// AppendUnreadable keeps a delivery whose signature is right and whose body is
// no event, as a dead letter of its source. It is on disk on return; the body
// is kept and ctx ends the wait as with Append.
func (j *Journal) AppendUnreadable(ctx context.Context, source string, body []byte, reason string, received time.Time) error {
	letter := DeadLetter{Source: source, Reason: reason, First: received, Last: received, Body: body}
	return j.apply(ctx, func(s *store) error { return s.writeDead(&letter) })
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
	// the ones that wait for a retry included.
	Backlog int64
	// Retrying is the number of events whose last attempt failed.
	Retrying int64
	// DeadLetters is the number of dead letters that are kept.
	DeadLetters int64
}

// Progress counts what is before the forwarder.
func (c *Cursor) Progress() Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	retrying := int64(len(c.retries) + len(c.inFlight))
	open := c.j.head.Load() - c.window.watermark - c.window.settledAbove()
	return Progress{Backlog: max(open, 0) + retrying, Retrying: retrying, DeadLetters: c.dead}
}
