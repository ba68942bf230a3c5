package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// Report is what Check found.
type Report struct {
	File string `json:"file"`
	// Problems says in one line each what is wrong; none if nothing is.
	Problems []string `json:"problems"`
	// Rows are the numbers of rows by table, of those that can be read.
	Rows map[string]int64 `json:"rows"`
	// DamagedEvents counts events whose content is not what was stored. They
	// become dead letters of the forwarders that still want them.
	DamagedEvents int64 `json:"damaged_events"`
	// Salvaged says what Repair made of damaged files.
	Salvaged []Salvage `json:"salvaged,omitempty"`

	structural bool // the file is damaged, not only its content
}

func (r *Report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// shownProblems bounds how much of what SQLite finds is reported.
const shownProblems = 20

// Check reads the whole journal in dir and reports what is damaged. It changes
// nothing, and holds the lock on dir meanwhile: if a relay runs it returns a
// *LockedError.
func Check(ctx context.Context, dir string) (report Report, err error) {
	err = locked(dir, func() error {
		report, err = check(ctx, dir)
		return err
	})
	return report, err
}

// locked calls f while no other process uses dir.
func locked(dir string, f func() error) error {
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("there is no data_dir: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "lock"), flock.SetPermissions(0o600))
	held, err := lock.TryLock()
	switch {
	case err != nil:
		return fmt.Errorf("lock data_dir: %w", err)
	case !held:
		return &LockedError{Dir: dir}
	}
	return errors.Join(f(), lock.Unlock())
}

func check(ctx context.Context, dir string) (Report, error) {
	path := filepath.Join(dir, FileName)
	r := Report{File: path, Problems: []string{}, Rows: make(map[string]int64)}
	waiting, err := wrecks(path)
	if err != nil {
		return r, err
	}
	for _, file := range waiting {
		r.problem("%s is set aside and not salvaged yet: start the relay, or run repair", file)
	}
	if _, err := os.Stat(filepath.Join(dir, markerName)); err == nil {
		r.structural = true
		r.problem("the relay met damage at work: its next start, or repair, sets the file aside")
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && len(r.Problems) == 0 {
		return r, fmt.Errorf("there is no journal in %s: is it the data_dir of a relay?", dir)
	}
	w, err := openWreck(path)
	if err != nil {
		return r, err
	}
	for _, look := range []func(context.Context, *sql.DB) error{r.integrity, r.count, r.checksums, r.cursors} {
		if err := look(ctx, w.db); err != nil {
			if ctx.Err() != nil {
				return r, errors.Join(ctx.Err(), w.close())
			}
			r.structural = r.structural || isDamage(err)
			r.problem("%v", err)
		}
	}
	return r, w.close()
}

// integrity is SQLite's own opinion of the file.
func (r *Report) integrity(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, fmt.Sprintf("PRAGMA integrity_check(%d)", shownProblems))
	if err != nil {
		return fmt.Errorf("check the file: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var finding string
		if err := rows.Scan(&finding); err != nil {
			return fmt.Errorf("check the file: %w", err)
		}
		if finding != "ok" {
			r.structural = true
			r.problem("%s", finding)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("check the file: %w", err)
	}
	return nil
}

func (r *Report) count(ctx context.Context, db *sql.DB) error {
	var errs []error
	for _, table := range tables {
		var n int64
		if err := db.QueryRowContext(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			errs = append(errs, fmt.Errorf("count the rows of %s: %w", table, err))
			continue
		}
		r.Rows[table] = n
	}
	return errors.Join(errs...)
}

// checksums verifies every event that can be read.
func (r *Report) checksums(ctx context.Context, db *sql.DB) error {
	var first int64
	p := passage{db: db, query: "SELECT " + eventColumns + " FROM events WHERE seq > ? ORDER BY seq LIMIT ?", upTo: maxNumber, scan: func(rows *sql.Rows) (piece, error) {
		e, err := scanRow(rows)
		if err == nil && e.sum() != e.checksum {
			if r.DamagedEvents++; r.DamagedEvents == 1 {
				first = e.seq
			}
		}
		return piece{key: e.seq, size: len(e.body)}, err
	}}
	for more := true; more && len(p.gaps) == 0; {
		var err error
		if _, more, err = p.next(ctx); err != nil {
			return fmt.Errorf("verify the events: %w", err)
		}
	}
	if r.DamagedEvents > 0 {
		r.problem("%d events are not what was stored, the first is %d: they become dead letters of the forwarders that still want them", r.DamagedEvents, first)
	}
	if len(p.gaps) > 0 {
		return fmt.Errorf("%w: the events after %d cannot be read", errDamaged, p.gaps[0].from)
	}
	return nil
}

// cursors looks for places that no event has reached.
func (r *Report) cursors(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, `SELECT forwarder, watermark FROM cursors WHERE watermark > max(
		coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0), coalesce((SELECT max(seq) FROM ids), 0))`)
	if err != nil {
		return fmt.Errorf("read the forwarders' places: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var watermark int64
		if err := rows.Scan(&name, &watermark); err != nil {
			return fmt.Errorf("read the forwarders' places: %w", err)
		}
		r.problem("forwarder %q stands at event %d, which was never given", name, watermark)
	}
	return rows.Err()
}

// Repair checks the journal in dir, sets a damaged file aside for a fresh one,
// and returns when what can be read is in that. Damaged content alone is left as
// it is. The forwarders are those of the configuration: if their places are
// lost, everything is due for them again. It holds the lock on dir meanwhile.
func Repair(ctx context.Context, dir string, forwarders []string, log *slog.Logger) (report Report, err error) {
	path := filepath.Join(dir, FileName)
	err = locked(dir, func() error {
		if report, err = check(ctx, dir); err != nil || !report.structural {
			return err
		}
		return mark(path, errors.New(report.Problems[0]))
	})
	if err != nil {
		return report, err
	}
	if waiting, err := wrecks(path); err != nil || len(waiting) == 0 && !report.structural {
		return report, err
	}
	j, err := Open(ctx, dir, Options{Logger: log, salvageOnly: true})
	if err != nil {
		return report, err
	}
	err = j.repair(ctx, forwarders)
	err = errors.Join(err, j.Close())
	report.Salvaged = j.results
	return report, err
}

// repair salvages what is set aside and waits for the end of it.
func (j *Journal) repair(ctx context.Context, forwarders []string) error {
	complete, err := j.placesComplete(ctx)
	if err != nil {
		return err
	}
	if !complete {
		if len(forwarders) == 0 {
			return errors.New("the places of forwarders cannot be read: give the configuration file, which names them, or start the relay")
		}
		for _, name := range forwarders {
			if _, err := j.Cursor(ctx, name, Start{}); err != nil {
				return err
			}
		}
	}
	j.keeping.Do(func() { close(j.kept) })
	select {
	case <-j.salvaged:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the salvage goes on at the next start: %w", ctx.Err())
	}
}

// placesComplete reports whether all places can be read in what is set aside.
func (j *Journal) placesComplete(ctx context.Context) (bool, error) {
	files, err := wrecks(j.path)
	if err != nil {
		return false, err
	}
	for _, file := range files {
		w, err := openWreck(file)
		if err != nil {
			return false, err
		}
		_, complete, err := w.places(ctx)
		if err := errors.Join(err, w.close()); err != nil || !complete {
			return false, err
		}
	}
	return true, nil
}
