package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// place is where an event is for a forwarder, in the model.
type place int

const (
	placeNew place = iota
	placeRetry
	placeParked
	placeRequeued
	placeDone
)

// modelEvent is an event of a forwarder in the model.
type modelEvent struct {
	at       place
	inHand   bool // handed out from at
	key      string
	attempts int
	due      int // in minutes of the model's clock
	replayed bool
	letter   bool // stands in the dead letters
}

// model is a journal beside what it should hold. It keeps the settler from
// writing, so that it knows what is on disk.
type model struct {
	t       *rapid.T
	dir     string
	j       *Journal
	now     int
	total   int
	lanes   map[string]map[int64]*modelEvent
	onDisk  map[string]map[int64]modelEvent
	cursors map[string]*Cursor
	dirs    func() string
}

var (
	modelEpoch            = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	modelLanes, modelKeys = []string{"file", "shop"}, []string{"x", "y"}
	errModel              = errors.New("the commit failed")
)

// TestModel does random things to a journal and to a map and compares them: at
// least 10,000 steps.
func TestModel(t *testing.T) {
	t.Parallel()
	const steps = 120 // times the 100 runs that rapid makes
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{t: rt, lanes: make(map[string]map[int64]*modelEvent), cursors: make(map[string]*Cursor), dirs: t.TempDir}
		m.dir = m.dirs()
		m.open()
		defer func() {
			m.j.settling.Unlock()
			if err := m.j.Close(); err != nil {
				t.Error(err)
			}
		}()
		for _, lane := range modelLanes {
			m.lanes[lane] = make(map[int64]*modelEvent)
		}
		m.snapshot()
		operations := []func(){
			m.append, m.append, m.append, m.next, m.next, m.next, m.settle, m.settle, m.settle, m.settle, m.settle, m.unpark,
			func() { m.now++ }, m.flush, m.flushNotDone, m.flushReplyLost, m.reopenCursor, m.restart, m.crash, m.retryDeadLetters, m.discard, m.replay,
		}
		for range steps {
			operations[rapid.IntRange(0, len(operations)-1).Draw(rt, "operation")]()
			m.check()
		}
		m.drain()
	})
}

func (m *model) open() {
	j, err := Open(context.Background(), m.dir, Options{Config: forEver(), Logger: slog.New(slog.DiscardHandler)})
	m.must(err)
	m.j = j
	for _, lane := range modelLanes {
		m.cursors[lane], err = j.Cursor(context.Background(), lane, Start{Beginning: true})
		m.must(err)
	}
	j.settling.Lock()
}

func (m *model) must(err error) {
	if err != nil {
		m.t.Helper()
		m.t.Fatal(err)
	}
}

func (m *model) clock() time.Time { return modelEpoch.Add(time.Duration(m.now) * time.Minute) }

// snapshot notes what is on disk.
func (m *model) snapshot() {
	m.onDisk = make(map[string]map[int64]modelEvent)
	for lane, events := range m.lanes {
		m.onDisk[lane] = make(map[int64]modelEvent)
		for seq, e := range events {
			saved := *e
			saved.inHand = false
			m.onDisk[lane][seq] = saved
		}
	}
}

func (m *model) lane() string { return rapid.SampledFrom(modelLanes).Draw(m.t, "lane") }

func (m *model) append() {
	for range rapid.IntRange(1, 5).Draw(m.t, "events") {
		n := rapid.IntRange(max(m.total-3, 1), m.total+1).Draw(m.t, "event")
		r, err := m.j.Append(context.Background(), event(n))
		m.must(err)
		if want := n <= m.total; r.Duplicate != want || !want && r.Seq != int64(n) {
			m.t.Fatalf("append of event %d, of which the journal has %d: %+v", n, m.total, r)
		}
		if r.Duplicate {
			continue
		}
		m.total++
		for _, lane := range modelLanes {
			m.lanes[lane][int64(n)] = &modelEvent{}
			m.onDisk[lane][int64(n)] = modelEvent{}
		}
	}
}

