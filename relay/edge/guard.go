package edge

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// The platform suspends a subscription whose success rate in the last hour is
// below suspendBelow; it does not say of how many deliveries at least. The guard
// warns from warnBelow on, once there are leastDeliveries.
const (
	suspendBelow    = 0.90
	warnBelow       = 0.95
	leastDeliveries = 20
	// throttledFor is how long an event may be undelivered before the 429 that
	// it was answered counts.
	throttledFor = time.Hour
	// mostThrottled and mostPeers bound what is remembered.
	mostThrottled = 10_000
	mostPeers     = 256
)

// fingerprint tells one event from another.
type fingerprint [16]byte

// guard mirrors the rule by which the platform judges a subscription, as far as
// it can be seen from here: the rate of success of a source's deliveries in the
// last hour. A 200 in time is a success; 401, 413, an answer after 5 s and a
// client that goes away are failures. A 429 is one only if the event is still
// undelivered an hour later, and a broken TLS handshake if it comes from an
// address that has delivered before; it counts for every source, because nobody
// knows for which it was meant.
//
// What does not get as far as the door it cannot see: a name that does not
// resolve, a connection that is refused, a proxy that answers itself.
type guard struct {
	logger *slog.Logger
	seldom *rate.Sometimes

	throttled atomic.Int64 // len(waiting), so that a 200 costs nothing where all is well

	mu         sync.Mutex
	sources    map[string]*window // guarded by mu, as all below
	handshakes window
	waiting    map[fingerprint]time.Time // events answered 429, since when
	queue      []throttledEvent          // the same in order, and some that no longer wait
	peers      map[netip.Addr]time.Time  // who has delivered, and when last
	low        map[string]time.Time      // sources whose rate is low, since when
}

type throttledEvent struct {
	fingerprint
	source string
	since  time.Time
}

func newGuard(logger *slog.Logger) *guard {
	return &guard{
		logger: logger, seldom: &rate.Sometimes{Interval: time.Minute},
		sources: make(map[string]*window), waiting: make(map[fingerprint]time.Time), peers: make(map[netip.Addr]time.Time),
		low: make(map[string]time.Time),
	}
}

// event is the fingerprint of an event of a source, given what its attempts have
// in common.
func event(source, same string) fingerprint {
	sum := sha256.Sum256([]byte(source + "\x00" + same))
	return fingerprint(sum[:len(fingerprint{})])
}

// succeeded notes a delivery of a source that came from peer.
func (g *guard) succeeded(source, same string, peer netip.Addr, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.window(source).at(now).succeeded++
	if g.throttled.Load() > 0 && same != "" {
		delete(g.waiting, event(source, same))
		g.throttled.Store(int64(len(g.waiting)))
	}
	if last, known := g.peers[peer]; peer.IsValid() && (!known || now.Sub(last) > time.Minute) {
		if len(g.peers) >= mostPeers {
			g.forgetPeers(now)
		}
		if known || len(g.peers) < mostPeers {
			g.peers[peer] = now
		}
	}
}

func (g *guard) forgetPeers(now time.Time) {
	for peer, last := range g.peers {
		if now.Sub(last) > windowMinutes*time.Minute {
			delete(g.peers, peer)
		}
	}
}

// failed notes a delivery of a source that the platform counts as failed.
func (g *guard) failed(source string, how failing, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.window(source).at(now).failed[how]++
	g.complain(source, now)
}

// answered429 notes a delivery of a source that counts later, unless it succeeds
// before. Beyond mostThrottled, further events are not followed.
func (g *guard) answered429(source, same string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expire(now)
	if same == "" {
		return
	}
	f := event(source, same)
	if _, ok := g.waiting[f]; ok {
		return
	}
	// Going through the queue must be worth it: strangers can fill it.
	if len(g.queue) >= mostThrottled && len(g.waiting) < mostThrottled/2 {
		g.compact()
	}
	if len(g.queue) < mostThrottled {
		g.waiting[f] = now
		g.queue = append(g.queue, throttledEvent{f, source, now})
		g.throttled.Store(int64(len(g.waiting)))
	}
}

