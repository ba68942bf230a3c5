package edge

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestBodiesInFlight(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}, 1), make(chan struct{})
	d := startDoor(t, func(o *Options) {
		o.MaxBody, o.MaxBodiesInFlight = 100_000, 150_000
		o.Acceptor = accept(func(context.Context, *Delivery) Answer {
			entered <- struct{}{}
			<-leave
			return Accepted
		})
	})
	c := newClient(t, "HTTP/1.1", nil)
	url := "http://" + d.addr + "/hooks/catalog"
	first := make(chan int, 1)
	go func() {
		resp, _ := do(t, c, post(t, url, strings.Repeat("x", 100_000)))
		first <- resp.StatusCode
	}()
	<-entered
	if resp, _ := do(t, c, post(t, url, strings.Repeat("x", 100_000))); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a body that does not fit is answered %d, want 429", resp.StatusCode)
	}
	gauge := `
# HELP pimrelay_edge_bodies_in_flight_bytes Bytes held for the bodies of requests being answered.
# TYPE pimrelay_edge_bodies_in_flight_bytes gauge
pimrelay_edge_bodies_in_flight_bytes 100001
`
	if err := testutil.GatherAndCompare(d.registry, strings.NewReader(gauge), "pimrelay_edge_bodies_in_flight_bytes"); err != nil {
		t.Error(err)
	}
	close(leave)
	if got := <-first; got != http.StatusOK {
		t.Errorf("the body that fit is answered %d, want 200", got)
	}
	if resp, _ := do(t, c, post(t, url, strings.Repeat("x", 100_000))); resp.StatusCode != http.StatusOK {
		t.Errorf("answered %d once there is room again, want 200", resp.StatusCode)
	}
	if held := d.bodies.used.Load(); held != 0 {
		t.Errorf("%d bytes stay reserved", held)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	d := startDoor(t, func(o *Options) {
		o.Acceptor = accept(func(_ context.Context, d *Delivery) Answer {
			if d.Path == "/hooks/catalog/open" {
				close(entered)
				<-leave
			}
			return Accepted
		})
	})
	c := newClient(t, "HTTP/1.1", nil)
	url := "http://" + d.addr + "/hooks/catalog"
	open := make(chan int, 1)
	go func() {
		resp, _ := do(t, c, post(t, url+"/open", "{}"))
		open <- resp.StatusCode
	}()
	<-entered
	d.Drain()
	if resp, _ := do(t, c, post(t, url, "{}")); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("answered %d while draining, want 429", resp.StatusCode)
	}
	if resp, _ := do(t, c, newRequest(t, http.MethodGet, url, nil)); resp.StatusCode != http.StatusOK {
		t.Errorf("GET is answered %d while draining, want 200", resp.StatusCode)
	}
	close(leave)
	if got := <-open; got != http.StatusOK {
		t.Errorf("the delivery in hand is answered %d, want 200", got)
	}
}

func TestShutdownAnswersOpenRequests(t *testing.T) {
	t.Parallel()
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			entered, leave := make(chan struct{}), make(chan struct{})
			d, c, url := p.start(t, func(o *Options) {
				o.Acceptor = accept(func(context.Context, *Delivery) Answer {
					close(entered)
					<-leave
					return Accepted
				})
			})
			open := make(chan int, 1)
			go func() {
				resp, _ := do(t, c, post(t, url+"/hooks/catalog", "{}"))
				if resp.Proto != p.version {
					t.Errorf("spoke %s, want %s", resp.Proto, p.version)
				}
				open <- resp.StatusCode
			}()
			<-entered
			down := make(chan error, 1)
			go func() { down <- d.Shutdown(context.Background()) }()
			// New connections are refused once the listener is closed.
			for {
				conn, err := net.Dial("tcp", d.addr)
				if err != nil {
					break
				}
				conn.Close()
			}
			select {
			case err := <-down:
				t.Errorf("shut down with a request open: %v", err)
			default:
			}
			close(leave)
			if got := <-open; got != http.StatusOK {
				t.Errorf("the open request is answered %d, want 200", got)
			}
			if err := <-down; err != nil {
				t.Errorf("shut down: %v", err)
			}
		})
	}
}

// brokenListener fails at once.
type brokenListener struct{ net.Listener }

func (brokenListener) Accept() (net.Conn, error) { return nil, errors.New("no file descriptor left") }

