package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pimrelay/pimrelay/sdk"
)

// forEver keeps everything: the tests' events were received long ago.
func forEver() Config {
	c := Defaults()
	c.Retention.Age, c.Dedupe.Age = 100*365*24*time.Hour, 100*365*24*time.Hour
	return c
}

func open(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := Open(context.Background(), dir, Options{Config: forEver(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return j
}

func closeJournal(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func event(n int) *sdk.Event {
	return &sdk.Event{
		ID: fmt.Sprintf("01901119-c560-7%03x-8000-%012x", n%4096, n), Type: "com.akeneo.pim.v1.product.updated", Source: "catalog",
		EventSource: "pim", Subject: "0190fe8a-6213-76ce-8a9f-ba36a5ef555a", Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
		Received: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC), Entity: "product:x", DataContentType: "application/json",
		Headers: map[string]string{"X-Akeneo-Signature-Primary": "ab"}, ContentType: "application/json",
		Body: fmt.Appendf(nil, `{"n":%d}`, n),
	}
}

func mustAppend(t testing.TB, j *Journal, e *sdk.Event) Receipt {
	t.Helper()
	r, err := j.Append(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustCursor(t testing.TB, j *Journal, name string, start Start) *Cursor {
	t.Helper()
	c, err := j.Cursor(context.Background(), name, start)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func next(t testing.TB, c *Cursor, now time.Time, limit int) []Entry {
	t.Helper()
	entries, err := c.Next(context.Background(), now, limit)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func seqs(entries []Entry) []int64 {
	var out []int64
	for _, e := range entries {
		out = append(out, e.Seq)
	}
	return out
}

// An event comes back as it went in: from memory, and from disk after a restart.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	want := event(1)
	mustCursor(t, j, "shop", Start{})
	mustAppend(t, j, want)
	want.Payload = want.Body
	for _, where := range []string{"memory", "disk"} {
		entries := next(t, mustCursor(t, j, "shop", Start{}), time.Now(), 10)
		if len(entries) != 1 {
			t.Fatalf("from %s: got %d entries, want 1", where, len(entries))
		}
		if diff := cmp.Diff(*want, entries[0].Event); diff != "" {
			t.Errorf("from %s (-want +got):\n%s", where, diff)
		}
		closeJournal(t, j)
		j = open(t, dir)
	}
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	if r := mustAppend(t, j, event(1)); r.Duplicate || r.Seq != 1 {
		t.Errorf("first append: %+v", r)
	}
	if r := mustAppend(t, j, event(1)); !r.Duplicate {
		t.Errorf("second append: %+v", r)
	}
	other := event(1)
	other.Source = "other"
	if r := mustAppend(t, j, other); r.Duplicate {
		t.Errorf("same id of another source: %+v", r)
	}
	closeJournal(t, j)
	j = open(t, dir)
	if r := mustAppend(t, j, event(1)); !r.Duplicate {
		t.Errorf("after a restart: %+v", r)
	}
	if r := mustAppend(t, j, event(2)); r.Seq != 3 {
		t.Errorf("new event after a restart: %+v, want number 3", r)
	}
}

func TestConcurrentAppendsShareCommitsAndDropDuplicates(t *testing.T) {
	t.Parallel()
	j := open(t, t.TempDir())
	c := mustCursor(t, j, "shop", Start{})
	const writers, each = 16, 40
	var wg sync.WaitGroup
	var mu sync.Mutex
	stored := 0
	for range writers {
		wg.Go(func() { // all of them append the same events
			for n := range each {
				r, err := j.Append(context.Background(), event(n))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if !r.Duplicate {
					stored++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if stored != each || j.Head() != each {
		t.Errorf("stored %d, head %d, want %d", stored, j.Head(), each)
	}
	if got := len(next(t, c, time.Now(), 1000)); got != each {
		t.Errorf("cursor has %d events, want %d", got, each)
	}
}

func TestAppendIsWithdrawnAtItsDeadline(t *testing.T) {
	t.Parallel()
	j := open(t, t.TempDir())
	release := make(chan struct{})
	entered := make(chan struct{})
	blocked := make(chan error, 1)
	go func() {
		blocked <- j.apply(context.Background(), func(*store) error {
			close(entered)
			<-release
			return nil
		})
	}()
	<-entered // the writer is busy from here on
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() {
		_, err := j.Append(ctx, event(1))
		result <- err
	}()
	cancel()
	if err := <-result; !errors.Is(err, ErrNotPromised) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want ErrNotPromised", err)
	}
	close(release)
	if err := <-blocked; err != nil {
		t.Fatal(err)
	}
	if r := mustAppend(t, j, event(1)); r.Duplicate || r.Seq != 1 {
		t.Errorf("the withdrawn append left something: %+v", r)
	}
}

func TestFailedCommitStoresNothingAndReopens(t *testing.T) {
	t.Parallel()
	j := open(t, t.TempDir())
	c := mustCursor(t, j, "shop", Start{})
	mustAppend(t, j, event(1))
	before := j.store
	boom := errors.New("boom")
	err := j.apply(context.Background(), func(s *store) error {
		if _, err := s.insertID.Exec(99, []byte("x"), 0); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("got %v, want boom", err)
	}
	if r := mustAppend(t, j, event(2)); r.Seq != 2 {
		t.Errorf("append after a failed commit: %+v", r)
	}
	if j.store == before {
		t.Error("the database was not reopened")
	}
	if got := seqs(next(t, c, time.Now(), 10)); !cmp.Equal(got, []int64{1, 2}) {
		t.Errorf("cursor has %v", got)
	}
}

// A commit may report a failure and be on disk all the same: the number must
// not be used for another event.
func TestCommitDoneButReportedAsFailed(t *testing.T) {
	t.Parallel()
	j := open(t, t.TempDir())
	c := mustCursor(t, j, "shop", Start{})
	err := j.apply(context.Background(), func(s *store) error {
		r := &request{hash: idHash("catalog", event(1).ID)}
		r.row, _ = newRow(event(1))
		if _, err := r.insert(s, j.end()); err != nil {
			return err
		}
		if _, err := s.commit.Exec(); err != nil {
			return err
		}
		return errors.New("the reply was lost")
	})
	if err == nil {
		t.Fatal("want an error")
	}
	if r := mustAppend(t, j, event(2)); r.Seq != 2 {
		t.Errorf("the next event got %+v, want number 2", r)
	}
	if r := mustAppend(t, j, event(1)); !r.Duplicate {
		t.Errorf("the retry of the first event: %+v, want a duplicate", r)
	}
	if got := seqs(next(t, c, time.Now(), 10)); !cmp.Equal(got, []int64{1, 2}) {
		t.Errorf("cursor has %v, want both events", got)
	}
}

func TestCursorPlaces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	for n := range 5 {
		mustAppend(t, j, event(n))
	}
	if got := next(t, mustCursor(t, j, "late", Start{}), time.Now(), 10); len(got) != 0 {
		t.Errorf("a new forwarder that starts now has %v", seqs(got))
	}
	c := mustCursor(t, j, "early", Start{Beginning: true})
	if got := seqs(next(t, c, time.Now(), 3)); !cmp.Equal(got, []int64{1, 2, 3}) {
		t.Errorf("first read: %v", got)
	}
	if got := seqs(next(t, c, time.Now(), 3)); !cmp.Equal(got, []int64{4, 5}) {
		t.Errorf("second read: %v", got)
	}
	c.Delivered(1, 3)
	closeJournal(t, j)
	j = open(t, dir)
	c = mustCursor(t, j, "early", Start{})
	if got := seqs(next(t, c, time.Now(), 10)); !cmp.Equal(got, []int64{2, 4, 5}) {
		t.Errorf("after a restart: %v, want what was not settled", got)
	}
	c.Delivered(2)
	c = mustCursor(t, j, "early", Start{})
	if got := seqs(next(t, c, time.Now(), 10)); !cmp.Equal(got, []int64{4, 5}) {
		t.Errorf("after the lane was started anew: %v", got)
	}
	if got := c.Progress(); got != (Progress{Backlog: 2}) {
		t.Errorf("progress %+v", got)
	}
}

func TestRetriesAndDeadLetters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	c := mustCursor(t, j, "shop", Start{})
	for n := range 3 {
		mustAppend(t, j, event(n))
	}
	now := time.Now().Truncate(time.Microsecond).UTC()
	next(t, c, now, 10)
	c.RetryAt(Retry{Seq: 1, Due: now.Add(time.Minute), Attempts: 1, First: now, Reason: "refused"})
	c.RetryAt(Retry{Seq: 2, Key: "k", Due: now.Add(time.Second), Attempts: 1, First: now, Outage: time.Minute, Reason: "refused"})
	c.Dead(DeadLetter{Source: "catalog", Seq: 3, ID: event(2).ID, Type: event(2).Type, Reason: "rejected", Answer: string(make([]byte, 5000)), Attempts: 1, First: now, Last: now})
	if due, ok := c.NextRetry(); !ok || !due.Equal(now.Add(time.Second)) {
		t.Errorf("next retry %v %v", due, ok)
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			closeJournal(t, j)
			j = open(t, dir)
			c = mustCursor(t, j, "shop", Start{})
		}
		if got := c.Progress(); got != (Progress{Backlog: 2, Retrying: 2, DeadLetters: 1}) {
			t.Errorf("restarted %v: progress %+v", restarted, got)
		}
		if got := next(t, c, now, 10); len(got) != 0 {
			t.Errorf("restarted %v: due before its time: %v", restarted, seqs(got))
		}
		got := next(t, c, now.Add(time.Second), 10)
		if !cmp.Equal(seqs(got), []int64{2}) || got[0].Key != "k" || got[0].Outage != time.Minute || got[0].Attempts != 1 || !got[0].First.Equal(now) || got[0].Event.ID != event(1).ID {
			t.Errorf("restarted %v: due retry %+v", restarted, got)
		}
	}
	c.Delivered(2)
	closeJournal(t, j)
	j = open(t, dir)
	c = mustCursor(t, j, "shop", Start{})
	if got := seqs(next(t, c, now.Add(time.Hour), 10)); !cmp.Equal(got, []int64{1}) {
		t.Errorf("after the delivery of 2: %v", got)
	}
	letters, err := j.DeadLetters(context.Background(), DeadLetterFilter{Forwarder: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	want := []DeadLetter{{Number: 1, Forwarder: "shop", Source: "catalog", Seq: 3, ID: event(2).ID, Type: event(2).Type, Reason: "rejected", Answer: string(make([]byte, answerBytes)), Attempts: 1, First: now, Last: now}}
	if diff := cmp.Diff(want, letters, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(DeadLetter{})); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}
}

func TestUnreadableDeliveriesAreKept(t *testing.T) {
	t.Parallel()
	j := open(t, t.TempDir())
	if err := j.AppendUnreadable(context.Background(), "catalog", []byte("not json"), "no JSON", time.Now()); err != nil {
		t.Fatal(err)
	}
	letters, err := j.DeadLetters(context.Background(), DeadLetterFilter{Source: "catalog"})
	if err != nil {
		t.Fatal(err)
	}
	if len(letters) != 1 || string(letters[0].Body) != "not json" || letters[0].Reason != "no JSON" {
		t.Errorf("got %+v", letters)
	}
}

func TestDamagedRowIsToldApart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	mustCursor(t, j, "shop", Start{})
	mustAppend(t, j, event(1))
	mustAppend(t, j, event(2))
	closeJournal(t, j)
	db, err := sql.Open("sqlite", dsn(filepath.Join(dir, FileName)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`UPDATE events SET body = '{"n":9}' WHERE seq = 1`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir)
	entries := next(t, mustCursor(t, j, "shop", Start{}), time.Now(), 10)
	var damaged *DamagedError
	if len(entries) != 2 || !errors.As(entries[0].Damaged, &damaged) || damaged.Seq != 1 || entries[1].Damaged != nil {
		t.Errorf("got %+v", entries)
	}
}

func TestOneProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	_, err := Open(context.Background(), dir, Options{Logger: slog.New(slog.DiscardHandler)})
	var locked *LockedError
	if !errors.As(err, &locked) || locked.Dir != dir {
		t.Errorf("second open: %v, want a LockedError", err)
	}
	closeJournal(t, j)
	open(t, dir)
}

func TestRefusesForeignAndNewerFiles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, pragma, want string }{
		{"foreign", "PRAGMA application_id=7", "no pimrelay journal"},
		{"newer", fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=99", applicationID), "newer pimrelay"},
	} {
		dir := t.TempDir()
		db, err := sql.Open("sqlite", dsn(filepath.Join(dir, FileName)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(tt.pragma); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = Open(context.Background(), dir, Options{Logger: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestAppendAfterClose(t *testing.T) {
	t.Parallel()
	j := open(t, t.TempDir())
	closeJournal(t, j)
	if _, err := j.Append(context.Background(), event(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

// The window stops a lane from working more than WindowEvents ahead of an
// event that does not get settled, and lets it go on when it is.
func TestWindowBoundsTheLane(t *testing.T) {
	t.Parallel()
	j := open(t, t.TempDir())
	c := mustCursor(t, j, "shop", Start{})
	const total = WindowEvents + 500
	appendMany(t, j, total)
	got := 0
	for {
		entries := next(t, c, time.Now(), 1000)
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			if e.Seq != 1 {
				c.Delivered(e.Seq)
			}
			got++
		}
	}
	if got != WindowEvents {
		t.Errorf("handed out %d events before the first was settled, want %d", got, WindowEvents)
	}
	c.Delivered(1)
	if entries := next(t, c, time.Now(), 1000); len(entries) != total-WindowEvents {
		t.Errorf("then %d, want %d", len(entries), total-WindowEvents)
	}
}

func appendMany(t testing.TB, j *Journal, n int) {
	t.Helper()
	var wg sync.WaitGroup
	const writers = 64
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				if _, err := j.Append(context.Background(), event(i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Numbers without an event, as retention leaves them, do not stop a cursor.
func TestGapsAreSkipped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	mustCursor(t, j, "shop", Start{})
	for n := range 10 {
		mustAppend(t, j, event(n))
	}
	closeJournal(t, j)
	j = open(t, dir) // nothing in memory
	c := mustCursor(t, j, "shop", Start{})
	if err := j.apply(context.Background(), func(s *store) error {
		_, err := s.write.ExecContext(context.Background(), "DELETE FROM events WHERE seq IN (1, 2, 5, 6)")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got := seqs(next(t, c, time.Now(), 100)); !cmp.Equal(got, []int64{3, 4, 7, 8, 9, 10}) {
		t.Errorf("got %v", got)
	}
	c.Delivered(3, 4, 7, 8, 9, 10)
	if got := c.Progress(); got != (Progress{}) {
		t.Errorf("progress %+v", got)
	}
}
