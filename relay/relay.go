package relay

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pimrelay/pimrelay/relay/admin"
	"github.com/pimrelay/pimrelay/relay/akeneo"
	"github.com/pimrelay/pimrelay/relay/config"
	"github.com/pimrelay/pimrelay/relay/dispatch"
	"github.com/pimrelay/pimrelay/relay/edge"
	"github.com/pimrelay/pimrelay/relay/edge/certificates"
	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/relay/observe"
	"github.com/pimrelay/pimrelay/relay/pluginhost"
	"github.com/pimrelay/pimrelay/relay/subscription"
)

// Options are what the daemon gets from the program around it.
type Options struct {
	// Version is shown in status, metrics and logs.
	Version string
	Logger  *slog.Logger
	// Builtin makes the built-in forwarders, and Isolated the commands that
	// run them in processes of their own.
	Builtin  Builtin
	Isolated Isolated
	// Attach connects the plugins of forwarders, by their names, to services
	// at these addresses, whatever the configuration says: for debugging.
	Attach map[string]string
	// PluginPace, if not zero, replaces the times in which plugins are watched
	// and started again.
	PluginPace pluginhost.Pace
	// Listener, if not nil, is used instead of opening listen.address; Run
	// closes it.
	Listener net.Listener
	// Takeover makes Run wait for the data directory as long as a
	// predecessor has it, instead of giving up.
	Takeover bool
	// Load reads the configuration anew for a reload; nil turns reloading
	// off.
	Load func() (*Config, error)
	// File, if not empty, is watched: when it changes, the configuration is
	// reloaded.
	File string
	// Level, if not nil, is the log's level, which a reload may change.
	Level *slog.LevelVar
}

// Relay is the daemon.
type Relay struct {
	Options
	registry    *prometheus.Registry
	health      *observe.Health
	laneMetrics *dispatch.Metrics
	started     time.Time
	opened      chan struct{} // closed when the door is open and what follows is set

	pluginMetrics *pluginhost.Metrics
	sockets       func() (string, error) // makes the directory of the plugins' sockets, once

	journal      *journal.Journal
	state        *subscription.State
	door         *edge.Server
	certificates certificates.Keeper // nil if a proxy terminates TLS
	challenges   net.Listener        // nil if there is no http_address
	acceptor     *acceptor
	address      string // of the door
	telemetry    string // address

	stopping  chan struct{}          // closed when the lanes are told to stop
	reloading chan struct{}          // has an element during a reload, and from the shutdown on
	current   atomic.Pointer[Config] // replaced by a reload only, which holds reloading
	reloaded  chan struct{}          // receives after a reload
	loaded    [sha256.Size]byte      // of the configuration file when the daemon was made
	sources   sources
	lanes     lanes
}

// New makes a daemon of a configuration that Load has checked. It opens
// nothing.
func New(cfg *Config, opt Options) *Relay {
	registry := observe.NewRegistry(opt.Version)
	r := &Relay{
		Options: opt, registry: registry, health: observe.NewHealth(registry), laneMetrics: dispatch.NewMetrics(registry), pluginMetrics: pluginhost.NewMetrics(registry),
		started: time.Now().UTC(), opened: make(chan struct{}), stopping: make(chan struct{}), reloading: make(chan struct{}, 1), reloaded: make(chan struct{}, 1),
		sources: sources{all: make(map[string]*source)}, lanes: lanes{all: make(map[string]*lane), paused: make(map[string]bool)},
	}
	r.current.Store(cfg)
	if opt.File != "" {
		r.loaded, _ = digest(opt.File) // a file that has gone counts as changed when it is back
	}
	return r
}

// config is the configuration of the moment. Nobody changes it.
func (r *Relay) config() *Config { return r.current.Load() }

// Preflight checks what the configuration from file refers to on this machine:
// a certificate and its key in files. The error is config.Problems.
func Preflight(file string, cfg *Config) error {
	if cfg.Listen.TLS.Mode != tlsFiles {
		return nil
	}
	if err := certificates.CheckFiles(cfg.Listen.TLS.Certificate, cfg.Listen.TLS.Key); err != nil {
		return config.Problems{{File: file, Path: "listen.tls", Message: err.Error()}}
	}
	return nil
}

