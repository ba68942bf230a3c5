package http

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	nethttp "net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

// configured is a forwarder to url with the other keys of its configuration.
func configured(t *testing.T, url string, keys map[string]any) *forwarder {
	t.Helper()
	return loggingTo(t, io.Discard, url, keys)
}

func loggingTo(t *testing.T, log io.Writer, url string, keys map[string]any) *forwarder {
	t.Helper()
	all := map[string]any{"url": url}
	for key, value := range keys {
		all[key] = value
	}
	raw, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	f := New(slog.New(slog.NewTextHandler(log, nil))).(*forwarder)
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

func rawEvent(id string) sdk.Event {
	body := []byte(`{"specversion":"1.0","id":"` + id + `","data":{"a": 1}}`)
	return sdk.Event{
		ID:          id,
		Type:        "com.akeneo.pim.v1.product.updated",
		Body:        body,
		Payload:     body,
		ContentType: "application/cloudevents+json",
		Headers: map[string]string{
			"Content-Type":                 "application/cloudevents+json; charset=utf-8",
			"X-Correlation-Id":             "correlation-1",
			"X-Akeneo-Signature-Primary":   "0011",
			"X-Akeneo-Signature-Secondary": "2233",
			"X-Akeneo-Signature-Algorithm": "HmacSHA256",
		},
		Attempt: 1,
	}
}

// request is what a test's destination has received.
type request struct {
	Method, Path, Query, Body string
	Header                    nethttp.Header
}

// recorder answers 204 and keeps the requests.
type recorder struct {
	mu       sync.Mutex
	requests []request // guarded by mu
}

func (r *recorder) ServeHTTP(w nethttp.ResponseWriter, in *nethttp.Request) {
	body, err := io.ReadAll(in.Body)
	if err != nil {
		w.WriteHeader(nethttp.StatusBadRequest)
		return
	}
	r.mu.Lock()
	r.requests = append(r.requests, request{in.Method, in.URL.Path, in.URL.RawQuery, string(body), in.Header.Clone()})
	r.mu.Unlock()
	w.WriteHeader(nethttp.StatusNoContent)
}

func (r *recorder) only(t *testing.T) request {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.requests) != 1 {
		t.Fatalf("the destination received %d requests, want 1", len(r.requests))
	}
	return r.requests[0]
}

func one(t *testing.T, f *forwarder, event sdk.Event) sdk.Outcome {
	t.Helper()
	outcomes := f.Deliver(t.Context(), []sdk.Event{event})
	if len(outcomes) != 1 {
		t.Fatalf("one event gave %d outcomes", len(outcomes))
	}
	return outcomes[0]
}

func wantDelivered(t *testing.T, o sdk.Outcome) {
	t.Helper()
	if diff := cmp.Diff(sdk.Delivered(), o); diff != "" {
		t.Fatalf("unexpected outcome (-want +got):\n%s", diff)
	}
}

func TestDeliverSendsPayload(t *testing.T) {
	t.Parallel()
	sink := &recorder{}
	server := httptest.NewServer(sink)
	defer server.Close()
	f := configured(t, server.URL+"/hooks?key=v", map[string]any{
		"method":  "PUT",
		"headers": map[string]string{"authorization": "Bearer hunter2"},
	})
	event := rawEvent("018dd1de-1")
	event.Payload = []byte("a,b\n1,2\n")
	event.ContentType = "text/csv"
	wantDelivered(t, one(t, f, event))

	want := request{
		Method: "PUT", Path: "/hooks", Query: "key=v", Body: "a,b\n1,2\n",
		Header: nethttp.Header{
			"Authorization":   {"Bearer hunter2"},
			"Content-Length":  {"8"},
			"Content-Type":    {"text/csv"},
			"Idempotency-Key": {"018dd1de-1"},
			"User-Agent":      {"pimrelay"},
		},
	}
	if diff := cmp.Diff(want, sink.only(t)); diff != "" {
		t.Errorf("unexpected request (-want +got):\n%s", diff)
	}
}

func TestDeliverPassesSignatures(t *testing.T) {
	t.Parallel()
	platform := []string{
		"Content-Type: application/cloudevents+json; charset=utf-8",
		"X-Akeneo-Signature-Algorithm: HmacSHA256",
		"X-Akeneo-Signature-Primary: 0011",
		"X-Akeneo-Signature-Secondary: 2233",
		"X-Correlation-Id: correlation-1",
	}
	for name, test := range map[string]struct {
		pass   bool
		change func(*sdk.Event)
		want   []string
	}{
		"off":        {false, func(*sdk.Event) {}, []string{"Content-Type: application/cloudevents+json"}},
		"raw":        {true, func(*sdk.Event) {}, platform},
		"equal copy": {true, func(e *sdk.Event) { e.Payload = bytes.Clone(e.Body) }, platform},
		"one byte changed": {true, func(e *sdk.Event) {
			e.Payload = bytes.ToUpper(e.Body)
		}, []string{"Content-Type: application/cloudevents+json", "X-Correlation-Id: correlation-1"}},
		"another length": {true, func(e *sdk.Event) {
			e.Payload = []byte(`{}`)
		}, []string{"Content-Type: application/cloudevents+json", "X-Correlation-Id: correlation-1"}},
		"no headers kept": {true, func(e *sdk.Event) { e.Headers = nil }, []string{"Content-Type: application/cloudevents+json"}},
		"unfit values": {true, func(e *sdk.Event) {
			e.Headers["X-Correlation-Id"] = "a\r\nX-Injected: 1"
			e.Headers["X-Akeneo-Signature-Primary"] = "\x00"
			e.Headers["X-Other"] = "not passed"
		}, []string{platform[0], platform[1], platform[3]}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := &recorder{}
			server := httptest.NewServer(sink)
			defer server.Close()
			f := configured(t, server.URL, map[string]any{"pass_signatures": test.pass})
			event := rawEvent("1")
			test.change(&event)
			wantDelivered(t, one(t, f, event))

			received := sink.only(t)
			var got []string
			for name, values := range received.Header {
				if strings.HasPrefix(name, "X-") || name == "Content-Type" {
					got = append(got, name+": "+strings.Join(values, ","))
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("unexpected headers (-want +got):\n%s", diff)
			}
			if received.Body != string(event.Payload) {
				t.Errorf("received the body %q", received.Body)
			}
		})
	}
}

