package dispatch

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// overdueAfter is how long after its timeout a call may take to return before
// the lane goes on without it; a plugin's calls are waited for until it is known
// whether the plugin still lives.
const (
	overdueAfter       = time.Second
	pluginOverdueAfter = 15 * time.Second
)

// overdueAt is when a call that began then is overdue.
func (l *Lane) overdueAt(began time.Time) time.Time {
	if l.plugin != nil {
		return began.Add(l.config.Timeout + pluginOverdueAfter)
	}
	return began.Add(l.config.Timeout + overdueAfter)
}

// call is one call of the forwarder.
type call struct {
	items []*item
	began time.Time
	// done tells the breaker; nil once it has been told.
	done  func(error)
	probe bool
	// suspect is what the plugin had in hand when it ended, or nil.
	suspect *suspect
	// overdue says that the forwarder has not returned although its time
	// is over.
	overdue bool

	// Set by the goroutine that makes the call.
	outcomes []sdk.Outcome
	ended    time.Time
	lost     error // the plugin's own failure, instead of some of the outcomes
	inHand   bool  // it had the events then
	cut      bool  // the drain time was over first
}

// start makes the call in a goroutine of its own, which sends it to results.
func (r *running) start(c *call) {
	c.began = r.now
	r.inFlight[c] = true
	if r.watch.IsZero() {
		r.watch = r.overdueAt(c.began)
	}
	go func() {
		r.deliver(r.calls, c)
		c.ended, c.cut = time.Now(), r.calls.Err() != nil
		r.results <- c
	}()
}

// deliver calls the forwarder with the lane's timeout. A panic is a Retry.
func (l *Lane) deliver(ctx context.Context, c *call) {
	ctx, cancel := context.WithTimeout(ctx, l.config.Timeout)
	defer cancel()
	events := make([]sdk.Event, len(c.items))
	for n, i := range c.items {
		events[n] = i.Event
		events[n].Attempt = i.Attempts + 1
		events[n].Replayed = i.Replayed
	}
	defer func() {
		if p := recover(); p != nil {
			l.Logger.Error("the forwarder panicked", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.outcomes = sdk.Each(len(events), sdk.Retry(0, fmt.Errorf("the forwarder panicked: %v", p)))
		}
	}()
	if l.plugin != nil {
		c.outcomes, c.inHand, c.lost = l.plugin.Attempt(ctx, events)
	} else {
		c.outcomes = l.Forwarder.Deliver(ctx, events)
	}
	if c.lost == nil && len(c.outcomes) != len(events) {
		l.Logger.Warn("the forwarder gave another number of outcomes than events", "events", len(events), "outcomes", len(c.outcomes))
	}
}

// outcome is what the forwarder says of the n-th event.
func (c *call) outcome(n int) sdk.Outcome {
	if n < len(c.outcomes) {
		return c.outcomes[n]
	}
	return sdk.Outcome{Reason: "the forwarder gave no outcome for the event"}
}

// lookForOverdue tells the breaker of calls whose time is over and that do not
// return. Their events stay with them, because they may still be delivered.
func (r *running) lookForOverdue() {
	if r.watch.IsZero() || r.now.Before(r.watch) {
		return
	}
	r.watch = time.Time{}
	for c := range r.inFlight {
		at := r.overdueAt(c.began)
		switch {
		case c.overdue:
		case at.After(r.now):
			if r.watch.IsZero() || at.Before(r.watch) {
				r.watch = at
			}
		default:
			c.overdue = true
			r.overdue++
			reason := fmt.Sprintf("the forwarder has not returned after %s, although its timeout is %s", r.now.Sub(c.began), r.config.Timeout)
			r.Logger.Error("the forwarder ignores its timeout", "err", reason, "event", c.items[0].Event.ID, "events", len(c.items))
			r.state.failed(r.now, reason)
			r.tellBreaker(c, errCallFailed, reason)
		}
	}
}
