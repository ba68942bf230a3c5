package subscription

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pimrelay/pimrelay/relay/akeneo"
	"github.com/pimrelay/pimrelay/sdk"
)

const (
	// firstWait and longestWait bound the wait between two attempts to
	// ensure a source: it doubles each time, and up to a half of it is left
	// to chance.
	firstWait   = time.Second
	longestWait = 5 * time.Minute
	// settleWait is the least wait after a create whose answer was lost. It
	// is longer than a call's deadline, so that the platform has either made
	// the object or given up when the next attempt looks for it.
	settleWait = 15 * time.Second
	// acceptReplaced is how long a generated secret stays accepted after
	// the platform has confirmed another one: a change takes effect some
	// minutes later.
	acceptReplaced = 15 * time.Minute
)

// Source is one source with what is declared for it.
type Source struct {
	// Name is the source's key in the configuration.
	Name string
	PIM  akeneo.PIM
	// PlatformURL is the platform's base URL, usually
	// akeneo.DefaultPlatformURL.
	PlatformURL string
	// BaseURL is the public URL with the source's path. A subscription's URL
	// is BaseURL, a slash, and its key.
	BaseURL       string
	Subscriber    Subscriber
	Subscriptions Subscriptions
	Secrets       Secrets
}

// Validate checks the source. Fields are relative to its section; those of
// BaseURL are the section's own.
func (s Source) Validate() sdk.Faults {
	faults := s.PIM.Validate().Within("pim")
	if err := akeneo.CheckURL(s.PlatformURL); err != nil {
		faults.Add("platform_url", err.Error())
	}
	if err := akeneo.CheckURL(s.BaseURL); err != nil {
		faults.Add("", "the public URL of the source "+err.Error())
	}
	faults = append(faults, s.Subscriber.Validate().Within("subscriber")...)
	faults = append(faults, s.Subscriptions.Validate().Within("subscriptions")...)
	return append(faults, s.Secrets.Validate().Within("secrets")...)
}

// url is where the platform posts the events of a subscription.
func (s Source) url(key string) string { return strings.TrimRight(s.BaseURL, "/") + "/" + key }

// Options are what a Keeper works with. The zero value is of use.
type Options struct {
	// HTTP is used for all calls; nil stands for the defaults of net/http.
	HTTP *http.Client
	// Logger gets what an operator would want to know; nil for nobody.
	Logger *slog.Logger
	// Registerer gets the metrics; nil for nobody. Several Keepers may share
	// one.
	Registerer prometheus.Registerer
}

// Keeper keeps the subscriptions of some sources. Its methods are safe for
// concurrent use.
type Keeper struct {
	workers []*worker // sorted by the source's name
}

// New prepares to keep the sources. It generates the secrets that are not
// given, and returns when they are on disk; it calls nobody. The error holds
// sdk.Faults if a source is not valid.
func New(state *State, sources []Source, options Options) (*Keeper, error) {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(options.Registerer)
	if err != nil {
		return nil, err
	}
	k := &Keeper{}
	for _, source := range sources {
		if slices.ContainsFunc(k.workers, func(w *worker) bool { return w.source.Name == source.Name }) {
			return nil, fmt.Errorf("source %q is given twice", source.Name)
		}
		if err := source.Validate().Within(source.Name).Err(); err != nil {
			return nil, fmt.Errorf("sources: %w", err)
		}
		client, err := akeneo.NewClient(source.PIM, source.PlatformURL, options.HTTP)
		if err != nil {
			return nil, fmt.Errorf("source %q: %w", source.Name, err)
		}
		if source.Secrets, err = prepareSecrets(state, source); err != nil {
			return nil, fmt.Errorf("source %q: %w", source.Name, err)
		}
		k.workers = append(k.workers, newWorker(source, state, client, options.Logger, m))
	}
	slices.SortFunc(k.workers, func(a, b *worker) int { return strings.Compare(a.source.Name, b.source.Name) })
	return k, nil
}

// prepareSecrets returns the secrets to send to the platform: the given ones, or
// a generated primary one, which is on disk when it returns. It forgets a
// generated secret that was replaced long enough ago.
func prepareSecrets(state *State, source Source) (Secrets, error) {
	known := state.source(source.Name)
	secrets := source.Secrets
	if secrets.Primary == "" && known.GeneratedPrimary != "" && known.GeneratedReplaced.IsZero() {
		secrets.Primary = sdk.Secret(known.GeneratedPrimary)
		return secrets, nil
	}
	var change func(*sourceState)
	switch {
	case secrets.Primary == "" && known.GeneratedPrimary != "": // once replaced, and now wanted again
		secrets.Primary = sdk.Secret(known.GeneratedPrimary)
		change = func(s *sourceState) { s.GeneratedReplaced = time.Time{} }
	case secrets.Primary == "":
		fresh := randomHex()
		secrets.Primary = sdk.Secret(fresh)
		change = func(s *sourceState) { s.GeneratedPrimary = fresh }
	case !known.GeneratedReplaced.IsZero() && time.Since(known.GeneratedReplaced) > acceptReplaced:
		change = func(s *sourceState) { s.GeneratedPrimary, s.GeneratedReplaced = "", time.Time{} }
	default:
		return secrets, nil
	}
	return secrets, state.update(source.Name, change)
}

