package journal

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pimrelay/pimrelay/sdk"
)

// inBubble runs test with a journal in virtual time.
func inBubble(t *testing.T, change func(*Config), test func(t *testing.T, j *Journal)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := Defaults()
		if change != nil {
			change(&config)
		}
		j, err := Open(t.Context(), t.TempDir(), Options{Config: config, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		test(t, j)
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
}

// pass lets the time pass, and the journal do what is to do by then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// appendNow appends events that are received now, and big ones.
func appendNow(t *testing.T, j *Journal, from, to, bytes int) {
	t.Helper()
	for n := from; n <= to; n++ {
		e := event(n)
		e.Received = time.Now()
		e.Body = []byte(strings.Repeat("x", bytes))
		mustAppend(t, j, e)
	}
}

// kept are the numbers of the events that are in the journal.
func kept(t *testing.T, j *Journal) []int64 {
	t.Helper()
	entries, err := j.after(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return seqs(entries)
}

func letters(t *testing.T, j *Journal, f DeadLetterFilter) []DeadLetter {
	t.Helper()
	found, err := j.DeadLetters(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func deadSeqs(found []DeadLetter) []int64 {
	var out []int64
	for _, d := range found {
		out = append(out, d.Seq)
	}
	return out
}

// Events are deleted at their age, but for what is not settled, waits for a
// retry, is parked or wanted again, or stands in dead letters.
func TestRetentionByAge(t *testing.T) {
	inBubble(t, func(c *Config) { c.Retention.Age = 10 * time.Hour }, func(t *testing.T, j *Journal) {
		c := mustCursor(t, j, "shop", Start{})
		appendNow(t, j, 1, 8, 10)
		next(t, c, time.Now(), 7)
		c.RetryAt(Retry{Seq: 2, Due: time.Now().Add(1000 * time.Hour)})
		if !c.Park(4, "k") {
			t.Fatal("not parked")
		}
		c.Dead(DeadLetter{Seq: 5, Last: time.Now()})
		c.Delivered(1, 3, 6, 7)
		pass(2 * time.Second)
		if n, err := j.Replay(t.Context(), "shop", Filter{IDs: []string{event(6).ID}}); n != 1 || err != nil {
			t.Fatalf("replay: %d, %v", n, err)
		}
		pass(9 * time.Hour)
		j.tail.reset(j.Head())
		if got := kept(t, j); len(got) != 8 {
			t.Errorf("before their age %v are left", got)
		}
		pass(2 * time.Hour)
		if diff := cmp.Diff([]int64{2, 4, 5, 6, 8}, kept(t, j)); diff != "" {
			t.Errorf("kept (-want +got):\n%s", diff)
		}
		c.Delivered(seqs(next(t, c, time.Now(), 10))...) // 6 and 8
		entries, err := c.Unpark(t.Context(), "k", 10)
		if err != nil {
			t.Fatal(err)
		}
		c.Delivered(seqs(entries)...)
		pass(2 * time.Minute)
		if diff := cmp.Diff([]int64{2, 5}, kept(t, j)); diff != "" {
			t.Errorf("then (-want +got):\n%s", diff)
		}
	})
}

// At its size limit the journal gives up events that are settled, and refuses
// new ones only if there are none.
func TestRetentionBySize(t *testing.T) {
	inBubble(t, func(c *Config) { c.Retention.Size = 2 << 20 }, func(t *testing.T, j *Journal) {
		mustCursor(t, j, "shop", Start{}).SetLimits(CursorLimits{BacklogSize: 1 << 40})
		c := mustCursor(t, j, "shop", Start{})
		j.tail.reset(0)
		appendNow(t, j, 1, 300, 10<<10)
		pass(3 * time.Second)
		if _, err := j.Append(t.Context(), event(301)); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "raise journal.retention.size") {
			t.Fatalf("append at the limit: %v, want ErrFull", err)
		}
		if err := j.AppendUnreadable(t.Context(), "catalog", nil, "", time.Now()); !errors.Is(err, ErrFull) {
			t.Errorf("unreadable delivery at the limit: %v, want ErrFull", err)
		}
		c.Delivered(seqs(next(t, c, time.Now(), 250))...)
		pass(3 * time.Second)
		mustAppend(t, j, event(301))
		live, _, err := j.bytes(t.Context())
		if err != nil || live > 2<<20 || live < 1<<20 {
			t.Errorf("%d bytes are in use (%v)", live, err)
		}
		j.tail.reset(j.Head())
		if got := kept(t, j); got[0] < 90 || got[0] > 160 {
			t.Errorf("the oldest event is %d", got[0])
		}
	})
}

func TestBacklogOverItsSizeBecomesDeadLetters(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, j *Journal) {
		shop, healthy := mustCursor(t, j, "shop", Start{}), mustCursor(t, j, "healthy", Start{})
		shop.SetLimits(CursorLimits{BacklogSize: 60 << 10, Wants: func(e *sdk.Event) bool { return e.ID != event(11).ID }})
		appendNow(t, j, 1, 5, 10<<10)
		for _, e := range next(t, shop, time.Now(), 10) {
			if e.Seq == 1 {
				continue // in hand until the end
			}
			shop.RetryAt(Retry{Seq: e.Seq, Attempts: 2, First: time.Now(), Due: time.Now().Add(time.Hour), Reason: "refused"})
		}
		pass(3 * time.Second)
		if got := letters(t, j, DeadLetterFilter{}); got != nil {
			t.Fatalf("below the limit: %+v", got)
		}
		appendNow(t, j, 6, 15, 10<<10)
		pass(3 * time.Second)
		found := letters(t, j, DeadLetterFilter{Forwarder: "shop"})
		if len(found) < 8 || len(found) > 13 {
			t.Fatalf("dead letters %v", deadSeqs(found))
		}
		want := DeadLetter{Forwarder: "shop", Source: "catalog", Seq: 2, ID: event(2).ID, Type: event(2).Type, Reason: "the backlog is over its limit of 60KiB: refused", Attempts: 2}
		oldest := found[len(found)-1]
		if diff := cmp.Diff(want, oldest, cmpopts.IgnoreUnexported(DeadLetter{}), cmpopts.IgnoreFields(DeadLetter{}, "Number", "First", "Last"), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("oldest dead letter (-want +got):\n%s", diff)
		}
		for _, d := range found {
			if d.Seq == 1 || d.Seq == 11 {
				t.Errorf("event %d became a dead letter", d.Seq)
			}
		}
		if size := shop.backlogBytes(); size > 60<<10 {
			t.Errorf("the backlog has %d bytes", size)
		}
		if got := healthy.Progress(); got.Backlog != 15 || got.DeadLetters != 0 {
			t.Errorf("the other forwarder: %+v", got)
		}
	})
}

// What the lane has in its hands is given up when nothing else is left, and
// what the lane then says of it counts no more.
func TestBacklogInTheLanesHands(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, j *Journal) {
		c := mustCursor(t, j, "shop", Start{})
		c.SetLimits(CursorLimits{BacklogSize: 1 << 10})
		appendNow(t, j, 1, 3, 10<<10)
		next(t, c, time.Now(), 10)
		pass(3 * time.Second)
		c.RetryAt(Retry{Seq: 1, Due: time.Now()})
		c.Delivered(2)
		if got := c.Progress(); got != (Progress{DeadLetters: 3}) {
			t.Errorf("progress %+v", got)
		}
	})
}

