package simulator

import (
	"container/heap"
	"math"
	"time"
)

// Documented figures of the delivery.
const (
	minPace       = 1   // events per second
	maxPace       = 100 // events per second
	minSuccess    = 0.9 // of the attempts in the rolling window
	successWindow = time.Hour
	throttleGrace = time.Hour // a 429 counts as failure when its event is older
)

// Choices where nothing is documented.
const (
	firstPace     = 10.0                  // events per second
	throttlePause = time.Minute           // with Readings.ThrottleKeepsRetries
	catchUp       = 20 * time.Millisecond // how much lateness the pace makes good
)

// retryPauses are the pauses after the first, second and third failed attempt,
// in platform time; after the fourth the event is dropped.
var retryPauses = [...]time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute}

// item is an event on its way to one subscription.
type item struct {
	*event
	attempts int
	spent    int       // retries used up
	due      time.Time // of the next attempt, by the wall clock
}

// outbox is what a subscription still has to get, and how fast it may.
type outbox struct {
	queue    []*item // first attempts, in the order of publication
	retries  retryHeap
	inFlight int
	pace     pace
	window   window
	tally    tally
	wake     chan struct{} // tells the delivery that there may be work; holds one
}

func newOutbox(fixedPace float64) outbox {
	return outbox{
		pace:  pace{fixed: fixedPace, rate: firstPace},
		tally: tally{answers: map[string]int{}},
		wake:  make(chan struct{}, 1),
	}
}

// waiting counts the events that are neither acknowledged nor given up.
func (o *outbox) waiting() int { return len(o.queue) + len(o.retries) + o.inFlight }

func (o *outbox) rouse() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// due says how long it is until there is something to send; ok is false when
// there is nothing at all.
func (o *outbox) due(now time.Time) (wait time.Duration, ok bool) {
	switch {
	case len(o.queue) > 0:
		return 0, true
	case len(o.retries) > 0:
		return max(o.retries[0].due.Sub(now), 0), true
	}
	return 0, false
}

// take removes the next item: a retry that is due goes first.
func (o *outbox) take(now time.Time) *item {
	var it *item
	switch {
	case len(o.retries) > 0 && !o.retries[0].due.After(now):
		it = heap.Pop(&o.retries).(*item)
	case len(o.queue) > 0:
		it, o.queue[0] = o.queue[0], nil
		o.queue = o.queue[1:]
	default:
		return nil
	}
	o.inFlight++
	return it
}

func (o *outbox) retry(it *item, at time.Time) {
	it.due = at
	heap.Push(&o.retries, it)
	o.rouse()
}

// clear gives up what is queued or waits for a retry, and says how much that
// was.
func (o *outbox) clear() int {
	n := len(o.queue) + len(o.retries)
	o.queue, o.retries = nil, nil
	return n
}

// retryHeap orders retries by the time they are due.
type retryHeap []*item

func (h retryHeap) Len() int           { return len(h) }
func (h retryHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h retryHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *retryHeap) Push(x any)        { *h = append(*h, x.(*item)) }

func (h *retryHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}

// pace spaces attempts evenly. The rate is in events per second of the wall
// clock.
type pace struct {
	fixed float64 // 0 adapts
	rate  float64 // used and changed when it adapts
	next  time.Time
}

// reserve books the next attempt and says how long to wait for it.
func (p *pace) reserve(now time.Time) time.Duration {
	rate := p.rate
	if p.fixed > 0 {
		rate = p.fixed
	}
	if math.IsInf(rate, 1) {
		return 0
	}
	if earliest := now.Add(-catchUp); p.next.Before(earliest) {
		p.next = earliest
	}
	wait := p.next.Sub(now)
	p.next = p.next.Add(time.Duration(float64(time.Second) / rate))
	return max(wait, 0)
}

func (p *pace) raise() { p.rate = min(p.rate+1, maxPace) }
func (p *pace) lower() { p.rate = max(p.rate/2, minPace) }

// windowSlots is how many parts the rolling hour moves by.
const windowSlots = 60

// window counts attempts over the rolling hour, to the minute.
type window struct {
	slots [windowSlots]struct {
		minute     int64
		ok, failed int
	}
}

func (w *window) add(now time.Time, ok bool) {
	minute := now.Unix() / 60
	slot := &w.slots[minute%windowSlots]
	if slot.minute != minute {
		slot.minute, slot.ok, slot.failed = minute, 0, 0
	}
	if ok {
		slot.ok++
	} else {
		slot.failed++
	}
}

// broken reports whether the success rate is below 90 %, judged from sample
// attempts on.
func (w *window) broken(now time.Time, sample int) bool {
	minute := now.Unix() / 60
	ok, all := 0, 0
	for _, slot := range w.slots {
		if minute-slot.minute < windowSlots {
			ok += slot.ok
			all += slot.ok + slot.failed
		}
	}
	return all >= sample && float64(ok) < minSuccess*float64(all)
}
