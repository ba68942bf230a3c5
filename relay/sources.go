package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/pimrelay/pimrelay/relay/admin"
	"github.com/pimrelay/pimrelay/relay/akeneo"
	"github.com/pimrelay/pimrelay/relay/subscription"
	"github.com/pimrelay/pimrelay/sdk"
)

// openSources makes what verifies each source's deliveries, and what keeps its
// subscriptions. Secrets are known before the door opens.
func (r *Relay) openSources() (map[string]*akeneo.Receiver, error) {
	state, err := subscription.Open(r.config.DataDir, r.Logger)
	if err != nil {
		return nil, err
	}
	receivers := make(map[string]*akeneo.Receiver)
	r.keepers = make(map[string]*subscription.Keeper)
	for _, name := range sorted(r.config.Sources) {
		s := r.config.Sources[name]
		secrets := []sdk.Secret{s.Secrets.Primary, s.Secrets.Secondary}
		if s.PIM != nil {
			keeper, err := r.openKeeper(state, name, s)
			if err != nil {
				return nil, fmt.Errorf("source %q: %w", name, err)
			}
			r.keepers[name] = keeper
			secrets = keeper.Secrets(name)
		}
		receivers[name] = akeneo.NewReceiver(name, secrets)
	}
	return receivers, nil
}

func (r *Relay) openKeeper(state *subscription.State, name string, s Source) (*subscription.Keeper, error) {
	client, err := s.httpClient()
	if err != nil {
		return nil, err
	}
	return subscription.New(state, []subscription.Source{{
		Name: name, PIM: *s.PIM, PlatformURL: s.PlatformURL, BaseURL: strings.TrimRight(r.config.Listen.PublicURL, "/") + s.Path,
		Subscriber: s.Subscriber, Subscriptions: s.Subscriptions, Secrets: s.Secrets,
	}}, subscription.Options{HTTP: client, Logger: r.Logger, Registerer: r.registry})
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
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}

// keepSubscriptions keeps the subscriptions of all sources.
func (r *Relay) keepSubscriptions(ctx context.Context) error {
	errs := make([]error, len(r.keepers))
	var wg sync.WaitGroup
	for i, name := range sorted(r.keepers) {
		wg.Go(func() { errs[i] = r.keepers[name].Run(ctx) })
	}
	wg.Wait()
	<-ctx.Done() // also where there is nothing to keep
	return errors.Join(errs...)
}

func (r *Relay) sourceStatus(name string) admin.Source {
	out := admin.Source{Name: name, Path: r.config.Sources[name].Path, Subscriptions: []admin.Subscription{}}
	keeper, ok := r.keepers[name]
	if !ok {
		out.Manual = true
		return out
	}
	for _, s := range keeper.Status() {
		out.Subscriber, out.LastError = s.SubscriberID, s.Err
		for _, sub := range s.Subscriptions {
			out.Subscriptions = append(out.Subscriptions, admin.Subscription{
				Key: sub.Key, ID: sub.ID, URL: sub.URL, Status: sub.Status, Events: sub.Events, LastError: sub.Err,
			})
		}
	}
	return out
}
