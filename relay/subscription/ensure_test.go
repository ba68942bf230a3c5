package subscription

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestSubscribesItself(t *testing.T) {
	t.Parallel()
	for _, nullLists := range []bool{false, true} {
		t.Run(fmt.Sprintf("null lists %v", nullLists), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, dir := &platform{t: t, nullLists: nullLists}, t.TempDir()
				k, err := keep(t, p, dir, time.Second, catalog())
				if err != nil {
					t.Fatal(err)
				}
				wantChanges(t, p, created1, created2)
				want := []SourceStatus{{
					Source: "catalog", SubscriberID: "id-1", Ensured: true, Since: time.Now().UTC(),
					Subscriptions: []SubscriptionStatus{{
						Key: "families", ID: "id-2", URL: familiesURL, Status: "active", Since: time.Now().UTC(),
						Events: []string{"com.akeneo.pim.v1.family.created", "com.akeneo.pim.v1.family.deleted", "com.akeneo.pim.v1.family.updated"},
					}},
				}}
				if diff := cmp.Diff(want, k.Status()); diff != "" {
					t.Errorf("Status (-want +got):\n%s", diff)
				}
				if _, err := keep(t, p, dir, time.Second, catalog()); err != nil {
					t.Fatal(err)
				}
				wantChanges(t, p)
			})
		})
	}
}

// TestFailuresOfEitherKind lets each call fail in the two ways that calls fail:
// not done, and done with the answer lost. Whatever happens, there is one
// subscriber and one subscription in the end, and the platform has the secret.
func TestFailuresOfEitherKind(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{
		"POST /api/oauth/v1/token",
		"GET /api/v1/subscribers",
		"POST /api/v1/subscribers {",
		"GET /api/v1/subscribers/id-1/subscriptions",
		"POST /api/v1/subscribers/id-1/subscriptions",
	} {
		for name, f := range map[string]failure{
			"not done": {status: 503}, "answer lost": {lost: true}, "throttled": {status: 429}, "no answer of the platform's": {status: 200, body: "<html>"},
		} {
			t.Run(prefix+" "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					p, dir := &platform{t: t, fault: once(prefix, f)}, t.TempDir()
					start := time.Now()
					if _, err := keep(t, p, dir, time.Minute, catalog()); err != nil {
						t.Fatal(err)
					}
					if len(p.subscribers) != 1 || len(p.subscriptions) != 1 {
						t.Errorf("%d subscribers and %d subscriptions, want one of each", len(p.subscribers), len(p.subscriptions))
					}
					if diff := cmp.Diff(map[string]any{"primary": primary}, p.secret(0)); diff != "" {
						t.Errorf("secrets at the platform (-want +got):\n%s", diff)
					}
					uncertain := strings.Contains(prefix, "v1/subscribers") && strings.HasPrefix(prefix, "POST") && f.status != 429
					if took := time.Since(start); uncertain && took < settleWait {
						t.Errorf("looked again %v after a create that may have been done, want at least %v", took, settleWait)
					}
					p.changes()
					if _, err := keep(t, p, dir, time.Minute, catalog()); err != nil {
						t.Fatal(err)
					}
					wantChanges(t, p)
				})
			})
		}
	}
}

// TestLostAnswerToACreate shows the whole course: the subscription is there,
// nobody knows with which secret, so it is sent again, and nothing else is.
func TestLostAnswerToACreate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &platform{t: t, fault: once("POST /api/v1/subscribers/id-1/subscriptions", failure{lost: true})}
		if _, err := keep(t, p, t.TempDir(), time.Minute, catalog()); err != nil {
			t.Fatal(err)
		}
		wantChanges(t, p, created1, created2, sentSecrets)
	})
}