// waits reports whether the entry still stands for an event that waits.
func (g *guard) waits(e throttledEvent) bool {
	since, ok := g.waiting[e.fingerprint]
	return ok && since.Equal(e.since)
}

// compact takes out of the queue what has been delivered.
func (g *guard) compact() {
	kept := g.queue[:0]
	for _, e := range g.queue {
		if g.waits(e) {
			kept = append(kept, e)
		}
	}
	g.queue = kept
}

// expire counts what has been undelivered for too long.
func (g *guard) expire(now time.Time) {
	n := 0
	for _, e := range g.queue {
		if now.Sub(e.since) <= throttledFor {
			break
		}
		n++
		if g.waits(e) {
			delete(g.waiting, e.fingerprint)
			g.window(e.source).at(now).failed[failedUndelivered]++
			g.complain(e.source, now)
		}
	}
	g.queue = g.queue[n:]
	g.throttled.Store(int64(len(g.waiting)))
}

// handshakeFailed notes a connection on which no TLS came about. Port scanners
// cause most of them; only those of somebody who has delivered count.
func (g *guard) handshakeFailed(peer netip.Addr, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if last, ok := g.peers[peer]; !ok || now.Sub(last) > windowMinutes*time.Minute {
		return
	}
	g.handshakes.at(now).failed[failedHandshake]++
	for source := range g.sources {
		g.complain(source, now)
	}
}

// window is that of a source. The caller holds mu.
func (g *guard) window(source string) *window {
	w := g.sources[source]
	if w == nil {
		w = &window{}
		g.sources[source] = w
	}
	return w
}

// judge is the last hour of a source, and whether it is a reason to warn. The
// caller holds mu.
func (g *guard) judge(source string, now time.Time) (t tally, low bool) {
	t = g.window(source).sum(now)
	t.add(g.handshakes.sum(now))
	low = t.succeeded+t.failures() >= leastDeliveries && t.rate() < warnBelow
	if _, was := g.low[source]; low && !was {
		g.low[source] = now
	} else if !low {
		delete(g.low, source)
	}
	return t, low
}

// complain logs a rate that is low. The caller holds mu.
func (g *guard) complain(source string, now time.Time) {
	g.seldom.Do(func() {
		t, low := g.judge(source, now)
		switch {
		case !low:
		case t.rate() < suspendBelow:
			g.logger.Error("success rate is so low that the platform suspends the subscription", "source", source, "err", t.String())
		default:
			g.logger.Warn("success rate is falling", "source", source, "err", t.String())
		}
	})
}

// String says how the deliveries of the last hour went.
func (t *tally) String() string {
	var ways []string
	for i, n := range t.failed {
		if n > 0 {
			ways = append(ways, fmt.Sprintf("%d %s", n, failingNames[i]))
		}
	}
	return fmt.Sprintf("%.1f %% of %d deliveries in the last hour succeeded, below 90 %% the platform suspends the subscription: %s",
		100*t.rate(), t.succeeded+t.failures(), strings.Join(ways, ", "))
}

// concerns are the sources whose rate is low.
func (g *guard) concerns(now time.Time) (all []Concern) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expire(now)
	for source := range g.sources {
		if t, low := g.judge(source, now); low {
			all = append(all, Concern{Key: "sources." + source + ".success_rate", Message: t.String(), Since: g.low[source]})
		}
	}
	return all
}

var successDesc = prometheus.NewDesc("pimrelay_edge_success_ratio",
	"Part of a source's deliveries of the last hour that succeeded as the platform counts. Below 0.9 it suspends the subscription.", []string{"source"}, nil)

// Describe is that of a prometheus.Collector.
func (*guard) Describe(ch chan<- *prometheus.Desc) { ch <- successDesc }

// Collect shows the rate of each source that has had a delivery.
func (g *guard) Collect(ch chan<- prometheus.Metric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.expire(now)
	for source := range g.sources {
		t, _ := g.judge(source, now)
		ch <- prometheus.MustNewConstMetric(successDesc, prometheus.GaugeValue, t.rate(), source)
	}
}
