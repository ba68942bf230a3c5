package edge

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestWindow(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_000_000_000, 0)
	var w window
	at := func(d time.Duration) *tally { return w.at(start.Add(d)) }
	at(0).succeeded += 5
	at(30 * time.Minute).failed[failedLate] += 3
	for _, tt := range []struct {
		after             time.Duration
		succeeded, failed uint64
	}{
		{0, 5, 3}, // the clock went back
		{59 * time.Minute, 5, 3},
		{61 * time.Minute, 0, 3},
		{89 * time.Minute, 0, 3},
		{91 * time.Minute, 0, 0},
		{1000 * time.Hour, 0, 0},
	} {
		sum := w.sum(start.Add(tt.after))
		if sum.succeeded != tt.succeeded || sum.failures() != tt.failed {
			t.Errorf("after %s: %d succeeded, %d failed; want %d, %d", tt.after, sum.succeeded, sum.failures(), tt.succeeded, tt.failed)
		}
	}
}

// newTestGuard returns a guard and what it has logged.
func newTestGuard() (*guard, *syncBuffer) {
	log := &syncBuffer{}
	return newGuard(slog.New(slog.NewTextHandler(log, nil))), log
}

// deliver notes n deliveries.
func (g *guard) deliver(n int, now time.Time) {
	for i := range n {
		g.succeeded("catalog", fmt.Sprint("delivered ", i), netip.MustParseAddr("192.0.2.1"), now)
	}
}

func TestGuardWarnsBeforeThePlatformSuspends(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, tt := range []struct {
		name              string
		succeeded, failed int
		want, log         string
	}{
		{"nothing", 0, 0, "", ""},
		{"all well", 1000, 0, "", ""},
		{"a few", 19, 0, "", ""},
		{"too few to judge", 9, 10, "", ""},
		{"at 95 %", 95, 5, "", ""},
		{"below 95 %", 94, 6, "94.0 % of 100 deliveries in the last hour succeeded", "level=WARN"},
		{"below 90 %", 89, 11, "89.0 % of 100", "level=ERROR"},
		{"none", 0, 20, "0.0 % of 20", "level=ERROR"},
	} {
		g, log := newTestGuard()
		g.deliver(tt.succeeded, now)
		for i := range tt.failed {
			if i == tt.failed-1 {
				g.seldom.Interval = 1 // the last one is logged
			}
			g.failed("catalog", failedUnsigned, now)
		}
		concerns := g.concerns(now)
		if (tt.want == "") != (len(concerns) == 0) || tt.want != "" && !strings.Contains(concerns[0].Message, tt.want) {
			t.Errorf("%s: concerns %+v, want %q", tt.name, concerns, tt.want)
		}
		if tt.want != "" && concerns[0].Key != "sources.catalog.success_rate" {
			t.Errorf("%s: key %q", tt.name, concerns[0].Key)
		}
		if !strings.Contains(log.String(), tt.log) {
			t.Errorf("%s: logged %q, want %s", tt.name, log, tt.log)
		}
		if later := g.concerns(now.Add(61 * time.Minute)); len(later) != 0 {
			t.Errorf("%s: an hour later: %+v", tt.name, later)
		}
	}
}

