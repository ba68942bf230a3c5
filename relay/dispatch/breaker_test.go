package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// calls makes calls on a breaker as a lane does.
func calls(c *circuit, now time.Time, seqs ...int64) (opened bool) {
	for _, seq := range seqs {
		done, ok := c.allow(now)
		switch {
		case !ok:
		case seq > 0:
			opened = c.failure(done, now, seq, "503") || opened
		case seq == 0:
			c.success(done)
		default:
			c.exclude(done)
		}
	}
	return opened
}

func TestBreakerOpens(t *testing.T) {
	t.Parallel()
	var defaults Config
	defaults.SetDefaults()
	alternating := func(n int) (seqs []int64) {
		for i := range n {
			seqs = append(seqs, int64(i+1), 0)
		}
		return seqs
	}
	for _, tt := range []struct {
		name string
		seqs []int64
		want bool
	}{
		{"five in a row", []int64{1, 2, 3, 4, 5}, true},
		{"four in a row", []int64{1, 2, 3, 4}, false},
		{"a success between", []int64{1, 2, 3, 0, 4, 5, 6}, false},
		{"five of one event", []int64{7, 7, 7, 7, 7, 7, 7, 7}, false},
		{"one event among successes", []int64{0, 7, 0, 7, 0, 7, 0, 7, 0, 7, 0, 7, 0, 7, 0, 7, 0, 7, 0, 7, 0, 7, 0, 7}, false},
		{"half of twenty", alternating(11), true},
		{"half of few", alternating(9), false},
		{"excluded calls", []int64{1, 2, -1, -1, -1, 3, 4, -1}, false},
		{"excluded calls interrupt no row", []int64{1, 2, -1, 3, 4, -1, 5}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			if got := calls(newCircuit(defaults.Breaker), time.Now(), tt.seqs...); got != tt.want {
				t.Errorf("%s: opened %v", tt.name, got)
			}
		})
	}
}

// Failures in a row count however slow the lane is; the ratio counts a minute.
func TestBreakerOfASlowLane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(Breaker{Failures: 3, Ratio: 0.5, MinRequests: 4, OpenFor: time.Second, MaxOpenFor: time.Minute})
		for seq := range int64(3) {
			if opened := calls(c, time.Now(), seq+1); opened != (seq == 2) {
				t.Errorf("after failure %d: opened %v", seq+1, opened)
			}
			time.Sleep(time.Hour)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(Breaker{Failures: 100, Ratio: 0.5, MinRequests: 4, OpenFor: time.Second, MaxOpenFor: time.Minute})
		for n := range 1000 {
			calls(c, time.Now(), 0)
			if n%10 == 0 {
				time.Sleep(time.Second)
			}
		}
		time.Sleep(2 * time.Minute) // old successes must not hide new failures
		if !calls(c, time.Now(), 1, 2, 0, 3) {
			t.Error("not opened by 3 failures of 4")
		}
	})
}