// next takes what is due, all of it now and then.
func (m *model) next() {
	lane, limit := m.lane(), rapid.IntRange(1, 8).Draw(m.t, "limit")
	all := rapid.Bool().Draw(m.t, "all")
	for {
		entries, err := m.cursors[lane].Next(context.Background(), m.clock(), limit)
		m.must(err)
		m.handedOut(lane, entries)
		if !all {
			return
		}
		if len(entries) == 0 {
			break
		}
	}
	for seq, e := range m.lanes[lane] {
		if m.isDue(e) {
			m.t.Fatalf("%s: event %d is due and was not handed out: %+v", lane, seq, *e)
		}
	}
}

func (m *model) isDue(e *modelEvent) bool {
	return !e.inHand && (e.at == placeNew || e.at == placeRequeued || e.at == placeRetry && e.due <= m.now)
}

func (m *model) handedOut(lane string, entries []Entry) {
	for _, entry := range entries {
		e := m.lanes[lane][entry.Seq]
		if e == nil || !m.isDue(e) {
			m.t.Fatalf("%s: event %d was handed out and is not due: %+v", lane, entry.Seq, e)
		}
		m.compare(lane, entry, e)
	}
}

func (m *model) compare(lane string, entry Entry, e *modelEvent) {
	want := modelEvent{at: e.at, key: entry.Key, attempts: entry.Attempts, due: e.due, replayed: entry.Replayed, letter: e.letter}
	if want != *e || string(entry.Event.Body) != string(event(int(entry.Seq)).Body) || entry.Event.Replayed != e.replayed {
		m.t.Fatalf("%s: event %d came as %+v, want %+v", lane, entry.Seq, entry, *e)
	}
	e.inHand = true
}

// settle settles one event in the lane's hands.
func (m *model) settle() {
	lane := m.lane()
	seq, e := m.pick(lane, func(e *modelEvent) bool { return e.inHand })
	if e == nil {
		return
	}
	c, replayed := m.cursors[lane], e.replayed
	switch rapid.IntRange(0, 3).Draw(m.t, "outcome") {
	case 0:
		c.Delivered(seq)
		*e = modelEvent{at: placeDone, letter: e.letter}
	case 1:
		c.Dead(DeadLetter{Source: "catalog", Seq: seq, ID: event(int(seq)).ID, Reason: "rejected", Attempts: 1})
		*e = modelEvent{at: placeDone, letter: true}
	case 2:
		retry := modelEvent{at: placeRetry, key: rapid.SampledFrom(modelKeys).Draw(m.t, "key"), attempts: e.attempts + 1, due: m.now + rapid.IntRange(0, 3).Draw(m.t, "wait"), replayed: replayed, letter: e.letter}
		c.RetryAt(Retry{Seq: seq, Key: retry.key, Attempts: retry.attempts, First: m.clock(), Due: modelEpoch.Add(time.Duration(retry.due) * time.Minute)})
		*e = retry
	case 3:
		if e.attempts > 0 || replayed {
			return
		}
		key := rapid.SampledFrom(modelKeys).Draw(m.t, "key")
		if !c.Park(seq, key) {
			m.t.Fatal("there is room for a parked event")
		}
		*e = modelEvent{at: placeParked, key: key, letter: e.letter}
	}
}

// pick chooses one of the lane's events that fit.
func (m *model) pick(lane string, fits func(*modelEvent) bool) (int64, *modelEvent) {
	var fitting []int64
	for seq, e := range m.lanes[lane] {
		if fits(e) {
			fitting = append(fitting, seq)
		}
	}
	if len(fitting) == 0 {
		return 0, nil
	}
	slices.Sort(fitting)
	seq := rapid.SampledFrom(fitting).Draw(m.t, "event")
	return seq, m.lanes[lane][seq]
}