// A 429 counts only if its event is undelivered for over an hour.
func TestGuardForgives429(t *testing.T) {
	t.Parallel()
	start := time.Now()
	failures := func(g *guard, after time.Duration) uint64 {
		g.concerns(start.Add(after)) // looks at what has waited too long
		g.mu.Lock()
		defer g.mu.Unlock()
		sum := g.window("catalog").sum(start.Add(after))
		return sum.failures()
	}
	g, _ := newTestGuard()
	for i := range 100 {
		g.answered429("catalog", fmt.Sprint(i), start)
		g.answered429("catalog", fmt.Sprint(i), start.Add(5*time.Minute)) // again: the first counts
	}
	g.answered429("catalog", "", start) // nobody knows which
	if n := failures(g, time.Hour); n != 0 {
		t.Errorf("%d failures within the hour", n)
	}
	for i := range 40 {
		g.succeeded("catalog", fmt.Sprint(i), netip.Addr{}, start.Add(time.Hour))
	}
	if n := failures(g, time.Hour+time.Second); n != 60 {
		t.Errorf("%d failures after the hour, want those 60 that were not delivered", n)
	}
	if n := failures(g, 90*time.Minute); n != 60 {
		t.Errorf("%d failures later: counted again", n)
	}
	if n := g.throttled.Load(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

// One that was delivered and is refused anew waits anew.
func TestGuardFollowsAnEventAnew(t *testing.T) {
	t.Parallel()
	start := time.Now()
	g, _ := newTestGuard()
	g.answered429("catalog", "x", start)
	g.succeeded("catalog", "x", netip.Addr{}, start.Add(time.Minute))
	g.answered429("catalog", "x", start.Add(30*time.Minute))
	g.expire(start.Add(80 * time.Minute))
	if g.throttled.Load() != 1 {
		t.Error("the old entry has ended the new one")
	}
	g.expire(start.Add(91 * time.Minute))
	if g.throttled.Load() != 0 {
		t.Error("it waits for ever")
	}
}

// However much is refused, and by whomever, what is remembered is bounded.
func TestGuardIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	g, _ := newTestGuard()
	for i := range 2 * mostThrottled {
		g.answered429("catalog", fmt.Sprint(i), now)
		g.succeeded("catalog", "", netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if len(g.queue) > mostThrottled || len(g.waiting) > mostThrottled || len(g.peers) > mostPeers {
		t.Errorf("%d events, %d waiting, %d peers", len(g.queue), len(g.waiting), len(g.peers))
	}
	for i := range mostThrottled {
		g.succeeded("catalog", fmt.Sprint(i), netip.Addr{}, now)
	}
	g.answered429("catalog", "another", now)
	if len(g.queue) != 1 {
		t.Errorf("%d in the queue, want the one that waits", len(g.queue))
	}
	later := now.Add(2 * time.Hour)
	g.succeeded("catalog", "", netip.MustParseAddr("192.0.2.7"), later)
	if len(g.peers) != 1 {
		t.Errorf("%d peers two hours later", len(g.peers))
	}
}

func TestTroublesAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var all troubles
	for i := range 3 * mostTroubles {
		all.note(trouble{"key", fmt.Sprint("at ", i)}, "it happens", now)
	}
	if len(all.seen) != mostTroubles {
		t.Errorf("%d remembered", len(all.seen))
	}
	if c := all.concerns(now); len(c) != 1 || !strings.Contains(c[0].Message, "it happens (at ") {
		t.Errorf("concerns %+v", c)
	}
	if c := all.concerns(now.Add(concernFor + time.Second)); len(c) != 0 || all.count.Load() != 0 {
		t.Errorf("later: %+v", c)
	}
}

// What the door answers, as the guard counts it.
func TestGuardCountsAnswers(t *testing.T) {
	t.Parallel()
	acceptor := accept(func(_ context.Context, d *Delivery) Answer {
		switch string(d.Body) {
		case "refuse":
			return Unavailable
		case "forged":
			return Unverified
		}
		return Accepted
	})
	d := startDoor(t, func(o *Options) {
		o.Acceptor, o.MaxBody = acceptor, 1024
		o.Same = func(h http.Header) string { return h.Get("X-Event") }
	})
	c := newClient(t, "HTTP/1.1", nil)
	url := "http://" + d.addr
	send := func(n int, r func() *http.Request, event string) {
		t.Helper()
		for range n {
			request := r()
			request.Header.Set("X-Event", event)
			do(t, c, request)
		}
	}
	send(100, func() *http.Request { return post(t, url+"/hooks/catalog", "{}") }, "")
	send(3, func() *http.Request { return newRequest(t, http.MethodPost, url+"/hooks/catalog", nil) }, "")
	send(4, func() *http.Request { return post(t, url+"/hooks/catalog", strings.Repeat("x", 1025)) }, "")
	send(5, func() *http.Request { return post(t, url+"/hooks/catalog", "refuse") }, "a")
	send(6, func() *http.Request { return post(t, url+"/hooks/catalog", "forged") }, "b")
	// Strangers.
	send(7, func() *http.Request { return post(t, url+"/nowhere", "{}") }, "c")
	send(8, func() *http.Request { return newRequest(t, http.MethodPost, url+"/nowhere", nil) }, "")
	send(9, func() *http.Request { return newRequest(t, http.MethodPut, url+"/hooks/catalog", nil) }, "")
	send(9, func() *http.Request { return newRequest(t, http.MethodGet, url+"/hooks/catalog", nil) }, "")
	var got tally
	waitFor(t, "all is counted", func() bool { // an answer is sent before it is counted
		d.guard.mu.Lock()
		defer d.guard.mu.Unlock()
		got = d.guard.window("catalog").sum(time.Now())
		return got.succeeded == 100 && got.failures() == 7 && d.guard.throttled.Load() == 2
	})
	if got.failed[failedUnsigned] != 3 || got.failed[failedTooLarge] != 4 {
		t.Errorf("counted %+v", got)
	}
	if c := d.Concerns(); len(c) != 3 || c[1].Key != "sources.catalog.signature" || c[2].Key != "sources.catalog.success_rate" {
		t.Errorf("concerns %+v", c)
	}
	metric := `
# HELP pimrelay_edge_success_ratio Part of a source's deliveries of the last hour that succeeded as the platform counts. Below 0.9 it suspends the subscription.
# TYPE pimrelay_edge_success_ratio gauge
pimrelay_edge_success_ratio{source="catalog"} 0.9345794392523364
`
	if err := testutil.GatherAndCompare(d.registry, strings.NewReader(metric), "pimrelay_edge_success_ratio"); err != nil {
		t.Error(err)
	}
}

// An answer that comes too late, and one that nobody waits for any more, are
// failures although they are 200.
func TestGuardCountsLateAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		enter, leave := make(chan struct{}, 2), make(chan struct{})
		d, dial := pipeDoor(t, func(o *Options) {
			o.Acceptor = accept(func(context.Context, *Delivery) Answer {
				enter <- struct{}{}
				<-leave
				return Accepted
			})
		})
		gone := dial()
		send(t, gone, headers(2)+"\r\n{}")
		<-enter
		gone.Close()
		synctest.Wait()
		close(leave)
		synctest.Wait()
		// The headers take 6 s: within ReadHeaderTimeout, and too late.
		late := dial()
		send(t, late, headers(2)[:10])
		time.Sleep(6 * time.Second)
		send(t, late, headers(2)[10:]+"\r\n{}")
		status(t, late)
		synctest.Wait()
		d.guard.mu.Lock()
		defer d.guard.mu.Unlock()
		sum := d.guard.window("catalog").sum(time.Now())
		if sum.succeeded != 0 || sum.failed[failedGone] != 1 || sum.failed[failedLate] != 1 {
			t.Errorf("counted %+v", sum)
		}
	})
}

