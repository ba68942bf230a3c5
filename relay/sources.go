package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pimrelay/pimrelay/relay/admin"
	"github.com/pimrelay/pimrelay/relay/akeneo"
	"github.com/pimrelay/pimrelay/relay/edge"
	"github.com/pimrelay/pimrelay/relay/observe"
	"github.com/pimrelay/pimrelay/relay/subscription"
	"github.com/pimrelay/pimrelay/sdk"
)

// source is a source as it is configured at the moment.
type source struct {
	name   string
	config Source
	// keeper is nil if the operator subscribes by hand.
	keeper *subscription.Keeper
	cancel context.CancelFunc // nil until started
	done   chan struct{}      // closed when the keeper has ended
}

// start keeps the source's subscriptions until stop, whatever becomes of ctx, as
// soon as the door is fit for deliveries: when await has returned.
func (s *source) start(ctx context.Context, await func(context.Context) error) {
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(s.done)
		if s.keeper != nil && await(ctx) == nil {
			_ = s.keeper.Run(ctx) // it ends when told to, and never fails
		}
	}()
}

func (s *source) stop() {
	if s.cancel != nil {
		s.cancel()
		<-s.done
	}
}

// secrets are those with which the platform may sign for the source.
func (s *source) secrets() []sdk.Secret {
	if s.keeper != nil {
		return s.keeper.Secrets(s.name)
	}
	return []sdk.Secret{s.config.Secrets.Primary, s.config.Secrets.Secondary}
}

// retired is what a source had before a reload: the platform may use it for
// some minutes more.
type retired struct {
	name    string
	path    string
	secrets []sdk.Secret
	until   time.Time
}

// retireAfter is how long a path or a secret that has left the configuration
// stays accepted: the platform puts a change into effect within some minutes.
const retireAfter = 15 * time.Minute

// sources are the sources of the moment, and what is left of former ones.
type sources struct {
	mu      sync.Mutex
	all     map[string]*source // guarded by mu, as below
	retired []retired
}

// replace puts next in the place of the source of that name and retires the
// former one; a nil next removes it.
func (s *sources) replace(name string, next *source, now time.Time) (former *source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	former = s.all[name]
	if former != nil {
		s.retired = append(s.retired, retired{name: name, path: former.config.Path, secrets: former.secrets(), until: now.Add(retireAfter)})
	}
	if next == nil {
		delete(s.all, name)
	} else {
		s.all[name] = next
	}
	return former
}

// list is sorted by name.
func (s *sources) list() []*source {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.all), func(a, b *source) int { return strings.Compare(a.name, b.name) })
}

// accepted is what the door accepts at the moment: the routes to all paths, and
// a receiver for each source with all secrets that may be in use. It forgets
// what was retired long enough ago.
func (s *sources) accepted(now time.Time) ([]edge.Route, map[string]*akeneo.Receiver) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = slices.DeleteFunc(s.retired, func(r retired) bool { return now.After(r.until) && s.confirmed(r.name, now) })
	paths, secrets := make(map[string]string), make(map[string][]sdk.Secret)
	for name, src := range s.all {
		paths[src.config.Path] = name
		secrets[name] = src.secrets()
	}
	for _, r := range s.retired {
		if _, taken := paths[r.path]; !taken {
			paths[r.path] = r.name
		}
		// The path may be that of a source with another name now.
		for owner := range map[string]bool{r.name: true, paths[r.path]: true} {
			secrets[owner] = append(secrets[owner], r.secrets...)
		}
	}
	var routes []edge.Route
	for path, name := range paths {
		routes = append(routes, edge.Route{Path: path, Source: name})
	}
	receivers := make(map[string]*akeneo.Receiver)
	for name, known := range secrets {
		receivers[name] = akeneo.NewReceiver(name, known)
	}
	return routes, receivers
}

// confirmed reports whether the platform has had what is declared for the source
// for long enough. The caller holds mu.
func (s *sources) confirmed(name string, now time.Time) bool {
	src, ok := s.all[name]
	if !ok || src.keeper == nil {
		return true
	}
	return !slices.ContainsFunc(src.keeper.Status(), func(status subscription.SourceStatus) bool {
		return !status.Ensured || now.Sub(status.Since) < retireAfter
	})
}

// nextRetirement is when something that is accepted for a while is forgotten.
func (s *sources) nextRetirement(now time.Time) (at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.retired {
		if !ok || r.until.Before(at) {
			at, ok = r.until, true
		}
	}
	// One whose time is over waits for the platform's confirmation.
	if ok && at.Before(now) {
		at = now.Add(time.Minute)
	}
	return at, ok
}