func (m *model) unpark() {
	lane, key, limit := m.lane(), rapid.SampledFrom(modelKeys).Draw(m.t, "key"), rapid.IntRange(1, 4).Draw(m.t, "limit")
	var want []int64
	for _, seq := range slices.Sorted(maps.Keys(m.lanes[lane])) {
		if e := m.lanes[lane][seq]; e.at == placeParked && !e.inHand && e.key == key && len(want) < limit {
			want = append(want, seq)
		}
	}
	entries, err := m.cursors[lane].Unpark(context.Background(), key, limit)
	m.must(err)
	if diff := cmp.Diff(want, seqs(entries)); diff != "" {
		m.t.Fatalf("%s: unparked (-want +got):\n%s", lane, diff)
	}
	for _, entry := range entries {
		m.compare(lane, entry, m.lanes[lane][entry.Seq])
	}
}

func (m *model) flush() {
	m.j.settling.Unlock()
	m.must(m.j.settle())
	m.j.settling.Lock()
	m.snapshot()
}

// flushNotDone is a commit that fails.
func (m *model) flushNotDone() {
	m.failingFlush(func(*store) error { return errModel })
}

// flushReplyLost is a commit that is done and reported as failed.
func (m *model) flushReplyLost() {
	m.failingFlush(func(s *store) error {
		if _, err := s.commit.Exec(); err != nil {
			return err
		}
		return errModel
	})
	m.snapshot()
}

func (m *model) failingFlush(end func(*store) error) {
	var pending []*settlements
	for _, c := range m.j.allCursors() {
		pending = append(pending, c.collectAll())
	}
	err := m.j.apply(context.Background(), func(s *store) error {
		for _, p := range pending {
			if err := p.write(s); err != nil {
				return err
			}
		}
		return end(s)
	})
	if !errors.Is(err, errModel) {
		m.t.Fatalf("got %v, want the error that was made", err)
	}
	for _, p := range pending {
		p.finish(err)
	}
}

// backInPlace empties the lane's hands.
func (m *model) backInPlace(lane string) {
	for _, e := range m.lanes[lane] {
		e.inHand = false
	}
}

func (m *model) reopenCursor() {
	lane := m.lane()
	c, err := m.j.Cursor(context.Background(), lane, Start{})
	m.must(err)
	if c != m.cursors[lane] {
		m.t.Fatal("the forwarder has got another cursor")
	}
	m.backInPlace(lane)
}

func (m *model) restart() {
	m.j.settling.Unlock()
	m.must(m.j.Close())
	for _, lane := range modelLanes {
		m.backInPlace(lane)
	}
	m.snapshot()
	m.open()
}

// crash goes on with what is on disk at this moment.
func (m *model) crash() {
	next := m.dirs()
	m.must(m.j.apply(context.Background(), func(*store) error { // nothing is written meanwhile
		for _, suffix := range []string{"", "-wal"} {
			content, err := os.ReadFile(m.j.path + suffix)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(next, FileName+suffix), content, 0o600); err != nil {
				return err
			}
		}
		return nil
	}))
	m.j.settling.Unlock()
	m.must(m.j.Close())
	for lane, events := range m.onDisk {
		m.lanes[lane] = make(map[int64]*modelEvent)
		for seq, e := range events {
			m.lanes[lane][seq] = &e
		}
	}
	m.dir = next
	m.open()
}

func (m *model) retryDeadLetters() {
	lane := m.lane()
	m.flush()
	want := 0
	for _, e := range m.lanes[lane] {
		if !e.letter {
			continue
		}
		want++
		e.letter = false
		if e.at == placeDone {
			*e = modelEvent{at: placeRequeued, replayed: true}
		}
	}
	m.j.settling.Unlock()
	n, err := m.j.RetryDeadLetters(context.Background(), DeadLetterFilter{Forwarder: lane})
	m.j.settling.Lock()
	m.must(err)
	if n != want {
		m.t.Fatalf("%s: %d dead letters retried, want %d", lane, n, want)
	}
	m.snapshot()
}

