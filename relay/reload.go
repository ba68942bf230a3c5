package relay

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/pimrelay/pimrelay/relay/observe"
	"github.com/pimrelay/pimrelay/sdk"
)

// reloadKey is the warning about a configuration that could not be loaded.
const reloadKey = "reload"

// plan is what a reload changes. It is complete before anything is touched.
type plan struct {
	next       *Config
	changes    []string                 // for people
	sources    map[string]*source       // new or changed; nil: gone
	forwarders map[string]sdk.Forwarder // new or changed, configured; nil: gone
}

// Reload reads the configuration and puts into effect what has changed: the
// sources and forwarders concerned are stopped and started again at their
// places, all others go on, and the listener never closes. It returns what has
// changed. On an error everything stays as it was.
func (r *Relay) Reload(ctx context.Context) ([]string, error) {
	changes, err := r.reload(ctx)
	if err != nil {
		r.health.Warn(reloadKey, "the configuration was not reloaded, the last good one is in use: "+err.Error())
		r.Logger.Error("configuration not reloaded, the last good one is in use", "err", err)
		return nil, err
	}
	r.health.Clear(reloadKey)
	r.Logger.Info("configuration reloaded", "changes", strings.Join(changes, ", "))
	return changes, nil
}

func (r *Relay) reload(ctx context.Context) ([]string, error) {
	if r.Load == nil {
		return nil, errors.New("reloading is turned off")
	}
	select {
	case <-r.opened:
	default:
		return nil, errors.New("the daemon is still starting")
	}
	select { // one after the other
	case r.reloading <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another reload, or the shutdown: %w", ctx.Err())
	}
	defer func() { <-r.reloading }()
	// Nothing that is still being planned holds up the shutdown.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-r.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	next, err := r.Load()
	if err != nil {
		return nil, err
	}
	if fixed := needRestart(r.config(), next); len(fixed) > 0 {
		return nil, fmt.Errorf("%s changed, which needs a restart", strings.Join(fixed, ", "))
	}
	p, err := r.plan(ctx, next)
	if err != nil {
		return nil, err
	}
	// Whoever asked may go away: what has begun is brought to its end.
	return p.changes, r.carryOut(context.WithoutCancel(ctx), p)
}

// needRestart names the changed keys that a running daemon cannot change.
func needRestart(old, next *Config) (changed []string) {
	for _, key := range []struct {
		name      string
		old, next any
	}{
		{"data_dir", old.DataDir, next.DataDir},
		{"listen.address", old.Listen.Address, next.Listen.Address},
		{"listen.tls", old.Listen.TLS, next.Listen.TLS},
		{"the host of listen.public_url", certificateHost(old), certificateHost(next)},
		{"listen.max_body", old.Listen.MaxBody, next.Listen.MaxBody},
		{"listen.limits", old.Listen.Limits, next.Listen.Limits},
		{"journal", old.Journal, next.Journal},
		{"telemetry.address", old.Telemetry.Address, next.Telemetry.Address},
		{"log.format", old.Log.Format, next.Log.Format},
	} {
		if !reflect.DeepEqual(key.old, key.next) {
			changed = append(changed, key.name)
		}
	}
	return changed
}

// certificateHost is what the door's certificate is for, if it presents one.
func certificateHost(c *Config) string {
	if c.Listen.TLS.Mode == tlsOff {
		return ""
	}
	return c.Listen.host()
}

// plan makes everything that the next configuration needs.
func (r *Relay) plan(ctx context.Context, next *Config) (_ *plan, err error) {
	p := &plan{next: next, sources: make(map[string]*source), forwarders: make(map[string]sdk.Forwarder)}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.discard())
		}
	}()
	moved := r.config().Listen.PublicURL != next.Listen.PublicURL
	for name, change := range differences(r.config().Sources, next.Sources, func(old, next Source) bool {
		return reflect.DeepEqual(old, next) && !(moved && next.PIM != nil)
	}) {
		p.changes = append(p.changes, fmt.Sprintf("source %s %s", name, change))
		p.sources[name] = nil
		if change != removed {
			if p.sources[name], err = r.openSource(name, next); err != nil {
				return p, err
			}
		}
	}
	drain := r.config().DrainTimeout != next.DrainTimeout
	for name, change := range differences(r.config().Forwarders, next.Forwarders, func(old, next Forwarder) bool {
		return !drain && reflect.DeepEqual(old, next)
	}) {
		p.changes = append(p.changes, fmt.Sprintf("forwarder %s %s", name, change))
		p.forwarders[name] = nil
		if change != removed {
			if p.forwarders[name], err = r.newForwarder(ctx, name, next.Forwarders[name], next.Redact); err != nil {
				return p, fmt.Errorf("forwarder %q: %w", name, err)
			}
		}
	}
	// The plugins start side by side. One that is only to have another drain
	// time need not be up.
	for _, name := range sorted(p.forwarders) {
		if reflect.DeepEqual(r.config().Forwarders[name], next.Forwarders[name]) {
			continue
		}
		if err = starting(ctx, p.forwarders[name]); err != nil {
			return p, fmt.Errorf("forwarder %q: %w", name, err)
		}
	}
	if !reflect.DeepEqual(r.config().Listen.access(), next.Listen.access()) {
		p.changes = append(p.changes, "listen: who may deliver")
	}
	if r.config().Log.Level != next.Log.Level {
		p.changes = append(p.changes, "log.level "+next.Log.Level)
	}
	return p, nil
}

