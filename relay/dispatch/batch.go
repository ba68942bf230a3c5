package dispatch

import (
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// ready are the events that may be delivered as soon as the lane allows it, in
// their order. With order_by there is at most one of each key.
type ready struct {
	items []*item
	// parts are what is left of batches that a destination has rejected as
	// a whole. Each is delivered as it is, before everything else.
	parts [][]*item
}

func (q *ready) len() int {
	n := len(q.items)
	for _, p := range q.parts {
		n += len(p)
	}
	return n
}

func (q *ready) push(i *item) { q.items = append(q.items, i) }

// putBack makes events the first ones again.
func (q *ready) putBack(items []*item) {
	if len(items) == 0 {
		return
	}
	q.items = append(append(make([]*item, 0, len(items)+len(q.items)), items...), q.items...)
}

// bisect puts the halves of a batch before everything else.
func (q *ready) bisect(batch []*item) {
	half := len(batch) / 2
	q.parts = append(q.parts, batch[half:], batch[:half])
}

// batch is how many of the first events go into the next delivery, and 0 if
// they wait for others until the returned time, or if there are none.
func (q *ready) batch(limits sdk.BatchLimits, maxWait time.Duration, now time.Time) (int, time.Time) {
	if n := len(q.parts); n > 0 {
		return len(q.parts[n-1]), time.Time{}
	}
	if len(q.items) == 0 {
		return 0, time.Time{}
	}
	n, full := fit(q.items, limits)
	if until := q.items[0].since.Add(maxWait); !full && limits.Events != 1 && until.After(now) {
		return 0, until
	}
	return n, time.Time{}
}

// fit is how many of the items a batch holds, at least one, and whether no
// other could be added.
func fit(items []*item, limits sdk.BatchLimits) (n int, full bool) {
	size := 0
	for n, i := range items {
		size += len(i.Event.Payload)
		if n > 0 && limits.Bytes > 0 && size > limits.Bytes {
			return n, true
		}
		if n+1 == limits.Events {
			return n + 1, true
		}
	}
	return len(items), false
}

// take removes the first n events, which must be in one part if there are
// parts.
func (q *ready) take(n int) []*item {
	if last := len(q.parts) - 1; last >= 0 {
		part := q.parts[last]
		if n == len(part) {
			q.parts = q.parts[:last]
		} else {
			q.parts[last] = part[n:]
		}
		return part[:n:n]
	}
	taken := q.items[:n:n]
	q.items = q.items[n:]
	return taken
}

// gather makes single events of the parts.
func (q *ready) gather() {
	for _, p := range q.parts {
		q.putBack(p)
	}
	q.parts = nil
}

// remove takes out the event at index at.
func (q *ready) remove(at int) *item {
	i := q.items[at]
	rest := append(make([]*item, 0, len(q.items)-1), q.items[:at]...)
	q.items = append(rest, q.items[at+1:]...)
	return i
}
