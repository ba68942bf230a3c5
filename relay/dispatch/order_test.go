package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// orderCheck is a destination's view of the order within each key.
type orderCheck struct {
	fail func(format string, args ...any)

	mu   sync.Mutex
	last map[string]int    // guarded by mu, as all below; the highest number that is done
	busy map[string]string // the event that is being delivered
	got  map[string]int    // how often each event was delivered
}

func newOrderCheck(t interface{ Errorf(string, ...any) }) *orderCheck {
	return &orderCheck{fail: t.Errorf, last: make(map[string]int), busy: make(map[string]string), got: make(map[string]int)}
}

func split(id string) (key string, number int) {
	key, text, _ := strings.Cut(id, "-")
	if _, err := fmt.Sscan(text, &number); err != nil {
		panic(err)
	}
	return key, number
}

// begin notes that events are being delivered.
func (o *orderCheck) begin(events []sdk.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range events {
		key, _ := split(e.ID)
		if other := o.busy[key]; other != "" {
			o.fail("%s begins while %s is being delivered", e.ID, other)
		}
		o.busy[key] = e.ID
	}
}

func (o *orderCheck) end(events []sdk.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range events {
		key, _ := split(e.ID)
		delete(o.busy, key)
	}
}

// delivered notes that the destination has taken events, or will never.
func (o *orderCheck) delivered(events []sdk.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range events {
		key, number := split(e.ID)
		if number <= o.last[key] && o.got[e.ID] == 0 {
			o.fail("%s comes after %d", e.ID, o.last[key])
		}
		o.last[key] = max(o.last[key], number)
		o.got[e.ID]++
	}
}

// keyed are the ids of n events of the keys in turn, the first numbered from.
func keyed(from, n int, keys ...string) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%d", keys[i%len(keys)], from+i)
	}
	return ids
}

// While an event of a key waits for a retry its followers wait in the journal,
// and the other keys go on.
func TestKeysWaitForTheirRetries(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		order := newOrderCheck(t)
		up := time.Now().Add(10 * time.Minute)
		d := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			if key, _ := split(events[0].ID); key == "bad" && time.Now().Before(up) {
				return []sdk.Outcome{sdk.Retry(0, errors.New("500"))}
			}
			order.delivered(events)
			return delivered(ctx, events)
		}}
		b.append(keyed(1, 1000, "bad", "x", "y", "z")...)
		b.start("shop", d, func(c *Config) { c.OrderBy = "event.entity"; c.Retry.Max = time.Minute })
		b.later(time.Second)
		if s := b.lanes["shop"].Status(); s.Delivered != 750 || s.Backlog != 250 {
			t.Errorf("status %+v, want the three good keys delivered", s)
		}
		b.append(keyed(1001, 4, "bad", "x", "y", "z")...)
		b.later(time.Second)
		if s := b.lanes["shop"].Status(); s.Delivered != 753 {
			t.Errorf("%d delivered of the good keys", s.Delivered)
		}
		b.later(20 * time.Minute)
		b.progress("shop", journal.Progress{})
		if len(order.got) != 1004 {
			t.Errorf("%d events of 1004", len(order.got))
		}
	})
}

// An event that becomes a dead letter frees its key.
func TestDeadLetterFreesItsKey(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		var got []string
		d := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			switch events[0].ID {
			case "k-1":
				return []sdk.Outcome{sdk.Rejected("422")}
			case "k-3":
				return []sdk.Outcome{sdk.Retry(0, errors.New("500"))}
			}
			got = append(got, events[0].ID)
			return delivered(ctx, events)
		}}
		b.append(keyed(1, 5, "k")...)
		b.start("shop", d, func(c *Config) { c.OrderBy = "event.entity"; c.Retry.GiveUpAfter = time.Hour })
		synctest.Wait()
		if len(got) != 1 || got[0] != "k-2" {
			t.Errorf("delivered %v before the retry", got)
		}
		b.later(2 * time.Hour)
		if strings.Join(got, " ") != "k-2 k-4 k-5" {
			t.Errorf("delivered %v", got)
		}
		b.progress("shop", journal.Progress{DeadLetters: 2})
	})
}

