package akeneo

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

const sampleSubscription = `{"id":"019363c6-139b-7412-a020-75934c917645",
 "config":{"url":"https://my.webhook.com","secret":{"primary":"***redacted***","secondary":"***redacted***"}},
 "events":["com.akeneo.pim.v1.product.deleted"],"type":"https","source":"pim","filter":"user=\"x\"",
 "subject":"https://mypim.cloud.akeneo.com","status":"suspended","send_product_identifier":true,
 "subscriber_id":"019363c4-6e22-7dd4-a811-6aab07f1d474","options":{"new":1},
 "created_at":"2024-11-25T14:42:25.819268Z","updated_at":"2024-11-25T16:35:56.766198Z"}`

// TestCalls holds the wire form of each call: method, URL and body.
func TestCalls(t *testing.T) {
	t.Parallel()
	const base = "https://event.prd.sdk.akeneo.cloud/api/v1/subscribers"
	yes, none := true, ""
	spec := SubscriptionSpec{
		Destination: Destination{URL: "https://r.example/hooks/c/k", Primary: "primary-secret-0123", Secondary: "secondary-secret-01"},
		Events:      []string{"a.b", "a.c"}, Filter: `not user="x"`,
	}
	plain := spec
	plain.Destination.Secondary, plain.Filter, plain.SendProductIdentifier = "", "", true
	tests := []struct {
		name string
		do   func(context.Context, *Client) error
		want call
	}{
		{"list subscribers", func(ctx context.Context, c *Client) error { _, err := c.Subscribers(ctx); return err },
			call{Line: "GET " + base}},
		{"read subscriber", func(ctx context.Context, c *Client) error { _, err := c.Subscriber(ctx, "s/1"); return err },
			call{Line: "GET " + base + "/s%2F1"}},
		{"create subscriber", func(ctx context.Context, c *Client) error {
			_, err := c.CreateSubscriber(ctx, SubscriberSpec{Name: "n", TechnicalEmail: "a@b.example"})
			return err
		}, call{Line: "POST " + base, Body: `{"name":"n","contact":{"technical_email":"a@b.example"}}`}},
		{"update subscriber", func(ctx context.Context, c *Client) error {
			_, err := c.UpdateSubscriber(ctx, "s", SubscriberSpec{TechnicalEmail: "a@b.example"})
			return err
		}, call{Line: "PATCH " + base + "/s", Body: `{"contact":{"technical_email":"a@b.example"}}`}},
		{"list subscriptions", func(ctx context.Context, c *Client) error { _, err := c.Subscriptions(ctx, "s"); return err },
			call{Line: "GET " + base + "/s/subscriptions"}},
		{"read subscription", func(ctx context.Context, c *Client) error { _, err := c.Subscription(ctx, "s", "x"); return err },
			call{Line: "GET " + base + "/s/subscriptions/x"}},
		{"create subscription", func(ctx context.Context, c *Client) error { _, err := c.CreateSubscription(ctx, "s", spec); return err },
			call{Line: "POST " + base + "/s/subscriptions", Body: `{"source":"pim","subject":"https://acme.example","type":"https",` +
				`"events":["a.b","a.c"],"config":{"url":"https://r.example/hooks/c/k","secret":{"primary":"primary-secret-0123",` +
				`"secondary":"secondary-secret-01"}},"filter":"not user=\"x\"","send_product_identifier":false}`}},
		{"create subscription without the optional parts", func(ctx context.Context, c *Client) error {
			_, err := c.CreateSubscription(ctx, "s", plain)
			return err
		}, call{Line: "POST " + base + "/s/subscriptions", Body: `{"source":"pim","subject":"https://acme.example","type":"https",` +
			`"events":["a.b","a.c"],"config":{"url":"https://r.example/hooks/c/k","secret":{"primary":"primary-secret-0123"}},` +
			`"send_product_identifier":true}`}},
		{"update part of a subscription", func(ctx context.Context, c *Client) error {
			_, err := c.UpdateSubscription(ctx, "s", "x", SubscriptionChange{Filter: &none, SendProductIdentifier: &yes})
			return err
		}, call{Line: "PATCH " + base + "/s/subscriptions/x", Body: `{"filter":"","send_product_identifier":true}`}},
		{"update a secret", func(ctx context.Context, c *Client) error {
			_, err := c.UpdateSubscription(ctx, "s", "x", SubscriptionChange{Destination: &plain.Destination})
			return err
		}, call{Line: "PATCH " + base + "/s/subscriptions/x",
			Body: `{"config":{"url":"https://r.example/hooks/c/k","secret":{"primary":"primary-secret-0123"}}}`}},
		{"delete", func(ctx context.Context, c *Client) error { return c.DeleteSubscription(ctx, "s", "x") },
			call{Line: "DELETE " + base + "/s/subscriptions/x"}},
		{"suspend", func(ctx context.Context, c *Client) error { return c.SuspendSubscription(ctx, "s", "x") },
			call{Line: "POST " + base + "/s/subscriptions/x/suspend"}},
		{"resume", func(ctx context.Context, c *Client) error { return c.ResumeSubscription(ctx, "s", "x") },
			call{Line: "POST " + base + "/s/subscriptions/x/resume"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{t: t, answer: func(w http.ResponseWriter, r *http.Request) {
				list := r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "s")
				if list {
					say(http.StatusOK, "["+sampleSubscription+"]")(w, r)
					return
				}
				say(http.StatusOK, sampleSubscription)(w, r)
			}}
			if err := test.do(t.Context(), f.client()); err != nil {
				t.Fatal(err)
			}
			if len(f.calls) != 1 {
				t.Fatalf("%d calls, want 1", len(f.calls))
			}
			got := f.calls[0]
			for name, want := range map[string]string{
				"X-PIM-URL": "https://acme.example", "X-PIM-TOKEN": "access-1", "X-PIM-CLIENT-ID": "the-client-id", "Authorization": "",
			} {
				if value := got.header.Get(name); value != want {
					t.Errorf("%s: %q, want %q", name, value, want)
				}
			}
			got.header = nil
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(call{})); diff != "" {
				t.Errorf("call (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTolerantReading(t *testing.T) {
	t.Parallel()
	created := time.Date(2024, 11, 25, 14, 42, 25, 819268000, time.UTC)
	full := Subscription{
		ID: "019363c6-139b-7412-a020-75934c917645", SubscriberID: "019363c4-6e22-7dd4-a811-6aab07f1d474",
		Type: "https", Status: "suspended", URL: "https://my.webhook.com",
		Events: []string{"com.akeneo.pim.v1.product.deleted"}, Filter: `user="x"`, SendProductIdentifier: true, CreatedAt: created,
	}
	tests := []struct {
		name, answer string
		want         []Subscription
	}{
		{"as documented", "[" + sampleSubscription + "]", []Subscription{full}},
		{"camel-case times", `[{"id":"i","createdAt":"2024-11-25T14:42:25.819268Z"}]`, []Subscription{{ID: "i", CreatedAt: created}}},
		{"null list", "null", nil},
		{"empty list", "[]", []Subscription{}},
		{"nulls inside", `[{"id":"i","events":null,"filter":null,"config":null,"send_product_identifier":null,"created_at":null}]`,
			[]Subscription{{ID: "i"}}},
		{"another type and state", `[{"id":"i","type":"AMQP","status":"Hibernating","config":{"url":["a","b"]}}]`,
			[]Subscription{{ID: "i", Type: "amqp", Status: "hibernating"}}},
		{"a config that is no object", `[{"id":"i","config":"topic"}]`, []Subscription{{ID: "i"}}},
		{"synonyms", `[{"id":"i","status":"ENABLED"},{"id":"j","status":"disabled"}]`,
			[]Subscription{{ID: "i", Status: StatusActive}, {ID: "j", Status: StatusSuspended}}},
		{"a time that is none", `[{"id":"i","created_at":"soon"},{"id":"j","created_at":5}]`, []Subscription{{ID: "i"}, {ID: "j"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{t: t, answer: say(http.StatusOK, test.answer)}
			got, err := f.client().Subscriptions(t.Context(), "s")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Subscriptions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTolerantReadingOfSubscribers(t *testing.T) {
	t.Parallel()
	f := &fake{t: t, answer: say(http.StatusOK, `[
		{"id":"a","name":"n","subject":"https://p/","status":"ACTIVE","contact":{"technical_email":"a@b","notification_channels":["email"]},
		 "created_at":"2024-06-27T16:26:00Z","tenant_id":"t"},
		{"id":"b","name":"m","status":"purgatory","contact":[]}]`)}
	got, err := f.client().Subscribers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Subscriber{
		{ID: "a", Name: "n", Subject: "https://p/", Status: "active", TechnicalEmail: "a@b",
			CreatedAt: time.Date(2024, 6, 27, 16, 26, 0, 0, time.UTC)},
		{ID: "b", Name: "m", Status: "purgatory"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Subscribers (-want +got):\n%s", diff)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"empty": "", "no JSON": "<html>", "an object for a list": "{}", "numbers": "[1]",
		"endless": "[" + strings.Repeat(" ", maxAnswer) + "]",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{t: t, answer: say(http.StatusOK, answer)}
			if got, err := f.client().Subscribers(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "list subscribers: ") {
				t.Errorf("Subscribers = %v, %v, want an error", got, err)
			}
		})
	}
	for name, answer := range map[string]string{"no id": `{"status":"active"}`, "null": "null"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{t: t, answer: say(http.StatusCreated, answer)}
			_, err := f.client().CreateSubscriber(t.Context(), SubscriberSpec{Name: "n"})
			if err == nil || err.Error() != "create subscriber: the answer names no id" {
				t.Errorf("error %v, want one for the missing id", err)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		status     int
		want       string // of the error, after the operation
		is         func(*APIError) bool
	}{
		{"the platform's form", `{"errors":[{"message":"one"},{"message":"two","path":"x"}]}`, 400,
			"the answer is 400 Bad Request: one; two", (*APIError).Invalid},
		{"the same with 422", `{"errors":[{"message":"one"}]}`, 422,
			"the answer is 422 Unprocessable Entity: one", (*APIError).Invalid},
		{"the PIM's form", `{"code":404,"message":"gone"}`, 404, "the answer is 404 Not Found: gone", (*APIError).NotFound},
		{"OAuth's form", `{"error":"invalid_grant","error_description":"why"}`, 409,
			"the answer is 409 Conflict: invalid_grant; why", (*APIError).Conflict},
		{"no form", `<html>`, 502, "the answer is 502 Bad Gateway", (*APIError).Temporary},
		{"no body", ``, 429, "the answer is 429 Too Many Requests", (*APIError).Temporary},
		{"null errors", `{"errors":null}`, 400, "the answer is 400 Bad Request", (*APIError).Invalid},
		{"permission", `{"errors":[]}`, 403, "the answer is 403 Forbidden (allow the connection or app to subscribe to events " +
			"in its settings in the PIM)", func(e *APIError) bool { return !e.Temporary() && !e.Invalid() }},
		{"several lines", `{"errors":[{"message":"a\nb\u0000"},{"message":""}]}`, 400, "the answer is 400 Bad Request: a b", (*APIError).Invalid},
		{"long", `{"errors":[{"message":"` + strings.Repeat("ä", 200) + `"}]}`, 400,
			"the answer is 400 Bad Request: " + strings.Repeat("ä", 150) + "…", (*APIError).Invalid},
		{"repeats secrets", `{"errors":[{"message":"primary-secret-0123 access-1 the-password the-client-secret bad"}]}`, 400,
			"the answer is 400 Bad Request: [redacted] [redacted] [redacted] [redacted] bad", (*APIError).Invalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{t: t, answer: say(test.status, test.body)}
			spec := SubscriptionSpec{Destination: Destination{URL: "https://r.example", Primary: "primary-secret-0123"}}
			_, err := f.client().CreateSubscription(t.Context(), "s", spec)
			var refused *APIError
			if !errors.As(err, &refused) || refused.Status != test.status || refused.Operation != "create subscription" || !test.is(refused) {
				t.Fatalf("error %#v, want an APIError with status %d", err, test.status)
			}
			if want := "create subscription: " + test.want; err.Error() != want {
				t.Errorf("error\n%q, want\n%q", err, want)
			}
			if len(f.calls) != 1 {
				t.Errorf("%d calls: a create was sent again", len(f.calls))
			}
		})
	}
}

func TestReadingCallsAreRepeated(t *testing.T) {
	t.Parallel()
	asked := func(seconds string, next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", seconds)
			next(w, r)
		}
	}
	good, busy, slower, gone := say(200, "[]"), say(503, ""), say(429, ""), say(lost, "")
	tests := []struct {
		name       string
		answer     http.HandlerFunc
		calls      int
		fails      bool
		atLeast    time.Duration
		lessThan   time.Duration
		retryAfter time.Duration
	}{
		{name: "at once", answer: good, calls: 1, lessThan: 1},
		{name: "after a 503", answer: inTurn(busy, good), calls: 2, atLeast: 250 * time.Millisecond, lessThan: time.Second},
		{name: "after a broken connection", answer: inTurn(gone, good), calls: 2, atLeast: 250 * time.Millisecond, lessThan: time.Second},
		{name: "after both", answer: inTurn(gone, busy, good), calls: 3, atLeast: 1250 * time.Millisecond, lessThan: 3 * time.Second},
		{name: "three times in vain", answer: busy, calls: 3, fails: true, atLeast: 1250 * time.Millisecond, lessThan: 3 * time.Second},
		{name: "as asked", answer: inTurn(asked("7", slower), good), calls: 2, atLeast: 7 * time.Second, lessThan: 8 * time.Second},
		{name: "asked for too much", answer: asked("31", slower), calls: 1, fails: true, lessThan: 1, retryAfter: 31 * time.Second},
		{name: "asked for a date", answer: inTurn(asked("Fri, 31 Dec 1999 23:59:59 GMT", slower), good), calls: 2,
			atLeast: 250 * time.Millisecond, lessThan: time.Second},
		{name: "not after a 404", answer: say(404, ""), calls: 1, fails: true, lessThan: 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &fake{t: t, answer: test.answer}
				start := time.Now()
				_, err := f.client().Subscribers(t.Context())
				took := time.Since(start)
				if (err != nil) != test.fails || len(f.calls) != test.calls {
					t.Errorf("%d calls and %v, want %d calls", len(f.calls), err, test.calls)
				}
				if took < test.atLeast || took >= test.lessThan {
					t.Errorf("took %v, want at least %v and less than %v", took, test.atLeast, test.lessThan)
				}
				var refused *APIError
				if errors.As(err, &refused) && refused.RetryAfter != test.retryAfter {
					t.Errorf("RetryAfter = %v, want %v", refused.RetryAfter, test.retryAfter)
				}
			})
		})
	}
}

func TestChangingCallsAreSentOnce(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{"503": say(503, ""), "429": say(429, ""), "lost": say(lost, "")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{t: t, answer: answer}
			c := f.client()
			for _, err := range []error{
				c.SuspendSubscription(t.Context(), "s", "x"),
				c.DeleteSubscription(t.Context(), "s", "x"),
			} {
				if err == nil {
					t.Error("no error")
				}
			}
			if len(f.calls) != 2 {
				t.Errorf("%d calls, want one of each", len(f.calls))
			}
		})
	}
}

func TestCallsHaveADeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{t: t, answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }}
		start := time.Now()
		err := f.client().ResumeSubscription(t.Context(), "s", "x")
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != 10*time.Second {
			t.Errorf("error %v after %v, want a deadline after 10s", err, took)
		}
	})
}

func TestCancelEndsTheWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{t: t, answer: say(503, "")}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := f.client().Subscribers(ctx); err == nil || len(f.calls) != 1 {
			t.Errorf("%d calls and error %v, want one call and an error", len(f.calls), err)
		}
	})
}

// TestRealServer goes over TLS with a root of its own, and through a redirect
// that must not be followed.
func TestRealServer(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/oauth/v1/token", say(200, `{"access_token":"a"}`))
	mux.HandleFunc("GET /api/v1/subscribers", say(200, `[{"id":"i"}]`))
	mux.HandleFunc("GET /moved/api/v1/subscribers", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/api/v1/subscribers", http.StatusPermanentRedirect)
	})
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	pim := testPIM
	pim.URL = server.URL

	c, err := NewClient(pim, server.URL+"/", server.Client())
	if err != nil {
		t.Fatal(err)
	}
	if all, err := c.Subscribers(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("Subscribers = %v, %v", all, err)
	}
	c, err = NewClient(pim, server.URL+"/moved", server.Client())
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Subscribers(t.Context())
	var refused *APIError
	if !errors.As(err, &refused) || refused.Status != http.StatusPermanentRedirect || !strings.Contains(err.Error(), "redirects are not followed") {
		t.Errorf("error %v, want the redirect itself", err)
	}
}

// TestSecretsAreNotShown prints everything that a caller could print.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	d := Destination{URL: "u", Primary: "primary-secret-0123", Secondary: "secondary-secret-01"}
	text, err := json.Marshal([]any{testPIM, d, SubscriptionChange{Destination: &d}})
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []sdk.Secret{d.Primary, d.Secondary, testPIM.ClientSecret, testPIM.Password} {
		if strings.Contains(string(text), string(secret)) {
			t.Errorf("%s holds a secret", text)
		}
	}
}

func TestNewClientRefuses(t *testing.T) {
	t.Parallel()
	if _, err := NewClient(PIM{}, DefaultPlatformURL, nil); err == nil || !strings.HasPrefix(err.Error(), "pim: url: must be set") {
		t.Errorf("without a PIM: error %v", err)
	}
	if _, err := NewClient(testPIM, "ftp://x", nil); err == nil || !strings.HasPrefix(err.Error(), "platform_url: must begin with https://") {
		t.Errorf("with an odd platform: error %v", err)
	}
}
