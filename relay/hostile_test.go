package relay_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pimrelay/pimrelay/relay/admin"
)

// handler is a destination that misbehaves in its own way. seen counts the
// events that it has accepted.
type handler func(w http.ResponseWriter, r *http.Request, id string, seen *sync.Map)

// hostile are the destinations that stand beside the good one.
var hostile = map[string]handler{
	"hangs": func(_ http.ResponseWriter, r *http.Request, _ string, _ *sync.Map) { <-r.Context().Done() },
	"slow": func(_ http.ResponseWriter, _ *http.Request, id string, seen *sync.Map) {
		<-time.After(20 * time.Millisecond) // that is what makes it slow
		seen.Store(id, true)
	},
	"throttles": func(w http.ResponseWriter, _ *http.Request, id string, seen *sync.Map) {
		if n := calls.Add(1); n%50 == 0 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		seen.Store(id, true)
	},
	"rejects": func(w http.ResponseWriter, _ *http.Request, id string, seen *sync.Map) {
		if strings.HasSuffix(id, "0") {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		seen.Store(id, true)
	},
	"poisoned": func(w http.ResponseWriter, _ *http.Request, id string, seen *sync.Map) {
		if id == "e-7" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		seen.Store(id, true)
	},
}

var calls atomic.Int64

// One forwarder is well, the others are dead, hang, are slow, throttle, reject,
// or choke on one event: the door answers 200 to everything, the good one has
// every event, and what the others can have, they get.
func TestHostileDestinations(t *testing.T) {
	t.Parallel()
	const events = 400
	seen := map[string]*sync.Map{"good": {}}
	config := manual
	add := func(name, url string) {
		config += fmt.Sprintf("  %s: {plugin: http, timeout: 500ms, retry: {initial: 50ms, max: 200ms}, breaker: {open_for: 200ms, max_open_for: 1s}, config: {url: %q}}\n", name, url)
	}
	for name, h := range hostile {
		seen[name] = &sync.Map{}
		server := httptest.NewServer(destination(h, seen[name]))
		defer server.Close()
		add(name, server.URL)
	}
	good := httptest.NewServer(destination(func(_ http.ResponseWriter, _ *http.Request, id string, seen *sync.Map) { seen.Store(id, true) }, seen["good"]))
	defer good.Close()
	add("good", good.URL)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	add("dead", "http://"+gone.Addr().String())

	d := start(t, t.TempDir(), config)
	began := time.Now()
	var senders sync.WaitGroup
	for sender := range 4 {
		senders.Go(func() {
			for n := sender; n < events; n += 4 {
				body := bytes.Replace(cloudEvent("e-"+fmt.Sprint(n)), []byte("u-"), []byte("x-"), 1)
				if got := d.post("/hooks/catalog", body, signed(body)); got != 200 {
					t.Errorf("event %d answered %d", n, got)
				}
			}
		})
	}
	senders.Wait()
	eventually(t, "the good one has them all", func() bool { return size(seen["good"]) == events })
	t.Logf("the good destination had %d events after %s", events, time.Since(began))
	for name, want := range map[string]int{"slow": events, "throttles": events, "rejects": events * 9 / 10, "poisoned": events - 1} {
		eventually(t, fmt.Sprintf("%s has its %d", name, want), func() bool { return size(seen[name]) == want })
	}
	eventually(t, "what can be settled is settled", func() bool {
		return !slices.ContainsFunc(d.Status().Forwarders, func(f admin.Forwarder) bool { return f.Backlog > 1 && f.Name != "dead" && f.Name != "hangs" })
	})
	for _, f := range d.Status().Forwarders {
		switch f.Name {
		case "good", "slow", "throttles":
			if f.Backlog != 0 || f.DeadLetters != 0 {
				t.Errorf("%s: %+v", f.Name, f)
			}
		case "rejects":
			if f.Backlog != 0 || f.DeadLetters != events/10 {
				t.Errorf("%s: %+v", f.Name, f)
			}
		case "poisoned":
			if f.Backlog != 1 || f.Retrying != 1 || f.Breaker != "closed" {
				t.Errorf("one poison event is no reason to stop: %+v", f)
			}
		case "dead", "hangs":
			if f.Backlog != events || f.DeadLetters != 0 || !f.Failing {
				t.Errorf("%s: %+v", f.Name, f)
			}
		}
	}
}

func destination(h handler, seen *sync.Map) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		var event struct{ ID string }
		if json.Unmarshal(body, &event) == nil {
			h(w, r, event.ID, seen)
		}
	})
}

func size(m *sync.Map) int {
	n := 0
	m.Range(func(any, any) bool {
		n++
		return true
	})
	return n
}