func TestBacklogOverItsAge(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, j *Journal) {
		c := mustCursor(t, j, "shop", Start{})
		c.SetLimits(CursorLimits{BacklogAge: time.Hour})
		appendNow(t, j, 1, 4, 10)
		c.Delivered(seqs(next(t, c, time.Now(), 1))...)
		pass(30 * time.Minute)
		appendNow(t, j, 5, 6, 10)
		if n, err := j.Replay(t.Context(), "shop", Filter{}); n != 1 || err != nil {
			t.Fatalf("replay: %d, %v", n, err)
		}
		pass(40 * time.Minute)
		if diff := cmp.Diff([]int64{4, 3, 2}, deadSeqs(letters(t, j, DeadLetterFilter{}))); diff != "" {
			t.Errorf("dead letters (-want +got):\n%s", diff)
		}
		if got := c.Progress(); got.Backlog != 3 || got.Requeued != 1 {
			t.Errorf("progress %+v, want two new events and the one that a person wanted", got)
		}
	})
}

func TestBacklogThatRefuses(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, j *Journal) {
		c := mustCursor(t, j, "shop", Start{})
		c.SetLimits(CursorLimits{BacklogSize: 50 << 10, Refuse: true})
		appendNow(t, j, 1, 6, 10<<10)
		pass(3 * time.Second)
		if _, err := j.Append(t.Context(), event(7)); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), `forwarder "shop"`) {
			t.Fatalf("got %v, want ErrFull and the forwarder", err)
		}
		c.Delivered(seqs(next(t, c, time.Now(), 6))...)
		pass(3 * time.Second)
		mustAppend(t, j, event(7))
	})
}

