package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// destination is a forwarder whose answers a test decides.
type destination struct {
	answer func(ctx context.Context, events []sdk.Event) []sdk.Outcome
	limits sdk.BatchLimits

	mu    sync.Mutex
	calls [][]string // guarded by mu; "id#attempt" of each call
}

func (d *destination) Configure(context.Context, json.RawMessage) error { return nil }
func (d *destination) Close(context.Context) error                      { return nil }

func (d *destination) Deliver(ctx context.Context, events []sdk.Event) []sdk.Outcome {
	var call []string
	for _, e := range events {
		call = append(call, fmt.Sprintf("%s#%d", e.ID, e.Attempt))
	}
	d.mu.Lock()
	d.calls = append(d.calls, call)
	d.mu.Unlock()
	return d.answer(ctx, events)
}

func (d *destination) seen() [][]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([][]string{}, d.calls...)
}

type batching struct{ *destination }

func (b batching) BatchLimits() sdk.BatchLimits { return b.limits }

func delivered(_ context.Context, events []sdk.Event) []sdk.Outcome {
	return sdk.Each(len(events), sdk.Delivered())
}

// bench is a journal with lanes, in the time of a synctest bubble.
type bench struct {
	t       *testing.T
	journal *journal.Journal
	logger  *slog.Logger
	metrics *Metrics
	lanes   map[string]*Lane
	stop    []func()
}

func newBench(t *testing.T) *bench {
	j, err := journal.Open(t.Context(), t.TempDir(), journal.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t: t, journal: j, logger: slog.New(slog.DiscardHandler), metrics: NewMetrics(prometheus.NewRegistry()), lanes: make(map[string]*Lane)}
}

// start runs a lane; the returned function stops it and waits.
func (b *bench) start(name string, f sdk.Forwarder, change func(*Config)) (stop func()) {
	b.t.Helper()
	var config Config
	config.SetDefaults()
	if change != nil {
		change(&config)
	}
	if faults := config.Validate(); faults != nil {
		b.t.Fatal(faults)
	}
	cursor, err := b.journal.Cursor(b.t.Context(), name, journal.Start{Beginning: true})
	if err != nil {
		b.t.Fatal(err)
	}
	lane, err := New(config, Options{Name: name, Forwarder: f, Cursor: cursor, Drain: time.Minute, Logger: b.logger, Metrics: b.metrics})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error)
	go func() { done <- lane.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
	b.lanes[name], b.stop = lane, append(b.stop, stop)
	return stop
}

func (b *bench) close() {
	for _, stop := range b.stop {
		stop()
	}
	if err := b.journal.Close(); err != nil {
		b.t.Error(err)
	}
}

// append stores events. The entity of an event is what stands before the dash
// in its id, if there is one.
func (b *bench) append(ids ...string) {
	b.t.Helper()
	for _, id := range ids {
		e := product()
		e.ID = id
		if entity, _, ok := strings.Cut(id, "-"); ok {
			e.Entity = entity
		}
		if _, err := b.journal.Append(b.t.Context(), e); err != nil {
			b.t.Fatal(err)
		}
	}
}

// later lets virtual time pass, and what is due happen.
func (b *bench) later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) letters(name string) []journal.DeadLetter {
	b.t.Helper()
	b.later(2 * time.Second) // the settler writes once a second
	letters, err := b.journal.DeadLetters(b.t.Context(), journal.DeadLetterFilter{Forwarder: name})
	if err != nil {
		b.t.Fatal(err)
	}
	return letters
}

func (b *bench) progress(name string, want journal.Progress) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.lanes[name].Status().Progress); diff != "" {
		b.t.Errorf("progress of %s (-want +got):\n%s", name, diff)
	}
}

// run runs a test in a bubble: time stands still but for what the test waits
// for.
func run(t *testing.T, test func(t *testing.T, b *bench)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		test(t, b)
	})
}

func TestDelivers(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		d := &destination{answer: delivered}
		b.append("a")
		b.start("shop", d, func(c *Config) { c.MaxInFlight = 1 })
		synctest.Wait()
		b.append("b", "c")
		synctest.Wait()
		if diff := cmp.Diff([][]string{{"a#1"}, {"b#1"}, {"c#1"}}, d.seen()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		b.progress("shop", journal.Progress{})
	})
}

func TestLeavesOutWhatDoesNotMatch(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		d := &destination{answer: delivered}
		b.append("a", "b", "c")
		b.start("shop", d, func(c *Config) { c.Match = `event.id != "b" && event.data.product.uuid == "6a9f"` })
		b.start("none", d, func(c *Config) { c.Match = `event.data.nothing == 1` })
		b.start("error", d, func(c *Config) { c.Match = `event.data.product.uuid > 1` })
		synctest.Wait()
		if n := len(d.seen()); n != 2 {
			t.Errorf("%d deliveries: %v", n, d.seen())
		}
		b.progress("shop", journal.Progress{})
		b.progress("none", journal.Progress{})
		b.progress("error", journal.Progress{DeadLetters: 3})
	})
}

