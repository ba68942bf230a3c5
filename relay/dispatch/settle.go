package dispatch

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// settle decides what becomes of the events of a call that has ended. It is the
// only place that does.
func (r *running) settle(c *call) {
	r.metrics.deliverSeconds.Observe(c.ended.Sub(c.began).Seconds())
	if c.lost != nil {
		r.lose(c)
	} else {
		r.proofs++
	}
	r.judge(c)
	if r.rejectsAll(c) {
		r.Logger.Info("a batch was rejected as a whole, its halves are tried", "err", c.outcomes[0].Reason, "events", len(c.items))
		r.ready.bisect(c.items)
		return
	}
	var back []*item
	for n, i := range c.items {
		o := c.outcome(n)
		if c.cut && o.Result != sdk.ResultDelivered {
			continue // the drain time was over: as if it had not been tried
		}
		r.metrics.outcome(o.Result)
		switch {
		case o.Result == sdk.ResultDelivered:
			r.settled = append(r.settled, i.Seq)
			r.state.succeeded(c.ended)
			r.free(i)
		case o.Result == sdk.ResultThrottled:
			r.throttled(c, o)
			back = append(back, i)
		case o.Result == sdk.ResultRejected:
			r.bury(i, i.Attempts+1, o.Reason, o.Answer)
			r.free(i)
		case c.probe:
			r.state.failed(r.now, o.Reason)
			back = append(back, i)
		default: // a Retry, and everything that is no result
			r.retry(c, i, o)
		}
	}
	r.ready.putBack(back)
}

// rejectsAll reports whether the destination has rejected several events with
// one answer, so that a single one of them may be to blame.
func (r *running) rejectsAll(c *call) bool {
	for n := range c.items {
		if c.outcome(n).Result != sdk.ResultRejected {
			return false
		}
	}
	return len(c.items) > 1 && !c.cut
}

// judge says what the call means to breaker and pace.
func (r *running) judge(c *call) {
	delivered, failed := false, ""
	for n := range c.items {
		switch o := c.outcome(n); o.Result {
		case sdk.ResultDelivered:
			delivered = true
		case sdk.ResultThrottled, sdk.ResultRejected:
		default:
			failed = o.Reason
		}
	}
	switch {
	case delivered:
		r.pace.succeeded()
		r.tellBreaker(c, nil, "")
	case failed != "" && !c.cut:
		r.tellBreaker(c, errCallFailed, failed)
	default:
		r.tellBreaker(c, errCallExcluded, "")
	}
}

// tellBreaker tells the breaker of a call, once.
func (r *running) tellBreaker(c *call, result error, reason string) {
	if c.done == nil {
		return
	}
	done := c.done
	c.done = nil
	if c.probe {
		r.breaker.probing = false
	}
	switch result {
	case nil:
		if since := r.breaker.since; r.breaker.success(done) {
			r.pace.recovering()
			r.Logger.Info("breaker closed, deliveries go on", "took", r.now.Sub(since))
		}
	case errCallFailed:
		if r.breaker.failure(done, r.now, c.items[0].Seq, reason) {
			r.limiter.release(r.now)
			r.ready.gather()
			r.Logger.Warn("breaker open, deliveries pause", "err", reason)
		}
	default:
		r.breaker.exclude(done)
	}
}

// throttled slows the lane as its destination asks.
func (r *running) throttled(c *call, o sdk.Outcome) {
	r.state.failed(r.now, o.Reason)
	first := r.pace.slow(r.now, c.began, func(row int) time.Duration {
		if o.After > 0 {
			return r.asked(o.After)
		}
		return r.config.Retry.backoff(row)
	})
	if first {
		r.Logger.Info("the destination asks for less, deliveries pause", "err", o.Reason, "until", r.pace.until)
	}
	r.limiter.release(r.now)
}

