package subscription

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pimrelay/pimrelay/relay/akeneo"
	"github.com/pimrelay/pimrelay/sdk"
)

const (
	primary   = "primary-secret-0123"
	secondary = "secondary-secret-01"
	created1  = `POST /api/v1/subscribers {"name":"pimrelay","contact":{"technical_email":"ops@example.com"}}`
	created2  = `POST /api/v1/subscribers/id-1/subscriptions {"source":"pim","subject":"https://acme.example","type":"https",` +
		`"events":["com.akeneo.pim.v1.family.created","com.akeneo.pim.v1.family.deleted","com.akeneo.pim.v1.family.updated"],` +
		`"config":{"url":"https://events.example.com/hooks/catalog/families","secret":{"primary":"primary-secret-0123"}},` +
		`"filter":"not user=\"x\"","send_product_identifier":false}`
	sentSecrets = `PATCH /api/v1/subscribers/id-1/subscriptions/id-2 {"config":{"url":"https://events.example.com/hooks/catalog/families",` +
		`"secret":{"primary":"primary-secret-0123"}}}`
	familiesURL = "https://events.example.com/hooks/catalog/families"
)

func catalog() Source {
	return Source{
		Name: "catalog",
		PIM: akeneo.PIM{URL: "https://acme.example/", ClientID: "c", ClientSecret: "client-secret",
			Username: "u", Password: "password"},
		PlatformURL: "https://platform.example",
		BaseURL:     "https://events.example.com/hooks/catalog",
		Subscriber:  Subscriber{Name: "pimrelay", TechnicalEmail: "ops@example.com"},
		Subscriptions: Subscriptions{
			"families": {Events: []string{"com.akeneo.pim.v1.family.*"}, Filter: `not user="x"`},
		},
		Secrets: Secrets{Primary: primary},
	}
}

func openState(t *testing.T, dir string) *State {
	t.Helper()
	state, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// keep runs a Keeper until it has ensured its sources or limit has passed, which
// is what it returns.
func keep(t *testing.T, p *platform, dir string, limit time.Duration, sources ...Source) (*Keeper, error) {
	t.Helper()
	k, err := New(openState(t, dir), sources, Options{HTTP: &http.Client{Transport: p}})
	if err != nil {
		t.Fatal(err)
	}
	return k, runUntilEnsured(t, k, limit)
}

// runUntilEnsured calls meanwhile, if there are any, before it ends the run.
func runUntilEnsured(t *testing.T, k *Keeper, limit time.Duration, meanwhile ...func()) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	waiting, stop := context.WithTimeout(ctx, limit)
	err := k.Ensured(waiting)
	stop()
	for _, look := range meanwhile {
		look()
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	return err
}

func wantChanges(t *testing.T, p *platform, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, p.changes(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("changes at the platform (-want +got):\n%s", diff)
	}
}

// TestSecretsThatChangeBack: other secrets are sent, the answer is lost, and the
// declaration goes back to the ones before. The platform gets those again.
func TestSecretsThatChangeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, dir := &platform{t: t}, t.TempDir()
		if _, err := keep(t, p, dir, time.Second, catalog()); err != nil {
			t.Fatal(err)
		}
		p.changes()
		other := catalog()
		other.Secrets.Primary = "another-secret-0123"
		p.fault = func(call string) failure { return failure{lost: strings.HasPrefix(call, "PATCH ")} }
		if _, err := keep(t, p, dir, time.Millisecond, other); err == nil {
			t.Fatal("ensured although every answer was lost")
		}
		p.fault = nil
		if len(p.changes()) != 1 {
			t.Fatal("the other secret has not been sent")
		}
		if _, err := keep(t, p, dir, time.Second, catalog()); err != nil {
			t.Fatal(err)
		}
		wantChanges(t, p, sentSecrets)
	})
}

