package simulator

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// arrival is a request as a destination saw it.
type arrival struct {
	proto, method, path string
	header              http.Header
	body                []byte
}

// sink is a real HTTPS destination that keeps what arrives.
type sink struct {
	*httptest.Server

	mu       sync.Mutex
	arrivals []arrival // guarded by mu
}

// newSink starts a destination that answers what its function says.
func newSink(t testing.TB, answer http.HandlerFunc) (*sink, *x509.CertPool) {
	t.Helper()
	s := &sink{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read a delivery: %v", err)
		}
		s.mu.Lock()
		s.arrivals = append(s.arrivals, arrival{r.Proto, r.Method, r.URL.Path, r.Header, body})
		s.mu.Unlock()
		answer(w, r)
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s, roots
}

func (s *sink) all() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arrivals
}

func ok(http.ResponseWriter, *http.Request) {}

func TestDelivery(t *testing.T) {
	t.Parallel()
	destination, roots := newSink(t, ok)
	p := newPlatform(t, Options{Roots: roots, KeepBodies: true})
	p.run()
	parent := p.subscriber() + "/subscriptions"
	body := withMember(t, subscriptionJSON(destination.URL+"/hooks/catalog", updated), "config.secret.secondary", secondarySecret)
	body = withMember(t, body, "config.headers", map[string]string{"X-Api-Key": "key <1>"})
	body = withMember(t, body, "send_product_identifier", true)
	id := p.must(201, "POST", parent, body)
	p.fire(Firing{Type: updated, Count: 2})
	p.idle()

	arrivals := destination.all()
	if len(arrivals) != 2 {
		t.Fatalf("%d deliveries, want 2", len(arrivals))
	}
	seen := map[string]bool{}
	for i, a := range arrivals {
		if a.proto != "HTTP/2.0" || a.method != "POST" || a.path != "/hooks/catalog" {
			t.Errorf("request %s %s %s", a.proto, a.method, a.path)
		}
		for name, want := range map[string]string{
			"Content-Type":                 "application/json",
			"User-Agent":                   "akeneo/event-platform",
			"X-Api-Key":                    "key <1>",
			"X-Akeneo-Signature-Primary":   sign(primarySecret, a.body),
			"X-Akeneo-Signature-Secondary": sign(secondarySecret, a.body),
			"X-Akeneo-Signature-Algorithm": "HmacSHA256",
		} {
			if got := a.header[name]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		var e struct {
			SpecVersion, ID, Type, Source, Subject string
			Time                                   time.Time
			Data                                   json.RawMessage
		}
		if err := json.Unmarshal(a.body, &e); err != nil {
			t.Fatal(err)
		}
		if e.SpecVersion != "1.0" || e.Type != updated || e.Source != "pim" || e.Subject != id || time.Since(e.Time).Abs() > time.Minute {
			t.Errorf("event %s", a.body)
		}
		if want := `{"product":{"uuid":"6a9f8486-2c36-4680-b87f-6f5f8f01b6cf","identifier":"my-product-identifier"},"author":{"identifier":"admin","type":"user"}}`; string(e.Data) != want {
			t.Errorf("data %s, want %s", e.Data, want)
		}
		correlation := a.header.Get("X-Correlation-Id")
		if seen[e.ID] || seen[correlation] || correlation == "" {
			t.Errorf("id %q or correlation %q is not new", e.ID, correlation)
		}
		seen[e.ID], seen[correlation] = true, true
		found := false
		for _, sent := range p.sim.Acknowledged() {
			found = found || sent.ID == e.ID && bytes.Equal(sent.Body, a.body) && sent.Subscription == id
		}
		if !found {
			t.Errorf("delivery %d is not among the acknowledged", i)
		}
	}
}

func TestDeliveryToTwoSubscriptions(t *testing.T) {
	t.Parallel()
	destination, roots := newSink(t, ok)
	p := newPlatform(t, Options{Roots: roots})
	p.run()
	p.subscribe(destination.URL+"/a", updated, deleted)
	p.subscribe(destination.URL+"/b", updated)
	p.subscribe(destination.URL+"/c", "com.akeneo.pim.v1.product.updated.delta")
	if fired := p.fire(Firing{Type: updated}); fired != (Fired{1, 2}) {
		t.Errorf("fired %+v, want 1 to 2 subscriptions", fired)
	}
	p.idle()
	got := map[string]int{}
	for _, a := range destination.all() {
		got[a.path]++
		if len(a.header["X-Akeneo-Signature-Secondary"]) != 0 {
			t.Error("a secondary signature without a secret")
		}
	}
	if diff := cmp.Diff(map[string]int{"/a": 1, "/b": 1}, got); diff != "" {
		t.Errorf("deliveries (-want +got):\n%s", diff)
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	destination, roots := newSink(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusPermanentRedirect)
	})
	p := newPlatform(t, Options{Roots: roots})
	p.run()
	p.subscribe(destination.URL, updated)
	p.fire(Firing{Type: updated})
	p.idle()
	if got := p.only(); got.Status != "suspended" || len(destination.all()) != 1 {
		t.Errorf("%d requests, report %+v", len(destination.all()), got)
	}
}