func TestRetriesUntilDelivered(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		fails := 3
		d := &destination{}
		d.answer = func(_ context.Context, events []sdk.Event) []sdk.Outcome {
			if fails--; fails >= 0 {
				return sdk.Each(len(events), sdk.Retry(0, errors.New("refused")))
			}
			return delivered(context.Background(), events)
		}
		b.append("a")
		b.start("shop", d, func(c *Config) { c.Retry.Initial = time.Second })
		synctest.Wait()
		b.progress("shop", journal.Progress{Backlog: 1, Retrying: 1})
		if s := b.lanes["shop"].Status(); !s.Failing || s.LastError != "refused" {
			t.Errorf("status %+v", s)
		}
		b.later(8 * time.Second) // 1 + 2 + 4 is the longest
		if diff := cmp.Diff([][]string{{"a#1"}, {"a#2"}, {"a#3"}, {"a#4"}}, d.seen()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		b.progress("shop", journal.Progress{})
		if s := b.lanes["shop"].Status(); s.Failing || s.Delivered != 1 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestGivesUp(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		d := &destination{answer: func(_ context.Context, events []sdk.Event) []sdk.Outcome {
			return []sdk.Outcome{{Result: sdk.ResultRetry, Reason: "503", Answer: "busy"}}
		}}
		b.append("a")
		b.start("shop", d, func(c *Config) { c.Retry.GiveUpAfter = time.Hour })
		b.later(70 * time.Minute)
		letters := b.letters("shop")
		if len(letters) != 1 || letters[0].ID != "a" || letters[0].Answer != "busy" || letters[0].Attempts != len(d.seen()) {
			t.Errorf("dead letters %+v after %d attempts", letters, len(d.seen()))
		}
		if age := letters[0].Last.Sub(letters[0].First); age < time.Hour {
			t.Errorf("given up after %s", age)
		}
		b.progress("shop", journal.Progress{DeadLetters: 1})
	})
}

func TestRejectedIsADeadLetterAtOnce(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		d := &destination{answer: func(_ context.Context, events []sdk.Event) []sdk.Outcome {
			if events[0].ID == "bad" {
				return []sdk.Outcome{sdk.Rejected("422")}
			}
			return delivered(context.Background(), events)
		}}
		b.append("a", "bad", "c")
		b.start("shop", d, nil)
		if letters := b.letters("shop"); len(letters) != 1 || letters[0].Reason != "422" || letters[0].Attempts != 1 {
			t.Errorf("dead letters %+v", letters)
		}
		b.progress("shop", journal.Progress{DeadLetters: 1})
	})
}

func TestThrottledSpendsNoAttempt(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		began := time.Now()
		d := &destination{answer: func(_ context.Context, events []sdk.Event) []sdk.Outcome {
			if time.Since(began) < 5*time.Hour {
				return []sdk.Outcome{sdk.Throttled(6*time.Minute, "429")}
			}
			return delivered(context.Background(), events)
		}}
		b.append("a")
		b.start("shop", d, func(c *Config) { c.Retry.GiveUpAfter = time.Hour })
		b.later(6 * time.Hour)
		calls := d.seen()
		if len(calls) < 50 || len(calls) > 52 || calls[len(calls)-1][0] != "a#1" {
			t.Errorf("%d calls, the last %v", len(calls), calls[len(calls)-1])
		}
		b.progress("shop", journal.Progress{})
	})
}

func TestRetryAfterIsHonouredAndBounded(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		var at []time.Duration
		began := time.Now()
		d := &destination{answer: func(_ context.Context, events []sdk.Event) []sdk.Outcome {
			at = append(at, time.Since(began))
			switch len(at) {
			case 1:
				return []sdk.Outcome{sdk.Retry(10*time.Minute, errors.New("503"))}
			case 2:
				return []sdk.Outcome{sdk.Retry(100*time.Hour, errors.New("503"))}
			}
			return delivered(context.Background(), events)
		}}
		b.append("a")
		b.start("shop", d, nil)
		b.later(2 * time.Hour)
		if len(at) != 3 || at[1] < 10*time.Minute || at[1] > 11*time.Minute || at[2]-at[1] < time.Hour || at[2]-at[1] > 61*time.Minute {
			t.Errorf("attempts at %v", at)
		}
	})
}

func TestPanicsAndMissingOutcomesAreRetries(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		calls := 0
		d := &destination{limits: sdk.BatchLimits{Events: 10}}
		d.answer = func(_ context.Context, events []sdk.Event) []sdk.Outcome {
			switch calls++; calls {
			case 1:
				panic("broken forwarder")
			case 2:
				return []sdk.Outcome{sdk.Delivered()}
			case 3:
				return make([]sdk.Outcome, len(events)) // no result at all
			}
			return delivered(context.Background(), events)
		}
		b.append("a", "b")
		b.start("shop", batching{d}, func(c *Config) { c.MaxInFlight = 1 })
		b.later(time.Minute)
		b.progress("shop", journal.Progress{})
		seen := map[string]bool{}
		for _, call := range d.seen() {
			for _, id := range call {
				seen[id] = true
			}
		}
		if !seen["a#2"] || !seen["b#2"] || b.lanes["shop"].Status().Delivered != 2 {
			t.Errorf("calls %v", d.seen())
		}
	})
}