func TestDeliverWarnsOnceOfLostSignatures(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(&recorder{})
	defer server.Close()
	var log bytes.Buffer
	f := loggingTo(t, &log, server.URL, map[string]any{"pass_signatures": true})
	event := rawEvent("1")
	event.Payload = []byte(`{}`)
	wantDelivered(t, one(t, f, event))
	wantDelivered(t, one(t, f, event))
	if n := strings.Count(log.String(), "signatures left out"); n != 1 {
		t.Errorf("warned %d times, want once:\n%s", n, log.String())
	}
}

// Ids are any text to CloudEvents, and a header is not.
func TestDeliverSendsAnyID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"018dd1de-dc20-794a-8eb7-c4dd86e9bc8f": "018dd1de-dc20-794a-8eb7-c4dd86e9bc8f",
		"a%2Fb/c?d":                            "a%2Fb/c?d",
		"a\r\nX-Injected: 1":                   "a%0D%0AX-Injected:%201",
		" é":                                   "%20%C3%A9",
		"\xff":                                 "%FF",
	} {
		sink := &recorder{}
		server := httptest.NewServer(sink)
		f := configured(t, server.URL, nil)
		event := rawEvent("1")
		event.ID = id
		wantDelivered(t, one(t, f, event))
		header := sink.only(t).Header
		if got := header.Get("Idempotency-Key"); got != want || header.Get("X-Injected") != "" {
			t.Errorf("the id %q is sent as %q, want %q", id, got, want)
		}
		server.Close()
	}
}

func TestDeliverAnswersForEachEvent(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		switch r.Header.Get("Idempotency-Key") {
		case "bad":
			w.WriteHeader(nethttp.StatusUnprocessableEntity)
			fmt.Fprint(w, "no such product")
		case "busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(nethttp.StatusTooManyRequests)
		}
	}))
	defer server.Close()
	f := configured(t, server.URL, nil)
	got := f.Deliver(t.Context(), []sdk.Event{rawEvent("good"), rawEvent("bad"), rawEvent("busy"), rawEvent("last")})
	want := []sdk.Outcome{
		sdk.Delivered(),
		{Result: sdk.ResultRejected, Reason: "answered 422 Unprocessable Entity", Answer: "no such product"},
		sdk.Throttled(7*time.Second, "answered 429 Too Many Requests"),
		sdk.Delivered(),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("unexpected outcomes (-want +got):\n%s", diff)
	}
	if none := f.Deliver(t.Context(), nil); len(none) != 0 {
		t.Errorf("no event gave %d outcomes", len(none))
	}
}

func TestDeliverFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	elsewhere := &recorder{}
	other := httptest.NewServer(elsewhere)
	defer other.Close()
	server := httptest.NewServer(nethttp.RedirectHandler(other.URL+"/new?token=hunter2", nethttp.StatusPermanentRedirect))
	defer server.Close()
	f := configured(t, server.URL, map[string]any{"headers": map[string]string{"Authorization": "hunter2"}})
	got := one(t, f, rawEvent("1"))
	reason := "answered 308 Permanent Redirect: redirects are not followed, check url (points to " + other.URL + ")"
	if got.Result != sdk.ResultRetry || got.Reason != reason {
		t.Errorf("got %v, %q; want a retry, %q", got.Result, got.Reason, reason)
	}
	if len(elsewhere.requests) != 0 {
		t.Error("the redirect was followed")
	}
}

func TestDeliverConcurrently(t *testing.T) {
	t.Parallel()
	sink := &recorder{}
	server := httptest.NewServer(sink)
	defer server.Close()
	f := configured(t, server.URL, map[string]any{"pass_signatures": true})
	var calls sync.WaitGroup
	for worker := range 8 {
		calls.Go(func() {
			for i := range 20 {
				wanted := sdk.Delivered()
				if got := f.Deliver(t.Context(), []sdk.Event{rawEvent(fmt.Sprintf("%d-%d", worker, i))}); !cmp.Equal(got, []sdk.Outcome{wanted}) {
					t.Errorf("got %v", got)
				}
			}
		})
	}
	calls.Wait()
	ids := map[string]bool{}
	for _, r := range sink.requests {
		id := r.Header.Get("Idempotency-Key")
		ids[id] = true
		if !strings.Contains(r.Body, `"`+id+`"`) {
			t.Errorf("the event %s came with the body %s", id, r.Body)
		}
	}
	if len(ids) != 160 {
		t.Errorf("%d events arrived, want 160", len(ids))
	}
}
