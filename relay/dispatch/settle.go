package dispatch

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// settle decides what becomes of an event whose delivery has ended. It is the
// only place that does.
func (l *Lane) settle(e journal.Entry, o sdk.Outcome, now time.Time) {
	l.Metrics.outcome(l.Name, o.Result)
	first := e.First
	if first.IsZero() {
		first = now
	}
	switch o.Result {
	case sdk.ResultDelivered:
		l.Cursor.Delivered(e.Seq)
		l.state.succeeded(now)
	case sdk.ResultThrottled:
		wait := max(l.asked(o.After), jitter(l.config.Retry.Initial))
		l.Cursor.RetryAt(e.Seq, now.Add(wait), e.Attempts, first, o.Reason)
		l.state.failed(now, o.Reason)
	case sdk.ResultRejected:
		l.bury(e, e.Attempts+1, o.Reason, o.Answer)
	default: // a Retry, and everything that is no result
		attempts := e.Attempts + 1
		if now.Sub(first) >= l.config.Retry.GiveUpAfter {
			l.bury(e, attempts, fmt.Sprintf("given up after %d attempts in %s: %s", attempts, now.Sub(first).Round(time.Second), o.Reason), o.Answer)
			return
		}
		wait := max(l.asked(o.After), l.config.Retry.backoff(attempts))
		l.Cursor.RetryAt(e.Seq, now.Add(wait), attempts, first, o.Reason)
		if l.state.failed(now, o.Reason) {
			l.Logger.Warn("deliveries fail, they are tried again", "err", o.Reason, "event", e.Event.ID, "attempt", attempts)
		}
	}
}

// bury makes the event, delivered that many times, a dead letter of this
// forwarder.
func (l *Lane) bury(e journal.Entry, attempts int, reason, answer string) {
	now := time.Now()
	first := e.First
	if first.IsZero() {
		first = now
	}
	l.Cursor.Dead(journal.DeadLetter{
		Source: e.Event.Source, Seq: e.Seq, ID: e.Event.ID, Type: e.Event.Type,
		Reason: reason, Answer: answer, Attempts: attempts, First: first, Last: now,
	})
	l.Metrics.buried(l.Name)
	l.state.failed(now, reason)
	l.Logger.Warn("dead letter", "err", reason, "event", e.Event.ID, "type", e.Event.Type, "source", e.Event.Source, "attempt", attempts)
}

// asked bounds what a destination asked for.
func (l *Lane) asked(after time.Duration) time.Duration {
	return min(max(after, 0), l.config.Retry.MaxRetryAfter)
}

// backoff is the wait after that many failed attempts: exponential, with full
// jitter, so that events that failed together do not come back together.
func (r Retry) backoff(attempts int) time.Duration {
	longest := r.Initial
	for i := 1; i < attempts && longest < r.Max; i++ {
		longest *= 2
	}
	return jitter(min(longest, r.Max))
}

// jitter is a random time up to longest, and not below a hundredth of it.
func jitter(longest time.Duration) time.Duration {
	return longest/100 + rand.N(longest-longest/100)
}