func TestDeadLettersExpire(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, j *Journal) {
		c := mustCursor(t, j, "shop", Start{})
		c.SetLimits(CursorLimits{DeadLetterAge: 24 * time.Hour, DeadLetterSize: 35 << 10})
		appendNow(t, j, 1, 5, 10<<10)
		for _, e := range next(t, c, time.Now(), 5) {
			c.Dead(DeadLetter{Seq: e.Seq, First: time.Now(), Last: time.Now()})
		}
		pass(3 * time.Second)
		if diff := cmp.Diff([]int64{5, 4, 3}, deadSeqs(letters(t, j, DeadLetterFilter{}))); diff != "" {
			t.Errorf("by size (-want +got):\n%s", diff)
		}
		if got := c.Progress(); got.DeadLetters != 3 {
			t.Errorf("progress %+v", got)
		}
		pass(25 * time.Hour)
		if got := letters(t, j, DeadLetterFilter{}); got != nil {
			t.Errorf("after their age: %v", deadSeqs(got))
		}
	})
}

func TestIDsAreForgotten(t *testing.T) {
	inBubble(t, func(c *Config) { c.Dedupe = Dedupe{Age: time.Hour, IDs: 50} }, func(t *testing.T, j *Journal) {
		appendNow(t, j, 1, 60, 10)
		pass(3 * time.Second)
		for n, duplicate := range map[int]bool{1: false, 10: false, 11: true, 60: true} {
			e := event(n)
			e.Received = time.Now()
			if r := mustAppend(t, j, e); r.Duplicate != duplicate {
				t.Errorf("event %d: %+v, want duplicate %v", n, r, duplicate)
			}
		}
		pass(2 * time.Hour)
		if r := mustAppend(t, j, event(60)); r.Duplicate {
			t.Error("an id is remembered beyond its age")
		}
	})
}

func TestStartSince(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, j *Journal) {
		mustCursor(t, j, "other", Start{})
		var since []time.Time
		for n := range 10 {
			pass(time.Minute)
			since = append(since, time.Now())
			appendNow(t, j, n+1, n+1, 10)
		}
		for i, want := range map[int]int{0: 10, 4: 6, 9: 1} {
			c := mustCursor(t, j, since[i].String(), Start{Since: since[i]})
			if got := len(next(t, c, time.Now(), 100)); got != want {
				t.Errorf("from event %d on: %d events, want %d", i+1, got, want)
			}
		}
		c := mustCursor(t, j, "later", Start{Since: time.Now().Add(time.Hour)})
		if got := next(t, c, time.Now(), 100); len(got) != 0 {
			t.Errorf("from the future on: %v", seqs(got))
		}
	})
}

func TestRenamedForwarderKeepsEverything(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, j *Journal) {
		old := mustCursor(t, j, "old", Start{})
		appendNow(t, j, 1, 5, 10)
		next(t, old, time.Now(), 4)
		old.RetryAt(Retry{Seq: 1, Key: "k", Due: time.Now().Add(time.Second)})
		old.Park(2, "k")
		old.Dead(DeadLetter{Seq: 3, Last: time.Now()})
		old.Delivered(4)
		want := old.Progress()
		c := mustCursor(t, j, "new", Start{RenamedFrom: "old"})
		if diff := cmp.Diff(want, c.Progress()); diff != "" {
			t.Errorf("progress (-want +got):\n%s", diff)
		}
		pass(2 * time.Second)
		if got := seqs(next(t, c, time.Now(), 10)); !cmp.Equal(got, []int64{1, 5}) {
			t.Errorf("got %v", got)
		}
		if got := letters(t, j, DeadLetterFilter{Forwarder: "new"}); len(got) != 1 {
			t.Errorf("dead letters %v", got)
		}
		if c2 := mustCursor(t, j, "new", Start{RenamedFrom: "old"}); c2 != c {
			t.Error("the second start renamed again")
		}
		if got := mustCursor(t, j, "old", Start{}).Progress(); got != (Progress{}) {
			t.Errorf("the old name has %+v", got)
		}
	})
}