// discard closes what the plan has made.
func (p *plan) discard() error {
	var errs []error
	for _, f := range p.forwarders {
		if f != nil {
			errs = append(errs, closeForwarder(f))
		}
	}
	return errors.Join(errs...)
}

// carryOut puts the plan into effect. New forwarders get their places before
// anything else changes, and if that fails nothing does. The door accepts what
// is new before the platform is told of it.
func (r *Relay) carryOut(ctx context.Context, p *plan) error {
	fresh, err := r.openNewLanes(ctx, p)
	if err != nil {
		return err
	}
	var former []*source
	for _, name := range sorted(p.sources) {
		if old := r.sources.replace(name, p.sources[name], time.Now()); old != nil {
			former = append(former, old)
		}
	}
	r.door.SetAccess(p.next.Listen.access())
	errs := []error{r.openPaths()}
	for _, old := range former {
		old.stop()
	}
	for _, next := range p.sources {
		if next != nil {
			next.start(ctx, r.awaitCertificate)
		}
	}
	r.current.Store(p.next)
	for _, l := range fresh {
		l.start(ctx)
	}
	errs = append(errs, r.changeLanes(ctx, p), r.journal.Keep(ctx, sorted(p.next.Forwarders)))
	if r.Level != nil {
		if level, err := observe.ParseLevel(p.next.Log.Level); err == nil {
			r.Level.Set(level)
		}
	}
	select {
	case r.reloaded <- struct{}{}:
	default:
	}
	return errors.Join(errs...)
}

// openNewLanes makes the lanes of forwarders that were not there before, also
// under another name, and takes them out of the plan. If one fails everything is
// as it was, and the plan is discarded.
func (r *Relay) openNewLanes(ctx context.Context, p *plan) (fresh []*lane, err error) {
	var former []string // lanes that have ended because another takes their place
	for _, name := range sorted(p.forwarders) {
		if _, ok := r.lanes.get(name); ok || p.forwarders[name] == nil {
			continue
		}
		if old := p.next.Forwarders[name].RenamedFrom; r.endFormer(old, name, p) {
			former = append(former, old)
		}
		err := r.openLane(ctx, name, p.next, p.forwarders[name])
		delete(p.forwarders, name) // the lane has it, or it is closed
		if err != nil {
			return nil, errors.Join(fmt.Errorf("forwarder %q: %w", name, err), p.discard(), r.undo(ctx, fresh, former))
		}
		l, _ := r.lanes.get(name)
		fresh = append(fresh, l)
	}
	return fresh, nil
}

// endFormer ends the lane whose place the forwarder called name takes over, if
// there is one and it has left the configuration.
func (r *Relay) endFormer(old, name string, p *plan) bool {
	l, ok := r.lanes.get(old)
	if _, stays := p.next.Forwarders[old]; !ok || stays {
		return false
	}
	if err := l.stop(); err != nil {
		r.Logger.Warn("forwarder stopped with an error", "forwarder", old, "err", err)
	}
	r.lanes.renamed(old, name)
	delete(p.forwarders, old)
	return true
}

// undo takes back the lanes that a reload had made before it failed, and starts
// those again that had ended for them.
func (r *Relay) undo(ctx context.Context, fresh []*lane, former []string) error {
	var errs []error
	for _, l := range fresh {
		r.lanes.remove(l.Name)
		errs = append(errs, l.stop())
	}
	for _, name := range former {
		forwarder, err := r.newForwarder(ctx, name, r.config().Forwarders[name], r.config().Redact)
		if err == nil {
			err = r.openLane(ctx, name, r.config(), forwarder)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("forwarder %q does not run until the next restart: %w", name, err))
			continue
		}
		l, _ := r.lanes.get(name)
		l.start(ctx)
	}
	return errors.Join(append(errs, r.journal.Keep(ctx, sorted(r.config().Forwarders)))...)
}

// changeLanes stops the lanes that are in the plan, side by side, and starts
// those that have a forwarder there again at their places.
func (r *Relay) changeLanes(ctx context.Context, p *plan) error {
	names := sorted(p.forwarders)
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = r.changeLane(ctx, name, p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (r *Relay) changeLane(ctx context.Context, name string, p *plan) error {
	if l, ok := r.lanes.get(name); ok {
		if err := l.stop(); err != nil {
			r.Logger.Warn("forwarder stopped with an error", "forwarder", name, "err", err)
		}
		r.lanes.remove(name)
	}
	forwarder := p.forwarders[name]
	if forwarder == nil {
		r.lanes.forget(name)
		return nil
	}
	if err := r.openLane(ctx, name, p.next, forwarder); err != nil {
		return fmt.Errorf("forwarder %q: %w", name, err)
	}
	l, _ := r.lanes.get(name)
	l.start(ctx)
	return nil
}

const (
	added   = "added"
	changed = "changed"
	removed = "removed"
)

// differences says which entries of next are not as in old, and how.
func differences[V any](old, next map[string]V, same func(old, next V) bool) map[string]string {
	out := make(map[string]string)
	for name, value := range next {
		before, ok := old[name]
		switch {
		case !ok:
			out[name] = added
		case !same(before, value):
			out[name] = changed
		}
	}
	for name := range old {
		if _, ok := next[name]; !ok {
			out[name] = removed
		}
	}
	return out
}
