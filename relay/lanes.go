package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pimrelay/pimrelay/relay/dispatch"
	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/relay/observe"
	"github.com/pimrelay/pimrelay/relay/pluginhost"
	"github.com/pimrelay/pimrelay/sdk"
)

// lane is a lane with the forwarder that it owns. It runs until stop.
type lane struct {
	*dispatch.Lane
	config    Forwarder
	forwarder sdk.Forwarder
	cancel    context.CancelFunc // nil until started
	done      chan struct{}      // closed when Run and Close have returned
	err       error              // of Run and Close; set before done is closed
}

// lanes are the lanes that run at the moment. Its methods may be called
// concurrently, but for add and remove of the same name.
type lanes struct {
	mu     sync.Mutex
	all    map[string]*lane // guarded by mu, as below
	paused map[string]bool  // by name; outlives a lane that a reload replaces
}

func (s *lanes) add(name string, l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[name] = l
	l.setPaused(s.paused[name])
}

// setPaused pauses or resumes the lane of that name, and reports whether there
// is one.
func (s *lanes) setPaused(name string, paused bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.all[name]
	if ok {
		s.paused[name] = paused
		l.setPaused(paused)
	}
	return ok
}

// forget ends the memory of a forwarder that has left the configuration.
func (s *lanes) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.paused, name)
}

// renamed removes the lane and leaves its pause to its successor.
func (s *lanes) renamed(old, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, old)
	s.paused[name] = s.paused[old]
}

func (l *lane) setPaused(paused bool) {
	if paused {
		l.Pause()
	} else {
		l.Resume()
	}
}

func (s *lanes) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, name)
}

func (s *lanes) get(name string) (*lane, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.all[name]
	return l, ok
}

// list is sorted by name.
func (s *lanes) list() []*lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*lane, 0, len(s.all))
	for _, l := range s.all {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *lane) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// warnings are what the lanes have to complain of at the moment.
func (s *lanes) warnings() []observe.Warning {
	var all []observe.Warning
	for _, l := range s.list() {
		status := l.Status()
		warning := observe.Warning{Key: "forwarders." + status.Name, Since: status.FailingSince.UTC()}
		plugin, isPlugin := l.forwarder.(*pluginhost.Plugin)
		switch {
		case isPlugin && plugin.Status().Troubled():
			trouble := plugin.Status()
			warning.Since = trouble.Since.UTC()
			warning.Message = fmt.Sprintf("%s, %d events wait", trouble, status.Backlog)
		case status.Breaker != "closed":
			warning.Since = status.BreakerSince.UTC()
			warning.Message = fmt.Sprintf("the breaker is %s, %d events wait: %s", status.Breaker, status.Backlog, status.BreakerReason)
		case status.Failing:
			warning.Message = fmt.Sprintf("deliveries fail, %d events wait: %s", status.Backlog, status.LastError)
		default:
			continue
		}
		all = append(all, warning)
	}
	return all
}

// openLanes gives every forwarder its place in the journal, durably.
func (r *Relay) openLanes(ctx context.Context) error {
	for _, name := range sorted(r.config().Forwarders) {
		cfg := r.config().Forwarders[name]
		forwarder, err := r.newForwarder(ctx, name, cfg, r.config().Redact)
		if err == nil {
			err = r.openLane(ctx, name, r.config(), forwarder)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("forwarder %q: %w", name, err), r.stopLanes())
		}
	}
	return nil
}

// openLane makes a lane, which is not started. It owns the forwarder, also if it
// fails.
func (r *Relay) openLane(ctx context.Context, name string, config *Config, forwarder sdk.Forwarder) error {
	cfg := config.Forwarders[name]
	cursor, err := r.journal.Cursor(ctx, name, cfg.Start())
	if err != nil {
		return errors.Join(err, closeForwarder(forwarder))
	}
	l, err := dispatch.New(cfg.Config, dispatch.Options{
		Name: name, Plugin: cfg.label(), Forwarder: forwarder, Cursor: cursor, Drain: config.DrainTimeout, Logger: r.Logger, Metrics: r.laneMetrics,
	})
	if err != nil {
		return errors.Join(err, closeForwarder(forwarder))
	}
	cursor.SetLimits(journal.CursorLimits{
		BacklogAge: cfg.Backlog.MaxAge, BacklogSize: cfg.Backlog.MaxSize, Refuse: cfg.Backlog.Overflow == "refuse",
		DeadLetterAge: cfg.DeadLetters.MaxAge, DeadLetterSize: cfg.DeadLetters.MaxSize, Wants: l.Wants,
	})
	r.lanes.add(name, &lane{Lane: l, config: cfg, forwarder: forwarder, done: make(chan struct{})})
	return nil
}

// start runs the lane until stop, whatever becomes of ctx.
func (l *lane) start(ctx context.Context) {
	ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(l.done)
		l.err = errors.Join(l.Run(ctx), closeForwarder(l.forwarder))
	}()
}

// stop ends the lane, which takes at most its drain time and a little, and
// closes its forwarder.
func (l *lane) stop() error {
	if l.cancel == nil {
		return closeForwarder(l.forwarder) // never started
	}
	l.cancel()
	<-l.done
	return l.err
}

// closeTimeout bounds the closing of a forwarder.
const closeTimeout = 5 * time.Second

func closeForwarder(f sdk.Forwarder) error {
	// What uses the forwarder is going down: closing gets a time of its own.
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := f.Close(ctx); err != nil {
		return fmt.Errorf("close forwarder: %w", err)
	}
	return nil
}

// holdLanes stops all lanes when ctx ends.
func (r *Relay) holdLanes(ctx context.Context) error {
	<-ctx.Done()
	close(r.stopping)
	r.reloading <- struct{}{} // a reload under way ends first, and none follows
	return r.stopLanes()
}

// stopLanes stops all lanes side by side.
func (r *Relay) stopLanes() error {
	all := r.lanes.list()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, l := range all {
		wg.Go(func() {
			if err := l.stop(); err != nil {
				errs[i] = fmt.Errorf("forwarder %q: %w", l.Name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
