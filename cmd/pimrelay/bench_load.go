package main

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// benchAnswer is how long the load generator waits for an answer: longer than
// the platform, so that a slow answer is measured and not lost.
const benchAnswer = 10 * time.Second

// benchLoad sends deliveries over connections that it keeps.
type benchLoad struct {
	workers []*benchWorker
}

type benchWorker struct {
	address  string
	conn     *benchConn
	delivery *benchDelivery
}

func dialLoad(ctx context.Context, address string, connections, size int) (*benchLoad, error) {
	l := &benchLoad{}
	for range connections {
		conn, err := dialBench(ctx, address)
		if err != nil {
			l.close()
			return nil, err
		}
		l.workers = append(l.workers, &benchWorker{address: address, conn: conn, delivery: newBenchDelivery(address, size)})
	}
	return l, nil
}

func (l *benchLoad) close() {
	for _, w := range l.workers {
		_ = w.conn.Close() // nothing is under way on it
	}
}

// benchRound is what came of sending for a while.
type benchRound struct {
	accepted int64 // answered 200
	refused  int64 // answered anything else
	elapsed  time.Duration
	answers  histogram // how long each 200 took
}

func (r *benchRound) add(other *benchRound) {
	r.accepted += other.accepted
	r.refused += other.refused
	r.elapsed += other.elapsed
	r.answers.add(&other.answers)
}

func (r *benchRound) perSecond() float64 {
	if r.elapsed <= 0 {
		return 0
	}
	return float64(r.accepted) / r.elapsed.Seconds()
}

// run sends for that long, at so many events a second over all connections, or,
// with rate 0, the next as soon as the one before is answered. A connection that
// breaks is an error.
func (l *benchLoad) run(ctx context.Context, length time.Duration, rate float64) (benchRound, error) {
	group, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	rounds := make([]benchRound, len(l.workers))
	for i, w := range l.workers {
		pace := pace{next: begin, end: begin.Add(length)}
		if rate > 0 {
			interval := time.Duration(float64(time.Second) / rate)
			pace.step = interval * time.Duration(len(l.workers))
			pace.next = begin.Add(interval * time.Duration(i))
		}
		group.Go(func() error { return w.run(ctx, pace, &rounds[i]) })
	}
	err := group.Wait()
	var total benchRound
	for i := range rounds {
		total.add(&rounds[i])
	}
	total.elapsed = time.Since(begin)
	return total, err
}

// pace says when a connection's deliveries are due.
type pace struct {
	next, end time.Time
	step      time.Duration // 0: as soon as the one before is answered
}

// wait returns when the next delivery is due, and false if none is. The time is
// the one from which the answer is measured: that of sending, but if the answer
// before has come too late, the time at which it should have been sent. Else a
// server that stalls would be measured by one slow answer, and not by all the
// deliveries that it made wait.
func (p *pace) wait(ctx context.Context) (time.Time, bool) {
	now := time.Now()
	if p.step == 0 {
		return now, now.Before(p.end) && ctx.Err() == nil
	}
	due := p.next
	p.next = p.next.Add(p.step)
	if !due.Before(p.end) {
		return now, false
	}
	if !due.After(now) {
		return due, ctx.Err() == nil
	}
	select {
	case <-time.After(due.Sub(now)):
		return time.Now(), true
	case <-ctx.Done():
		return now, false
	}
}

func (w *benchWorker) run(ctx context.Context, pace pace, round *benchRound) error {
	if err := w.ready(ctx, pace.end); err != nil {
		return err
	}
	release := w.interrupt(ctx)
	defer func() { release() }()
	for {
		w.delivery.next()
		began, ok := pace.wait(ctx)
		if !ok {
			return ctx.Err()
		}
		status, err := w.conn.post(w.delivery.request)
		if err != nil {
			return fmt.Errorf("deliver to %s: %w", w.address, err)
		}
		if status == http.StatusOK {
			round.accepted++
			round.answers.observe(time.Since(began))
		} else {
			round.refused++
		}
		if w.conn.closing {
			release()
			if err := w.ready(ctx, pace.end); err != nil {
				return err
			}
			release = w.interrupt(ctx)
		}
	}
}

// once sends one delivery.
func (w *benchWorker) once(ctx context.Context) (status int, err error) {
	if err := w.ready(ctx, time.Now()); err != nil {
		return 0, err
	}
	defer w.interrupt(ctx)()
	w.delivery.next()
	return w.conn.post(w.delivery.request)
}

// ready makes the connection usable until end and a little longer.
func (w *benchWorker) ready(ctx context.Context, end time.Time) error {
	if w.conn.closing {
		_ = w.conn.Close() // the server has ended it
		conn, err := dialBench(ctx, w.address)
		if err != nil {
			return err
		}
		w.conn = conn
	}
	return w.conn.SetDeadline(end.Add(benchAnswer))
}

// interrupt ends what the connection waits for when ctx ends, until it is
// released.
func (w *benchWorker) interrupt(ctx context.Context) (release func() bool) {
	conn := w.conn
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
}

// histogram counts durations in buckets that are at most 1/32 of their value
// wide, so it takes the same memory however long it counts.
type histogram struct {
	counts [1152]uint32 // up to about 18 minutes
	total  uint64
	most   time.Duration
}

func (h *histogram) observe(d time.Duration) {
	ns, i := uint64(max(d, 0)), 0
	if ns < 64 {
		i = int(ns)
	} else {
		shift := bits.Len64(ns) - 6
		i = min(shift*32+int(ns>>shift), len(h.counts)-1)
	}
	h.counts[i]++
	h.total++
	h.most = max(h.most, d)
}

func (h *histogram) add(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
	h.most = max(h.most, other.most)
}

// quantile is the duration that the share q of all did not exceed, rounded up to
// the end of its bucket; 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(math.Ceil(q * float64(h.total)))
	seen := uint64(0)
	for i, n := range h.counts {
		if seen += uint64(n); n == 0 || seen < rank {
			continue
		}
		if i < 64 {
			return min(time.Duration(i), h.most)
		}
		shift := i/32 - 1
		return min(time.Duration(uint64(i%32+33)<<shift)-1, h.most)
	}
	return h.most
}