// A lane whose destination is away probes at growing intervals, spends no
// attempts, does not give up, and goes on by itself when it is back: in order
// within each key, and not faster than its rate.
func TestOutage(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		began := time.Now()
		var got times
		order := newOrderCheck(t)
		d := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			if time.Since(began) < 6*time.Hour {
				return sdk.Each(len(events), sdk.Retry(0, errors.New("connection refused")))
			}
			got.note(len(events))
			order.delivered(events)
			return delivered(ctx, events)
		}}
		var ids []string
		for n := range 300 {
			ids = append(ids, fmt.Sprintf("%c-%d", 'a'+n%7, n+1))
		}
		b.append(ids...)
		var log bytes.Buffer // read after the lane has ended
		b.logger = slog.New(slog.NewTextHandler(&log, nil))
		stop := b.start("shop", d, func(c *Config) {
			c.OrderBy = "event.entity"
			c.Rate = &Rate{PerSecond: 20, Burst: 10}
			c.Retry.GiveUpAfter = time.Hour
		})
		b.later(time.Hour)
		failed := len(d.seen())
		s := b.lanes["shop"].Status()
		if s.Breaker != "open" || s.BreakerReason != "connection refused" || !s.NextProbe.After(time.Now()) {
			t.Errorf("status %+v", s)
		}
		if gauge := testutil.ToFloat64(b.metrics.breaker.WithLabelValues("shop")); gauge != 2 {
			t.Errorf("the gauge of an open breaker is %v", gauge)
		}
		if failed > 30 {
			t.Errorf("%d calls in an hour's outage", failed)
		}
		if s.Backlog != 300 {
			t.Errorf("backlog %d", s.Backlog)
		}
		b.later(5 * time.Hour)
		if n := len(d.seen()) - failed; n < 5*6-2 || n > 5*6+2 {
			t.Errorf("%d probes in 5 hours, want one every max_open_for", n)
		}
		probes := map[string]bool{}
		for _, call := range d.seen() {
			probes[call[0][:1]] = true
			if attempt := call[0][strings.Index(call[0], "#")+1:]; attempt != "1" && attempt != "2" {
				t.Fatalf("an attempt was spent in the outage: %v", call)
			}
		}
		if len(probes) != 7 {
			t.Errorf("the probes were of %d keys of 7", len(probes))
		}
		b.later(15 * time.Minute)
		if n := got.count(); n != 300 {
			t.Errorf("%d of 300 events", n)
		}
		if most := got.most(time.Second); most > 31 {
			t.Errorf("%d events within a second at 20/s with a burst of 10", most)
		}
		b.progress("shop", journal.Progress{})
		stop()
		for _, message := range []string{"breaker open", "breaker closed"} {
			if n := strings.Count(log.String(), message); n != 1 {
				t.Errorf("%q was logged %d times", message, n)
			}
		}
	})
}

// An event that its destination never accepts does not stop the others, and is
// given up in the end although it is alone.
func TestPoisonDoesNotOpenTheBreaker(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		d := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			if events[0].ID == "poison" {
				return []sdk.Outcome{sdk.Retry(0, errors.New("500"))}
			}
			return delivered(ctx, events)
		}}
		b.append("poison")
		b.start("shop", d, func(c *Config) { c.Retry.GiveUpAfter = time.Hour })
		b.later(2 * time.Hour)
		if letters := b.letters("shop"); len(letters) != 1 || letters[0].ID != "poison" {
			t.Errorf("dead letters %+v", letters)
		}
		b.append("a")
		synctest.Wait()
		b.progress("shop", journal.Progress{DeadLetters: 1})
	})
}

// Events that are to blame themselves keep the breaker open only until the
// probes come to another one.
func TestProbesRotate(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		d := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			if strings.HasPrefix(events[0].ID, "poison") {
				return []sdk.Outcome{sdk.Retry(0, errors.New("500"))}
			}
			return delivered(ctx, events)
		}}
		b.append("poison1", "poison2", "poison3", "poison4", "poison5", "a", "b")
		b.start("shop", d, func(c *Config) { c.MaxInFlight = 1; c.Retry.Initial = time.Second })
		synctest.Wait()
		if s := b.lanes["shop"].Status(); s.Breaker != "open" {
			t.Fatalf("status %+v", s)
		}
		b.later(31 * time.Second)
		if s := b.lanes["shop"].Status(); s.Delivered != 2 {
			t.Errorf("status %+v, want both good events delivered after the first probe", s)
		}
	})
}

// A probe that hangs is a failed one, and the next one follows.
func TestProbeThatHangs(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		release := make(chan struct{})
		n := 0
		d := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			switch n++; {
			case n <= 5:
				return []sdk.Outcome{sdk.Retry(0, errors.New("503"))}
			case n == 6:
				<-release // whatever ctx says
			}
			return delivered(ctx, events)
		}}
		b.append("a", "b", "c", "d", "e", "f", "g")
		b.start("shop", d, func(c *Config) { c.MaxInFlight = 1; c.Retry.Initial = 10 * time.Millisecond })
		b.later(45 * time.Second)
		s := b.lanes["shop"].Status()
		if s.Breaker != "open" || s.Overdue != 1 || s.Delivered != 0 {
			t.Errorf("status %+v", s)
		}
		close(release)
		b.later(5 * time.Minute)
		if s := b.lanes["shop"].Status(); s.Breaker != "closed" || s.Delivered != 7 || s.Overdue != 0 {
			t.Errorf("status %+v", s)
		}
	})
}