func (m *model) discard() {
	lane := m.lane()
	m.flush()
	want := 0
	for _, e := range m.lanes[lane] {
		if e.letter {
			want++
			e.letter = false
		}
	}
	m.j.settling.Unlock()
	n, err := m.j.DiscardDeadLetters(context.Background(), DeadLetterFilter{Forwarder: lane})
	m.j.settling.Lock()
	m.must(err)
	if n != want {
		m.t.Fatalf("%s: %d dead letters discarded, want %d", lane, n, want)
	}
	m.snapshot()
}

func (m *model) replay() {
	lane := m.lane()
	m.flush()
	want := 0
	var ids []string
	for seq := int64(1); seq <= int64(m.total); seq += 2 {
		ids = append(ids, event(int(seq)).ID)
		if e := m.lanes[lane][seq]; e.at == placeDone {
			want++
			*e = modelEvent{at: placeRequeued, replayed: true, letter: e.letter}
		}
	}
	if ids == nil {
		return
	}
	m.j.settling.Unlock()
	n, err := m.j.Replay(context.Background(), lane, Filter{IDs: ids})
	m.j.settling.Lock()
	m.must(err)
	if n != want {
		m.t.Fatalf("%s: %d events replayed, want %d", lane, n, want)
	}
	m.snapshot()
}

// check compares the numbers.
func (m *model) check() {
	for lane, events := range m.lanes {
		var want Progress
		keys := map[string]bool{}
		for _, e := range events {
			switch e.at {
			case placeRetry:
				want.Retrying++
				keys[e.key] = keys[e.key] || !e.inHand
			case placeParked:
				want.Parked++
			case placeRequeued:
				want.Requeued++
			}
			if e.at != placeDone {
				want.Backlog++
			}
		}
		got := m.cursors[lane].Progress()
		got.DeadLetters = 0 // what is on its way may replace what is there
		if diff := cmp.Diff(want, got); diff != "" {
			m.t.Fatalf("%s: progress (-want +got):\n%s", lane, diff)
		}
		var blocked []string
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			if keys[key] {
				blocked = append(blocked, key)
			}
		}
		if diff := cmp.Diff(blocked, m.cursors[lane].BlockedKeys()); diff != "" {
			m.t.Fatalf("%s: blocked keys (-want +got):\n%s", lane, diff)
		}
	}
}

// drain delivers everything, and then nothing is left but the dead letters.
func (m *model) drain() {
	m.restart()
	m.now += 100
	for lane, events := range m.lanes {
		c, letters := m.cursors[lane], int64(0)
		for _, key := range c.ParkedKeys() {
			entries, err := c.Unpark(context.Background(), key, m.total)
			m.must(err)
			for _, entry := range entries {
				m.compare(lane, entry, events[entry.Seq])
			}
		}
		for {
			entries, err := c.Next(context.Background(), m.clock(), 7)
			m.must(err)
			if len(entries) == 0 {
				break
			}
			m.handedOut(lane, entries)
		}
		for seq, e := range events {
			if e.inHand != (e.at != placeDone) {
				m.t.Fatalf("%s: event %d was not handed out: %+v", lane, seq, *e)
			}
			c.Delivered(seq)
			if e.letter {
				letters++
			}
		}
		if diff := cmp.Diff(Progress{DeadLetters: letters}, c.Progress()); diff != "" {
			m.t.Fatalf("%s: at the end (-want +got):\n%s", lane, diff)
		}
	}
	m.flush()
	for _, table := range []string{"retries", "parked", "requeued"} {
		var rows int
		m.must(m.j.store.read.QueryRow(fmt.Sprintf("SELECT count(*) FROM %s", table)).Scan(&rows))
		if rows != 0 {
			m.t.Fatalf("%d rows are left in %s", rows, table)
		}
	}
}
