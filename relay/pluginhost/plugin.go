package pluginhost

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/wire"
)

// Options are what a plugin needs besides its configuration.
type Options struct {
	// Name is the forwarder's name in the configuration file.
	Name string
	// Directory is where sockets go: see [Directory].
	Directory string
	// Logger gets the plugin's log, too. It should carry the attributes
	// forwarder and plugin.
	Logger  *slog.Logger
	Metrics *Metrics
	// Redact, if not nil, takes out of a text what else must not be shown.
	Redact func(string) string
	// Pace, if not zero, replaces the times in which the plugin is watched.
	Pace Pace
}

// Pace is how quickly a plugin is watched and started again.
type Pace struct {
	// Look is the time between two looks at the process's memory, Ask
	// between two questions whether it answers, Patience how long an answer
	// may take.
	Look, Ask, Patience time.Duration
	// Again is the wait before the process is started again that has failed;
	// it doubles with each failure up to MaxAgain. A process that has lived
	// for MaxAgain begins anew.
	Again, MaxAgain time.Duration
}

var usualPace = Pace{Look: time.Second, Ask: 5 * time.Second, Patience: 10 * time.Second, Again: 250 * time.Millisecond, MaxAgain: time.Minute}

// Plugin is a forwarder in another process. It is an [sdk.Forwarder] that
// supervises that process from Configure to Close: while it does not run, calls
// come back at once and say so.
type Plugin struct {
	Options
	process   Process
	allowance *allowance
	config    json.RawMessage // set by Configure

	stop    context.CancelFunc // ends supervise
	done    chan struct{}      // closed when supervise has returned; nil before Configure
	first   chan struct{}      // closed after the first start
	changed chan struct{}

	secrets atomic.Pointer[redactor]
	current atomic.Pointer[endpoint] // nil while the plugin takes no calls
	closing atomic.Bool

	mu       sync.Mutex
	status   Status // guarded by mu, as below
	firstErr error  // of the first start; set before first is closed
}

// Status is a plugin at one moment.
type Status struct {
	// Up says that the plugin takes calls, and Since when this is as it is;
	// Reason why it does not, or has failed last.
	Up     bool
	Reason string
	Since  time.Time
	// Failures counts the times in a row that it has failed, without having
	// lived for long in between; NextStart is
	// when it is started again, zero while it runs.
	Failures  int
	NextStart time.Time
	// PID is the process's, 0 if there is none or it is a service.
	PID int
	// Description is what the plugin has said of itself last.
	Description wire.Description
}

// Troubled reports whether the plugin deserves a look: it does not run, although
// it has had its chance, or it fails again and again.
func (s Status) Troubled() bool { return s.Failures > 0 && !s.Up || s.Failures >= troubling }

// troubling is how many failures in a row are no accident.
const troubling = 3

// String says in one line how the plugin is.
func (s Status) String() string {
	times := ""
	if s.Failures > 1 {
		times = fmt.Sprintf(", %d times in a row", s.Failures)
	}
	switch {
	case s.Up && s.Failures > 0:
		return fmt.Sprintf("the plugin runs, but has failed%s: %s", times, s.Reason)
	case s.Up:
		return "the plugin runs"
	}
	return fmt.Sprintf("the plugin does not run%s: %s", times, s.Reason)
}

// notYet is the reason before the first start.
const notYet = "it is being started"

// New makes a plugin that runs as process says, which has been validated. It
// starts nothing.
func New(process Process, opt Options) *Plugin {
	opt.Pace = Pace{
		Look: cmp.Or(opt.Pace.Look, usualPace.Look), Ask: cmp.Or(opt.Pace.Ask, usualPace.Ask), Patience: cmp.Or(opt.Pace.Patience, usualPace.Patience),
		Again: cmp.Or(opt.Pace.Again, usualPace.Again), MaxAgain: cmp.Or(opt.Pace.MaxAgain, usualPace.MaxAgain),
	}
	if opt.Metrics == nil {
		opt.Metrics = NewMetrics(nil)
	}
	return &Plugin{
		Options: opt, process: process, allowance: newAllowance(), first: make(chan struct{}), changed: make(chan struct{}, 1),
		status: Status{Reason: notYet, Since: time.Now(), Description: wire.Description{Limits: sdk.BatchLimits{Events: 1}}},
	}
}

