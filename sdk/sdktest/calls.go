package sdktest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

var callCases = []Case{
	{"concurrent-calls", "delivers in several calls at once", concurrentCalls},
	{"expired-call", "returns at once from a call whose time is over already", expiredCall},
	{"deadline", "returns when the call's time is over, although the destination hangs", deadline},
	{"cancellation", "returns when the call is cancelled, although the destination hangs", cancellation},
	{"drain", "has made durable what it has delivered when Close returns", drain},
	{"restart", "works again with the same configuration after Close", restart},
	{"health", "tells of its destination's health, if it says that it can", health},
}

const (
	// callTime is how long a call against a hanging destination may take.
	callTime = 300 * time.Millisecond
	// soon is how late a call may return. The relay waits for half a second
	// for a plugin's answer beyond the time of a delivery.
	soon = 450 * time.Millisecond
	// tries are made before a call counts as late, because a busy machine can
	// be late, too.
	tries = 3
)

// returns makes a call of Deliver with ctx, which ends after callTime at the
// latest, and wants it to return soon after with a Retry.
func (t *trial) returns(ctx context.Context, i *instance) error {
	began := time.Now()
	outcomes, err := t.deliver(ctx, i, newEvents(1))
	if err != nil {
		return err
	}
	late := time.Since(began) - callTime
	switch o := outcomes[0]; {
	case o.Result != sdk.ResultRetry:
		return fmt.Errorf("the outcome is %s, and must be retry, for the destination has not answered", o.Result)
	case late > soon:
		return fmt.Errorf("Deliver has returned %s after the end of its context", late.Round(10*time.Millisecond))
	}
	return nil
}

// eventually does what depends on the time that things take, again if need be.
func eventually(ctx context.Context, work func() error) (err error) {
	for range tries {
		if err = work(); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func deadline(ctx context.Context, t *trial) error {
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	if err := t.behave(Hang); err != nil {
		return err
	}
	return eventually(ctx, func() error {
		limited, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		return t.returns(limited, i)
	})
}

// cancellation closes the forwarder, too: one behind a connection would
// otherwise not show that it goes on working at a call that nobody waits for.
func cancellation(ctx context.Context, t *trial) error {
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	if err := t.behave(Hang); err != nil {
		return err
	}
	err = eventually(ctx, func() error {
		cancelled, cancel := context.WithCancel(ctx)
		timer := time.AfterFunc(callTime, cancel)
		defer timer.Stop()
		defer cancel()
		return t.returns(cancelled, i)
	})
	if err != nil {
		return err
	}
	closing, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := t.shut(closing, i); err != nil {
		return fmt.Errorf("after a call was cancelled: %w", err)
	}
	return nil
}

func expiredCall(ctx context.Context, t *trial) error {
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	return eventually(ctx, func() error {
		expired, cancel := context.WithDeadline(ctx, time.Now())
		defer cancel()
		began, events := time.Now(), newEvents(1)
		outcomes, err := t.deliver(expired, i, events)
		took := time.Since(began)
		switch {
		case err != nil:
			return err
		case took > soon:
			return fmt.Errorf("Deliver has returned after %s", took.Round(10*time.Millisecond))
		case outcomes[0].Result == sdk.ResultRejected:
			return fmt.Errorf("an event that there was no time for is rejected: %s", oneLine(outcomes[0].Reason))
		case outcomes[0].Result == sdk.ResultDelivered:
			return t.mustHaveArrived(events, exactlyOnce)
		}
		return nil
	})
}

const (
	callers        = 8
	callsPerCaller = 10
)

func concurrentCalls(ctx context.Context, t *trial) error {
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	size := 1
	if i.description.Limits.Events != 1 {
		size = 5
	}
	problems := make([]error, callers)
	events := newEvents(callers * callsPerCaller * size)
	var wg sync.WaitGroup
	for caller, share := range split(events, sdk.BatchLimits{Events: callsPerCaller * size}) {
		wg.Go(func() {
			for _, part := range split(share, sdk.BatchLimits{Events: size}) {
				if problems[caller] = t.mustSay(ctx, i, part...); problems[caller] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if err := first(problems); err != nil {
		return err
	}
	return t.mustHaveArrived(events, exactlyOnce)
}

// first is the first of the errors: the others are mostly the same.
func first(problems []error) error {
	for _, err := range problems {
		if err != nil {
			return err
		}
	}
	return nil
}

// drain closes a forwarder as soon as its deliveries have returned, or in their
// midst if it is behind a connection.
func drain(ctx context.Context, t *trial) error {
	if err := t.behave(Slow); err != nil && t.behave(Accept) != nil {
		return err
	}
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	_, remote := i.Forwarder.(Remote)
	results := make([][]sdk.Outcome, callers)
	problems := make([]error, callers)
	events := newEvents(callers)
	var wg sync.WaitGroup
	for n := range callers {
		wg.Go(func() { results[n], problems[n] = t.deliver(ctx, i, events[n:n+1]) })
	}
	if !remote {
		wg.Wait()
	} else if err := t.await(ctx, events); err != nil {
		return err
	}
	closing := t.shut(ctx, i)
	wg.Wait()
	if err := errors.Join(closing, first(problems)); err != nil {
		return err
	}
	var delivered []sdk.Event
	for n, result := range results {
		if result[0].Result == sdk.ResultDelivered {
			delivered = append(delivered, events[n])
		}
	}
	if len(delivered) == 0 {
		return fmt.Errorf("no delivery came to its end: %s", oneLine(results[0][0].Reason))
	}
	t.note = fmt.Sprintf("%d of %d calls came to their end", len(delivered), callers)
	return t.mustHaveArrived(delivered, atLeastOnce)
}

// await waits until one of the events has arrived.
func (t *trial) await(ctx context.Context, events []sdk.Event) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for n := range events {
			if count, err := t.count(events[n].IdempotencyKey()); err != nil || count > 0 {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("no event has arrived")
		}
	}
}

func restart(ctx context.Context, t *trial) error {
	for range 3 {
		i, err := t.start(ctx)
		if err != nil {
			return err
		}
		if err := t.mustDeliver(ctx, i, newEvents(2)...); err != nil {
			return err
		}
		if err := t.shut(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func health(ctx context.Context, t *trial) error {
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	checker, ok := i.Forwarder.(sdk.HealthChecker)
	if !i.description.Health || !ok {
		return leftOut("it does not tell of its destination's health")
	}
	ask := func() (problem, err error) {
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return call(limited, "Health", func() error { return checker.Health(limited) })
	}
	problem, err := ask()
	if err != nil {
		return err
	}
	if t.Destination == nil {
		t.note = "healthy"
		if problem != nil {
			t.note = oneLine(problem.Error())
		}
		return nil
	}
	if problem != nil {
		return fmt.Errorf("the destination is there, and Health says: %s", oneLine(problem.Error()))
	}
	if t.behave(Gone) != nil {
		return nil
	}
	if problem, err = ask(); err == nil && problem == nil {
		err = errors.New("the destination has gone, and Health says nothing")
	}
	return err
}
