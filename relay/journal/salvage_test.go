package journal

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A salvage that is interrupted goes on where it was, and nobody gets anything
// twice.
func TestSalvageIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	journalToDamage(t, dir)
	alter(t, dir, zero(1))
	d := newDeliveries()
	j := d.openSetAside(t, dir)
	for rounds := 1; ; rounds++ {
		behind := mustCursor(t, j, "behind", Start{})
		before := len(d.had["behind"])
		if err := j.Keep(t.Context(), forwardersToDamage); err != nil {
			t.Fatal(err)
		}
		for done := false; !done && len(d.had["behind"]) == before; { // a part of it
			select {
			case <-behind.Wake():
			case <-j.salvaged:
				done = true
			}
			d.collect(t, j)
		}
		closeJournal(t, j)
		files, err := wrecks(j.path)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			t.Logf("salvaged in %d rounds", rounds)
			break
		}
		j = open(t, dir)
	}
	j = open(t, dir)
	d.collect(t, j)
	d.checkBehind(t, 0)
	d.checkAhead(t, j)
}

// What arrives again before it is salvaged is not delivered a second time to
// those who get the new one.
func TestSalvageLeavesOutWhatHasArrivedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	journalToDamage(t, dir)
	alter(t, dir, zero(1))
	d := newDeliveries()
	j := d.openSetAside(t, dir)
	if r := mustAppend(t, j, event(100)); r.Duplicate || r.Seq <= damagedEvents {
		t.Errorf("an event that is not salvaged yet: %+v", r)
	}
	if err := j.Keep(t.Context(), forwardersToDamage); err != nil {
		t.Fatal(err)
	}
	<-j.salvaged
	d.collect(t, j)
	d.checkBehind(t, 0)
	if r := mustAppend(t, j, event(100)); !r.Duplicate {
		t.Errorf("an event that is there twice: %+v", r)
	}
}

// Two files that were set aside are both salvaged.
func TestDamageDuringASalvage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	journalToDamage(t, dir)
	alter(t, dir, zero(1))
	d := newDeliveries()
	j := d.openSetAside(t, dir)
	mustAppend(t, j, event(damagedEvents+1))
	closeJournal(t, j)
	alter(t, dir, zero(1))
	j = d.openSetAside(t, dir)
	last := mustAppend(t, j, event(damagedEvents+2))
	if last.Seq <= 2*sequenceBlock {
		t.Errorf("the third file's first number is %d", last.Seq)
	}
	if err := j.Keep(t.Context(), forwardersToDamage); err != nil {
		t.Fatal(err)
	}
	<-j.salvaged
	if len(j.results) != 2 {
		t.Errorf("salvaged %+v", j.results)
	}
	d.collect(t, j)
	d.checkBehind(t, 0)
	d.checkLater(t)
}

// checkLater looks at the two events that were appended later.
func (d *deliveries) checkLater(t *testing.T) {
	t.Helper()
	for _, name := range forwardersToDamage {
		for n := damagedEvents + 1; n <= damagedEvents+2; n++ {
			if got := d.had[name][event(n).ID]; got != 1 {
				t.Errorf("forwarder %s was handed out event %d %d times", name, n, got)
			}
		}
	}
}

// A crash between the renames does not part the file from its log.
func TestSettingAsideIsCompleted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	mustCursor(t, j, "shop", Start{})
	mustAppend(t, j, event(1))
	crashed := t.TempDir()
	copyJournal(t, j, crashed)
	path := filepath.Join(crashed, FileName)
	if err := mark(path, errors.New("a test")); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(crashed, markerName))
	if err != nil {
		t.Fatal(err)
	}
	suffix, _, _ := strings.Cut(string(content), "\n")
	if err := os.Rename(path+"-wal", path+suffix+"-wal"); err != nil {
		t.Fatal(err)
	}
	j = open(t, crashed)
	if !strings.Contains(j.Damage(), "a test") {
		t.Errorf("damage: %q", j.Damage())
	}
	c := mustCursor(t, j, "shop", Start{})
	if err := j.Keep(t.Context(), []string{"shop"}); err != nil {
		t.Fatal(err)
	}
	<-j.salvaged
	if got := seqs(next(t, c, time.Now(), 10)); !cmp.Equal(got, []int64{1}) {
		t.Errorf("handed out %v", got)
	}
}

