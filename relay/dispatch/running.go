package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// running is a lane at work. All of it belongs to the goroutine of Lane.Run; others
// make the calls and read the journal, and send what they have.
type running struct {
	*Lane
	calls context.Context // what deliveries run under; lives as long as the run
	now   time.Time       // of this turn of the loop

	requests chan request
	replies  chan reply
	results  chan *call

	limits   sdk.BatchLimits // of one call
	suspects []suspect
	proofs   int64 // calls that have come back
	ready    ready
	lines    lines
	limiter  limiter
	pace     pace
	breaker  *circuit
	inFlight map[*call]bool
	overdue  int       // calls in flight that ignore their timeout
	watch    time.Time // when to look for such calls; zero if none is in flight
	settled  []int64   // delivered or left out, not yet told to the cursor
	due      map[int64]time.Time

	reading   bool      // a request is with the reader
	more      bool      // the journal may have something
	woken     bool      // more was set while a request was with the reader
	readAgain time.Time // after a failed read
	resting   bool      // paused, or the plugin does not run, as the loop has seen it
}

func newRunning(l *Lane, calls context.Context) *running {
	r := &running{
		Lane: l, calls: calls, now: time.Now(),
		requests: make(chan request, 1), replies: make(chan reply, 1), results: make(chan *call, l.config.MaxInFlight),
		limiter: newLimiter(l.config.Rate), pace: newPace(l.config.MaxInFlight), breaker: newCircuit(l.config.Breaker),
		limits: l.limits(), inFlight: make(map[*call]bool), due: make(map[int64]time.Time), more: true,
	}
	r.loadLines()
	return r
}

// loop takes events and starts their deliveries until ctx ends.
func (r *running) loop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		r.now = time.Now()
		r.lookForOverdue()
		r.unstick()
		r.launch()
		r.flush()
		r.ask()
		r.show()
		if at := r.next(); at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(at.Sub(r.now))
		}
		select {
		case <-ctx.Done():
		case c := <-r.results:
			r.now = time.Now()
			r.finish(c)
		case reply := <-r.replies:
			r.now = time.Now()
			r.receive(reply)
		case <-r.Cursor.Wake():
			r.wake()
		case <-r.kick:
		case <-r.pluginChanged():
			r.limits = r.Lane.limits() // a plugin tells them when it has started
		case <-timer.C:
		}
	}
}

// launch starts as many deliveries as the lane allows.
func (r *running) launch() {
	if r.resting = r.paused.Load() || r.pluginDown() != ""; r.resting {
		r.limiter.release(r.now)
		return
	}
	if len(r.suspects) > 0 {
		r.question()
		return
	}
	for len(r.inFlight) < min(r.pace.calls+r.overdue, r.config.MaxInFlight) && !r.now.Before(r.pace.until) {
		if !r.breaker.closed() {
			r.probe()
			return
		}
		n, _ := r.ready.batch(r.limits, r.config.Batch.MaxWait, r.now)
		if n == 0 {
			return
		}
		if n = r.limiter.take(r.now, n); n == 0 {
			return
		}
		done, ok := r.breaker.allow(r.now)
		if !ok {
			return
		}
		r.start(&call{items: r.ready.take(n), done: done})
	}
}

// probe starts the delivery of a single event if the breaker wants to know
// whether the destination is back.
func (r *running) probe() {
	r.ready.gather() // a probe is one event
	if len(r.ready.items) == 0 || !r.breaker.wantsProbe(r.now) || r.limiter.take(r.now, 1) == 0 {
		return
	}
	done, ok := r.breaker.allow(r.now)
	if !ok {
		return
	}
	i := r.ready.remove(r.breaker.choose(r.ready.items))
	r.breaker.probed[i.Seq]++
	r.start(&call{items: []*item{i}, done: done, probe: true})
}

