package dispatch

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

func TestBatchWaitsForMore(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		d := &destination{answer: delivered, limits: sdk.BatchLimits{Events: 3}}
		b.start("shop", batching{d}, func(c *Config) { c.Batch.MaxWait = time.Second })
		b.append("a")
		b.later(900 * time.Millisecond)
		b.append("b")
		synctest.Wait()
		if n := len(d.seen()); n != 0 {
			t.Errorf("%d calls before max_wait is over", n)
		}
		b.later(101 * time.Millisecond)
		b.append("c", "d", "e") // full: waits for nothing
		synctest.Wait()
		if diff := cmp.Diff([][]string{{"a#1", "b#1"}, {"c#1", "d#1", "e#1"}}, d.seen()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A batch that the destination rejects as a whole is halved until what is to
// blame stands alone; a transport failure is not.
func TestBisects(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		up := time.Now().Add(time.Second)
		d := &destination{limits: sdk.BatchLimits{Events: 8}, answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			if time.Now().Before(up) {
				return sdk.Each(len(events), sdk.Retry(0, errors.New("connection refused")))
			}
			for _, e := range events {
				if strings.HasPrefix(e.ID, "bad") {
					return sdk.Each(len(events), sdk.Outcome{Result: sdk.ResultRejected, Reason: "400", Answer: "no"})
				}
			}
			return delivered(ctx, events)
		}}
		b.append("1", "2", "3", "4", "5", "bad", "7", "8")
		b.start("shop", batching{d}, func(c *Config) {
			c.Batch.MaxWait = 100 * time.Millisecond
			c.Retry.Initial, c.Retry.Max = time.Minute, time.Minute
		})
		b.later(time.Millisecond)
		if n := len(d.seen()); n != 1 {
			t.Fatalf("%d calls after a transport failure", n)
		}
		b.later(2 * time.Minute)
		b.append("11", "12", "bad13", "14", "15", "16", "17", "18")
		b.later(time.Minute)
		b.progress("shop", journal.Progress{DeadLetters: 2})
		var calls []string
		for _, call := range d.seen() {
			if strings.HasPrefix(call[0], "1") && len(call[0]) > 3 || strings.HasPrefix(call[0], "bad13") {
				calls = append(calls, strings.Join(call, " "))
			}
		}
		want := []string{
			"11#1 12#1 bad13#1 14#1 15#1 16#1 17#1 18#1", "11#1 12#1 bad13#1 14#1", "15#1 16#1 17#1 18#1",
			"11#1 12#1", "bad13#1 14#1", "bad13#1", "14#1",
		}
		slices.Sort(want)
		slices.Sort(calls)
		if diff := cmp.Diff(want, calls); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, letter := range b.letters("shop") {
			if !strings.HasPrefix(letter.ID, "bad") || letter.Answer != "no" {
				t.Errorf("dead letter %+v", letter)
			}
		}
	})
}
