package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pimrelay/pimrelay/relay/admin"
	"github.com/pimrelay/pimrelay/relay/akeneo"
	"github.com/pimrelay/pimrelay/relay/dispatch"
	"github.com/pimrelay/pimrelay/relay/edge"
	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/relay/observe"
	"github.com/pimrelay/pimrelay/relay/subscription"
)

// Options are what the daemon gets from the program around it.
type Options struct {
	// Version is shown in status, metrics and logs.
	Version string
	Logger  *slog.Logger
	// Builtin makes the forwarders.
	Builtin Builtin
	// Listener, if not nil, is used instead of opening listen.address; Run
	// closes it.
	Listener net.Listener
}

// Relay is the daemon.
type Relay struct {
	Options
	config   Config
	registry *prometheus.Registry
	health   *observe.Health
	started  time.Time
	opened   chan struct{} // closed when the door is open and what follows is set

	door      net.Addr
	telemetry string
	journal   *journal.Journal
	keepers   map[string]*subscription.Keeper
	lanes     []*lane
}

// New makes a daemon of a configuration that Load has checked. It opens
// nothing.
func New(cfg *Config, opt Options) *Relay {
	registry := observe.NewRegistry(opt.Version)
	return &Relay{
		Options: opt, config: *cfg, registry: registry, health: observe.NewHealth(registry), started: time.Now().UTC(),
		opened: make(chan struct{}),
	}
}

// Opened is closed when the door is open: every event acknowledged from then on
// is in the journal and before every forwarder.
func (r *Relay) Opened() <-chan struct{} { return r.opened }

// Run runs the daemon until ctx ends, and then shuts down against the flow of
// the events: the lanes finish what they have in hand while the door still
// answers, then the door closes, then the journal. It returns an error if the
// daemon cannot start, or a part of it fails.
func (r *Relay) Run(ctx context.Context) (err error) {
	if r.journal, err = journal.Open(ctx, r.config.DataDir, journal.Options{Logger: r.Logger, Registerer: r.registry}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.journal.Close()) }()
	receivers, err := r.openSources()
	if err != nil {
		return err
	}
	if err := r.openLanes(ctx); err != nil {
		return err
	}
	listener, door, err := r.openDoor(ctx, receivers)
	if err != nil {
		return errors.Join(err, r.closeForwarders(ctx))
	}
	parts, err := r.signals()
	if err != nil {
		return errors.Join(err, listener.Close(), r.closeForwarders(ctx))
	}
	r.health.SetReady(true, "")
	close(r.opened)
	r.Logger.Info("the door is open", "address", listener.Addr().String(), "tls", r.config.Listen.TLS.Mode, "public_url", r.config.Listen.PublicURL)
	parts = append([]part{
		{"lanes", r.runLanes},
		{"door", func(ctx context.Context) error {
			defer r.health.SetReady(false, "the daemon is shutting down")
			return door.Serve(ctx, listener)
		}},
		{"subscriptions", r.keepSubscriptions},
	}, parts...)
	err = runParts(ctx, r.Logger, parts)
	r.Logger.Info("the door is closed")
	return err
}

// openDoor makes the server and its listener. The order matters: before the
// first delivery is acknowledged, every forwarder has its place.
func (r *Relay) openDoor(ctx context.Context, receivers map[string]*akeneo.Receiver) (net.Listener, *edge.Server, error) {
	options := edge.Options{
		Acceptor: newAcceptor(receivers, r.journal, r.health, r.Logger, r.registry),
		Signed:   akeneo.Signed, MaxBody: int64(r.config.Listen.MaxBody), Logger: r.Logger, Registerer: r.registry,
	}
	var err error
	if tls := r.config.Listen.TLS; tls.Mode == "files" {
		if options.TLS, err = edge.LoadTLS(tls.Certificate, tls.Key); err != nil {
			return nil, nil, err
		}
	}
	door, err := edge.New(options)
	if err != nil {
		return nil, nil, err
	}
	var routes []edge.Route
	for _, name := range sorted(r.config.Sources) {
		routes = append(routes, edge.Route{Path: r.config.Sources[name].Path, Source: name})
	}
	if err := door.SetRoutes(routes); err != nil {
		return nil, nil, err
	}
	listener := r.Listener
	if listener == nil {
		if listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", r.config.Listen.Address); err != nil {
			return nil, nil, fmt.Errorf("open listen.address: %w", err)
		}
	}
	r.door = listener.Addr()
	return listener, door, nil
}

// signals opens what shows the daemon to others: the admin socket, and probes
// with metrics.
func (r *Relay) signals() ([]part, error) {
	socket, err := admin.Listen(r.config.DataDir)
	if err != nil {
		return nil, err
	}
	server := admin.Server{Status: r.Status, Logger: r.Logger}
	parts := []part{{"admin socket", func(ctx context.Context) error { return server.Serve(ctx, socket) }}}
	if r.config.Telemetry.Address == "" {
		return parts, nil
	}
	listener, err := net.Listen("tcp", r.config.Telemetry.Address)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open telemetry.address: %w", err), socket.Close())
	}
	r.telemetry = listener.Addr().String()
	telemetry := observe.Telemetry{Health: r.health, Warnings: r.laneWarnings, Gatherer: r.registry, Logger: r.Logger}
	return append(parts, part{"telemetry", func(ctx context.Context) error { return telemetry.Serve(ctx, listener) }}), nil
}

// Status describes the daemon. It may be called as soon as Opened is closed.
func (r *Relay) Status() admin.Status {
	ready, reason := r.health.Ready()
	s := admin.Status{
		Version: r.Version, Started: r.started, Ready: ready, Reason: reason,
		Door:      admin.Door{Address: r.door.String(), PublicURL: r.config.Listen.PublicURL, TLS: r.config.Listen.TLS.Mode},
		Journal:   admin.Journal{Head: r.journal.Head(), Duplicates: r.journal.Duplicates(), DiskBytes: r.journal.DiskBytes()},
		Telemetry: r.telemetry,
		Warnings:  []admin.Warning{},
	}
	for _, name := range sorted(r.config.Sources) {
		s.Sources = append(s.Sources, r.sourceStatus(name))
	}
	for _, l := range r.lanes {
		s.Forwarders = append(s.Forwarders, forwarderStatus(l.Status()))
	}
	for _, w := range append(r.health.Warnings(), r.laneWarnings()...) {
		s.Warnings = append(s.Warnings, admin.Warning{Key: w.Key, Message: w.Message, Since: w.Since})
	}
	return s
}

func forwarderStatus(l dispatch.Status) admin.Forwarder {
	return admin.Forwarder{
		Name: l.Name, Plugin: l.Plugin, Backlog: l.Backlog, Retrying: l.Retrying, DeadLetters: l.DeadLetters,
		Delivered: l.Delivered, LastDelivered: l.LastDelivered, Failing: l.Failing, LastError: l.LastError, LastErrorAt: l.LastErrorAt,
	}
}