// finish takes the result of a call.
func (r *running) finish(c *call) {
	for {
		delete(r.inFlight, c)
		if c.overdue {
			r.overdue--
		}
		if len(r.inFlight) == 0 {
			r.watch = time.Time{}
		}
		r.settle(c)
		r.wake() // there may be room in the cursor's window
		select {
		case c = <-r.results:
		default:
			return
		}
	}
}

// flush tells the cursor what is done with.
func (r *running) flush() {
	if len(r.settled) > 0 {
		r.Cursor.Delivered(r.settled...)
		r.settled = r.settled[:0]
	}
}

func (r *running) wake() { r.more, r.woken = true, true }

// probeEvents is how many events a lane has in hand, while its breaker is open,
// to probe with.
const probeEvents = 16

// room is how many events the lane wants from the journal.
func (r *running) room() int {
	switch {
	case len(r.suspects) > 0:
		return max(1-len(r.ready.items), 0) // a witness may be wanted
	case len(r.lines.stuck) > 0:
		// Only a retry may free a place. Retries come first.
		if due, ok := r.Cursor.NextRetry(); ok && !due.After(r.now) {
			return 1
		}
		return 0
	case !r.breaker.closed():
		return max(probeEvents-len(r.ready.items), 0)
	case r.ready.len() >= max(fetchEvents/2, r.limits.Events, r.config.MaxInFlight):
		return 0
	}
	return fetchEvents
}

// ask asks the reader for events, if there may be any and the lane has room.
func (r *running) ask() {
	if r.reading || r.resting || r.now.Before(r.readAgain) {
		return
	}
	if due, ok := r.Cursor.NextRetry(); !r.more && ok && !due.After(r.now) {
		r.more = true
	}
	req := request{now: r.now, keys: r.lines.wanted}
	if r.more && !r.now.Before(r.pace.until) {
		req.limit = r.room()
	}
	if req.limit == 0 && len(req.keys) == 0 {
		return
	}
	r.lines.wanted = nil
	r.reading, r.woken = true, false
	r.requests <- req
}

// receive takes what the reader has.
func (r *running) receive(p reply) {
	r.reading = false
	r.lines.blocked = nil
	if p.err != nil {
		r.Logger.Error("reading the journal failed, trying again in a second", "err", p.err)
		r.readAgain = r.now.Add(time.Second)
	}
	for key, items := range p.unparked {
		r.admitParked(key, items, p.err != nil)
	}
	for _, i := range p.items {
		i.due = r.due[i.Seq]
		delete(r.due, i.Seq)
		r.admit(i)
	}
	if p.limit > 0 && p.err == nil {
		r.countRead(p.items)
		r.more = r.woken || len(p.items) > 0
	}
}

// next is when the loop has something to do by itself, or zero.
func (r *running) next() time.Time {
	first := r.watch
	consider := func(at time.Time) {
		if at.After(r.now) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	if r.resting {
		return first
	}
	consider(r.pace.until)
	consider(r.limiter.ready())
	consider(r.readAgain)
	if !r.breaker.closed() {
		consider(r.breaker.probeAt)
	} else if _, until := r.ready.batch(r.limits, r.config.Batch.MaxWait, r.now); !until.IsZero() {
		consider(until)
	}
	if due, ok := r.Cursor.NextRetry(); ok {
		consider(due)
	}
	return first
}

// cutGrace is how long a forwarder may take to return after its deliveries were
// cut off.
const cutGrace = time.Second

// drain waits for the deliveries in hand, and cuts them off after the drain
// time.
func (r *running) drain(cut func()) error {
	cutting := time.AfterFunc(r.Drain, cut)
	defer cutting.Stop()
	end := time.NewTimer(r.Drain + cutGrace)
	defer end.Stop()
	for len(r.inFlight) > 0 {
		select {
		case c := <-r.results:
			r.now = time.Now()
			r.finish(c)
		case <-end.C:
			return fmt.Errorf("forwarder %q does not return from %d deliveries that were cut off: their events are due again", r.Name, len(r.inFlight))
		}
	}
	return nil
}
