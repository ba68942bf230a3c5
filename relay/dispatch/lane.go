package dispatch

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// Options are what a lane needs besides its configuration.
type Options struct {
	// Name is the forwarder's name in the configuration file.
	Name string
	// Plugin is what the forwarder is called, for people.
	Plugin string
	// Forwarder is configured already; it may be a [Plugin]. The lane does
	// not close it.
	Forwarder sdk.Forwarder
	// Cursor was opened for this lane: what an earlier lane had in hand is
	// due again.
	Cursor *journal.Cursor
	// Drain is how long Run waits, after its context has ended, for the
	// deliveries in hand.
	Drain   time.Duration
	Logger  *slog.Logger
	Metrics *Metrics
}

// Lane is one forwarder's road from the journal to its destination. Its
// configuration does not change: for another one, end Run, open the cursor
// again and make a new Lane, which begins where this one ended.
type Lane struct {
	Options
	config  Config
	shaper  *shaper
	plugin  Plugin // the forwarder, if it is one; or nil
	metrics *laneMetrics

	paused atomic.Bool
	kick   chan struct{} // wakes the lane when it was paused or resumed
	state  state
}

// New makes a lane of a configuration. Its error is sdk.Faults.
func New(config Config, opt Options) (*Lane, error) {
	shaper, faults := config.compile()
	if len(faults) > 0 {
		return nil, faults
	}
	l := &Lane{
		Options: opt, config: config, shaper: shaper,
		metrics: opt.Metrics.lane(opt.Name), kick: make(chan struct{}, 1),
	}
	l.plugin, _ = opt.Forwarder.(Plugin)
	l.Logger = opt.Logger.With("forwarder", opt.Name)
	return l, nil
}

// limits are those of one call, as the forwarder gives them at the moment.
func (l *Lane) limits() sdk.BatchLimits {
	limits := sdk.BatchLimits{Events: 1}
	if batcher, ok := l.Forwarder.(sdk.BatchLimiter); ok {
		limits = within(batcher.BatchLimits(), l.config.Batch)
	}
	if l.config.Rate != nil {
		limits.Events = min(limits.Events, l.config.Rate.burst())
	}
	return limits
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

// Pause lets the deliveries in hand end and starts no further ones until
// Resume. It may be called before Run, and is forgotten with the lane. The time
// does not count towards giving up.
func (l *Lane) Pause() { l.setPaused(true) }

// Resume ends a Pause.
func (l *Lane) Resume() { l.setPaused(false) }

func (l *Lane) setPaused(paused bool) {
	l.paused.Store(paused)
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends, then waits for the deliveries in hand, at most
// for the drain time, after which they are cut off. It returns an error if the
// forwarder does not return from them even then. What was not settled is due
// again when the cursor is opened again. Run is called once.
func (l *Lane) Run(ctx context.Context) error {
	// Deliveries outlive ctx by the drain time, so that shutting down does
	// not repeat what is nearly done.
	calls, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	r := newRunning(l, calls)
	read := make(chan struct{})
	go func() {
		defer close(read)
		l.read(ctx, r.requests, r.replies)
	}()
	r.loop(ctx)
	err := r.drain(cut)
	close(r.requests)
	<-read
	r.flush()
	r.show()
	return err
}