// A client that cannot verify our certificate counts if it has delivered before;
// port scanners do not.
func TestGuardCountsBrokenHandshakes(t *testing.T) {
	t.Parallel()
	config, roots := validTLS(t)
	d := startDoor(t, func(o *Options) { o.TLS = config })
	failed := func() uint64 {
		d.guard.mu.Lock()
		defer d.guard.mu.Unlock()
		sum := d.guard.handshakes.sum(time.Now())
		return sum.failures()
	}
	break1 := func() {
		t.Helper()
		if c, err := tls.Dial("tcp", d.addr, &tls.Config{ServerName: "localhost"}); err == nil { // does not trust it
			c.Close()
			t.Error("the handshake succeeds")
		}
	}
	silent, err := net.Dial("tcp", d.addr) // a health check: nothing is sent
	if err != nil {
		t.Fatal(err)
	}
	silent.Close()
	break1()
	waitFor(t, "it is counted", func() bool { return testutil.ToFloat64(d.metrics.handshakes) == 1 })
	if n := failed(); n != 0 {
		t.Errorf("%d held against the sources before anybody has delivered", n)
	}
	c := newClient(t, "HTTP/1.1", roots)
	for range 30 {
		do(t, c, post(t, "https://"+d.addr+"/hooks/catalog", "{}"))
	}
	waitFor(t, "deliveries are counted", func() bool {
		d.guard.mu.Lock()
		defer d.guard.mu.Unlock()
		sum := d.guard.window("catalog").sum(time.Now())
		return sum.succeeded == 30
	})
	for range 3 {
		break1()
	}
	waitFor(t, "they are counted", func() bool { return failed() == 3 })
	checkConcern(t, d, "sources.catalog.success_rate", "3 failed TLS handshakes")
}

// The alarm about a subscription whose signatures do not fit stays while another
// one of the same source is well, and ends when its own do.
func TestSignatureAlarmIsPerSubscription(t *testing.T) {
	t.Parallel()
	var wrong = true
	d := startDoor(t, func(o *Options) {
		o.Acceptor = accept(func(_ context.Context, d *Delivery) Answer {
			if wrong && strings.HasSuffix(d.Path, "/b") {
				return Unverified
			}
			return Accepted
		})
	})
	c := newClient(t, "HTTP/1.1", nil)
	url := "http://" + d.addr + "/hooks/catalog"
	for _, path := range []string{"/a", "/b", "/a", "/b", "/a"} {
		do(t, c, post(t, url+path, "{}"))
	}
	checkConcern(t, d, "sources.catalog.signature", "no secret of ours fits")
	checkConcern(t, d, "sources.catalog.signature", "(at /hooks/catalog/b, 2 times")
	if !strings.Contains(d.log.String(), "signature does not fit any secret") {
		t.Errorf("not logged:\n%s", d.log)
	}
	wrong = false
	do(t, c, post(t, url+"/b", "{}"))
	checkConcern(t, d, "sources.catalog.signature", "")
	if n := testutil.ToFloat64(d.metrics.refused.WithLabelValues("catalog", "signature_wrong")); n != 2 {
		t.Errorf("%v counted", n)
	}
}

func BenchmarkGuard(b *testing.B) {
	g := newGuard(slog.New(slog.NewTextHandler(io.Discard, nil)))
	prometheus.NewRegistry().MustRegister(g)
	peer := netip.MustParseAddr("192.0.2.1")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			g.succeeded("catalog", "x", peer, time.Now())
		}
	})
}