// copyJournal copies the files as a crash would leave them.
func copyJournal(t *testing.T, j *Journal, to string) {
	t.Helper()
	if err := j.apply(t.Context(), func(*store) error { // nothing is written meanwhile
		for _, suffix := range []string{"", "-wal"} {
			content, err := os.ReadFile(j.path + suffix)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(to, FileName+suffix), content, 0o600); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// A log that ends in the middle of a frame loses the transaction that was being
// written, and nothing before it.
func TestTornLog(t *testing.T) {
	t.Parallel()
	j := open(t, t.TempDir())
	mustCursor(t, j, "shop", Start{})
	const events = 40
	for n := 1; n <= events; n++ {
		mustAppend(t, j, event(n))
	}
	for _, tt := range []struct {
		name string
		cut  func(size int64) int64
		want func(head int64) bool
	}{
		{"in the last frame", func(size int64) int64 { return size - 100 }, func(head int64) bool { return head == events-1 }},
		{"in the middle", func(size int64) int64 { return size / 2 }, func(head int64) bool { return head > events/4 && head < events*3/4 }},
	} {
		dir := t.TempDir()
		copyJournal(t, j, dir)
		wal := filepath.Join(dir, FileName+"-wal")
		info, err := os.Stat(wal)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(wal, tt.cut(info.Size())); err != nil {
			t.Fatal(err)
		}
		torn := open(t, dir)
		if torn.Damage() != "" || !tt.want(torn.Head()) {
			t.Errorf("%s: head %d, damage %q", tt.name, torn.Head(), torn.Damage())
		}
		got := next(t, mustCursor(t, torn, "shop", Start{}), time.Now(), 100)
		for i, e := range got {
			if e.Seq != int64(i+1) || e.Damaged != nil || e.Event.ID != event(i+1).ID {
				t.Errorf("%s: event %d is %+v", tt.name, i+1, e)
			}
		}
		if int64(len(got)) != torn.Head() {
			t.Errorf("%s: %d events, head %d", tt.name, len(got), torn.Head())
		}
	}
}

// A bit that flips in a body is no damage of the file: the event is handed out as
// damaged, the others as they were, and a check finds it.
func TestBitFlippedInABody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	journalToDamage(t, dir)
	body := bodyToDamage(1234)
	alter(t, dir, func(content []byte) []byte {
		at := strings.Index(string(content), string(body[:40]))
		content[at+20] ^= 4
		return content
	})
	report, err := Check(t.Context(), dir)
	if err != nil || report.DamagedEvents != 1 || len(report.Problems) != 1 || report.structural {
		t.Errorf("check: %+v, %v", report, err)
	}
	j := open(t, dir)
	d := newDeliveries()
	d.collect(t, j)
	if diff := cmp.Diff(map[string][]int64{"behind": {1234}}, d.lost); diff != "" || j.Damage() != "" {
		t.Errorf("damage %q, damaged events (-want +got):\n%s", j.Damage(), diff)
	}
	d.checkBehind(t, 1)
}

// No event is acknowledged whose number a fresh journal could give again.
func TestNumbersAreReserved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	blocked := filepath.Join(dir, sequenceName+".new")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	if r, err := j.Append(t.Context(), event(1)); err == nil {
		t.Errorf("append without a reserved number: %+v", r)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	if r := mustAppend(t, j, event(1)); r.Seq != 1 || r.Duplicate {
		t.Errorf("append: %+v", r)
	}
	if upTo, err := readSequence(dir); upTo != 1+sequenceBlock || err != nil {
		t.Errorf("reserved up to %d, %v", upTo, err)
	}
	closeJournal(t, j)
	for _, content := range []string{"", "12", "1000001 00000000\n", "-5 00000000\n"} {
		if err := os.WriteFile(filepath.Join(dir, sequenceName), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if upTo, err := readSequence(dir); upTo != 0 || err != nil {
			t.Errorf("%q: reserved up to %d, %v", content, upTo, err)
		}
	}
	alter(t, dir, zero(rootPage(t, dir, "ids_hash")))
	if err := mark(j.path, errors.New("a test")); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir) // the damaged file says how far the numbers came
	if r := mustAppend(t, j, event(2)); r.Seq != 1+sequenceBlock+1 {
		t.Errorf("append to the fresh journal: %+v", r)
	}
}

func TestCheckAndRepair(t *testing.T) {
	t.Parallel()
	dir, log := t.TempDir(), slog.New(slog.NewTextHandler(io.Discard, nil))
	if _, err := Check(t.Context(), dir); err == nil {
		t.Error("a check of nothing")
	}
	journalToDamage(t, dir)
	for range 2 {
		report, err := Check(t.Context(), dir)
		if err != nil || len(report.Problems) > 0 || report.Rows["events"] != damagedEvents || report.Rows["dead_letters"] != 1 {
			t.Errorf("check of a sound journal: %+v, %v", report, err)
		}
		if report, err = Repair(t.Context(), dir, nil, log); err != nil || len(report.Salvaged) > 0 {
			t.Errorf("repair of a sound journal: %+v, %v", report, err)
		}
	}
	alter(t, dir, zero(eventPage(t, dir, 1500), rootPage(t, dir, "cursors")))
	report, err := Check(t.Context(), dir)
	if err != nil || len(report.Problems) == 0 || !report.structural {
		t.Errorf("check of a damaged journal: %+v, %v", report, err)
	}
	if _, err := Repair(t.Context(), dir, nil, log); err == nil || !strings.Contains(err.Error(), "configuration file") {
		t.Errorf("repair without the places: %v", err)
	}
	report, err = Repair(t.Context(), dir, forwardersToDamage, log)
	if err != nil || len(report.Salvaged) != 1 {
		t.Fatalf("repair: %+v, %v", report, err)
	}
	s := report.Salvaged[0]
	if s.Events+s.Lost != damagedEvents || s.Lost == 0 || s.Lost > 20 || s.Requeued != 2*damagedEvents {
		t.Errorf("salvaged: %+v", s)
	}
	if _, err := os.Stat(filepath.Join(dir, s.File)); err != nil {
		t.Errorf("the damaged file: %v", err)
	}
	if report, err := Check(t.Context(), dir); err != nil || len(report.Problems) > 0 {
		t.Errorf("check after the repair: %+v, %v", report, err)
	}
	j := open(t, dir)
	var held *LockedError
	if _, err := Check(t.Context(), dir); !errors.As(err, &held) {
		t.Errorf("check of a journal in use: %v", err)
	}
	d := newDeliveries()
	d.collect(t, j)
	d.checkBehind(t, 20)
}

// A check finds a place that no event has reached.
func TestCheckFindsAPlaceBeyondTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	mustCursor(t, j, "shop", Start{})
	if err := j.apply(t.Context(), func(s *store) error { return s.exec("UPDATE cursors SET watermark = 7") }); err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j)
	report, err := Check(t.Context(), dir)
	if err != nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0], `"shop" stands at event 7`) {
		t.Errorf("check: %+v, %v", report, err)
	}
}

// The first page of a file says how many pages it has: the one put in its place
// does, too.
func TestFirstPageIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	journalToDamage(t, dir)
	alter(t, dir, zero(1))
	j := open(t, dir)
	files, err := wrecks(j.path)
	if err != nil || len(files) != 1 {
		t.Fatalf("set aside: %v, %v", files, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if pages := int(binary.BigEndian.Uint32(content[28:])); pages != len(content)/pageBytes {
		t.Errorf("the first page says %d pages and there are %d", pages, len(content)/pageBytes)
	}
	if old, err := os.ReadFile(files[0] + firstPageSuffix); err != nil || string(old) != string(make([]byte, pageBytes)) {
		t.Errorf("the page that was replaced is not kept: %v", err)
	}
}