// Opened is closed when the door is open: every event acknowledged from then on
// is in the journal and before every forwarder.
func (r *Relay) Opened() <-chan struct{} { return r.opened }

// Run runs the daemon until ctx ends, and then shuts down against the flow of
// the events: the lanes finish what they have in hand while the door still
// answers, then the door closes, then the journal. It returns an error if the
// daemon cannot start, or a part of it fails.
func (r *Relay) Run(ctx context.Context) (err error) {
	// After the journal is closed: a successor waits for that, and must not
	// wait for an authority that is slow to let go.
	defer func() { err = errors.Join(err, r.closeCertificates()) }()
	if err := r.openJournal(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.journal.Close()) }()
	made := ""
	r.sockets = sync.OnceValues(func() (_ string, err error) {
		made, err = pluginhost.Directory(r.config().DataDir)
		return made, err
	})
	defer func() { _ = os.RemoveAll(made) }()
	if err := r.openSources(); err != nil {
		return err
	}
	// Before the first delivery is acknowledged, every forwarder has its place.
	if err := r.openLanes(ctx); err != nil {
		return err
	}
	if err := r.journal.Keep(ctx, sorted(r.config().Forwarders)); err != nil {
		return errors.Join(err, r.stopLanes())
	}
	listener, err := r.openDoor(ctx)
	if err != nil {
		return errors.Join(err, r.stopLanes())
	}
	kept, err := r.keepCertificates()
	if err != nil {
		return errors.Join(err, listener.Close(), r.stopLanes())
	}
	signals, err := r.openSignals()
	if err != nil {
		return errors.Join(err, listener.Close(), r.stopLanes())
	}
	for _, l := range r.lanes.list() {
		l.start(ctx)
	}
	for _, s := range r.sources.list() {
		s.start(ctx, r.awaitCertificate)
	}
	r.health.SetReady(true, "")
	close(r.opened)
	r.Logger.Info("the door is open", "address", r.address, "tls", r.config().Listen.TLS.Mode, "public_url", r.config().Listen.PublicURL)
	if r.File != "" {
		signals = append(signals, part{"configuration file", r.watch})
	}
	err = runParts(ctx, r.Logger, append([]part{
		{"lanes", r.holdLanes},
		{"door", func(ctx context.Context) error {
			defer r.health.SetReady(false, "the daemon is shutting down")
			return r.door.Serve(ctx, listener)
		}},
		{"sources", r.holdSources},
	}, append(kept, signals...)...))
	r.Logger.Info("the door is closed")
	return err
}

// takeoverInterval is how often a successor tries to get the data directory.
const takeoverInterval = 5 * time.Millisecond