func TestChangesWhatDiffers(t *testing.T) {
	t.Parallel()
	const patch = "PATCH /api/v1/subscribers/id-1/subscriptions/id-2 "
	tests := []struct {
		name   string
		change func(*Source)
		want   []string
	}{
		{"nothing", func(*Source) {}, nil},
		{"the order of events", func(s *Source) {
			s.Subscriptions["families"] = Subscription{Filter: ` not user="x" `, Events: []string{"com.akeneo.pim.v1.family.updated",
				"com.akeneo.pim.v1.family.created", "com.akeneo.pim.v1.family.deleted"}}
		}, nil},
		{"events", func(s *Source) {
			s.Subscriptions["families"] = Subscription{Filter: `not user="x"`, Events: []string{"com.akeneo.pim.v1.app.deleted"}}
		}, []string{patch + `{"events":["com.akeneo.pim.v1.app.deleted"]}`}},
		{"no filter any more", func(s *Source) {
			s.Subscriptions["families"] = Subscription{Events: []string{"com.akeneo.pim.v1.family.*"}}
		}, []string{patch + `{"filter":""}`}},
		{"filter and identifier", func(s *Source) {
			s.Subscriptions["families"] = Subscription{Events: []string{"com.akeneo.pim.v1.family.*"}, Filter: `user="y"`, SendProductIdentifier: true}
		}, []string{patch + `{"filter":"user=\"y\"","send_product_identifier":true}`}},
		{"secret", func(s *Source) { s.Secrets.Primary = "another-secret-0123" }, []string{
			patch + `{"config":{"url":"` + familiesURL + `","secret":{"primary":"another-secret-0123"}}}`}},
		{"secondary secret", func(s *Source) { s.Secrets.Secondary = secondary }, []string{
			patch + `{"config":{"url":"` + familiesURL + `","secret":{"primary":"primary-secret-0123","secondary":"secondary-secret-01"}}}`}},
		{"e-mail", func(s *Source) { s.Subscriber.TechnicalEmail = "new@example.com" }, []string{
			`PATCH /api/v1/subscribers/id-1 {"name":"pimrelay","contact":{"technical_email":"new@example.com"}}`}},
		{"name", func(s *Source) { s.Subscriber.Name = "new" }, []string{
			`PATCH /api/v1/subscribers/id-1 {"name":"new","contact":{"technical_email":"ops@example.com"}}`}},
		{"another key", func(s *Source) {
			s.Subscriptions = Subscriptions{"apps": {Events: []string{"com.akeneo.pim.v1.app.deleted"}}}
		}, []string{`POST /api/v1/subscribers/id-1/subscriptions {"source":"pim","subject":"https://acme.example","type":"https",` +
			`"events":["com.akeneo.pim.v1.app.deleted"],"config":{"url":"https://events.example.com/hooks/catalog/apps",` +
			`"secret":{"primary":"primary-secret-0123"}},"send_product_identifier":false}`}},
		{"the same URL in other words", func(s *Source) { s.BaseURL = "https://EVENTS.example.com:443/hooks/./catalog/" }, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, dir := &platform{t: t}, t.TempDir()
				if _, err := keep(t, p, dir, time.Second, catalog()); err != nil {
					t.Fatal(err)
				}
				p.changes()
				changed := catalog()
				test.change(&changed)
				for range 2 { // the second time there is nothing left to do
					if _, err := keep(t, p, dir, time.Second, changed); err != nil {
						t.Fatal(err)
					}
					wantChanges(t, p, test.want...)
					test.want = nil
				}
			})
		})
	}
}

// TestAdoptsByURL: the state is lost, or somebody has subscribed by hand to the
// very URL. The secrets at the platform are then not known.
func TestAdoptsByURL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &platform{t: t, answers: func(o object) { // as an older description of the API spells it
			o["createdAt"] = o["created_at"]
			delete(o, "created_at")
		}}
		if _, err := keep(t, p, t.TempDir(), time.Second, catalog()); err != nil {
			t.Fatal(err)
		}
		p.changes()
		p.subscriptions[0]["config"].(map[string]any)["url"] = "https://Events.example.com/hooks/catalog/families/"
		if _, err := keep(t, p, t.TempDir(), time.Second, catalog()); err != nil {
			t.Fatal(err)
		}
		wantChanges(t, p, sentSecrets)
	})
}

func TestLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &platform{t: t}
		p.add(&p.subscribers, object{"name": "pimrelay", "subject": "https://acme.example",
			"contact": object{"technical_email": "OPS@example.com"}})
		foreign := func(url, status, kind string) {
			p.add(&p.subscriptions, object{"type": kind, "status": status, "events": []string{"x"}, "config": object{"url": url}})
		}
		foreign("https://other.example.com/hooks/catalog/families", "active", "https")
		foreign("https://events.example.com/hooks/catalogue/families", "active", "https")
		foreign(familiesURL+"?tenant=1", "active", "https")
		foreign("https://events.example.com/hooks/catalog/old", "suspended", "https")
		foreign(familiesURL, "deleted", "https")
		p.add(&p.subscriptions, object{"type": "kafka", "config": object{"broker": "b:1", "topic": "t"}, "events": nil})
		k, err := keep(t, p, t.TempDir(), time.Second, catalog())
		if err != nil {
			t.Fatal(err)
		}
		wantChanges(t, p, created2)
		if diff := cmp.Diff([]string{"id-4", "id-5"}, k.Status()[0].Undeclared); diff != "" {
			t.Errorf("Undeclared (-want +got):\n%s", diff)
		}
	})
}