// Configure starts the plugin and goes on starting it until Close, and does not
// wait: what the plugin says to its configuration, [Plugin.Started] tells.
func (p *Plugin) Configure(ctx context.Context, config json.RawMessage) error {
	if p.done != nil {
		return errors.New("the plugin is configured already")
	}
	p.config = config
	p.secrets.Store(newRedactor(p.process.Limits, nil, config, p.Redact))
	// The plugin runs until Close, whatever becomes of ctx.
	ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		p.supervise(ctx)
	}()
	return nil
}

// Started waits for the first start of the plugin and returns its error: that
// is [sdk.Faults] if the plugin refuses its configuration.
func (p *Plugin) Started(ctx context.Context) error {
	select {
	case <-p.first:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.firstErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Attempt is Deliver, but tells of the plugin's own failures. With an error the
// outcomes are those of the first events; the others were not delivered as far
// as anybody knows, because the plugin does not run, or has ended or hangs:
// inHand says that it had them.
func (p *Plugin) Attempt(ctx context.Context, events []sdk.Event) (outcomes []sdk.Outcome, inHand bool, err error) {
	e := p.current.Load()
	if e == nil {
		return nil, false, errors.New(cmp.Or(p.Down(), "the plugin does not run"))
	}
	e.calls.RLock()
	outcomes, err = e.Deliver(ctx, events)
	e.calls.RUnlock()
	p.secrets.Load().outcomes(outcomes)
	var lost *wire.LostError
	if !errors.As(err, &lost) {
		e.served.Store(true)
		return outcomes, false, err
	}
	cause, gone := p.examine(e, lost)
	cause = p.secrets.Load().err(cause)
	if gone {
		return outcomes, lost.InHand, cause
	}
	// A plugin that is alive has answered, if strangely or too late.
	rest := sdk.Each(len(events)-len(outcomes), sdk.Retry(0, cause))
	return append(outcomes, rest...), false, nil
}

// examine finds out whether a plugin has gone of which a call was lost, and why.
// It takes no longer than a plugin may take to answer, whatever time the call
// itself has left.
func (p *Plugin) examine(e *endpoint, lost *wire.LostError) (cause error, gone bool) {
	if e.alive(context.Background(), min(p.Pace.Patience, aliveWithin)) == nil && p.current.Load() == e {
		return lost, false
	}
	settled := p.suspend(e, lost)
	if !lost.InHand {
		return lost, true
	}
	select {
	case <-settled:
	case <-time.After(p.Pace.Patience + time.Second):
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case e.failure != nil:
		return e.failure, true
	case p.current.Load() == e:
		return lost, false
	}
	return lost, true
}

// aliveWithin is how long a plugin may take to show that it is alive before no
// further calls are let through.
const aliveWithin = time.Second

// Deliver is Attempt for whoever does not need to know more: events that the
// plugin could not take are a Retry.
func (p *Plugin) Deliver(ctx context.Context, events []sdk.Event) []sdk.Outcome {
	outcomes, _, err := p.Attempt(ctx, events)
	if err != nil {
		outcomes = append(outcomes, sdk.Each(len(events)-len(outcomes), sdk.Retry(0, err))...)
	}
	return outcomes
}

// BatchLimits are those that the plugin has announced last; one event before
// it has.
func (p *Plugin) BatchLimits() sdk.BatchLimits { return p.Status().Description.Limits }

// Health asks the plugin for the health of its destination.
func (p *Plugin) Health(ctx context.Context) error {
	e := p.current.Load()
	if e == nil {
		return errors.New(p.Down())
	}
	return p.secrets.Load().err(e.Health(ctx))
}

// Down is why the plugin takes no calls, or empty if it does.
func (p *Plugin) Down() string {
	if s := p.Status(); !s.Up {
		return s.String()
	}
	return ""
}

// Changed receives after Down has changed. It is for one receiver.
func (p *Plugin) Changed() <-chan struct{} { return p.changed }

// Status describes the plugin.
func (p *Plugin) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Close lets the plugin finish what it has in hand and close its forwarder, at
// most until ctx is done, and ends the process.
func (p *Plugin) Close(ctx context.Context) error {
	if p.done == nil {
		return nil
	}
	p.closing.Store(true)
	var err error
	if e := p.current.Swap(nil); e != nil {
		err = e.finish(ctx)
	}
	p.stop()
	<-p.done
	return p.secrets.Load().err(err)
}

func (p *Plugin) level() slog.Level {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if p.Logger.Enabled(context.Background(), level) {
			return level
		}
	}
	return slog.LevelError
}
