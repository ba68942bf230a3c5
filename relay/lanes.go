package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pimrelay/pimrelay/relay/dispatch"
	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/relay/observe"
	"github.com/pimrelay/pimrelay/sdk"
)

// lane is a lane with the forwarder that it owns.
type lane struct {
	*dispatch.Lane
	forwarder sdk.Forwarder
}

// openLanes gives every forwarder its place in the journal, durably.
func (r *Relay) openLanes(ctx context.Context) error {
	metrics := dispatch.NewMetrics(r.registry)
	for _, name := range sorted(r.config.Forwarders) {
		l, err := r.openLane(ctx, name, metrics)
		if err != nil {
			return errors.Join(fmt.Errorf("forwarder %q: %w", name, err), r.closeForwarders(ctx))
		}
		r.lanes = append(r.lanes, l)
	}
	return nil
}

func (r *Relay) openLane(ctx context.Context, name string, metrics *dispatch.Metrics) (*lane, error) {
	cfg := r.config.Forwarders[name]
	cursor, err := r.journal.Cursor(ctx, name, journal.Start{Beginning: cfg.StartFrom == "beginning"})
	if err != nil {
		return nil, err
	}
	forwarder, err := newForwarder(ctx, cfg, r.Builtin, r.Logger.With("forwarder", name, "plugin", cfg.Plugin))
	if err != nil {
		return nil, err
	}
	l, err := dispatch.New(cfg, dispatch.Options{
		Name: name, Forwarder: forwarder, Cursor: cursor, Drain: r.config.DrainTimeout, Logger: r.Logger, Metrics: metrics,
	})
	if err != nil {
		return nil, errors.Join(err, forwarder.Close(ctx))
	}
	return &lane{Lane: l, forwarder: forwarder}, nil
}

// runLanes runs all lanes and closes their forwarders when they have ended.
func (r *Relay) runLanes(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, len(r.lanes))
	for i, l := range r.lanes {
		wg.Go(func() { errs[i] = l.Run(ctx) })
	}
	wg.Wait()
	return errors.Join(errors.Join(errs...), r.closeForwarders(ctx))
}

// laneWarnings are what the lanes have to complain of at the moment.
func (r *Relay) laneWarnings() []observe.Warning {
	var all []observe.Warning
	for _, l := range r.lanes {
		if s := l.Status(); s.Failing {
			all = append(all, observe.Warning{
				Key: "forwarders." + s.Name, Message: fmt.Sprintf("deliveries fail, %d events wait: %s", s.Backlog, s.LastError), Since: s.FailingSince.UTC(),
			})
		}
	}
	return all
}

// closeTimeout bounds the closing of forwarders.
const closeTimeout = 5 * time.Second

// closeForwarders closes them side by side.
func (r *Relay) closeForwarders(ctx context.Context) error {
	// The daemon is going down, ctx may have ended: closing gets its time.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, len(r.lanes))
	for i, l := range r.lanes {
		wg.Go(func() {
			if err := l.forwarder.Close(ctx); err != nil {
				errs[i] = fmt.Errorf("close forwarder %q: %w", l.Name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