func TestSuspendedAndRevokedAreReported(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"suspended", "revoked"} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, dir := &platform{t: t}, t.TempDir()
				if _, err := keep(t, p, dir, time.Second, catalog()); err != nil {
					t.Fatal(err)
				}
				p.changes()
				p.subscriptions[0]["status"] = status
				var log bytes.Buffer
				registry := prometheus.NewRegistry()
				k, err := New(openState(t, dir), []Source{catalog()}, Options{
					HTTP: &http.Client{Transport: p}, Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: registry,
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := runUntilEnsured(t, k, time.Second, func() { wantStates(t, registry, status) }); err != nil {
					t.Fatal(err)
				}
				if n, err := testutil.GatherAndCount(registry, statesMetric); err != nil || n != 0 {
					t.Errorf("%d series (%v) of a source that is kept no more", n, err)
				}
				wantChanges(t, p)
				if got := k.Status()[0].Subscriptions[0].Status; got != status {
					t.Errorf("Status = %q, want %q", got, status)
				}
				if !strings.Contains(log.String(), `level=WARN msg="subscription is `+status) || !strings.Contains(log.String(), "subscription=families") {
					t.Errorf("log without a warning:\n%s", log.String())
				}
			})
		})
	}
}

const statesMetric = "pimrelay_subscription_declared_subscriptions"

// wantStates checks that there is one declared subscription, with that status.
func wantStates(t *testing.T, registry *prometheus.Registry, status string) {
	t.Helper()
	want := "# HELP " + statesMetric + " Declared subscriptions by their status at the platform: active, suspended, revoked, other or unknown.\n" +
		"# TYPE " + statesMetric + " gauge\n"
	for _, label := range []string{"active", "other", "revoked", "suspended", "unknown"} {
		n := 0
		if label == status {
			n = 1
		}
		want += fmt.Sprintf("%s{source=\"catalog\",status=%q} %d\n", statesMetric, label, n)
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), statesMetric); err != nil {
		t.Error(err)
	}
}

// TestRevokedIsNotChanged: the platform would refuse it for ever.
func TestRevokedIsNotChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, dir := &platform{t: t}, t.TempDir()
		if _, err := keep(t, p, dir, time.Second, catalog()); err != nil {
			t.Fatal(err)
		}
		p.changes()
		p.subscriptions[0]["status"] = "revoked"
		source := catalog()
		source.Secrets.Primary = "another-secret-0123"
		if _, err := keep(t, p, dir, time.Second, source); err != nil {
			t.Fatal(err)
		}
		wantChanges(t, p)
	})
}

func TestOneSubscriptionDoesNotKeepTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &platform{t: t}
		source := catalog()
		source.Subscriptions["apps"] = Subscription{Events: []string{"com.akeneo.pim.v1.app.deleted"}, Filter: "nonsense"}
		k, err := keep(t, p, t.TempDir(), time.Second, source)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `source "catalog"`) {
			t.Errorf("Ensured: %v, want a deadline", err)
		}
		status := k.Status()[0]
		const refused = "create subscription: the answer is 422 Unprocessable Entity: the filter cannot be parsed"
		if status.Ensured || status.Err != `subscription "apps": `+refused {
			t.Errorf("Status: %+v", status)
		}
		got := []string{status.Subscriptions[0].Key, status.Subscriptions[0].Err, status.Subscriptions[1].Key, status.Subscriptions[1].Status}
		if diff := cmp.Diff([]string{"apps", refused, "families", "active"}, got); diff != "" {
			t.Errorf("subscriptions (-want +got):\n%s", diff)
		}
	})
}

func TestLimitsAreSeenBeforeTheCall(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		fill func(*platform)
		want string
	}{
		{"subscribers", func(p *platform) {
			for range 20 {
				p.add(&p.subscribers, object{"name": "other"})
			}
		}, "the PIM has 20 subscribers already"},
		{"subscriptions", func(p *platform) {
			p.add(&p.subscribers, object{"name": "pimrelay", "contact": object{"technical_email": "ops@example.com"}})
			for range 20 {
				p.add(&p.subscriptions, object{"type": "https"})
			}
		}, "the subscriber has 20 subscriptions already"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &platform{t: t}
				test.fill(p)
				k, err := keep(t, p, t.TempDir(), time.Second, catalog())
				if err == nil || !strings.Contains(k.Status()[0].Err, test.want) {
					t.Errorf("Ensured: %v, status %q, want %q", err, k.Status()[0].Err, test.want)
				}
				wantChanges(t, p)
			})
		})
	}
}