// warnings are what stands in the way of the subscriptions at the moment.
func (s *sources) warnings() []observe.Warning {
	var all []observe.Warning
	for _, src := range s.list() {
		if src.keeper == nil {
			continue
		}
		for _, status := range src.keeper.Status() {
			if status.Err != "" {
				all = append(all, observe.Warning{Key: "sources." + src.name, Message: status.Err, Since: status.Since.UTC()})
			}
			for _, sub := range status.Subscriptions {
				if sub.Err != "" {
					all = append(all, observe.Warning{Key: "sources." + src.name + ".subscriptions." + sub.Key, Message: sub.Err, Since: sub.Since.UTC()})
				}
			}
		}
	}
	return all
}

// openSources makes the sources. Secrets are known, and on disk, before the door
// opens.
func (r *Relay) openSources() (err error) {
	if r.state, err = subscription.Open(r.config().DataDir, r.Logger); err != nil {
		return err
	}
	for _, name := range sorted(r.config().Sources) {
		s, err := r.openSource(name, r.config())
		if err != nil {
			return err
		}
		r.sources.replace(name, s, time.Time{})
	}
	return nil
}

// openSource makes a source, which is not started.
func (r *Relay) openSource(name string, config *Config) (*source, error) {
	s := &source{name: name, config: config.Sources[name], done: make(chan struct{})}
	if s.config.PIM == nil {
		return s, nil
	}
	client, err := s.config.httpClient()
	if err != nil {
		return nil, fmt.Errorf("source %q: %w", name, err)
	}
	s.keeper, err = subscription.New(r.state, []subscription.Source{{
		Name: name, PIM: *s.config.PIM, PlatformURL: s.config.PlatformURL, BaseURL: strings.TrimRight(config.Listen.PublicURL, "/") + s.config.Path,
		Subscriber: s.config.Subscriber, Subscriptions: s.config.Subscriptions, Secrets: s.config.Secrets,
	}}, subscription.Options{HTTP: client, Logger: r.Logger, Registerer: r.registry})
	if err != nil {
		return nil, fmt.Errorf("source %q: %w", name, err)
	}
	return s, nil
}

// httpClient is for the calls to PIM and platform; nil stands for the usual one.
func (s Source) httpClient() (*http.Client, error) {
	if s.TrustedRoots == "" {
		return nil, nil
	}
	roots, err := readRoots(s.TrustedRoots)
	if err != nil {
		return nil, fmt.Errorf("trusted_roots: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return &http.Client{Transport: transport}, nil
}

// readRoots is the system's certificate authorities and those in a PEM file.
func readRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a system without any
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("holds no certificate in PEM form")
	}
	return pool, nil
}

// openPaths lets the door accept what the sources are configured for.
func (r *Relay) openPaths() error {
	routes, receivers := r.sources.accepted(time.Now())
	r.acceptor.receivers.Store(&receivers)
	return r.door.SetRoutes(routes)
}

// holdSources forgets retired paths and secrets in their time, and stops all
// sources when ctx ends.
func (r *Relay) holdSources(ctx context.Context) error {
	for ctx.Err() == nil {
		var timer <-chan time.Time
		if at, ok := r.sources.nextRetirement(time.Now()); ok {
			timer = time.After(time.Until(at) + time.Second)
		}
		select {
		case <-ctx.Done():
		case <-r.reloaded:
		case <-timer:
			if err := r.openPaths(); err != nil {
				r.Logger.Error("retired paths not closed", "err", err)
			}
		}
	}
	var wg sync.WaitGroup
	for _, s := range r.sources.list() {
		wg.Go(s.stop)
	}
	wg.Wait()
	return nil
}

func sourceStatus(s *source) admin.Source {
	out := admin.Source{Name: s.name, Path: s.config.Path, Subscriptions: []admin.Subscription{}, Manual: s.keeper == nil}
	if s.keeper == nil {
		return out
	}
	for _, status := range s.keeper.Status() {
		out.Subscriber, out.LastError = status.SubscriberID, status.Err
		for _, sub := range status.Subscriptions {
			out.Subscriptions = append(out.Subscriptions, admin.Subscription{
				Key: sub.Key, ID: sub.ID, URL: sub.URL, Status: sub.Status, Events: sub.Events, LastError: sub.Err,
			})
		}
	}
	return out
}
