package dispatch

import (
	"slices"
	"time"

	"github.com/pimrelay/pimrelay/relay/journal"
)

const (
	// keyEvents is how many events of one key wait in memory while an
	// earlier one is being delivered, and queuedEvents how many of all keys.
	// Further ones are parked in the journal.
	keyEvents    = 64
	queuedEvents = 1024
)

// line is the events of one key. At most one of them is ready or being
// delivered; the others wait, in this order: for the retry of an earlier one,
// in memory, parked in the journal.
type line struct {
	key  string
	busy bool
	// retries is how many events of the key wait in the journal for their
	// next attempt. loaded says that some are from before the lane started
	// and not counted one by one.
	retries int
	loaded  bool
	queue   []*item // by their number
	// parked says that the journal may have parked events of the key,
	// asked that they are on their way, and since that another one was
	// parked meanwhile.
	parked, asked, since bool
}

// lines are the keys that have events in hand or waiting.
type lines struct {
	all map[string]*line
	// unread is how many new events the lane has still to read before it
	// asks for parked ones. What an earlier lane had in hand comes from the
	// journal as new, and may be older than what it had parked.
	unread int
	queued int      // events in queues
	wanted []string // keys whose parked events are to be asked for
	// blocked are the keys that the journal says have retries, while events
	// from it are admitted; nil if nobody has asked.
	blocked map[string]bool
	// stuck are events that should be parked and for which the journal has
	// no place. No new events are taken until it has.
	stuck []*item
}

func (r *running) line(key string) *line {
	k, ok := r.lines.all[key]
	if !ok {
		k = &line{key: key}
		r.lines.all[key] = k
	}
	return k
}

// loadLines finds out which keys have events that wait in the journal.
func (r *running) loadLines() {
	r.lines.all = make(map[string]*line)
	r.lines.unread = journal.WindowEvents
	for _, key := range r.Cursor.BlockedKeys() {
		k := r.line(key)
		k.retries, k.loaded = 1, true
	}
	for _, key := range r.Cursor.ParkedKeys() {
		r.line(key).parked = true
	}
}

// countRead takes note of what the journal had; nothing means that the lane has
// read everything.
func (r *running) countRead(items []*item) {
	before := r.lines.unread
	if before == 0 {
		return
	}
	for _, i := range items {
		if !i.retried() {
			r.lines.unread = max(r.lines.unread-1, 0)
		}
	}
	if len(items) == 0 {
		r.lines.unread = 0
	}
	if r.lines.unread > 0 {
		return
	}
	for _, k := range r.lines.all {
		r.advance(k)
	}
}

// admit takes an event from the journal.
func (r *running) admit(i *item) {
	if i.leftOut != "" || i.fault != nil {
		if i.retried() && i.key != "" {
			r.uncount(r.line(i.key))
		}
		r.dismiss(i)
		if k, ok := r.lines.all[i.key]; ok {
			r.advance(k)
		}
		return
	}
	if i.key == "" {
		r.push(i)
		return
	}
	k := r.line(i.key)
	switch {
	case i.retried():
		r.uncount(k)
		r.enqueue(k, i)
	case k.retries > 0 || k.parked || k.asked || len(k.queue) >= keyEvents || r.lines.queued >= queuedEvents && k.busy:
		if !r.park(k, i) {
			r.lines.stuck = append(r.lines.stuck, i)
		}
	default:
		r.enqueue(k, i)
	}
	r.advance(k)
}

// admitParked takes events that had been parked. more says that others may be
// left.
func (r *running) admitParked(key string, items []*item, more bool) {
	k := r.line(key)
	k.parked, k.asked = more || len(items) == unparkEvents || k.since, false
	for _, i := range items {
		if i.leftOut != "" || i.fault != nil {
			r.dismiss(i)
			continue
		}
		r.enqueue(k, i)
	}
	if k.retries > 0 {
		r.postpone(k, time.Time{})
	}
	r.advance(k)
}

// uncount takes note that a retry of the key has come back.
func (r *running) uncount(k *line) {
	k.retries = max(k.retries-1, 0)
	if k.retries > 0 || !k.loaded {
		return
	}
	if r.lines.blocked == nil {
		r.lines.blocked = make(map[string]bool)
		for _, key := range r.Cursor.BlockedKeys() {
			r.lines.blocked[key] = true
		}
	}
	if k.loaded = r.lines.blocked[k.key]; k.loaded {
		k.retries = 1
	}
}

func (r *running) push(i *item) {
	i.since = r.now
	r.ready.push(i)
}

func (r *running) enqueue(k *line, i *item) {
	at := len(k.queue)
	for at > 0 && k.queue[at-1].Seq > i.Seq {
		at--
	}
	k.queue = slices.Insert(k.queue, at, i)
	r.lines.queued++
}

// advance makes the key's next event ready, if it is its turn.
func (r *running) advance(k *line) {
	switch {
	case k.busy:
	case len(k.queue) > 0 && (k.retries == 0 || k.queue[0].retried()):
		k.busy = true
		r.push(k.queue[0])
		k.queue = k.queue[1:]
		r.lines.queued--
	case k.retries > 0 || k.asked || k.parked && r.lines.unread > 0:
	case k.parked:
		k.asked, k.since = true, false
		r.lines.wanted = append(r.lines.wanted, k.key)
	default:
		delete(r.lines.all, k.key)
	}
}

// free lets the next event of a key go, when one is delivered or a dead letter.
func (r *running) free(i *item) {
	if i.key == "" {
		return
	}
	k := r.line(i.key)
	k.busy = false
	r.advance(k)
}

// block makes the events of a key wait until one of them has been tried again,
// which is at due.
func (r *running) block(i *item, due time.Time) {
	if i.key == "" {
		return
	}
	k := r.line(i.key)
	k.busy = false
	k.retries++
	r.postpone(k, due)
}

// postpone puts the queue of a blocked key into the journal, the last event
// first, so that what does not fit is the oldest and stays in its place. Events
// that have been tried come back at due.
func (r *running) postpone(k *line, due time.Time) {
	for len(k.queue) > 0 {
		i := k.queue[len(k.queue)-1]
		switch {
		case i.retried() && due.IsZero():
			return
		case i.retried():
			r.retryAt(i, journal.Retry{Attempts: i.Attempts, First: i.First, Reason: "an earlier event with the same key is tried again", Outage: i.Outage}, due)
			k.retries++
		case !r.park(k, i):
			return
		}
		k.queue = k.queue[:len(k.queue)-1]
		r.lines.queued--
	}
}

// park puts the event into the journal behind the others of its key, if there
// is a place.
func (r *running) park(k *line, i *item) bool {
	if !r.Cursor.Park(i.Seq, k.key) {
		return false
	}
	k.parked, k.since = true, true
	return true
}

// unstick tries again to find places for what is stuck, in order.
func (r *running) unstick() {
	stuck := r.lines.stuck
	r.lines.stuck = nil
	for n, i := range stuck {
		r.admit(i)
		if len(r.lines.stuck) > 0 {
			r.lines.stuck = append(r.lines.stuck, stuck[n+1:]...)
			return
		}
	}
}
