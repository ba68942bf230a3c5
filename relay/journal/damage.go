package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// A damaged database is set aside under its name with damagedSuffix and the
// time, and gets salvagedSuffix, too, when what can be read of it is in the
// journal again.
const (
	damagedSuffix  = ".damaged-"
	salvagedSuffix = ".salvaged"
)

// markerName is a file that says that the database is to be set aside: its
// first line is the suffix to give it, its second one why. It makes the three
// renames one step, and carries damage that was met at work to the next Open.
const markerName = "journal.damage"

// errDamaged is damage that SQLite itself does not call so.
var errDamaged = errors.New("the database is damaged")

// isDamage reports whether an error means that the file is not what was
// written, as opposed to a disk that does not answer.
func isDamage(err error) bool {
	var e *sqlite.Error
	if errors.As(err, &e) {
		code := e.Code() & 0xff
		return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
	}
	return errors.Is(err, errDamaged)
}

// Damage says, for people, what was found to be wrong with the journal's file
// since Open, and what became of it. It is empty if nothing was.
func (j *Journal) Damage() string {
	if message := j.damage.Load(); message != nil {
		return *message
	}
	return ""
}

func (j *Journal) tellDamage(message string) { j.damage.Store(&message) }

// watch returns err. If it says that the file is damaged, the next Open sets the
// file aside; until then everything that does not touch the damage goes on.
func (j *Journal) watch(err error) error {
	if err == nil || !isDamage(err) || !j.damageSeen.CompareAndSwap(false, true) {
		return err
	}
	j.tellDamage(fmt.Sprintf("the journal's file is damaged (%v): restart pimrelay, which sets the file aside and salvages what can be read", err))
	j.log.Error("the journal is damaged, the next start sets its file aside and salvages it", "err", err)
	if marked := mark(j.path, err); marked != nil {
		j.log.Error("the damage could not be noted for the next start: run 'pimrelay journal repair' then", "err", marked)
	}
	return err
}

// mark notes that the database at path is to be set aside, and why.
func mark(path string, why error) error {
	marker := filepath.Join(filepath.Dir(path), markerName)
	if _, err := os.Stat(marker); err == nil {
		return nil
	}
	if err := keepNumbers(path); err != nil {
		return err
	}
	reason := strings.ReplaceAll(why.Error(), "\n", "; ")
	return replaceFile(marker, fmt.Appendf(nil, "%s%s\n%s\n", damagedSuffix, time.Now().UTC().Format("20060102T150405.000000Z"), reason))
}

// setAside renames the database at path with its log, if a marker says so, and
// returns why; it is empty if there is no marker. It completes what a crash has
// interrupted.
func setAside(path string) (reason string, err error) {
	dir := filepath.Dir(path)
	content, err := os.ReadFile(filepath.Join(dir, markerName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("set the damaged journal aside: %w", err)
	}
	suffix, reason, _ := strings.Cut(strings.TrimSpace(string(content)), "\n")
	if !strings.HasPrefix(suffix, damagedSuffix) || strings.ContainsAny(suffix, `/\`) {
		return "", fmt.Errorf("set the damaged journal aside: %s is not what pimrelay wrote: remove it", filepath.Join(dir, markerName))
	}
	if err := renameDatabase(path, path+suffix); err != nil {
		return "", fmt.Errorf("set the damaged journal aside: %w", err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, markerName)), syncDir(dir)); err != nil {
		return "", fmt.Errorf("set the damaged journal aside: %w", err)
	}
	return reason, nil
}

// renameDatabase renames the file last, so that it is where it was as long as
// something is left to do.
func renameDatabase(from, to string) error {
	for _, part := range []string{"-wal", "-shm", ""} {
		if err := os.Rename(from+part, to+part); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(filepath.Dir(to))
}

// unknownStart is above every number that a journal may have given of which
// nothing says how far it came.
const unknownStart = 1 << 40

// keepNumbers makes sure that a fresh journal starts above the numbers of the
// one at path, also if the file that says so is missing. It needs the database
// with its log.
func keepNumbers(path string) error {
	dir := filepath.Dir(path)
	reserved, err := readSequence(dir)
	if err != nil || reserved > 0 {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	w, err := openWreck(path)
	if err != nil {
		return err
	}
	defer w.close()
	reserved = unknownStart
	if head, ok := w.head(context.Background()); ok {
		reserved = head + sequenceBlock
	}
	return writeSequence(dir, reserved)
}

// wrecks are the databases that were set aside and not salvaged yet, the newest
// first.
func wrecks(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("look for damaged journals: %w", err)
	}
	var found []string
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, filepath.Base(path)+damagedSuffix) && strings.HasSuffix(name, "Z") {
			found = append(found, filepath.Join(filepath.Dir(path), name))
		}
	}
	slices.Sort(found)
	slices.Reverse(found)
	return found, nil
}

// tables are those of the schema.
var tables = []string{"events", "ids", "cursors", "retries", "parked", "requeued", "dead_letters"}

// inspect looks for damage where it costs little: at the tables' beginnings and
// ends.
func (s *store) inspect(ctx context.Context) error {
	for _, table := range tables {
		var n int
		if err := s.write.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?", table).Scan(&n); err != nil {
			return fmt.Errorf("inspect the schema: %w", err)
		}
		if n == 0 {
			return fmt.Errorf("%w: it has no table %s", errDamaged, table)
		}
	}
	for _, table := range tables {
		key := "rowid"
		if slices.Contains(waitingTables, table) { // without a rowid
			key = "seq"
		}
		var first, last sql.NullInt64
		query := fmt.Sprintf("SELECT (SELECT min(%[1]s) FROM %[2]s), (SELECT max(%[1]s) FROM %[2]s)", key, table)
		if err := s.write.QueryRowContext(ctx, query).Scan(&first, &last); err != nil {
			return fmt.Errorf("inspect table %s: %w", table, err)
		}
	}
	return nil
}
