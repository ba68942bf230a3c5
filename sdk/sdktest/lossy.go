package sdktest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

var destinationCases = []Case{
	{"destination-rejects", "reports an event that the destination refuses for good as rejected", destinationRejects},
	{"destination-throttles", "reports a destination that asks for less as throttled, with the wait that it asks for", destinationThrottles},
	{"destination-fails", "reports a fault of the destination as a retry", fails(Fail)},
	{"destination-resets", "reports a broken connection as a retry", fails(ResetBefore)},
	{"destination-gone", "reports a destination that is not there as a retry, and goes on when it is back", fails(Gone)},
	{"destination-slow", "waits for a slow answer", destinationSlow},
	{"lost-reply", "retries what the destination took without saying so, with the same idempotency key", lostReply},
	{"lossy-destination", "loses no event at a destination that fails in all ways by turns", lossyDestination},
}

// answered delivers one event to a destination that behaves like that.
func (t *trial) answered(ctx context.Context, b Behaviour) (*instance, sdk.Event, sdk.Outcome, error) {
	events := newEvents(1)
	i, err := t.start(ctx)
	if err != nil {
		return nil, events[0], sdk.Outcome{}, err
	}
	if err := t.behave(b); err != nil {
		return nil, events[0], sdk.Outcome{}, err
	}
	outcomes, err := t.deliver(ctx, i, events)
	if err != nil {
		return nil, events[0], sdk.Outcome{}, err
	}
	return i, events[0], outcomes[0], nil
}

// recovers wants the event to be delivered now that the destination is well,
// within a few attempts: a connection may need a moment to come back.
func (t *trial) recovers(ctx context.Context, i *instance, event sdk.Event) error {
	if err := t.behave(Accept); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := t.persist(limited, i, []sdk.Event{event}); err != nil {
		return fmt.Errorf("now that the destination is well again: %w", err)
	}
	return nil
}

// pause is how long persist waits before it delivers again.
const pause = 20 * time.Millisecond

// persist delivers the events as a lane does, again and again until each is
// delivered or ctx is done.
func (t *trial) persist(ctx context.Context, i *instance, events []sdk.Event) error {
	for left := events; ; {
		outcomes, err := t.deliverAll(ctx, i, left)
		if err != nil {
			return err
		}
		var again []sdk.Event
		var why sdk.Outcome
		for n, o := range outcomes {
			if o.Result != sdk.ResultDelivered {
				e := left[n]
				e.Attempt++
				again, why = append(again, e), o
			}
		}
		if len(again) == 0 {
			return t.mustHaveArrived(events, atLeastOnce)
		}
		left = again
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%d of %d events are not delivered after %d attempts, the last is %s: %s", len(left), len(events), left[0].Attempt-1, why.Result, oneLine(why.Reason))
		}
	}
}

func destinationRejects(ctx context.Context, t *trial) error {
	i, _, o, err := t.answered(ctx, Reject)
	if err != nil {
		return err
	}
	switch o.Result {
	case sdk.ResultRejected:
	case sdk.ResultRetry:
		t.note = "retry: the lane keeps the event until give_up_after; say so to the users"
	default:
		return fmt.Errorf("the outcome is %s", o.Result)
	}
	return t.recovers(ctx, i, newEvents(1)[0])
}

func destinationThrottles(ctx context.Context, t *trial) error {
	i, event, o, err := t.answered(ctx, Throttle)
	switch {
	case err != nil:
		return err
	case o.Result != sdk.ResultThrottled:
		return fmt.Errorf("the outcome is %s: %s", o.Result, oneLine(o.Reason))
	case o.After < ThrottleWait-time.Second || o.After > ThrottleWait+time.Second:
		return fmt.Errorf("the destination asks for a wait of %s, and the outcome for one of %s", ThrottleWait, o.After)
	}
	return t.recovers(ctx, i, event)
}

func fails(b Behaviour) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		i, event, o, err := t.answered(ctx, b)
		if err != nil {
			return err
		}
		if o.Result != sdk.ResultRetry {
			return fmt.Errorf("the outcome is %s: %s", o.Result, oneLine(o.Reason))
		}
		return t.recovers(ctx, i, event)
	}
}

func destinationSlow(ctx context.Context, t *trial) error {
	_, event, o, err := t.answered(ctx, Slow)
	if err != nil {
		return err
	}
	if o.Result != sdk.ResultDelivered {
		return fmt.Errorf("the outcome is %s, and the destination has answered after %s: %s", o.Result, SlowAnswer, oneLine(o.Reason))
	}
	return t.mustHaveArrived([]sdk.Event{event}, exactlyOnce)
}

func lostReply(ctx context.Context, t *trial) error {
	i, event, o, err := t.answered(ctx, ResetAfter)
	if err != nil {
		return err
	}
	if o.Result != sdk.ResultRetry {
		return fmt.Errorf("the outcome is %s, and the connection broke before the answer: %s", o.Result, oneLine(o.Reason))
	}
	before, err := t.count(event.IdempotencyKey())
	if err != nil {
		return err
	}
	if before == 0 {
		return errors.New("the destination has taken the event and sees no idempotency key")
	}
	event.Attempt++
	if err := t.recovers(ctx, i, event); err != nil {
		return err
	}
	if after, err := t.count(event.IdempotencyKey()); err != nil || after <= before {
		return errors.Join(err, errors.New("the destination sees another idempotency key on the second attempt"))
	}
	return nil
}

func lossyDestination(ctx context.Context, t *trial) error {
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	if err := t.behave(Lossy); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for _, part := range split(newEvents(60), sdk.BatchLimits{Events: 10}) {
		if err := t.persist(limited, i, part); err != nil {
			return err
		}
	}
	return nil
}
