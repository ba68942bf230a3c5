package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"
)

// Salvage is what became of a damaged file.
type Salvage struct {
	// File is the name under which it is kept.
	File string `json:"file"`
	// Events could be read and Lost could not, or have changed; where the
	// file does not say how many there were, Lost is too low.
	Events int64 `json:"events"`
	Lost   int64 `json:"lost"`
	// Requeued counts the deliveries that are made again.
	Requeued    int64 `json:"requeued"`
	DeadLetters int64 `json:"dead_letters"`
}

func (s Salvage) plus(t Salvage) Salvage {
	return Salvage{s.File, s.Events + t.Events, s.Lost + t.Lost, s.Requeued + t.Requeued, s.DeadLetters + t.DeadLetters}
}

// The table salvage exists while there is a file to salvage: how far that has
// come, written with what was salvaged.
const salvageSchema = `CREATE TABLE IF NOT EXISTS salvage (
  file         TEXT PRIMARY KEY,
  first        INTEGER NOT NULL,              -- the file's numbers are not above it, the journal's own are
  stage        INTEGER NOT NULL DEFAULT 0,
  after        INTEGER NOT NULL DEFAULT 0,
  events       INTEGER NOT NULL DEFAULT 0,
  lost         INTEGER NOT NULL DEFAULT 0,
  requeued     INTEGER NOT NULL DEFAULT 0,
  dead_letters INTEGER NOT NULL DEFAULT 0
)`

// adopt gives the forwarders the places in the fresh journal that they need
// before anything is appended: at its beginning. It runs before the writer does.
func (s *store) adopt(ctx context.Context, file string) error {
	if err := s.exec(salvageSchema); err != nil {
		return err
	}
	var known bool
	if err := s.write.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM salvage WHERE file = ?)", filepath.Base(file)).Scan(&known); err != nil || known {
		return err
	}
	w, err := openWreck(file)
	if err != nil {
		return err
	}
	defer w.close()
	places, _, err := w.places(ctx)
	if err != nil {
		return err
	}
	end, err := lastPosition(ctx, s)
	if err != nil {
		return err
	}
	if _, err := s.begin.Exec(); err != nil {
		return err
	}
	err = s.exec("INSERT INTO salvage (file, first) VALUES (?, ?)", filepath.Base(file), end.seq)
	for _, p := range places {
		if err == nil {
			err = s.exec("INSERT OR IGNORE INTO cursors (id, forwarder, watermark, settled, updated, gone, until, forgotten) VALUES (?, ?, ?, x'', ?, ?, ?, ?)",
				p.id, p.name, end.seq, time.Now().UnixMicro(), p.gone, p.until, p.forgotten)
		}
	}
	if err != nil {
		_, rollback := s.rollback.Exec()
		return errors.Join(err, rollback)
	}
	_, err = s.commit.Exec()
	return err
}

// salvage reads a damaged file and gives the journal what is in it.
type salvage struct {
	j     *Journal
	file  string
	wreck *wreck
	first int64 // the file's numbers are not above it

	places   map[int64]oldPlace // by the cursors' ids
	complete bool               // all of them could be read

	total Salvage // up to the last step
	stage int
	after int64

	// Of the step in hand.
	step    Salvage
	cursors map[int64]*Cursor
	added   map[*Cursor][]deadRow
	dead    map[int64]tally
}

// stage is one passage, with another one that may know what is lost in the first.
type stage struct{ main, other *passage }

// eventStage is the stage of the events; the one before it has given back the
// ids.
const eventStage = 1

const salvageAgain = 10 * time.Second

// runSalvage salvages the files that were set aside, when the forwarders are
// known.
func (j *Journal) runSalvage(ctx context.Context, files []string) {
	defer j.settled.Done()
	defer close(j.salvaged)
	select {
	case <-j.kept:
	case <-ctx.Done():
		return
	}
	for _, file := range files {
		for {
			total, err := j.salvage(ctx, file)
			if err == nil {
				j.results = append(j.results, total)
				break
			}
			if ctx.Err() != nil {
				return
			}
			j.log.Error("salvage interrupted, it is taken up again", "err", err)
			select {
			case <-time.After(salvageAgain):
			case <-ctx.Done():
				return
			}
		}
	}
	j.salvaging.Store(false)
}

// salvage goes through a file, or through what is left to do of it.
func (j *Journal) salvage(ctx context.Context, file string) (Salvage, error) {
	w, err := openWreck(file)
	if err != nil {
		return Salvage{}, err
	}
	x := &salvage{j: j, file: filepath.Base(file), wreck: w}
	err = x.load(ctx)
	if err == nil {
		err = x.run(ctx)
	}
	if err := errors.Join(err, w.close()); err != nil {
		return Salvage{}, fmt.Errorf("salvage %s: %w", x.file, err)
	}
	if err := renameDatabase(file, file+salvagedSuffix); err != nil {
		return Salvage{}, fmt.Errorf("salvage %s: %w", x.file, err)
	}
	x.total.File = x.file + salvagedSuffix
	message := fmt.Sprintf("the journal's file was damaged: %d events were salvaged, %d were lost, %d deliveries are made again; the file is kept as %s",
		x.total.Events, x.total.Lost, x.total.Requeued, x.total.File)
	j.tellDamage(message)
	j.log.Error("damaged journal salvaged, its file is kept", "file", x.total.File, "events", x.total.Events, "lost", x.total.Lost,
		"requeued", x.total.Requeued, "dead_letters", x.total.DeadLetters)
	return x.total, j.apply(ctx, func(s *store) error { return s.exec("DELETE FROM salvage WHERE file = ?", x.file) })
}