func TestBatches(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		d := &destination{answer: delivered, limits: sdk.BatchLimits{Events: 3}}
		b.append("a", "b", "c", "d")
		b.start("shop", batching{d}, func(c *Config) { c.MaxInFlight = 1; c.Batch.MaxWait = 0 })
		synctest.Wait()
		if diff := cmp.Diff([][]string{{"a#1", "b#1", "c#1"}, {"d#1"}}, d.seen()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		big := &destination{answer: delivered, limits: sdk.BatchLimits{Bytes: 200}}
		b.start("bytes", batching{big}, func(c *Config) { c.MaxInFlight = 1; c.Batch.MaxWait = 0 })
		synctest.Wait()
		if got := len(big.seen()); got != 4 { // each body is over 100 bytes
			t.Errorf("%d calls for 4 events that do not fit together: %v", got, big.seen())
		}
	})
}

// A lane whose destination hangs holds up nobody else, and its own time-out
// frees it.
func TestLanesAreIndependent(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		hang := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			<-ctx.Done()
			return sdk.Each(len(events), sdk.Retry(0, ctx.Err()))
		}}
		good := &destination{answer: delivered}
		b.start("hang", hang, nil)
		b.start("good", good, nil)
		for n := range 100 {
			b.append(fmt.Sprint(n))
		}
		synctest.Wait()
		if got := len(good.seen()); got != 100 {
			t.Errorf("the good lane had %d of 100 while the other hangs", got)
		}
		if got := len(hang.seen()); got != 8 {
			t.Errorf("the hanging lane has %d in flight, want max_in_flight", got)
		}
		b.later(45 * time.Second) // past the timeout and the first probe
		if got := len(hang.seen()); got <= 8 {
			t.Errorf("the hanging lane has %d calls after its timeout, want further ones", got)
		}
	})
}

// Stopping a lane finishes what is in hand; what is cut off is delivered by
// the next lane.
func TestDrain(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		release := make(chan struct{})
		d := &destination{answer: func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
			if events[0].ID == "slow" {
				select {
				case <-release:
				case <-ctx.Done():
					return sdk.Each(len(events), sdk.Retry(0, ctx.Err()))
				}
			}
			if events[0].ID == "stuck" {
				<-ctx.Done()
				return sdk.Each(len(events), sdk.Retry(0, ctx.Err()))
			}
			return delivered(ctx, events)
		}}
		b.append("slow", "stuck", "last")
		stop := b.start("shop", d, func(c *Config) { c.MaxInFlight = 2; c.Timeout = 10 * time.Minute })
		synctest.Wait()
		go close(release)
		stop()
		again := &destination{answer: delivered}
		b.start("shop", again, nil)
		synctest.Wait()
		got := again.seen()
		ids := map[string]bool{}
		for _, call := range got {
			ids[call[0]] = true
		}
		if !ids["stuck#1"] || ids["slow#1"] || len(got) > 2 {
			t.Errorf("the next lane delivered %v, want what was cut off and what was not begun", got)
		}
		b.progress("shop", journal.Progress{})
	})
}

func TestBackoffDoublesUpToItsMaximum(t *testing.T) {
	t.Parallel()
	r := Retry{Initial: time.Second, Max: 10 * time.Second}
	for attempts, longest := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 500: 10 * time.Second} {
		var sum time.Duration
		for range 1000 {
			wait := r.backoff(attempts)
			if wait < longest/100 || wait > longest {
				t.Fatalf("attempt %d: %s is outside %s", attempts, wait, longest)
			}
			sum += wait
		}
		if mean := sum / 1000; mean < longest*4/10 || mean > longest*6/10 {
			t.Errorf("attempt %d: mean %s is not about half of %s", attempts, mean, longest)
		}
	}
}

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	var c Config
	c.SetDefaults()
	if f := c.Validate(); f != nil {
		t.Errorf("the defaults are wrong: %v", f)
	}
	bad := Config{Match: "event.typ", Fields: map[string]string{"f": "event"}, SkipAuthors: []string{""}, Rate: &Rate{Burst: -1}, StartFrom: "yesterday"}
	var fields []string
	for _, f := range bad.Validate() {
		fields = append(fields, f.Field)
	}
	want := []string{"match", "fields.f", "skip_authors", "max_in_flight", "timeout", "rate.per_second", "rate.burst",
		"batch.max_events", "batch.max_bytes", "retry.initial", "retry.max_retry_after", "breaker.failures", "breaker.ratio",
		"breaker.min_requests", "breaker.open_for", "backlog.overflow", "dead_letters.max_age", "dead_letters.max_size", "start_from"}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
