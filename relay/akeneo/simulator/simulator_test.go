package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testURL is where requests of these tests believe the simulator to be.
const testURL = "https://pim.example.com"

const (
	updated = "com.akeneo.pim.v1.product.updated"
	deleted = "com.akeneo.pim.v1.product.deleted"

	primarySecret   = "primary-secret-0123456789"
	secondarySecret = "secondary-secret-987654321"
)

// platform is a Simulator under test and a client that is signed in.
type platform struct {
	t     testing.TB
	sim   *Simulator
	token string
}

func newPlatform(t testing.TB, opts Options) *platform {
	t.Helper()
	sim, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	p := &platform{t: t, sim: sim}
	p.signIn()
	return p
}

// run runs the deliveries until the test ends, or stop is called.
func (p *platform) run() (stop func()) {
	ctx, cancel := context.WithCancel(p.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.sim.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			p.t.Errorf("Run: %v", err)
		}
	}
	p.t.Cleanup(stop)
	return stop
}

// signIn gets a fresh token by password.
func (p *platform) signIn() {
	p.t.Helper()
	req := httptest.NewRequest("POST", testURL+"/api/oauth/v1/token",
		strings.NewReader(`{"grant_type":"password","username":"demo-user","password":"demo-password"}`))
	req.SetBasicAuth("demo-client", "demo-secret")
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	p.sim.ServeHTTP(rec, req)
	var answer grantResponse
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || rec.Code != 200 {
		p.t.Fatalf("token: %d %s", rec.Code, rec.Body)
	}
	p.token = answer.AccessToken
}

// call makes a request of the Management API and gives its status and body.
func (p *platform) call(method, path, body string) (int, string) {
	p.t.Helper()
	req := httptest.NewRequest(method, testURL+path, strings.NewReader(body))
	req.Header.Set("X-PIM-URL", testURL)
	req.Header.Set("X-PIM-TOKEN", p.token)
	req.Header.Set("X-PIM-CLIENT-ID", "demo-client")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	rec := httptest.NewRecorder()
	p.sim.ServeHTTP(rec, req)
	if got := rec.Header().Get("Content-Type"); got != "application/json" {
		p.t.Errorf("%s %s: Content-Type %q", method, path, got)
	}
	return rec.Code, strings.TrimSpace(rec.Body.String())
}

// must is call for requests that have to succeed; it gives the object's id.
func (p *platform) must(status int, method, path, body string) (id string) {
	p.t.Helper()
	got, answer := p.call(method, path, body)
	if got != status {
		p.t.Fatalf("%s %s: %d %s, want %d", method, path, got, answer, status)
	}
	var object struct{ ID string }
	if err := json.Unmarshal([]byte(answer), &object); err != nil && answer[0] != '[' {
		p.t.Fatalf("%s %s: %v in %s", method, path, err, answer)
	}
	return object.ID
}

const subscribers = "/api/v1/subscribers"

func (p *platform) subscriber() (path string) {
	p.t.Helper()
	return subscribers + "/" + p.must(201, "POST", subscribers, `{"name":"demo","contact":{"technical_email":"ops@example.com"}}`)
}

// subscribe makes a subscriber and a subscription and gives the latter's path.
func (p *platform) subscribe(destination string, events ...string) (path string) {
	p.t.Helper()
	parent := p.subscriber() + "/subscriptions"
	return parent + "/" + p.must(201, "POST", parent, subscriptionJSON(destination, events...))
}

func subscriptionJSON(destination string, events ...string) string {
	list, _ := json.Marshal(events)
	return `{"source":"pim","type":"https","events":` + string(list) +
		`,"config":{"url":"` + destination + `","secret":{"primary":"` + primarySecret + `"}}}`
}

func (p *platform) fire(f Firing) Fired {
	p.t.Helper()
	fired, err := p.sim.Fire(f)
	if err != nil {
		p.t.Fatal(err)
	}
	return fired
}

// idle waits until nothing is open any more.
func (p *platform) idle() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	if err := p.sim.Idle(ctx); err != nil {
		p.t.Fatalf("waiting for the deliveries: %v; report: %+v", err, p.sim.Report())
	}
}

// wait waits until cond holds for the only subscription.
func (p *platform) wait(cond func(SubscriptionReport) bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	if err := p.sim.Wait(ctx, func(r Report) bool { return cond(r.Subscriptions[0]) }); err != nil {
		p.t.Fatalf("waiting: %v; report: %+v", err, p.sim.Report())
	}
}

// only gives the report of the only subscription, without latencies.
func (p *platform) only() SubscriptionReport {
	p.t.Helper()
	r := p.sim.Report()
	if len(r.Subscriptions) != 1 {
		p.t.Fatalf("%d subscriptions, want 1", len(r.Subscriptions))
	}
	s := r.Subscriptions[0]
	s.ID, s.SubscriberID, s.URL, s.P50, s.P99 = "", "", "", 0, 0
	return s
}

// destination answers in memory what its function says.
type destination func(*http.Request) (int, error)

func (d destination) RoundTrip(r *http.Request) (*http.Response, error) {
	code, err := d(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(new(bytes.Buffer)), Request: r}, nil
}

// answers gives its codes one after the other, and the last one for ever.
func answers(codes ...int) destination {
	ch := make(chan int, len(codes))
	for _, c := range codes[:len(codes)-1] {
		ch <- c
	}
	last := codes[len(codes)-1]
	return func(*http.Request) (int, error) {
		select {
		case c := <-ch:
			return c, nil
		default:
			return last, nil
		}
	}
}

func TestNewRefusesOptionsThatCannotWork(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]Options{
		"speed":             {Speed: -1},
		"speed too high":    {Speed: 1e9},
		"pace":              {Pace: -1},
		"rate":              {Rate: -1},
		"concurrency":       {Concurrency: -1},
		"activation delay":  {ActivationDelay: -1},
		"sample":            {Readings: Readings{MinSample: -1}},
		"validation status": {Readings: Readings{ValidationStatus: 500}},
		"colon in id":       {Connection: Connection{ClientID: "a:b"}},
		"PIM URL":           {PIMURL: "pim.example.com"},
	} {
		if _, err := New(opts); err == nil {
			t.Errorf("%s: New accepted %+v", name, opts)
		}
	}
}

func TestRunOnce(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.sim.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.sim.Run(ctx); err == nil {
		t.Error("a second Run gave no error")
	}
	if _, err := p.sim.Fire(Firing{}); err != ErrStopped {
		t.Errorf("Fire after Run: %v, want ErrStopped", err)
	}
	if err := p.sim.Wait(t.Context(), func(Report) bool { return false }); err != ErrStopped {
		t.Errorf("Wait after Run: %v, want ErrStopped", err)
	}
}