func TestGeneratedSecret(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, dir := &platform{t: t}, t.TempDir()
		generated := catalog()
		generated.Secrets = Secrets{}
		k, err := New(openState(t, dir), []Source{generated}, Options{HTTP: &http.Client{Transport: p}})
		if err != nil {
			t.Fatal(err)
		}
		// It is known, and on disk, before anything has been sent.
		secrets := k.Secrets("catalog")
		if len(secrets) != 1 || len(secrets[0]) != 64 || len(p.calls) != 0 {
			t.Fatalf("%d secrets, %d calls, want one of 64 digits and no call", len(secrets), len(p.calls))
		}
		if got := openState(t, dir).source("catalog").GeneratedPrimary; got != string(secrets[0]) {
			t.Fatal("the secret is not on disk")
		}
		if got := k.Secrets("other"); got != nil {
			t.Errorf("an unknown source has %d secrets", len(got))
		}
		if err := runUntilEnsured(t, k, time.Second); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]any{"primary": string(secrets[0])}, p.secret(0)); diff != "" {
			t.Errorf("secrets at the platform (-want +got):\n%s", diff)
		}
		p.changes()
		again, err := keep(t, p, dir, time.Second, generated)
		if err != nil || !cmp.Equal(again.Secrets("catalog"), secrets) {
			t.Errorf("the next start has other secrets (%v)", err)
		}
		wantChanges(t, p)

		// The configuration now gives one: both are accepted until 15 minutes
		// after the platform's confirmation.
		both := []sdk.Secret{primary, secrets[0]}
		for _, step := range []struct {
			wait time.Duration
			want []sdk.Secret
		}{{0, both}, {15 * time.Minute, both}, {1, both[:1]}} {
			time.Sleep(step.wait)
			k, err := keep(t, p, dir, time.Second, catalog())
			if err != nil {
				t.Fatal(err)
			}
			if got := k.Secrets("catalog"); !cmp.Equal(got, step.want) {
				t.Errorf("after %v more: %d secrets, want %d", step.wait, len(got), len(step.want))
			}
		}
		wantChanges(t, p, sentSecrets)
	})
}

func TestGeneratedSecretIsWantedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, dir := &platform{t: t}, t.TempDir()
		generated := catalog()
		generated.Secrets = Secrets{}
		var first []sdk.Secret
		for _, source := range []Source{generated, catalog(), generated} {
			k, err := keep(t, p, dir, time.Second, source)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = k.Secrets("catalog")
			}
		}
		if diff := cmp.Diff(map[string]any{"primary": string(first[0])}, p.secret(0)); diff != "" {
			t.Errorf("secrets at the platform (-want +got):\n%s", diff)
		}
		if !openState(t, dir).source("catalog").GeneratedReplaced.IsZero() {
			t.Error("the secret in use counts as replaced")
		}
	})
}

// TestWaitsGrow counts the attempts of a long outage, and that neither log nor
// status shows a secret.
func TestWaitsGrow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &platform{t: t, fault: func(call string) failure {
			if strings.Contains(call, "/oauth/") {
				return failure{status: 422, body: `{"code":422,"message":"client-secret password refused"}`}
			}
			return failure{}
		}}
		var log bytes.Buffer
		registry := prometheus.NewRegistry()
		k, err := New(openState(t, t.TempDir()), []Source{catalog()}, Options{
			HTTP: &http.Client{Transport: p}, Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: registry,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := runUntilEnsured(t, k, 2*time.Hour); err == nil {
			t.Fatal("ensured without a token")
		}
		// Eight or nine attempts in the first five to nine minutes, then one
		// every two and a half to five minutes.
		if n := len(p.calls); n < 9+22 || n > 10+47 {
			t.Errorf("%d attempts in two hours", n)
		}
		shown := log.String() + fmt.Sprintf("%+v", k.Status())
		for _, secret := range []string{"client-secret", "password refused", primary} {
			if strings.Contains(shown, secret) {
				t.Errorf("%q is shown", secret)
			}
		}
		if !strings.Contains(k.Status()[0].Err, "check client_id, client_secret, username and password") {
			t.Errorf("Err = %q, want the remedy", k.Status()[0].Err)
		}
		counter, err := testutil.GatherAndCount(registry, "pimrelay_subscription_rounds_total")
		if err != nil || counter != 1 {
			t.Errorf("%d series of attempts (%v), want 1", counter, err)
		}
	})
}