func (x *salvage) load(ctx context.Context) error {
	places, complete, err := x.wreck.places(ctx)
	if err != nil {
		return err
	}
	x.complete, x.places = complete, make(map[int64]oldPlace)
	for _, p := range places {
		x.places[p.id] = p
	}
	x.j.opening.RLock()
	defer x.j.opening.RUnlock()
	t := &x.total
	err = x.j.store.read.QueryRowContext(ctx, "SELECT first, stage, after, events, lost, requeued, dead_letters FROM salvage WHERE file = ?", x.file).
		Scan(&x.first, &x.stage, &x.after, &t.Events, &t.Lost, &t.Requeued, &t.DeadLetters)
	if errors.Is(err, sql.ErrNoRows) {
		return errors.New("the journal does not know the file: start again")
	}
	return err
}

// run goes through the stages: first what makes duplicates known.
func (x *salvage) run(ctx context.Context) error {
	stages := []stage{{main: x.idPassage()}, eventStage: {main: x.eventPassage()}}
	for _, id := range slices.Sorted(maps.Keys(x.places)) {
		stages = append(stages, x.waitingStages(id)...)
	}
	stages = append(stages, stage{main: x.deadPassage()})
	began, told := time.Now(), time.Now()
	for ; x.stage < len(stages); x.stage, x.after = x.stage+1, 0 {
		st := stages[x.stage]
		st.main.after, st.main.upTo = x.after, x.first
		if x.stage == len(stages)-1 {
			st.main.upTo = maxNumber
		}
		if err := x.pass(ctx, st, &told); err != nil {
			return err
		}
	}
	x.j.log.Info("damaged journal read to its end", "file", x.file, "took", time.Since(began))
	return nil
}

// maxNumber is above every number that the journal gives by itself.
const maxNumber = 1 << 60

// pass takes one stage to its end.
func (x *salvage) pass(ctx context.Context, st stage, told *time.Time) error {
	all := func(piece) bool { return true }
	if st.other == nil {
		return x.passage(ctx, st.main, all, false, told)
	}
	if err := x.passage(ctx, st.main, all, true, told); err != nil || len(st.main.gaps) == 0 {
		return err
	}
	st.other.upTo = st.main.upTo
	return x.passage(ctx, st.other, func(p piece) bool { return st.main.lacks(p.key) }, true, told)
}

// passage writes what the passage reads. With whole, one that is interrupted
// begins again.
func (x *salvage) passage(ctx context.Context, p *passage, wanted func(piece) bool, whole bool, told *time.Time) error {
	for {
		gaps := len(p.gaps)
		pieces, more, err := p.next(ctx)
		if err != nil {
			return err
		}
		if len(p.gaps) > gaps && x.stage == eventStage {
			if err := x.lose(ctx, p.gaps[gaps]); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		if !whole {
			x.after = p.after
		}
		err = x.write(ctx, func(s *store) error {
			for _, one := range pieces {
				if !wanted(one) {
					continue
				}
				if err := one.write(s); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if time.Since(*told) >= salvageAgain {
			*told = time.Now()
			x.j.log.Info("salvaging the damaged journal", "file", x.file, "events", x.total.Events, "lost", x.total.Lost, "requeued", x.total.Requeued)
		}
	}
}

// lose counts the events in a gap whose ids are remembered, and makes them
// damaged dead letters.
func (x *salvage) lose(ctx context.Context, g gap) error {
	for from := g.from; ; {
		lost, err := x.remembered(ctx, from, g.to)
		if err != nil || len(lost) == 0 {
			return err
		}
		from = lost[len(lost)-1]
		x.after = from
		if err := x.write(ctx, func(s *store) error {
			for _, seq := range lost {
				if err := x.putLost(s, seq); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
}

// remembered are the first numbers above from and up to to whose ids the journal
// has.
func (x *salvage) remembered(ctx context.Context, from, to int64) ([]int64, error) {
	x.j.opening.RLock()
	defer x.j.opening.RUnlock()
	rows, err := x.j.store.read.QueryContext(ctx, "SELECT seq FROM ids WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?", from, to, shedEvents)
	if err != nil {
		return nil, fmt.Errorf("read ids: %w", err)
	}
	defer rows.Close()
	var found []int64
	for rows.Next() {
		var seq int64
		if err := rows.Scan(&seq); err != nil {
			return nil, fmt.Errorf("read ids: %w", err)
		}
		found = append(found, seq)
	}
	return found, rows.Err()
}

// write makes one step of the salvage, with how far that has come, in a
// transaction of the writer.
func (x *salvage) write(ctx context.Context, change func(*store) error) error {
	x.j.creating.Lock() // no place comes or goes meanwhile
	defer x.j.creating.Unlock()
	x.step, x.added, x.dead = Salvage{}, make(map[*Cursor][]deadRow), make(map[int64]tally)
	x.cursors = make(map[int64]*Cursor)
	for _, c := range x.j.allCursors() {
		x.cursors[c.id] = c
	}
	// What comes from outside is given up first on a full disk, and this can wait, too.
	err := x.j.submitChange(ctx, &request{arrival: true, apply: func(s *store) error {
		if err := change(s); err != nil {
			return err
		}
		t := x.total.plus(x.step)
		return s.exec("UPDATE salvage SET stage = ?, after = ?, events = ?, lost = ?, requeued = ?, dead_letters = ? WHERE file = ?",
			x.stage, x.after, t.Events, t.Lost, t.Requeued, t.DeadLetters, x.file)
	}})
	if err != nil {
		return err
	}
	x.total = x.total.plus(x.step)
	x.j.count(x.dead, 1)
	for c, added := range x.added {
		c.requeuedNow(added)
	}
	return nil
}