func TestRevokedSubscriberNeedsAPerson(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, dir := &platform{t: t}, t.TempDir()
		if _, err := keep(t, p, dir, time.Second, catalog()); err != nil {
			t.Fatal(err)
		}
		p.changes()
		p.subscribers[0]["status"] = "revoked"
		k, err := keep(t, p, dir, time.Second, catalog())
		if err == nil || !strings.Contains(k.Status()[0].Err, `has revoked subscriber "pimrelay"`) {
			t.Errorf("Ensured: %v, status %q", err, k.Status()[0].Err)
		}
		wantChanges(t, p)
		renamed := catalog() // as the error says
		renamed.Subscriber.Name = "pimrelay-2"
		p.subscriptions = nil
		if _, err := keep(t, p, dir, time.Second, renamed); err != nil {
			t.Fatal(err)
		}
		if len(p.subscribers) != 2 || len(p.subscriptions) != 1 || p.subscriptions[0]["subscriber_id"] != "id-3" {
			t.Errorf("subscribers %v and subscriptions %v", p.subscribers, p.subscriptions)
		}
	})
}

func TestOfSeveralWithOneURLTheRememberedStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, dir := &platform{t: t}, t.TempDir()
		if _, err := keep(t, p, dir, time.Second, catalog()); err != nil {
			t.Fatal(err)
		}
		p.changes()
		p.add(&p.subscriptions, object{"type": "https", "config": object{"url": familiesURL}})
		p.subscriptions[1]["created_at"] = "2020-01-01T00:00:00Z" // older than ours
		k, err := keep(t, p, dir, time.Second, catalog())
		if err != nil {
			t.Fatal(err)
		}
		wantChanges(t, p)
		if id := k.Status()[0].Subscriptions[0].ID; id != "id-2" {
			t.Errorf("kept %s, want id-2", id)
		}
		p.subscriptions[0]["status"] = "revoked"
		if k, err = keep(t, p, dir, time.Second, catalog()); err != nil {
			t.Fatal(err)
		}
		if id := k.Status()[0].Subscriptions[0].ID; id != "id-3" {
			t.Errorf("kept %s, want the one that is not revoked", id)
		}
		if diff := cmp.Diff(map[string]any{"primary": primary}, p.secret(1)); diff != "" {
			t.Errorf("secrets of the other one (-want +got):\n%s", diff)
		}
	})
}

// TestPlatformThatIgnoresAChange: the change is not sent over and over.
func TestPlatformThatIgnoresAChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, dir := &platform{t: t, answers: func(o object) {
			if o["filter"] != nil {
				o["filter"] = `user="stubborn"`
			}
		}}, t.TempDir()
		if _, err := keep(t, p, dir, time.Second, catalog()); err != nil {
			t.Fatal(err)
		}
		p.changes()
		k, err := keep(t, p, dir, time.Hour, catalog())
		if err != nil {
			t.Fatal(err)
		}
		wantChanges(t, p, `PATCH /api/v1/subscribers/id-1/subscriptions/id-2 {"filter":"not user=\"x\""}`)
		if got := k.Status()[0].Subscriptions[0].Err; got != "the platform has accepted a change and kept its own value of: filter" {
			t.Errorf("Err = %q", got)
		}
	})
}

// TestEventsArePinned: what a pattern stood for when the subscription was made
// stays, although this release knows more types.
func TestEventsArePinned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, dir := &platform{t: t}, t.TempDir()
		if _, err := keep(t, p, dir, time.Second, catalog()); err != nil {
			t.Fatal(err)
		}
		p.changes()
		older := []string{"com.akeneo.pim.v1.family.created", "com.akeneo.pim.v1.family.updated"}
		err := openState(t, dir).update("catalog", func(s *sourceState) {
			one := s.Subscriptions["families"]
			one.Events = older
			s.Subscriptions["families"] = one
		})
		if err != nil {
			t.Fatal(err)
		}
		p.subscriptions[0]["events"] = older
		if _, err := keep(t, p, dir, time.Second, catalog()); err != nil {
			t.Fatal(err)
		}
		wantChanges(t, p)
	})
}
