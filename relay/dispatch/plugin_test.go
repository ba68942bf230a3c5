package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// mortal is a plugin that ends at some events and needs a while to come back.
type mortal struct {
	*destination
	poison  []string
	restart time.Duration

	mu      sync.Mutex
	down    string // guarded by mu, as below
	ends    int
	rotten  bool          // it ends with every event
	alive   chan struct{} // closed at its next end
	changed chan struct{}
}

func newMortal(batch int, poison ...string) *mortal {
	return &mortal{
		destination: &destination{answer: delivered, limits: sdk.BatchLimits{Events: batch}}, poison: poison, restart: 10 * time.Second,
		alive: make(chan struct{}), changed: make(chan struct{}, 1),
	}
}

func (m *mortal) BatchLimits() sdk.BatchLimits { return m.limits }
func (m *mortal) Changed() <-chan struct{}     { return m.changed }

func (m *mortal) Down() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.down
}

func (m *mortal) set(down string) {
	m.mu.Lock()
	m.down = down
	if down != "" {
		m.ends++
		close(m.alive)
		m.alive = make(chan struct{})
	}
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// Attempt takes a second for each call, at the end of which a poisonous event
// ends the plugin, with everything that it has in hand.
func (m *mortal) Attempt(ctx context.Context, events []sdk.Event) ([]sdk.Outcome, bool, error) {
	m.mu.Lock()
	down, alive := m.down, m.alive
	m.mu.Unlock()
	if down != "" {
		return nil, false, errors.New(down)
	}
	m.mu.Lock()
	poisoned := m.rotten || slices.ContainsFunc(events, func(e sdk.Event) bool { return slices.Contains(m.poison, e.ID) })
	m.mu.Unlock()
	select {
	case <-alive:
		return nil, true, errors.New("ended by another event")
	case <-time.After(time.Second):
	}
	if poisoned && m.Down() == "" {
		m.set("being restarted")
		time.AfterFunc(m.restart, func() { m.set("") })
		return nil, true, errors.New("ended")
	}
	select {
	case <-alive:
		return nil, true, errors.New("ended by another event")
	default:
	}
	return m.Deliver(ctx, events), false, nil
}

func (m *mortal) ended() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ends
}

// got counts how often each event was delivered.
func (m *mortal) got() map[string]int {
	counts := make(map[string]int)
	for _, call := range m.seen() {
		for _, event := range call {
			id, _, _ := strings.Cut(event, "#")
			counts[id]++
		}
	}
	return counts
}

// An event that ends the plugin is found among 100 in one batch, by halving it,
// and given up; the others are delivered once each, and the breaker never learns
// of it.
func TestPoisonInABatch(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		m := newMortal(100, "57")
		b.append(numbered(100)...)
		b.start("plug", m, func(c *Config) { c.MaxInFlight = 1 })
		b.later(time.Hour)
		if got := m.got(); len(got) != 99 || got["57"] != 0 {
			t.Errorf("%d events were delivered, the poisonous one %d times", len(got), got["57"])
		}
		for id, times := range m.got() {
			if times != 1 {
				t.Errorf("%s was delivered %d times", id, times)
			}
		}
		letters := b.letters("plug")
		if len(letters) != 1 || letters[0].ID != "57" || !strings.Contains(letters[0].Reason, "ended 3 times with this event alone in its hands: ended") {
			t.Errorf("%+v", letters)
		}
		// Once in the crowd, three times alone, once for each halving but the
		// last, three times as a single event.
		if n := m.ended(); n < 10 || n > 13 {
			t.Errorf("the plugin has ended %d times", n)
		}
		if s := b.lanes["plug"].Status(); s.Breaker != "closed" || s.Failing && !strings.Contains(s.LastError, "alone in its hands") {
			t.Errorf("%+v", s)
		}
	})
}

// A plugin that ends with every event, because its destination is away or somebody
// keeps killing it, makes no dead letters; when it is well again everything is
// delivered.
func TestNobodyIsToBlame(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		m := newMortal(4)
		m.rotten = true
		b.append(numbered(30)...)
		b.start("plug", m, func(c *Config) { c.MaxInFlight = 3 })
		b.later(time.Hour)
		if n := m.ended(); n < 100 {
			t.Errorf("the plugin has ended %d times only", n)
		}
		if letters := b.letters("plug"); len(letters) > 0 {
			t.Errorf("%+v", letters)
		}
		m.mu.Lock()
		m.rotten = false
		m.mu.Unlock()
		b.later(time.Hour)
		b.progress("plug", journal.Progress{})
		if got := m.got(); len(got) != 30 {
			t.Errorf("%d of 30 events were delivered", len(got))
		}
	})
}

