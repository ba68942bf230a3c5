package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// Six destinations with each its own trouble and a good one: every event ends
// where it should, and the good one is never held up.
func TestEveryTrouble(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		const events = 400
		began := time.Now()
		var late int
		slept := func(d time.Duration, answer func(string) sdk.Outcome) *destination {
			return &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				select {
				case <-time.After(d):
					return []sdk.Outcome{answer(events[0].ID)}
				case <-ctx.Done():
					return []sdk.Outcome{sdk.Retry(0, ctx.Err())}
				}
			}}
		}
		number := func(id string) (n int) {
			_, n = split(id)
			return n
		}
		var throttled sync.Map
		lanes := map[string]*destination{
			"dead": slept(time.Millisecond, func(string) sdk.Outcome { return sdk.Retry(0, errors.New("connection refused")) }),
			"hang": slept(time.Hour, func(string) sdk.Outcome { return sdk.Delivered() }),
			"slow": slept(2*time.Second, func(string) sdk.Outcome { return sdk.Delivered() }),
			"throttles": slept(time.Millisecond, func(id string) sdk.Outcome {
				if _, again := throttled.LoadOrStore(id, true); !again && number(id)%50 == 0 {
					return sdk.Throttled(30*time.Second, "429")
				}
				return sdk.Delivered()
			}),
			"rejects": slept(time.Millisecond, func(id string) sdk.Outcome {
				if number(id)%10 == 0 {
					return sdk.Rejected("422")
				}
				return sdk.Delivered()
			}),
			"poison": slept(time.Millisecond, func(id string) sdk.Outcome {
				if number(id) == 7 {
					return sdk.Retry(0, errors.New("500"))
				}
				return sdk.Delivered()
			}),
		}
		lanes["good"] = &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			if number(events[0].ID) != int(time.Since(began)/(10*time.Millisecond)) {
				late++
			}
			return delivered(ctx, events)
		}}
		for name, d := range lanes {
			b.start(name, d, func(c *Config) { c.OrderBy = "event.entity"; c.MaxInFlight = 1000; c.Retry.GiveUpAfter = time.Hour })
		}
		for n := range events {
			time.Sleep(time.Until(began.Add(time.Duration(n+1) * 10 * time.Millisecond)))
			b.append(fmt.Sprintf("k%d-%d", n%40, n+1))
		}
		b.later(time.Millisecond)
		if got := len(lanes["good"].seen()); got != events || late > 0 {
			t.Errorf("the good lane had %d events, %d of them late", got, late)
		}
		b.later(2 * time.Hour)
		for name, want := range map[string]journal.Progress{
			"good": {}, "slow": {}, "throttles": {}, "rejects": {DeadLetters: events / 10}, "poison": {DeadLetters: 1},
		} {
			b.progress(name, want)
		}
		for _, name := range []string{"dead", "hang"} {
			s := b.lanes[name].Status()
			if s.Breaker == "closed" || s.Backlog != events || s.DeadLetters != 0 {
				t.Errorf("%s: %+v", name, s)
			}
		}
		for _, letter := range append(b.letters("rejects"), b.letters("poison")...) {
			if n := number(letter.ID); n%10 != 0 && n != 7 {
				t.Errorf("dead letter %+v", letter)
			}
		}
	})
}

// A lane that is replaced by one with another configuration loses nothing, and
// repeats nothing that was not in flight.
func TestReplacing(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		order := newOrderCheck(t)
		d := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			order.begin(events)
			defer order.end(events)
			time.Sleep(7 * time.Millisecond)
			if events[0].Attempt == 1 && strings.HasSuffix(events[0].ID, "5") {
				return []sdk.Outcome{sdk.Retry(0, errors.New("503"))}
			}
			order.delivered(events)
			return delivered(ctx, events)
		}}
		b.append(keyed(1, 2000, "a", "b", "c", "d", "e", "f", "g", "h", "i")...)
		for n := range 20 {
			stop := b.start("shop", d, func(c *Config) {
				c.OrderBy, c.MaxInFlight = "event.entity", 1+n
				c.Rate = &Rate{PerSecond: float64(100 + n)}
			})
			b.later(time.Second / 2)
			stop()
		}
		b.start("shop", d, func(c *Config) { c.OrderBy = "event.entity" })
		b.later(time.Hour)
		b.progress("shop", journal.Progress{})
		if len(order.got) != 2000 {
			t.Errorf("%d events of 2000", len(order.got))
		}
		for id, times := range order.got {
			if times != 1 {
				t.Errorf("%s came %d times", id, times)
			}
		}
	})
}

// A forwarder that never returns does not keep the lane from ending, and what
// it had in hand is delivered by the next lane.
func TestForwarderThatNeverReturns(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		release := make(chan struct{})
		defer close(release)
		d := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			if events[0].ID == "hang" {
				<-release
			}
			return delivered(ctx, events)
		}}
		b.append("a", "hang", "b")
		cursor, err := b.journal.Cursor(t.Context(), "shop", journal.Start{Beginning: true})
		if err != nil {
			t.Fatal(err)
		}
		var config Config
		config.SetDefaults()
		lane, err := New(config, Options{Name: "shop", Forwarder: d, Cursor: cursor, Drain: time.Minute, Logger: b.logger, Metrics: b.metrics})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- lane.Run(ctx) }()
		b.later(20 * time.Second)
		if s := lane.Status(); s.Overdue != 1 || s.Delivered != 2 || !s.Failing {
			t.Errorf("status %+v", s)
		}
		stopped := time.Now()
		cancel()
		if err := <-done; err == nil || !strings.Contains(err.Error(), `forwarder "shop" does not return from 1 deliveries`) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(stopped); took > 62*time.Second {
			t.Errorf("ended after %s", took)
		}
		again := &destination{answer: delivered}
		b.start("shop", again, nil)
		b.later(time.Second)
		if got := again.seen(); len(got) != 1 || got[0][0] != "hang#1" {
			t.Errorf("the next lane delivered %v", got)
		}
	})
}