// Secrets are those with which the platform may sign the deliveries of a
// source, the likeliest first: the ones that are sent to it, and a generated one
// that the configuration has replaced since, until a start 15 minutes after the
// platform's confirmation. A secret of the configuration is known as long as it
// stands there; keep its predecessor as the secondary one for a while. The
// result is nil for a source that the Keeper does not keep.
func (k *Keeper) Secrets(source string) []sdk.Secret {
	for _, w := range k.workers {
		if w.source.Name == source {
			return w.secrets()
		}
	}
	return nil
}

// Run ensures all sources, each one again and again with growing waits until it
// succeeds, and returns nil when ctx is done. It is called once, and before
// another Keeper runs for the same source.
func (k *Keeper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, w := range k.workers {
		wg.Go(func() { w.run(ctx) })
		defer w.metrics.forget(w.source.Name)
	}
	wg.Wait()
	<-ctx.Done()
	return nil
}

// Ensured waits until all sources are ensured: until every declared
// subscription has been found or made as declared, be it active or not. It
// returns an error when ctx is done before.
func (k *Keeper) Ensured(ctx context.Context) error {
	for _, w := range k.workers {
		select {
		case <-w.ensured:
		case <-ctx.Done():
			return fmt.Errorf("wait for the subscriptions of source %q: %w", w.source.Name, ctx.Err())
		}
	}
	return nil
}

// Status is how the subscriptions stand, by source.
func (k *Keeper) Status() []SourceStatus {
	all := make([]SourceStatus, len(k.workers))
	for i, w := range k.workers {
		all[i] = w.snapshot()
	}
	return all
}

// worker keeps one source.
type worker struct {
	source  Source // with the secrets to send
	state   *State
	client  *akeneo.Client
	logger  *slog.Logger
	metrics *metrics
	ensured chan struct{} // closed when the source is ensured
	turn    chan struct{} // held during an attempt; see State.turn

	mu     sync.Mutex // guards status
	status SourceStatus
}

func newWorker(source Source, state *State, client *akeneo.Client, logger *slog.Logger, m *metrics) *worker {
	w := &worker{
		source: source, state: state, client: client, metrics: m,
		logger:  logger.With("source", source.Name),
		ensured: make(chan struct{}),
		turn:    state.turn(normalURL(source.PIM.URL) + " " + source.PIM.ClientID),
	}
	w.status = w.declared()
	return w
}

func (w *worker) secrets() []sdk.Secret {
	var all []sdk.Secret
	generated := sdk.Secret(w.state.source(w.source.Name).GeneratedPrimary)
	for _, secret := range []sdk.Secret{w.source.Secrets.Primary, w.source.Secrets.Secondary, generated} {
		if secret != "" && !slices.Contains(all, secret) {
			all = append(all, secret)
		}
	}
	return all
}

func (w *worker) snapshot() SourceStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status.clone()
}

// run ensures the source, until it succeeds or ctx is done.
func (w *worker) run(ctx context.Context) {
	for attempt := 1; ; attempt++ {
		err := w.ensure(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			w.metrics.rounds.WithLabelValues(w.source.Name, "ensured").Inc()
			w.logger.Info("subscriptions are as declared", "attempt", attempt)
			close(w.ensured)
			return
		}
		w.metrics.rounds.WithLabelValues(w.source.Name, "failed").Inc()
		w.logger.Warn("subscriptions are not as declared yet", "err", err, "attempt", attempt)
		select {
		case <-time.After(wait(attempt, err)):
		case <-ctx.Done():
			return
		}
	}
}

// wait is how long to wait after an attempt, counted from 1, that ended with
// err.
func wait(attempt int, err error) time.Duration {
	d := longestWait
	if shift := attempt - 1; shift < 16 {
		d = min(longestWait, firstWait<<shift)
	}
	d -= rand.N(d / 2)
	var refused *akeneo.APIError
	if errors.As(err, &refused) {
		d = max(d, min(refused.RetryAfter, longestWait))
	}
	var uncertain *uncertainError
	if errors.As(err, &uncertain) {
		d = max(d, settleWait)
	}
	return d
}
