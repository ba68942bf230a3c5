package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// Options are what a lane needs besides its configuration.
type Options struct {
	// Name is the forwarder's name in the configuration file.
	Name string
	// Forwarder is configured already. The lane does not close it.
	Forwarder sdk.Forwarder
	Cursor    *journal.Cursor
	// Drain is how long Run waits, after its context has ended, for the
	// deliveries in hand.
	Drain   time.Duration
	Logger  *slog.Logger
	Metrics *Metrics
}

// Lane is one forwarder's road from the journal to its destination.
type Lane struct {
	Options
	config Config
	match  *match // nil: everything
	limits sdk.BatchLimits

	slots   chan struct{} // one element for each delivery that runs
	kick    chan struct{} // wakes the feeder after a settlement
	running sync.WaitGroup
	state   state
}

// fetchEvents is how many events a lane takes from the journal at once.
const fetchEvents = 256

// New makes a lane of a valid configuration.
func New(config Config, opt Options) (*Lane, error) {
	l := &Lane{
		Options: opt, config: config, limits: sdk.BatchLimits{Events: 1},
		slots: make(chan struct{}, config.MaxInFlight), kick: make(chan struct{}, 1),
	}
	if config.Match != "" {
		m, err := compileMatch(config.Match)
		if err != nil {
			return nil, fmt.Errorf("match: %w", err)
		}
		l.match = m
	}
	if batcher, ok := opt.Forwarder.(sdk.BatchLimiter); ok {
		l.limits = within(batcher.BatchLimits(), config.Batch)
	}
	l.Logger = opt.Logger.With("forwarder", opt.Name)
	return l, nil
}

// within is the smaller of what the forwarder takes and what the lane sends.
func within(limits sdk.BatchLimits, b Batch) sdk.BatchLimits {
	smaller := func(a, b int) int {
		if a == 0 {
			return b
		}
		return min(a, b)
	}
	return sdk.BatchLimits{Events: smaller(limits.Events, b.MaxEvents), Bytes: smaller(limits.Bytes, int(b.MaxBytes))}
}

// Run delivers until ctx ends, then waits for the deliveries in hand, at most
// for the drain time, after which they are cut off.
func (l *Lane) Run(ctx context.Context) error {
	// Deliveries outlive ctx by the drain time, so that shutting down does
	// not repeat what is nearly done.
	delivering, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	l.feed(ctx, delivering)
	timer := time.AfterFunc(l.Drain, cut)
	defer timer.Stop()
	l.running.Wait()
	return nil
}

// feed takes events from the journal and starts their deliveries, until ctx
// ends.
func (l *Lane) feed(ctx, delivering context.Context) {
	for ctx.Err() == nil {
		entries, err := l.Cursor.Next(ctx, time.Now(), fetchEvents)
		if err != nil && ctx.Err() == nil {
			l.Logger.Error("reading the journal failed, trying again in a second", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		if len(entries) == 0 {
			l.wait(ctx, l.retryTimer())
			continue
		}
		wanted := l.choose(entries)
		for len(wanted) > 0 {
			n := l.batch(wanted)
			select {
			case l.slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			l.running.Add(1)
			go l.deliver(delivering, wanted[:n:n])
			wanted = wanted[n:]
		}
	}
}

// wait returns when there may be something to do.
func (l *Lane) wait(ctx context.Context, timer <-chan time.Time) {
	select {
	case <-ctx.Done():
	case <-l.Cursor.Wake():
	case <-l.kick:
	case <-timer:
	}
}

// retryTimer fires when the next retry is due.
func (l *Lane) retryTimer() <-chan time.Time {
	due, ok := l.Cursor.NextRetry()
	if !ok {
		return nil
	}
	return time.After(time.Until(due))
}

// choose settles the entries that are damaged or do not match, and returns the
// others.
func (l *Lane) choose(entries []journal.Entry) []journal.Entry {
	wanted := entries[:0]
	var unmatched []int64
	for _, e := range entries {
		if e.Damaged != nil {
			l.bury(e, e.Attempts, e.Damaged.Error(), "")
			continue
		}
		if l.match == nil || e.Attempts > 0 { // what is tried again has matched before
			wanted = append(wanted, e)
			continue
		}
		matched, missing, err := l.match.matches(&e.Event)
		switch {
		case err != nil:
			l.bury(e, 0, err.Error(), "")
		case matched:
			wanted = append(wanted, e)
		default:
			unmatched = append(unmatched, e.Seq)
			l.Metrics.unmatched(l.Name, missing)
		}
	}
	if len(unmatched) > 0 {
		l.Cursor.Delivered(unmatched...)
	}
	return wanted
}

// batch is how many of the entries go into the next delivery.
func (l *Lane) batch(entries []journal.Entry) int {
	n, size := 1, len(entries[0].Event.Payload)
	for n < len(entries) && n < l.limits.Events {
		size += len(entries[n].Event.Payload)
		if l.limits.Bytes > 0 && size > l.limits.Bytes {
			break
		}
		n++
	}
	return n
}

// deliver makes one delivery and settles its events.
func (l *Lane) deliver(ctx context.Context, entries []journal.Entry) {
	defer l.running.Done()
	defer func() { <-l.slots }()
	events := make([]sdk.Event, len(entries))
	for i, e := range entries {
		events[i] = e.Event
		events[i].Attempt = e.Attempts + 1
	}
	began := time.Now()
	outcomes := l.call(ctx, events)
	l.Metrics.delivered(l.Name, time.Since(began))
	for i, e := range entries {
		outcome := sdk.Outcome{Reason: "the forwarder gave no outcome for the event"}
		if i < len(outcomes) {
			outcome = outcomes[i]
		}
		if ctx.Err() != nil && outcome.Result != sdk.ResultDelivered {
			continue // cut off at the end of the drain time: as if it had not been tried
		}
		l.settle(e, outcome, time.Now())
	}
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// call calls the forwarder with the lane's timeout. A panic is a Retry.
func (l *Lane) call(ctx context.Context, events []sdk.Event) (outcomes []sdk.Outcome) {
	ctx, cancel := context.WithTimeout(ctx, l.config.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			l.Logger.Error("the forwarder panicked", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			outcomes = sdk.Each(len(events), sdk.Retry(0, fmt.Errorf("the forwarder panicked: %v", p)))
		}
	}()
	outcomes = l.Forwarder.Deliver(ctx, events)
	if len(outcomes) != len(events) {
		l.Logger.Warn("the forwarder gave another number of outcomes than events", "events", len(events), "outcomes", len(outcomes))
	}
	return outcomes
}
