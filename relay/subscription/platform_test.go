package subscription

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const redactedSecret = "***redacted***"

// object is a subscriber or a subscription as the platform keeps it.
type object map[string]any

// platform is the Management API and the PIM's token route as they are
// documented, in memory. As an http.RoundTripper it works inside a synctest
// bubble, as an http.Handler behind a real server.
type platform struct {
	t *testing.T
	// latency passes before a call is done, inside a synctest bubble.
	latency time.Duration

	mu            sync.Mutex // guards everything below
	subscribers   []object
	subscriptions []object
	calls         []string // method, path and, unless it is the token route, the body
	made          int
	// fault may take over a call: it is asked with the call as it stands in
	// calls, before anything is done.
	fault func(call string) failure
	// answers may change what an object looks like in an answer.
	answers func(object)
	// nullLists answers null instead of empty lists.
	nullLists bool
}

// failure is how a call fails.
type failure struct {
	status int    // answered instead of doing anything
	body   string // with status
	lost   bool   // done, but the answer is lost
}

// once fails the first call that begins with prefix.
func once(prefix string, f failure) func(string) failure {
	done := false
	return func(call string) failure {
		if done || !strings.HasPrefix(call, prefix) {
			return failure{}
		}
		done = true
		return f
	}
}

func (p *platform) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(p.latency)
	w := httptest.NewRecorder()
	if !p.serve(w, r) {
		return nil, errors.New("connection reset by peer")
	}
	return w.Result(), nil
}

func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.serve(w, r) {
		panic(http.ErrAbortHandler)
	}
}

// serve does the call and returns whether the answer arrives.
func (p *platform) serve(w http.ResponseWriter, r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Error(err)
	}
	call := r.Method + " " + r.URL.Path
	if r.URL.Path == "/api/oauth/v1/token" {
		p.calls = append(p.calls, call)
	} else {
		p.calls = append(p.calls, strings.TrimSpace(call+" "+string(body)))
	}
	var f failure
	if p.fault != nil {
		f = p.fault(p.calls[len(p.calls)-1])
	}
	if f.status != 0 {
		w.WriteHeader(f.status)
		io.WriteString(w, f.body)
		return true
	}
	status, answer := p.do(r, body)
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		p.t.Error(err)
	}
	return !f.lost
}

func (p *platform) do(r *http.Request, body []byte) (int, any) {
	if r.URL.Path == "/api/oauth/v1/token" {
		return 200, object{"access_token": "token", "expires_in": 3600}
	}
	if r.Header.Get("X-PIM-TOKEN") != "token" {
		return 401, problem("no token")
	}
	var sent object
	if len(body) > 0 {
		if err := json.Unmarshal(body, &sent); err != nil {
			return 400, problem("no JSON")
		}
	}
	segments := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/subscribers"), "/")[1:]
	switch {
	case len(segments) == 0 && r.Method == http.MethodGet:
		return 200, p.list(p.subscribers)
	case len(segments) == 0 && r.Method == http.MethodPost:
		sent["subject"] = r.Header.Get("X-PIM-URL") + "/"
		return 201, p.shown(p.add(&p.subscribers, sent))
	case len(segments) == 1 && r.Method == http.MethodPatch:
		return p.patch(p.subscribers, segments[0], sent)
	case len(segments) == 2 && r.Method == http.MethodGet:
		return 200, p.list(p.subscriptions)
	case len(segments) == 2 && r.Method == http.MethodPost:
		if fault := invalid(sent); fault != "" {
			return 422, problem(fault)
		}
		sent["subscriber_id"] = segments[0]
		return 201, p.shown(p.add(&p.subscriptions, sent))
	case len(segments) == 3 && r.Method == http.MethodPatch:
		return p.patch(p.subscriptions, segments[2], sent)
	}
	return 404, problem("no route")
}

func problem(message string) object {
	return object{"errors": []object{{"message": message}}}
}

// invalid is what the platform finds wrong with a new subscription.
func invalid(s object) string {
	config, _ := s["config"].(map[string]any)
	secret, _ := config["secret"].(map[string]any)
	primary, _ := secret["primary"].(string)
	events, _ := s["events"].([]any)
	switch {
	case len(primary) < 16 || primary == redactedSecret:
		return "secret too short"
	case len(events) == 0 || s["source"] != "pim" || s["type"] != "https":
		return "incomplete"
	case s["filter"] == "nonsense":
		return "the filter cannot be parsed"
	}
	return ""
}

func (p *platform) add(to *[]object, o object) object {
	p.made++
	o["id"] = fmt.Sprintf("id-%d", p.made)
	o["created_at"] = fmt.Sprintf("2026-01-01T00:00:%02d.000001Z", p.made)
	if o["status"] == nil {
		o["status"] = "active"
	}
	*to = append(*to, o)
	return o
}

func (p *platform) patch(in []object, id string, sent object) (int, any) {
	for _, o := range in {
		if o["id"] == id {
			if o["status"] == "revoked" {
				return 409, problem("revoked")
			}
			maps.Copy(o, sent) // config is replaced as a whole, the harsher reading
			return 200, p.shown(o)
		}
	}
	return 404, problem("no such object")
}

func (p *platform) list(of []object) any {
	if len(of) == 0 && p.nullLists {
		return nil
	}
	all := make([]object, len(of))
	for i, o := range of {
		all[i] = p.shown(o)
	}
	return all
}

// shown is a copy of o as an answer shows it: with placeholders for secrets.
func (p *platform) shown(o object) object {
	text, err := json.Marshal(o)
	if err != nil {
		p.t.Error(err)
	}
	var shown object
	if err := json.Unmarshal(text, &shown); err != nil {
		p.t.Error(err)
	}
	if config, ok := shown["config"].(map[string]any); ok {
		if secret, ok := config["secret"].(map[string]any); ok {
			for name := range secret {
				secret[name] = redactedSecret
			}
		}
	}
	if p.answers != nil {
		p.answers(shown)
	}
	return shown
}

// changes are the calls that change something, and takes them off the record.
func (p *platform) changes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	changes := slices.DeleteFunc(slices.Clone(p.calls), func(call string) bool {
		return strings.HasPrefix(call, "GET ") || strings.Contains(call, "/oauth/")
	})
	p.calls = nil
	return changes
}

// secret is what the platform holds as a subscription's secrets.
func (p *platform) secret(i int) any {
	p.mu.Lock()
	defer p.mu.Unlock()
	config, _ := p.subscriptions[i]["config"].(map[string]any)
	return config["secret"]
}