// TestTransportFailures checks what the platform calls each way of not getting
// an answer.
func TestTransportFailures(t *testing.T) {
	t.Parallel()
	trusted, roots := newSink(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil { // HTTP/2 cannot be hijacked: end the stream
			panic(http.ErrAbortHandler)
		}
		conn.Close()
	})
	plain := httptest.NewServer(http.HandlerFunc(ok))
	t.Cleanup(plain.Close)
	authority, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	wrongName, err := authority.Issue("other.example.com")
	if err != nil {
		t.Fatal(err)
	}
	untrusted := httptest.NewUnstartedServer(http.HandlerFunc(ok))
	untrusted.TLS = &tls.Config{Certificates: []tls.Certificate{wrongName}}
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()

	for want, url := range map[string]string{
		"destination_failure":   trusted.URL,
		"invalid_certificate":   untrusted.URL,
		"invalid_tls_handshake": strings.Replace(plain.URL, "http://", "https://", 1),
		"connection_refused":    "https://" + free.Addr().String(),
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			p := newPlatform(t, Options{Roots: roots})
			p.run()
			p.subscribe(url, updated)
			p.fire(Firing{Type: updated})
			p.wait(func(s SubscriptionReport) bool { return len(s.Answers) > 0 })
			if diff := cmp.Diff(map[string]int{want: 1}, p.only().Answers); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnswerCutShortIsAFailure(t *testing.T) {
	t.Parallel()
	destination, roots := newSink(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(200)
	})
	p := newPlatform(t, Options{Roots: roots})
	p.run()
	p.subscribe(destination.URL, updated)
	p.fire(Firing{Type: updated})
	p.wait(func(s SubscriptionReport) bool { return len(s.Answers) > 0 })
	if got := p.only(); got.Acknowledged != 0 || got.Waiting != 1 {
		t.Errorf("report %+v", got)
	}
}

func TestInsecureDestinations(t *testing.T) {
	t.Parallel()
	selfSigned, _ := newSink(t, ok)
	plain := httptest.NewServer(http.HandlerFunc(ok))
	t.Cleanup(plain.Close)
	p := newPlatform(t, Options{InsecureDestinations: true})
	p.run()
	p.subscribe(selfSigned.URL, updated)
	p.subscribe(plain.URL, updated)
	p.fire(Firing{Type: updated})
	p.idle()
	for _, s := range p.sim.Report().Subscriptions {
		if s.Acknowledged != 1 {
			t.Errorf("%s: %+v", s.URL, s)
		}
	}
}

// TestPaceOverride checks that a fixed pace above the platform's is kept over
// real connections: 1,000 events at 2,000 a second take about half a second.
func TestPaceOverride(t *testing.T) {
	t.Parallel()
	destination, roots := newSink(t, ok)
	// On a busy machine a request may take more than 5 s: its retry comes soon.
	p := newPlatform(t, Options{Roots: roots, Pace: 2000, Speed: 500, Readings: Readings{MinSample: 10_000}})
	p.run()
	p.subscribe(destination.URL, updated)
	began := time.Now()
	p.fire(Firing{Type: updated, Count: 1000})
	p.idle()
	if took := time.Since(began); took < 450*time.Millisecond {
		t.Errorf("1,000 events took %v: faster than the pace", took)
	}
	if got := p.only(); got.Acknowledged != 1000 {
		t.Errorf("report %+v", got)
	}
}

func BenchmarkDelivery(b *testing.B) {
	destination := httptest.NewServer(http.HandlerFunc(ok))
	defer destination.Close()
	p := newPlatform(b, Options{InsecureDestinations: true, Pace: math.Inf(1)})
	stop := p.run()
	p.subscribe(destination.URL, updated)
	b.ReportAllocs()
	for b.Loop() {
		p.fire(Firing{Type: updated, Count: 1000})
		p.idle()
	}
	b.ReportMetric(float64(p.only().Acknowledged)/b.Elapsed().Seconds(), "events/s")
	stop()
}