func TestWait(t *testing.T) {
	t.Parallel()
	plain := errors.New("x")
	throttled := fmt.Errorf("x: %w", &akeneo.APIError{Status: 429, RetryAfter: 40 * time.Second})
	absurd := &akeneo.APIError{Status: 503, RetryAfter: 100 * time.Hour}
	tests := []struct {
		attempt  int
		err      error
		min, max time.Duration
	}{
		{1, plain, 500 * time.Millisecond, time.Second},
		{4, plain, 4 * time.Second, 8 * time.Second},
		{9, plain, 128 * time.Second, 256 * time.Second},
		{10, plain, 150 * time.Second, 300 * time.Second},
		{1 << 40, plain, 150 * time.Second, 300 * time.Second},
		{1, throttled, 40 * time.Second, 40 * time.Second},
		{1, absurd, 300 * time.Second, 300 * time.Second},
		{1, created(plain), 15 * time.Second, 15 * time.Second},
		{1, created(&akeneo.APIError{Status: 500}), 15 * time.Second, 15 * time.Second},
		{1, created(&akeneo.APIError{Status: 409}), 500 * time.Millisecond, time.Second},
	}
	for _, test := range tests {
		for range 100 {
			if got := wait(test.attempt, test.err); got < test.min || got > test.max {
				t.Errorf("wait(%d, %v) = %v, want %v to %v", test.attempt, test.err, got, test.min, test.max)
			}
		}
	}
}

// TestOverARealServer goes over TLS, with two sources on one state.
func TestOverARealServer(t *testing.T) {
	t.Parallel()
	p := &platform{t: t}
	server := httptest.NewTLSServer(p)
	t.Cleanup(server.Close)
	first, second := catalog(), catalog()
	second.Name, second.BaseURL = "prices", "https://events.example.com/hooks/prices"
	second.Secrets = Secrets{}
	for _, source := range []*Source{&first, &second} {
		source.PIM.URL, source.PlatformURL = server.URL, server.URL
		source.Subscriber.Name = source.Name
	}
	k, err := New(openState(t, t.TempDir()), []Source{second, first}, Options{HTTP: server.Client()})
	if err != nil {
		t.Fatal(err)
	}
	if err := runUntilEnsured(t, k, time.Minute); err != nil {
		t.Fatal(err)
	}
	if status := k.Status(); status[0].Source != "catalog" || status[1].Source != "prices" || !status[0].Ensured || !status[1].Ensured {
		t.Errorf("Status: %+v", status)
	}
	if len(p.subscribers) != 2 || len(p.subscriptions) != 2 {
		t.Errorf("%d subscribers and %d subscriptions, want two of each", len(p.subscribers), len(p.subscriptions))
	}
}

// TestSourcesThatShareASubscriber start at once, each with a Keeper of its own,
// and still make the subscriber only once.
func TestSourcesThatShareASubscriber(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &platform{t: t, latency: time.Millisecond}
		state := openState(t, t.TempDir())
		var wg sync.WaitGroup
		for i := range 5 {
			source := catalog()
			source.Name = fmt.Sprintf("source%d", i)
			source.BaseURL = "https://events.example.com/hooks/" + source.Name
			k, err := New(state, []Source{source}, Options{HTTP: &http.Client{Transport: p}})
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				if err := runUntilEnsured(t, k, time.Second); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(p.subscribers) != 1 || len(p.subscriptions) != 5 {
			t.Errorf("%d subscribers and %d subscriptions, want 1 and 5", len(p.subscribers), len(p.subscriptions))
		}
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	source := catalog()
	source.Subscriber.Name = ""
	_, err := New(openState(t, t.TempDir()), []Source{source}, Options{})
	var faults sdk.Faults
	if !errors.As(err, &faults) || err.Error() != "sources: catalog.subscriber.name: must be set" {
		t.Errorf("error %v, want a fault", err)
	}
	if _, err := New(openState(t, t.TempDir()), []Source{catalog(), catalog()}, Options{}); err == nil {
		t.Error("no error from two sources of one name")
	}
}

func TestNewTwiceOnOneRegistry(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	for range 2 {
		if _, err := New(openState(t, t.TempDir()), []Source{catalog()}, Options{Registerer: registry}); err != nil {
			t.Fatal(err)
		}
	}
	taken := prometheus.NewRegistry()
	taken.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "pimrelay_subscription_rounds_total", Help: "x"}))
	if _, err := New(openState(t, t.TempDir()), nil, Options{Registerer: taken}); err == nil {
		t.Error("no error from a name that is taken by something else")
	}
}
