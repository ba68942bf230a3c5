package akeneo

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

var testPIM = PIM{
	URL:          "https://acme.example/", // with a slash, as people write it
	ClientID:     "the-client-id",
	ClientSecret: "the-client-secret",
	Username:     "the-user",
	Password:     "the-password",
}

// call is one request that a fake has received.
type call struct {
	Line   string // method and URL
	Body   string
	header http.Header
}

// fake is a PIM and a platform in one: an http.RoundTripper that calls a
// handler without a network, so that it works inside a synctest bubble.
type fake struct {
	t      *testing.T
	answer http.HandlerFunc // for everything but the token route

	mu     sync.Mutex // guards what follows
	calls  []call     // all but those to the token route
	grants []string   // bodies of the calls to the token route
	token  http.HandlerFunc
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	handler := f.record(r, string(body))
	w := httptest.NewRecorder()
	handler(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if w.Code == lost {
		return nil, errors.New("connection reset by peer")
	}
	return w.Result(), nil
}

// lost is a status by which a handler makes the transport fail.
const lost = 999

func (f *fake) record(r *http.Request, body string) http.HandlerFunc {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.URL.Path != "/api/oauth/v1/token" {
		f.calls = append(f.calls, call{Line: r.Method + " " + r.URL.String(), Body: body, header: r.Header})
		return f.answer
	}
	f.grants = append(f.grants, body)
	if f.token != nil {
		return f.token
	}
	pair := `{"access_token":"access-%","refresh_token":"refresh-%","expires_in":3600,"token_type":"bearer","scope":null}`
	return say(http.StatusOK, strings.ReplaceAll(pair, "%", string(rune('0'+len(f.grants)))))
}

func (f *fake) client() *Client {
	f.t.Helper()
	c, err := NewClient(testPIM, DefaultPlatformURL, &http.Client{Transport: f})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// say answers with a status and a body.
func say(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// inTurn answers each request with the next handler, and with the last one when
// they are used up.
func inTurn(handlers ...http.HandlerFunc) http.HandlerFunc {
	next := make(chan http.HandlerFunc, len(handlers))
	for _, h := range handlers[:len(handlers)-1] {
		next <- h
	}
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case h := <-next:
			h(w, r)
		default:
			handlers[len(handlers)-1](w, r)
		}
	}
}
