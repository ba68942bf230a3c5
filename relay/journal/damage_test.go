package journal

import (
	"bytes"
	"database/sql"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const damagedEvents = 3000

// journalToDamage fills a journal in dir: "behind" has had nothing, and of
// "ahead" events 11, 12 and 13 wait in the three ways, 14 is a dead letter, 15
// was never settled and all else was delivered.
func journalToDamage(t *testing.T, dir string) {
	t.Helper()
	j := open(t, dir)
	mustCursor(t, j, "behind", Start{})
	ahead := mustCursor(t, j, "ahead", Start{})
	appendInGroups(t, j, damagedEvents)
	entries := next(t, ahead, time.Now(), damagedEvents)
	for _, e := range entries {
		switch e.Seq {
		case 11:
			ahead.RetryAt(Retry{Seq: 11, Due: time.Now().Add(time.Hour), Attempts: 1, First: time.Now(), Reason: "refused"})
		case 12:
			ahead.Park(12, "key")
		case 14:
			ahead.Dead(DeadLetter{Source: "catalog", Seq: 14, ID: e.Event.ID, Type: e.Event.Type, Reason: "rejected", First: time.Now(), Last: time.Now()})
		case 15:
		default:
			ahead.Delivered(e.Seq)
		}
	}
	if n, err := j.Replay(t.Context(), "ahead", Filter{IDs: []string{entries[12].Event.ID}}); n != 1 || err != nil {
		t.Fatalf("replay: %d, %v", n, err)
	}
	closeJournal(t, j)
}

func bodyToDamage(n int) []byte {
	return append(event(n).Body, bytes.Repeat([]byte{byte(' ' + n%64)}, 300)...)
}

// appendInGroups appends the events 1 to n in this order, few transactions.
func appendInGroups(t *testing.T, j *Journal, n int) {
	t.Helper()
	var requests []*request
	for i := 1; i <= n; i++ {
		e := event(i)
		e.Body = bodyToDamage(i)
		e.Received = time.Now()
		r, err := newRow(e)
		if err != nil {
			t.Fatal(err)
		}
		req := &request{row: r, hash: idHash(e.Source, e.ID), event: e, done: make(chan error, 1)}
		if err := j.enqueue(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		requests = append(requests, req)
	}
	for _, r := range requests {
		if err := <-r.done; err != nil {
			t.Fatal(err)
		}
	}
}

// alter changes the database's file.
func alter(t *testing.T, dir string, change func(content []byte) []byte) {
	t.Helper()
	path := filepath.Join(dir, FileName)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// page is where a page begins in the file.
func page(n int) int { return (n - 1) * pageBytes }

// rootPage is the first page of a table or an index.
func rootPage(t *testing.T, dir, name string) (n int) {
	t.Helper()
	query(t, dir, &n, "SELECT rootpage FROM sqlite_schema WHERE name = ?", name)
	return n
}

// eventPage is a leaf page of the table events that has an event's body.
func eventPage(t *testing.T, dir string, seq int) int {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(content, bodyToDamage(seq)[:40])
	if at < 0 {
		t.Fatalf("event %d is not in the file", seq)
	}
	return at/pageBytes + 1
}

func query(t *testing.T, dir string, to any, query string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(filepath.Join(dir, FileName)))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow(query, args...).Scan(to); err != nil {
		t.Fatal(err)
	}
}

func zero(pages ...int) func([]byte) []byte {
	return func(content []byte) []byte {
		for _, p := range pages {
			clear(content[page(p) : page(p)+pageBytes])
		}
		return content
	}
}

// damages are ways to damage the journal's file. maxLost bounds the events that
// no forwarder gets, and places is true if the forwarders' places are readable,
// so that nobody gets again what was settled.
var damages = []struct {
	name    string
	damage  func(t *testing.T, dir string)
	maxLost int
	places  bool
}{
	{"a page of events zeroed", func(t *testing.T, dir string) { alter(t, dir, zero(eventPage(t, dir, 1500))) }, 20, true},
	{"two pages of events zeroed", func(t *testing.T, dir string) {
		alter(t, dir, zero(eventPage(t, dir, 700), eventPage(t, dir, 730)))
	}, 40, true},
	{"the last page of events zeroed", func(t *testing.T, dir string) { alter(t, dir, zero(eventPage(t, dir, damagedEvents))) }, 20, true},
	{"a bit flipped in the header of a page of events", func(t *testing.T, dir string) {
		at := page(eventPage(t, dir, 1500))
		alter(t, dir, func(content []byte) []byte { content[at] ^= 0x08; return content })
	}, 20, true},
	{"the ids gone", func(t *testing.T, dir string) { alter(t, dir, zero(rootPage(t, dir, "ids"))) }, 0, true},
	{"the index of ids gone", func(t *testing.T, dir string) { alter(t, dir, zero(rootPage(t, dir, "ids_hash"))) }, 0, true},
	{"the retries gone", func(t *testing.T, dir string) { alter(t, dir, zero(rootPage(t, dir, "retries"))) }, 0, true},
	{"the places gone", func(t *testing.T, dir string) { alter(t, dir, zero(rootPage(t, dir, "cursors"))) }, 0, false},
	{"the first page zeroed", func(t *testing.T, dir string) { alter(t, dir, zero(1)) }, 0, true},
	{"truncated to half", func(t *testing.T, dir string) {
		alter(t, dir, func(content []byte) []byte { return content[:len(content)/2+100] })
	}, 1700, true},
	{"random bytes", func(t *testing.T, dir string) {
		alter(t, dir, func(content []byte) []byte {
			if _, err := rand.NewChaCha8([32]byte{1}).Read(content); err != nil {
				t.Fatal(err)
			}
			return content
		})
	}, damagedEvents, false},
}

// Whatever is damaged, the journal opens, numbers go on, and what can be read
// reaches those who had not settled it, once.
func TestDamage(t *testing.T) {
	t.Parallel()
	for _, tt := range damages {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			journalToDamage(t, dir)
			tt.damage(t, dir)
			d := newDeliveries()
			j := d.openSetAside(t, dir)
			if err := j.Keep(t.Context(), forwardersToDamage); err != nil {
				t.Fatal(err)
			}
			fresh := event(damagedEvents + 1)
			if r := mustAppend(t, j, fresh); r.Seq <= damagedEvents { // while the salvage runs
				t.Errorf("a new event has the number %d", r.Seq)
			}
			<-j.salvaged
			d.collect(t, j)
			t.Logf("%s; lost to behind %d, to ahead %d", j.Damage(), len(d.lost["behind"]), len(d.lost["ahead"]))
			if n := d.had["behind"][fresh.ID]; n != 1 {
				t.Errorf("the new event was handed out %d times", n)
			}
			d.checkBehind(t, tt.maxLost)
			if tt.places && tt.maxLost < damagedEvents/2 {
				d.checkAhead(t, j)
			}
			if r := mustAppend(t, j, event(2)); tt.maxLost == 0 && !r.Duplicate {
				t.Errorf("an event that was salvaged is new: %+v", r)
			}
			closeJournal(t, j)
			j = open(t, dir)
			if message := j.Damage(); message != "" {
				t.Errorf("after the salvage: %s", message)
			}
			if files, err := wrecks(j.path); err != nil || len(files) > 0 {
				t.Errorf("left to salvage: %v, %v", files, err)
			}
		})
	}
}