// A forwarder that left the configuration keeps its backlog for a while; then
// what it was to get becomes dead letters, and nothing keeps the events that
// came later.
func TestForwardersAreForgotten(t *testing.T) {
	inBubble(t, func(c *Config) { c.ForgetAfter = 24 * time.Hour }, func(t *testing.T, j *Journal) {
		for _, name := range []string{"back", "gone", "stays"} {
			mustCursor(t, j, name, Start{})
		}
		appendNow(t, j, 1, 2, 10)
		keep := func(names ...string) {
			if err := j.Keep(t.Context(), names); err != nil {
				t.Fatal(err)
			}
		}
		keep("stays")
		appendNow(t, j, 3, 4, 10)
		pass(23 * time.Hour)
		keep("stays", "back")
		if got := seqs(next(t, mustCursor(t, j, "back", Start{}), time.Now(), 10)); !cmp.Equal(got, []int64{1, 2, 3, 4}) {
			t.Errorf("the forwarder that came back gets %v", got)
		}
		pass(2 * time.Hour)
		if diff := cmp.Diff([]int64{2, 1}, deadSeqs(letters(t, j, DeadLetterFilter{Forwarder: "gone"}))); diff != "" {
			t.Errorf("dead letters (-want +got):\n%s", diff)
		}
		if got := seqs(next(t, mustCursor(t, j, "gone", Start{}), time.Now(), 10)); len(got) != 0 {
			t.Errorf("the forgotten forwarder gets %v", got)
		}
		if n, err := j.RetryDeadLetters(t.Context(), DeadLetterFilter{}); n != 2 || err != nil {
			t.Errorf("retry: %d, %v", n, err)
		}
	})
}

// A parked event stays parked over a restart, and there is a limit.
func TestParkedEvents(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	c := mustCursor(t, j, "shop", Start{})
	for n := range 3 {
		mustAppend(t, j, event(n))
	}
	next(t, c, time.Now(), 10)
	c.mu.Lock()
	c.waiting.nParked = maxParked
	c.mu.Unlock()
	if c.Park(1, "k") {
		t.Error("there is no limit")
	}
	c.mu.Lock()
	c.waiting.nParked = 0
	c.mu.Unlock()
	c.RetryAt(Retry{Seq: 1, Key: "k", Due: time.Now().Add(time.Hour)})
	if !c.Park(2, "k") || !c.Park(3, "k") {
		t.Error("not parked")
	}
	for range 2 {
		if diff := cmp.Diff([]string{"k"}, c.ParkedKeys()); diff != "" {
			t.Errorf("parked keys (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"k"}, c.BlockedKeys()); diff != "" {
			t.Errorf("blocked keys (-want +got):\n%s", diff)
		}
		entries, err := c.Unpark(context.Background(), "k", 10)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int64{2, 3}, seqs(entries)); diff != "" || entries[0].Key != "k" {
			t.Errorf("unparked (-want +got):\n%s", diff)
		}
		closeJournal(t, j) // not settled
		j = open(t, dir)
		c = mustCursor(t, j, "shop", Start{})
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	config := Defaults()
	if faults := config.Validate(); faults != nil {
		t.Errorf("the defaults are wrong: %v", faults)
	}
	for field, change := range map[string]func(*Config){
		"retention.age":  func(c *Config) { c.Retention.Age = -1 },
		"retention.size": func(c *Config) { c.Retention.Size = 1 },
		"dedupe.age":     func(c *Config) { c.Dedupe.Age = time.Minute },
		"dedupe.ids":     func(c *Config) { c.Dedupe.IDs = 0 },
		"forget_after":   func(c *Config) { c.ForgetAfter = -1 },
	} {
		config := Defaults()
		change(&config)
		if faults := config.Validate(); len(faults) != 1 || faults[0].Field != field {
			t.Errorf("%s: %v", field, faults)
		}
	}
	config.Retention.Size = 512 << 20
	if faults := config.Validate(); len(faults) != 1 || faults[0].Field != "dedupe.ids" {
		t.Errorf("more ids than the journal has room for: %v", faults)
	}
}
