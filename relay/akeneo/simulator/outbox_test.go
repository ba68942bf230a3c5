package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	count := func(p *pace, span time.Duration) int {
		n := 0
		for at := now; at.Before(now.Add(span)); n++ {
			at = at.Add(p.reserve(at))
		}
		return n
	}
	for _, rate := range []float64{1, 10, 2000} {
		p := pace{fixed: rate}
		want := rate * 10
		if got := float64(count(&p, 10*time.Second)); math.Abs(got-want) > 2+rate*catchUp.Seconds() {
			t.Errorf("at %v/s: %v events in 10 s, want about %v", rate, got, want)
		}
	}
	unpaced := pace{fixed: math.Inf(1)}
	for range 1000 {
		if wait := unpaced.reserve(now); wait != 0 {
			t.Fatalf("without pace: wait %v", wait)
		}
	}
	p := pace{rate: firstPace}
	for range 1000 {
		p.raise()
	}
	if p.rate != 100 {
		t.Errorf("highest pace %v, want 100", p.rate)
	}
	for range 1000 {
		p.lower()
	}
	if p.rate != 1 {
		t.Errorf("lowest pace %v, want 1", p.rate)
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var w window
	add := func(after time.Duration, ok, failed int) {
		for range ok {
			w.add(start.Add(after), true)
		}
		for range failed {
			w.add(start.Add(after), false)
		}
	}
	check := func(after time.Duration, sample int, want bool) {
		t.Helper()
		if got := w.broken(start.Add(after), sample); got != want {
			t.Errorf("after %v from %d attempts on: broken = %v, want %v", after, sample, got, want)
		}
	}
	check(0, 1, false)
	add(0, 0, 9)
	check(0, 10, false) // too few
	check(0, 9, true)
	add(30*time.Minute, 81, 0)
	check(30*time.Minute, 10, false) // exactly 90 %
	add(31*time.Minute, 0, 1)
	check(31*time.Minute, 10, true)
	check(65*time.Minute, 10, false)           // the first nine are out of the hour
	check(100*24*time.Hour, 1, false)          // and then everything
	add(100*24*time.Hour+31*time.Minute, 1, 0) // a slot is used again
	check(100*24*time.Hour+31*time.Minute, 1, false)
}

func TestOutboxOrder(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	box := newOutbox(0)
	named := func(id string) *item { return &item{event: &event{id: id}} }
	box.retry(named("late"), now.Add(time.Hour))
	box.retry(named("soon"), now.Add(time.Minute))
	box.retry(named("due"), now)
	box.queue = append(box.queue, named("first"), named("second"))
	var got []string
	for {
		it := box.take(now)
		if it == nil {
			break
		}
		got = append(got, it.id)
	}
	if want := []string{"due", "first", "second"}; !slices.Equal(got, want) {
		t.Errorf("took %v, want %v", got, want)
	}
	if wait, ok := box.due(now); !ok || wait != time.Minute {
		t.Errorf("next retry in %v, %v; want 1m", wait, ok)
	}
	if it := box.take(now.Add(2 * time.Hour)); it.id != "soon" {
		t.Errorf("took %s, want soon", it.id)
	}
	if n := box.clear(); n != 1 || box.waiting() != 4 {
		t.Errorf("cleared %d, waiting %d; want 1 and 4 in flight", n, box.waiting())
	}
	if _, ok := box.due(now); ok {
		t.Error("something is due after clear")
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h histogram
	if got := h.quantile(0.99); got != 0 {
		t.Errorf("p99 of nothing: %v", got)
	}
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond} {
		if got := h.quantile(q); got < want || float64(got) > float64(want)*bucketGrowth {
			t.Errorf("quantile %v = %v, want %v, up to 5 %% more", q, got, want)
		}
	}
	h = histogram{}
	h.add(-1)
	h.add(0)
	h.add(time.Hour)
	if got := h.quantile(1); got < 10*time.Second {
		t.Errorf("an hour is counted as %v", got)
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]verdict{
		200: acknowledged, 201: failed, 204: failed, 100: failed, 400: failed, 401: failed, 403: failed, 410: failed, 413: failed, 500: failed, 503: failed,
		429: throttled, 404: fatal, 301: fatal, 302: fatal, 304: fatal, 307: fatal, 308: fatal,
	} {
		if got := (answer{code: code}).verdict(false); got != want {
			t.Errorf("%d: verdict %v, want %v", code, got, want)
		}
	}
	if got := (answer{code: 204}).verdict(true); got != acknowledged {
		t.Errorf("204 when any 2xx will do: %v", got)
	}
	if got := (answer{err: io.EOF}).verdict(true); got != failed {
		t.Errorf("an error: %v", got)
	}
}

func TestTransportReason(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"dns_lookup_failure":    &net.DNSError{Err: "no such host", IsTimeout: true},
		"destination_timeout":   context.DeadlineExceeded,
		"invalid_certificate":   &tls.CertificateVerificationError{Err: errors.New("expired")},
		"connection_refused":    syscall.ECONNREFUSED,
		"connection_reset":      syscall.ECONNRESET,
		"network_unreachable":   syscall.ENETUNREACH,
		"invalid_tls_handshake": tls.AlertError(40),
		"server_goaway":         errors.New("http2: server sent GOAWAY and closed the connection"),
		"unexpected_eof":        io.ErrUnexpectedEOF,
		"destination_failure":   errors.New("something else"),
	} {
		if got := transportReason(fmt.Errorf("post: %w", err)); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

func TestReportTable(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{transport: answers(404)})
	p.run()
	p.subscribe(hook, updated)
	p.fire(Firing{Type: updated})
	p.idle()
	var text strings.Builder
	if err := p.sim.Report().WriteTable(&text); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if len(lines) != 4 || lines[0] != "1 events fired, 1 subscriptions" || !strings.HasPrefix(lines[1], "SUBSCRIPTION") ||
		!strings.Contains(lines[2], "suspended") || !strings.HasSuffix(lines[2], "404×1") ||
		!strings.HasSuffix(lines[3], "is suspended: Destination not found (404)") {
		t.Errorf("table:\n%s", &text)
	}
}