var forwardersToDamage = []string{"ahead", "behind"}

// deliveries count what the forwarders were handed out: how often each event,
// and what was damaged.
type deliveries struct {
	had  map[string]map[string]int
	lost map[string][]int64
}

func newDeliveries() *deliveries {
	d := &deliveries{had: make(map[string]map[string]int), lost: make(map[string][]int64)}
	for _, name := range forwardersToDamage {
		d.had[name] = make(map[string]int)
	}
	return d
}

// collect delivers everything that is due.
func (d *deliveries) collect(t *testing.T, j *Journal) {
	t.Helper()
	for _, name := range forwardersToDamage {
		if err := d.take(t, mustCursor(t, j, name, Start{}), name); err != nil && j.Damage() == "" {
			t.Errorf("%v, and no damage was noticed", err)
		}
	}
}

func (d *deliveries) take(t *testing.T, c *Cursor, name string) error {
	for {
		entries, err := c.Next(t.Context(), time.Now(), 100)
		for _, e := range entries {
			c.Delivered(e.Seq)
			if e.Damaged != nil {
				d.lost[name] = append(d.lost[name], e.Seq)
			} else {
				d.had[name][e.Event.ID]++
			}
		}
		if err != nil || len(entries) == 0 {
			return err
		}
	}
}

// openSetAside opens the damaged journal, again if the damage shows only at
// work, and the cursors.
func (d *deliveries) openSetAside(t *testing.T, dir string) *Journal {
	t.Helper()
	j := open(t, dir)
	if !strings.Contains(j.Damage(), "set aside") {
		for n := range 20 { // each may fail
			_, err := j.Append(t.Context(), event(damagedEvents+1000+n))
			if err != nil && j.Damage() == "" {
				t.Errorf("%v, and no damage was noticed", err)
			}
		}
		d.collect(t, j)
		if err := j.settle(); err != nil && j.Damage() == "" {
			t.Errorf("%v, and no damage was noticed", err)
		}
		if j.Damage() == "" {
			t.Fatal("the damage was not noticed")
		}
		closeJournal(t, j)
		j = open(t, dir)
	}
	for _, name := range forwardersToDamage {
		mustCursor(t, j, name, Start{})
	}
	return j
}

func (d *deliveries) checkBehind(t *testing.T, maxLost int) {
	t.Helper()
	missing := 0
	for n := 1; n <= damagedEvents; n++ {
		switch d.had["behind"][event(n).ID] {
		case 0:
			missing++
		case 1:
		default:
			t.Errorf("event %d was handed out %d times", n, d.had["behind"][event(n).ID])
		}
	}
	if missing > maxLost {
		t.Errorf("%d events are lost, want at most %d", missing, maxLost)
	}
	if maxLost < damagedEvents/2 && len(d.lost["behind"]) != missing {
		t.Errorf("%d events are lost and %d of them become dead letters", missing, len(d.lost["behind"]))
	}
}

func (d *deliveries) checkAhead(t *testing.T, j *Journal) {
	t.Helper()
	waited := []int{11, 12, 13, 15}
	for n := 1; n <= damagedEvents; n++ {
		want := 0
		if slices.Contains(waited, n) {
			want = 1
		}
		if got := d.had["ahead"][event(n).ID]; got != want {
			t.Errorf("event %d was handed out %d times to the forwarder that had settled nearly all, want %d", n, got, want)
		}
	}
	if dead := deadSeqs(letters(t, j, DeadLetterFilter{Forwarder: "ahead"})); !cmp.Equal(dead, []int64{14}) {
		t.Errorf("dead letters %v", dead)
	}
}