// An event that ends the plugin while no other is there to show that the plugin
// works is tried until give_up_after, or until another one comes.
func TestPoisonWithoutWitness(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		m := newMortal(1, "bad", "worse")
		b.append("bad")
		b.start("plug", m, func(c *Config) { c.Retry.GiveUpAfter = 30 * time.Minute })
		b.later(20 * time.Minute)
		if letters := b.letters("plug"); len(letters) > 0 {
			t.Errorf("%+v", letters)
		}
		b.append("good")
		b.later(5 * time.Minute)
		if letters := b.letters("plug"); len(letters) != 1 || m.got()["good"] != 1 {
			t.Errorf("with a witness: %+v, %v", letters, m.got())
		}
		b.append("worse")
		b.later(40 * time.Minute)
		if letters := b.letters("plug"); len(letters) != 2 {
			t.Errorf("after give_up_after: %+v", letters)
		}
	})
}

// While a plugin is down its lane stands still: no attempt is spent, and time
// does not count towards giving up.
func TestPluginDownIsNoFailure(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		m := newMortal(1)
		m.set("it does not start")
		b.append(numbered(10)...)
		b.start("plug", m, func(c *Config) { c.Retry.GiveUpAfter = time.Hour })
		b.later(2 * time.Hour)
		b.progress("plug", journal.Progress{Backlog: 10})
		m.limits = sdk.BatchLimits{Events: 5} // it tells when it has started
		m.set("")
		b.later(time.Minute)
		b.progress("plug", journal.Progress{})
		for _, call := range m.seen() {
			for _, event := range call {
				if !strings.HasSuffix(event, "#1") {
					t.Errorf("%s is no first attempt", event)
				}
			}
		}
		if len(m.seen()) != 2 {
			t.Errorf("calls %v, want two batches of five", m.seen())
		}
	})
}

// Whatever the batches, the keys and the poison, every event is delivered or, if
// it is poisonous, a dead letter, and with order_by the order of a key holds.
func TestPoisonAnywhere(t *testing.T) {
	t.Parallel()
	for seed := range uint64(16) {
		random := rand.New(rand.NewPCG(seed, 0))
		batch, inFlight, ordered := []int{1, 3, 16}[random.IntN(3)], 1+random.IntN(6), random.IntN(2) == 0
		poison := random.Perm(30)[:random.IntN(5)]
		t.Run(fmt.Sprintf("%d: batch %d, %d in flight, ordered %v, poison %v", seed, batch, inFlight, ordered, poison), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { poisonAnywhere(t, batch, inFlight, ordered, poison) })
		})
	}
}

func poisonAnywhere(t *testing.T, batch, inFlight int, ordered bool, poison []int) {
	b := newBench(t)
	defer b.close()
	var ids, bad []string
	for n := range 40 {
		ids = append(ids, fmt.Sprintf("k%d-%02d", n%5, n))
	}
	for _, n := range poison {
		bad = append(bad, ids[n])
	}
	m := newMortal(batch, bad...)
	m.restart = time.Second
	b.append(ids...)
	b.start("plug", m, func(c *Config) {
		c.MaxInFlight = inFlight
		if ordered {
			c.OrderBy = "event.entity"
		}
	})
	b.later(20 * time.Minute)
	got := m.got()
	for _, id := range ids {
		if want := 1 - btoi(slices.Contains(bad, id)); got[id] != want {
			t.Errorf("%s was delivered %d times, want %d", id, got[id], want)
		}
	}
	if letters := b.letters("plug"); len(letters) != len(bad) {
		t.Errorf("%d dead letters, want %d", len(letters), len(bad))
	}
	if ordered {
		last := make(map[string]string)
		for _, call := range m.seen() {
			for _, event := range call {
				key, _, _ := strings.Cut(event, "-")
				if event < last[key] {
					t.Errorf("%s came after %s", event, last[key])
				}
				last[key] = event
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
