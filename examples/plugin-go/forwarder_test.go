package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

// configured is a forwarder to url, which is not paced unless keys say so.
func configured(t *testing.T, url string, keys map[string]any) *forwarder {
	t.Helper()
	all := map[string]any{"url": url, "min_interval": "0s"}
	for key, value := range keys {
		all[key] = value
	}
	raw, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	f := newForwarder(slog.New(slog.DiscardHandler))
	if err := f.Configure(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return f
}

func event(body string) sdk.Event {
	return sdk.Event{ID: "id-1", Type: "com.akeneo.pim.v1.product.updated", Entity: "product:42", Source: "catalog", Body: []byte(body), Payload: []byte(body), Attempt: 1}
}

// chat keeps the bodies it gets and answers as it is told.
type chat struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string // guarded by mu
}

func newChat(t *testing.T, answer http.HandlerFunc) *chat {
	c := &chat{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		c.bodies = append(c.bodies, string(body))
		c.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(c.Close)
	return c
}

func accept(http.ResponseWriter, *http.Request) {}

func TestPostsMessages(t *testing.T) {
	t.Parallel()
	const body = `{"data": {"product": {"name": "<!channel> & <users/all>", "stock": 123456789}}}`
	const text = `{{.Type}}: {{.Data.product.name}} ({{.Data.product.stock}}, {{.Data.product.colour}}) <https://pim.example.com|PIM>`
	for name, test := range map[string]struct {
		keys map[string]any
		want string
	}{
		"default":     {nil, `{"text":"com.akeneo.pim.v1.product.updated product:42"}`},
		"slack":       {map[string]any{"text": text}, `{"text":"com.akeneo.pim.v1.product.updated: &lt;!channel&gt; &amp; &lt;users/all&gt; (123456789, –) <https://pim.example.com|PIM>"}`},
		"google-chat": {map[string]any{"text": "{{.Data.product.name}}", "style": "google-chat"}, "{\"text\":\"<\u200b!channel> & <\u200busers/all>\"}"},
		"teams":       {map[string]any{"text": "{{.ID}}", "style": "teams"}, `{"type":"message","attachments":[{"contentType":"application/vnd.microsoft.card.adaptive","content":{"type":"AdaptiveCard","version":"1.4","$schema":"http://adaptivecards.io/schemas/adaptive-card.json","body":[{"type":"TextBlock","text":"id-1","wrap":true}]}}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := newChat(t, accept)
			got := configured(t, to.URL, test.keys).Deliver(t.Context(), []sdk.Event{event(body)})
			if diff := cmp.Diff([]sdk.Outcome{sdk.Delivered()}, got); diff != "" {
				t.Fatalf("outcomes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(decoded(t, test.want), decoded(t, to.bodies[0])); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func decoded(t *testing.T, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func TestCutsLongMessages(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{{range 1000000000000}}ä{{end}}`, strings.Repeat("ä", 5000)} {
		to := newChat(t, accept)
		configured(t, to.URL, map[string]any{"text": text}).Deliver(t.Context(), []sdk.Event{event("{}")})
		got := decoded(t, to.bodies[0]).(map[string]any)["text"].(string)
		if n := len([]rune(got)); n != 4000 || !strings.HasSuffix(got, "ä…") {
			t.Errorf("%d characters, ending in %q", n, got[len(got)-8:])
		}
	}
}

func TestWhatCannotBeWritten(t *testing.T) {
	t.Parallel()
	to := newChat(t, func(http.ResponseWriter, *http.Request) { t.Error("a request") })
	nested := configured(t, to.URL, map[string]any{"text": "{{.Data.product.name}}"})
	for name, test := range map[string]struct {
		f    *forwarder
		body string
		want sdk.Outcome
	}{
		"no JSON":     {nested, "", sdk.Rejected(`template: text:1:7: executing "text" at <.Data.product.name>: error calling Data: the event is no JSON`)},
		"no data":     {nested, "{}", sdk.Rejected(`template: text:1:7: executing "text" at <.Data.product.name>: nil pointer evaluating interface {}.product`)},
		"empty text":  {configured(t, to.URL, map[string]any{"text": `{{if eq .Type "x"}}x{{end}}`}), "{}", sdk.Delivered()},
		"wrong field": {configured(t, to.URL, map[string]any{"text": `{{index .Fields "a" "b"}}`}), "{}", sdk.Rejected(`template: text:1:2: executing "text" at <index .Fields "a" "b">: error calling index: cannot index slice/array with type string`)},
	} {
		got := test.f.Deliver(t.Context(), []sdk.Event{event(test.body)})[0]
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]sdk.Outcome{
		200: sdk.Delivered(),
		202: sdk.Delivered(),
		302: sdk.Retry(3*time.Second, errors.New("the chat answered 302 Found")),
		400: sdk.Rejected("the chat answered 400 Bad Request"),
		401: sdk.Retry(3*time.Second, errors.New("the chat answered 401 Unauthorized: check url, the webhook may have been removed")),
		403: sdk.Retry(3*time.Second, errors.New("the chat answered 403 Forbidden: check url, the webhook may have been removed")),
		404: sdk.Retry(3*time.Second, errors.New("the chat answered 404 Not Found: check url, the webhook may have been removed")),
		413: sdk.Rejected("the chat answered 413 Request Entity Too Large"),
		429: sdk.Throttled(3*time.Second, "the chat answered 429 Too Many Requests"),
		500: sdk.Retry(3*time.Second, errors.New("the chat answered 500 Internal Server Error")),
	} {
		to := newChat(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "3")
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "no: "+r.URL.Path+" \x1b[2J")
		})
		if want.Result != sdk.ResultDelivered {
			want.Answer = "no: [redacted]  [2J"
		}
		got := configured(t, to.URL+"/services/T00000000", nil).Deliver(t.Context(), []sdk.Event{event("{}")})
		if diff := cmp.Diff([]sdk.Outcome{want}, got); diff != "" {
			t.Errorf("%d (-want +got):\n%s", status, diff)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "x": 0, "-1": 0, "1.5": 0, "30": 30 * time.Second, "999999999": longestWait,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:05 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

// No reason shows the URL, whatever goes wrong.
func TestKeepsTheURLSecret(t *testing.T) {
	t.Parallel()
	hung := newChat(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	const path, query = "/services/T00000000/verysecret", "?key=alsosecret&token=topsecret"
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for _, host := range []string{hung.URL, gone.URL} {
		f := configured(t, host+path+query, nil)
		got := f.Deliver(ctx, []sdk.Event{event("{}")})[0]
		if got.Result != sdk.ResultRetry || got.Reason == "" || strings.Contains(got.Reason+got.Answer, "secret") {
			t.Errorf("%+v", got)
		}
		if shown := f.clean("Post " + host + path + query + ": token topsecret"); strings.Contains(shown, "secret") {
			t.Errorf("shown: %s", shown)
		}
	}
}

func TestConfigurationErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ config, want string }{
		"nothing":     {`{}`, "url: is required, the address of an incoming webhook such as https://hooks.slack.com/services/…"},
		"unknown":     {`{"url": "https://chat.example.com/x", "txt": ""}`, `txt: unknown key, did you mean "text"?`},
		"template":    {`{"url": "https://chat.example.com/x", "text": "{{.Type"}`, "text: must be a Go template: template: text:1: unclosed action"},
		"attribute":   {`{"url": "https://chat.example.com/x", "text": "{{.Typ}}"}`, `text: must name attributes that events have: ID, Type, Subject, Source, Entity, Key, Time, Attempt, Replayed, Fields, Data (template: text:1:2: executing "text" at <.Typ>: can't evaluate field Typ in type *main.view)`},
		"empty":       {`{"url": "https://chat.example.com/x", "text": " "}`, "text: is required: leave it out for a text of type and entity"},
		"all at once": {`{"url": "https://a:verysecret@chat.example.com/", "style": "irc", "min_interval": "2h"}`, "url: must be an absolute http or https URL without user name and password, such as https://hooks.slack.com/services/…\nstyle: must be google-chat, slack, teams (got \"irc\")\nmin_interval: must be from 0s to 1h0m0s (got 2h0m0s)"},
	} {
		err := newForwarder(slog.New(slog.DiscardHandler)).Configure(t.Context(), json.RawMessage(test.config))
		var faults sdk.Faults
		if !errors.As(err, &faults) || faults.Error() != test.want {
			t.Errorf("%s: %v, want:\n%s", name, err, test.want)
		}
	}
}

func TestSchemaKeepsTheURLSecret(t *testing.T) {
	t.Parallel()
	schema := newForwarder(nil).Describe().ConfigSchema
	if !bytes.Contains(schema, []byte(`"writeOnly": true`)) || !bytes.Contains(schema, []byte(`"default": "1s"`)) {
		t.Errorf("%s", schema)
	}
}

// Messages keep their distance, whoever sends them; who cannot wait so long is
// told at once.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pace{interval: time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		began := time.Now()
		var mu sync.Mutex
		var turns, refusals []time.Duration
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				later, err := p.wait(ctx)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					t.Error(err)
				case later > 0:
					refusals = append(refusals, later)
				default:
					turns = append(turns, time.Since(began))
				}
			})
		}
		wg.Wait()
		// At 3 s too little of the 4 would be left for the answer.
		if diff := cmp.Diff([]time.Duration{0, time.Second, 2 * time.Second}, turns); diff != "" {
			t.Errorf("turns (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]time.Duration{3 * time.Second, 3 * time.Second}, refusals); diff != "" {
			t.Errorf("refusals (-want +got):\n%s", diff)
		}
	})
}

func TestPaceHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pace{interval: time.Second}
		p.hold(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if later, err := p.wait(ctx); later != time.Minute || err != nil {
			t.Errorf("%s, %v", later, err)
		}
		began := time.Now()
		if later, err := p.wait(t.Context()); later != 0 || err != nil || time.Since(began) != time.Minute {
			t.Errorf("%s, %v after %s", later, err, time.Since(began))
		}
		ended, stop := context.WithCancel(t.Context())
		stop()
		if _, err := p.wait(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

// After a 429 nobody asks again before the chat wants to be asked.
func TestHoldsAfterATooMany(t *testing.T) {
	t.Parallel()
	to := newChat(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	f := configured(t, to.URL, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := f.Deliver(ctx, []sdk.Event{event("{}"), event("{}")})
	for _, o := range got {
		if o.Result != sdk.ResultThrottled || o.After < 9*time.Minute {
			t.Errorf("%+v", o)
		}
	}
	if len(to.bodies) != 1 {
		t.Errorf("%d requests, want 1", len(to.bodies))
	}
}