// openJournal opens the journal; with Takeover, as soon as the predecessor has
// closed it.
func (r *Relay) openJournal(ctx context.Context) error {
	began := time.Now()
	options := journal.Options{Config: r.config().Journal, Logger: r.Logger, Registerer: r.registry}
	for {
		var err error
		r.journal, err = journal.Open(ctx, r.config().DataDir, options)
		var locked *journal.LockedError
		if !r.Takeover || !errors.As(err, &locked) {
			if r.Takeover && err == nil {
				r.Logger.Info("taken over from the predecessor", "took", time.Since(began))
			}
			return err
		}
		select {
		case <-time.After(takeoverInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// openDoor makes the server and its listener.
func (r *Relay) openDoor(ctx context.Context) (net.Listener, error) {
	r.acceptor = newAcceptor(r.journal, r.health, r.Logger, r.registry)
	options := r.config().Listen.options()
	options.Acceptor, options.Signed, options.Same = r.acceptor, akeneo.Signed, akeneo.Signature
	options.Logger, options.Registerer = r.Logger, r.registry
	listener, err := r.Listener, error(nil)
	if listener == nil {
		if listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", r.config().Listen.Address); err != nil {
			return nil, fmt.Errorf("open listen.address: %w", err)
		}
	}
	r.address = listener.Addr().String()
	// Stored certificates are presented from the first connection on.
	if err := r.openCertificates(listener.Addr()); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	if r.certificates != nil {
		options.TLS = r.certificates.TLSConfig()
	}
	if r.door, err = edge.New(options); err == nil {
		err = r.openPaths()
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// openSignals opens what shows the daemon to others: the admin socket, and probes
// with metrics.
func (r *Relay) openSignals() ([]part, error) {
	socket, err := admin.Listen(r.config().DataDir)
	if err != nil {
		return nil, err
	}
	server := admin.Server{Daemon: r, Logger: r.Logger}
	parts := []part{r.serve("admin socket", socket, server.Handler(), admin.Patience)}
	if r.config().Telemetry.Address == "" {
		return parts, nil
	}
	listener, err := net.Listen("tcp", r.config().Telemetry.Address)
	if err != nil && r.Takeover {
		// The predecessor has gone: a door without telemetry is better than none.
		r.health.Warn("telemetry", "telemetry.address cannot be opened, probes and metrics are off: "+err.Error())
		r.Logger.Error("telemetry.address not opened, probes and metrics are off", "err", err)
		return parts, nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open telemetry.address: %w", err), socket.Close())
	}
	r.telemetry = listener.Addr().String()
	r.health.Also(r.warnings)
	telemetry := observe.Telemetry{Health: r.health, Warnings: r.warnings, Gatherer: r.registry, Logger: r.Logger}
	return append(parts, r.serve("telemetry", listener, telemetry.Handler(), time.Minute)), nil
}

// Status describes the daemon. It may be called as soon as Opened is closed.
func (r *Relay) Status() admin.Status {
	ready, reason := r.health.Ready()
	s := admin.Status{
		Version: r.Version, Started: r.started, PID: os.Getpid(), Ready: ready, Reason: reason,
		Door:      admin.Door{Address: r.address, PublicURL: r.config().Listen.PublicURL, TLS: r.config().Listen.TLS.Mode, Certificates: r.certificateStatus()},
		Journal:   admin.Journal{Head: r.journal.Head(), Duplicates: r.journal.Duplicates(), DiskBytes: r.journal.DiskBytes()},
		Telemetry: r.telemetry,
		Warnings:  []admin.Warning{},
	}
	for _, source := range r.sources.list() {
		s.Sources = append(s.Sources, sourceStatus(source))
	}
	for _, l := range r.lanes.list() {
		s.Forwarders = append(s.Forwarders, forwarderStatus(l))
	}
	for _, w := range append(r.health.Warnings(), r.warnings()...) {
		s.Warnings = append(s.Warnings, admin.Warning{Key: w.Key, Message: w.Message, Since: w.Since})
	}
	return s
}

// warnings are what certificates, door, sources and lanes have to complain of at
// the moment.
func (r *Relay) warnings() []observe.Warning {
	return slices.Concat(r.certificateWarnings(), r.doorWarnings(), r.sources.warnings(), r.lanes.warnings())
}

func forwarderStatus(l *lane) admin.Forwarder {
	s := l.Status()
	f := admin.Forwarder{
		Name: s.Name, Plugin: s.Plugin, Backlog: s.Backlog, Retrying: s.Retrying, DeadLetters: s.DeadLetters, Parked: s.Parked,
		InFlight: s.InFlight, Breaker: s.Breaker, BreakerReason: s.BreakerReason, NextProbe: s.NextProbe, Paused: s.Paused,
		Delivered: s.Delivered, LastDelivered: s.LastDelivered, Failing: s.Failing, LastError: s.LastError, LastErrorAt: s.LastErrorAt,
	}
	if plugin, ok := l.forwarder.(*pluginhost.Plugin); ok {
		p := plugin.Status()
		f.Process = &admin.Process{
			Up: p.Up, Since: p.Since.UTC(), Reason: p.Reason, Failures: p.Failures, NextStart: p.NextStart, PID: p.PID,
			Name: p.Description.Name, Version: p.Description.Version,
		}
	}
	return f
}