// A batch holds at most one event of a key.
func TestBatchesKeepTheOrder(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		order := newOrderCheck(t)
		d := &destination{limits: sdk.BatchLimits{Events: 10}, answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			order.begin(events)
			time.Sleep(time.Millisecond)
			order.end(events)
			order.delivered(events)
			return delivered(ctx, events)
		}}
		b.append(keyed(1, 120, "a", "b", "c", "a")...)
		b.start("shop", batching{d}, func(c *Config) { c.OrderBy = "event.entity"; c.Batch.MaxWait = 5 * time.Millisecond })
		b.later(time.Minute)
		b.progress("shop", journal.Progress{})
		if calls := len(d.seen()); calls < 60 || calls > 90 {
			t.Errorf("%d calls", calls)
		}
	})
}

// Whatever fails, and however often the lane is replaced, the events of each
// key arrive in order, one at a time, and all of them arrive.
func TestOrderUnderFailures(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		keys := rapid.IntRange(1, 6).Draw(rt, "keys")
		events := rapid.IntRange(1, 150).Draw(rt, "events")
		limits := sdk.BatchLimits{Events: rapid.SampledFrom([]int{1, 1, 4}).Draw(rt, "batch")}
		inFlight := rapid.IntRange(1, 5).Draw(rt, "in flight")
		bad := rapid.IntRange(0, 60).Draw(rt, "percent that fails")
		restarts := rapid.IntRange(0, 3).Draw(rt, "restarts")
		seed := rapid.Uint64().Draw(rt, "seed")
		var failed []string
		synctest.Test(t, func(t *testing.T) {
			failed = orderUnderFailures(t, keys, events, inFlight, bad, restarts, limits, seed)
		})
		for _, line := range failed {
			rt.Error(line)
		}
	})
}

func orderUnderFailures(t *testing.T, keys, events, inFlight, bad, restarts int, limits sdk.BatchLimits, seed uint64) (failed []string) {
	b := newBench(t)
	defer b.close()
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 1)) // guarded by mu
	percent := func() int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(100)
	}
	order := newOrderCheck(t)
	order.fail = func(format string, args ...any) { failed = append(failed, fmt.Sprintf(format, args...)) }
	d := &destination{limits: limits, answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
		order.begin(events)
		defer order.end(events)
		time.Sleep(time.Duration(percent()) * time.Millisecond)
		outcomes := delivered(ctx, events)
		for n := range outcomes {
			switch p := percent(); {
			case p >= bad:
			case p%10 == 0:
				outcomes[n] = sdk.Throttled(time.Second, "429")
				continue
			case p%10 == 1:
				outcomes[n] = sdk.Rejected("422")
				continue // a half of a batch may be tried again
			case p%10 == 2:
				outcomes[n] = sdk.Retry(0, errors.New("done, but the reply was lost"))
			default:
				outcomes[n] = sdk.Retry(0, errors.New("503"))
				continue
			}
			order.delivered(events[n : n+1])
		}
		return outcomes
	}}
	var ids []string
	for n := range events {
		ids = append(ids, fmt.Sprintf("%c-%d", 'a'+rune(random.IntN(keys)), n+1))
	}
	change := func(c *Config) {
		c.OrderBy, c.MaxInFlight, c.Retry.GiveUpAfter = "event.entity", inFlight, 1000*time.Hour
		c.Breaker.MaxOpenFor = time.Minute
	}
	stop := b.start("shop", batching{d}, change)
	for n := range restarts + 1 {
		part := ids[n*len(ids)/(restarts+1) : (n+1)*len(ids)/(restarts+1)]
		b.append(part...)
		b.later(time.Duration(percent()) * 100 * time.Millisecond)
		stop()
		stop = b.start("shop", batching{d}, change)
	}
	for n := 0; n < 10_000 && b.lanes["shop"].Status().Backlog > 0; n++ {
		b.later(time.Minute)
	}
	got := len(order.got) + len(b.letters("shop"))
	if p := b.lanes["shop"].Status(); p.Backlog != 0 || got < events {
		failed = append(failed, fmt.Sprintf("%d of %d events arrived or are dead letters, status %+v", got, events, p))
	}
	return failed
}