func TestServeOnABrokenListener(t *testing.T) {
	t.Parallel()
	d := newDoor(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	err = d.Serve(t.Context(), brokenListener{l})
	if err == nil || !strings.Contains(err.Error(), "accept connections on 127.0.0.1:") || !strings.Contains(err.Error(), "no file descriptor left") {
		t.Errorf("serve: %v, want the listener's address and error", err)
	}
	if !strings.Contains(d.log.String(), `level=ERROR msg="connection not accepted"`) {
		t.Errorf("the log does not say so:\n%s", d.log)
	}
}

func TestAlarms(t *testing.T) {
	t.Parallel()
	d := startDoor(t, func(o *Options) {
		o.Acceptor = accept(func(context.Context, *Delivery) Answer { panic("a defect") })
	})
	c := newClient(t, "HTTP/1.1", nil)
	url := "http://" + d.addr
	for range 50 {
		do(t, c, post(t, url+"/nowhere/"+strings.Repeat("x", 1000), "{}"))
		do(t, c, post(t, url+"/hooks/catalog", "{}"))
		do(t, c, newRequest(t, http.MethodPost, url, nil))
	}
	for _, alarm := range []string{"signed request on a path of no source", "panic while answering a request"} {
		if n := strings.Count(d.log.String(), alarm); n < 1 || n > 10 {
			t.Errorf("%q is logged %d times for 50 requests, want a few", alarm, n)
		}
	}
	for _, part := range []string{"err=\"a defect\"", "TestAlarms", "source=catalog"} {
		if !strings.Contains(d.log.String(), part) {
			t.Errorf("the log of a panic does not hold %q", part)
		}
	}
	if strings.Contains(d.log.String(), strings.Repeat("x", 300)) {
		t.Error("a long path is logged whole")
	}
	counters := `
# HELP pimrelay_edge_answers_total Requests answered, by source and status code.
# TYPE pimrelay_edge_answers_total counter
pimrelay_edge_answers_total{code="401",source=""} 50
pimrelay_edge_answers_total{code="429",source=""} 50
pimrelay_edge_answers_total{code="429",source="catalog"} 50
# HELP pimrelay_edge_panics_total Panics while a request was being answered. Each is a defect.
# TYPE pimrelay_edge_panics_total counter
pimrelay_edge_panics_total 50
# HELP pimrelay_edge_refused_total Requests that were not accepted, by source and reason. Watch signature_missing, signature_wrong and unknown_path: they precede a suspension.
# TYPE pimrelay_edge_refused_total counter
pimrelay_edge_refused_total{reason="not_stored",source="catalog"} 50
pimrelay_edge_refused_total{reason="signature_missing",source=""} 50
pimrelay_edge_refused_total{reason="unknown_path",source=""} 50
`
	if err := testutil.GatherAndCompare(d.registry, strings.NewReader(counters),
		"pimrelay_edge_answers_total", "pimrelay_edge_panics_total", "pimrelay_edge_refused_total"); err != nil {
		t.Error(err)
	}
}

func TestPanicOutsideTheAcceptor(t *testing.T) {
	t.Parallel()
	d := startDoor(t, func(o *Options) { o.Signed = func(http.Header) bool { panic("a defect") } })
	resp, _ := do(t, newClient(t, "HTTP/1.1", nil), post(t, "http://"+d.addr+"/hooks/catalog", "{}"))
	if resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("answered %d, want 429", resp.StatusCode)
	}
}

func TestAnswerSecondsCountsDeliveriesOnly(t *testing.T) {
	t.Parallel()
	d := startDoor(t, nil)
	c := newClient(t, "HTTP/1.1", nil)
	url := "http://" + d.addr
	do(t, c, post(t, url+"/hooks/catalog", "{}"))
	do(t, c, post(t, url+"/nowhere", "{}"))
	do(t, c, newRequest(t, http.MethodGet, url+"/hooks/catalog", nil))
	families, err := d.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "pimrelay_edge_answer_seconds" {
			if n := f.GetMetric()[0].GetHistogram().GetSampleCount(); n != 1 {
				t.Errorf("%d answers timed, want 1", n)
			}
			return
		}
	}
	t.Error("pimrelay_edge_answer_seconds is not there")
}

func TestBrokenHandshakesAreLoggedQuietly(t *testing.T) {
	t.Parallel()
	d := startDoor(t, func(o *Options) { o.TLS, _ = validTLS(t) })
	for range 20 {
		if got := converse(t, d.addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); got != http.StatusBadRequest {
			t.Errorf("plain HTTP to the HTTPS port is answered %d, want net/http's 400", got)
		}
	}
	if err := d.Shutdown(t.Context()); err != nil { // after which all has been logged
		t.Fatal(err)
	}
	log := d.log.String()
	if n := strings.Count(log, "TLS handshake error"); n < 1 || n > 10 {
		t.Errorf("20 broken handshakes are logged %d times, want a few:\n%s", n, log)
	}
	if strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") {
		t.Errorf("strangers' handshakes raise an alarm:\n%s", log)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	good := Options{Acceptor: always(Accepted), Signed: signed, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}
	tests := []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"acceptor", func(o *Options) { o.Acceptor = nil }, "set Options.Acceptor"},
		{"signed", func(o *Options) { o.Signed = nil }, "set Options.Signed"},
		{"logger", func(o *Options) { o.Logger = nil }, "set Options.Logger"},
		{"registerer", func(o *Options) { o.Registerer = nil }, "set Options.Registerer"},
		{"body", func(o *Options) { o.MaxBody = -1 }, "largest body: must be above 0 (got -1)"},
		{"in flight", func(o *Options) { o.MaxBodiesInFlight = 10 << 20 }, "must be above the largest body"},
		{"concurrent", func(o *Options) { o.MaxConcurrentRequests = -1 }, "concurrent requests: must be above 0"},
		{"header bytes", func(o *Options) { o.MaxHeaderBytes = -1 }, "header bytes: must be above 0"},
		{"accept timeout", func(o *Options) { o.AcceptTimeout = 5 * time.Second }, "at most 4.5s"},
		{"header timeout", func(o *Options) { o.ReadHeaderTimeout = -1 }, "read header timeout: must be above 0"},
		{"idle timeout", func(o *Options) { o.IdleTimeout = -1 }, "idle timeout: must be above 0"},
	}
	for _, tt := range tests {
		o := good
		tt.change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one that says %q", tt.name, err, tt.want)
		}
	}
	if _, err := New(Options{}); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("all faults must be reported together, got: %v", err)
	}
	if _, err := New(good); err != nil {
		t.Errorf("good options: %v", err)
	}
	if _, err := New(good); err == nil || !strings.Contains(err.Error(), "register the metrics of the door") {
		t.Errorf("metrics registered twice: error %v", err)
	}
}