// retry makes an event wait for its next attempt, or gives it up.
func (r *running) retry(c *call, i *item, o sdk.Outcome) {
	attempts, first := i.Attempts+1, i.First
	if first.IsZero() {
		first = c.ended
	}
	outage := r.outage(c, i)
	if age := c.ended.Sub(first) - outage; age >= r.config.Retry.GiveUpAfter {
		r.bury(i, attempts, fmt.Sprintf("given up after %d attempts in %s: %s", attempts, c.ended.Sub(first).Round(time.Second), o.Reason), o.Answer)
		r.free(i)
		return
	}
	due := r.now.Add(max(r.asked(o.After), r.config.Retry.backoff(attempts)))
	r.retryAt(i, journal.Retry{Attempts: attempts, First: first, Reason: o.Reason, Outage: outage}, due)
	r.block(i, due)
	if r.state.failed(r.now, o.Reason) {
		r.Logger.Warn("deliveries fail, they are tried again", "err", o.Reason, "event", i.Event.ID, "attempt", attempts)
	}
}

// outage is how long an event has not waited for its own attempts but for the
// lane since it failed first: the breaker was open, the lane paused or
// throttled, or there was no lane.
func (r *running) outage(c *call, i *item) time.Duration {
	switch {
	case i.First.IsZero():
		return 0
	case !i.due.IsZero():
		return i.Outage + max(c.began.Sub(i.due), 0)
	}
	// An earlier lane knew when the attempt was due. The event cannot have
	// waited longer for its attempts than all of them can take.
	longest := time.Duration(0)
	for n := 1; n <= i.Attempts && longest < r.config.Retry.GiveUpAfter; n++ {
		longest += r.config.Retry.longest(n) + r.config.Timeout
	}
	return max(i.Outage, c.began.Sub(i.First)-longest)
}

// retryAt gives an event back to the journal until due.
func (r *running) retryAt(i *item, retry journal.Retry, due time.Time) {
	r.due[i.Seq] = due
	retry.Seq, retry.Key, retry.Due = i.Seq, i.key, due
	r.Cursor.RetryAt(retry)
}

// dismiss settles an event that is not for the forwarder, or that can never be
// delivered.
func (r *running) dismiss(i *item) {
	if i.fault != nil {
		r.bury(i, i.Attempts, i.fault.Error(), "")
		return
	}
	r.metrics.leftOut[i.leftOut].Inc()
	r.settled = append(r.settled, i.Seq)
}

// bury makes the event, delivered that many times, a dead letter of this
// forwarder.
func (r *running) bury(i *item, attempts int, reason, answer string) {
	first := i.First
	if first.IsZero() {
		first = r.now
	}
	r.Cursor.Dead(journal.DeadLetter{
		Source: i.Event.Source, Seq: i.Seq, ID: i.Event.ID, Type: i.Event.Type,
		Reason: reason, Answer: answer, Attempts: attempts, First: first, Last: r.now,
	})
	r.metrics.deadLetters.Inc()
	r.state.failed(r.now, reason)
	r.Logger.Warn("dead letter", "err", reason, "event", i.Event.ID, "type", i.Event.Type, "source", i.Event.Source, "attempt", attempts)
}

// asked bounds what a destination asked for.
func (l *Lane) asked(after time.Duration) time.Duration {
	return min(max(after, 0), l.config.Retry.MaxRetryAfter)
}

// backoff is the wait after that many failed attempts: exponential, with full
// jitter, so that events that failed together do not come back together.
func (r Retry) backoff(attempts int) time.Duration { return jitter(r.longest(attempts)) }

// longest is the longest wait after that many failed attempts.
func (r Retry) longest(attempts int) time.Duration {
	longest := r.Initial
	for i := 1; i < attempts && longest < r.Max; i++ {
		longest *= 2
	}
	return min(longest, r.Max)
}

// jitter is a random time up to longest, and not below a hundredth of it.
func jitter(longest time.Duration) time.Duration {
	return longest/100 + rand.N(longest-longest/100)
}
