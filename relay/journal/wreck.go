package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
)

// wreck is a damaged database that is read as far as possible and never
// written.
type wreck struct{ db *sql.DB }

// waitingTables hold the events that wait outside a cursor's window.
var waitingTables = []string{"retries", "parked", "requeued"}

// openWreck opens the database at path for reading. With writable_schema SQLite
// reads on in a file that is shorter than its first page says.
func openWreck(path string) (*wreck, error) {
	db, err := sql.Open("sqlite", dsn(path, "busy_timeout(5000)", "writable_schema(1)", "query_only(1)", "cache_size(-1024)")+"&mode=ro")
	if err != nil {
		return nil, fmt.Errorf("open damaged journal: %w", err)
	}
	db.SetMaxOpenConns(1)
	return &wreck{db}, nil
}

func (w *wreck) close() error { return w.db.Close() }

// head is the highest number that the wreck knows to have been given, and false
// if it does not know.
func (w *wreck) head(ctx context.Context) (int64, bool) {
	var head int64
	err := w.db.QueryRowContext(ctx, "SELECT seq FROM sqlite_sequence WHERE name = 'events'").Scan(&head)
	if errors.Is(err, sql.ErrNoRows) { // no event was ever stored here
		err = nil
	}
	return head, err == nil
}

// oldPlace is what the wreck says of a forwarder.
type oldPlace struct {
	id, gone, until, forgotten int64
	name                       string
	window                     window
}

// places are the forwarders' places, by the cursors' ids, and whether that is
// all of them.
func (w *wreck) places(ctx context.Context) (places []oldPlace, complete bool, err error) {
	p := passage{db: w.db, query: "SELECT id, forwarder, watermark, settled, gone, until, forgotten FROM cursors WHERE id > ? ORDER BY id LIMIT ?", upTo: math.MaxInt32}
	p.scan = func(rows *sql.Rows) (piece, error) {
		var o oldPlace
		var watermark int64
		var settled []byte
		err := rows.Scan(&o.id, &o.name, &watermark, &settled, &o.gone, &o.until, &o.forgotten)
		if err == nil {
			o.window = decodeWindow(watermark, settled)
			places = append(places, o)
		}
		return piece{key: o.id}, err
	}
	for more := true; more; {
		if _, more, err = p.next(ctx); err != nil {
			return nil, false, err
		}
	}
	return places, len(p.gaps) == 0, nil
}

// piece is a row of a wreck, and how it is written into the journal.
type piece struct {
	key   int64
	size  int
	write func(*store) error
}

// passage goes through the rows of a wreck in the order of an integer, and
// steps over what cannot be read.
type passage struct {
	db *sql.DB
	// query takes args, the key to read after and a number of rows.
	query string
	args  []any
	scan  func(*sql.Rows) (piece, error)

	after int64 // the key up to which everything was read or is lost
	upTo  int64 // no key is above it
	gaps  []gap // what was stepped over
}

// gap is the keys above from and up to to.
type gap struct{ from, to int64 }

func (p *passage) lacks(key int64) bool {
	return slices.ContainsFunc(p.gaps, func(g gap) bool { return key > g.from && key <= g.to })
}

const (
	passageRows  = 100
	passageBytes = 1 << 20
)

// next returns the next rows, and false if these are the last.
func (p *passage) next(ctx context.Context) (pieces []piece, more bool, err error) {
	pieces, err = p.read(ctx, passageRows)
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	if len(pieces) > 0 {
		p.after = pieces[len(pieces)-1].key
		return pieces, true, nil
	}
	if err == nil || p.after >= p.upTo {
		return nil, false, nil
	}
	from := p.after
	more, err = p.leap(ctx)
	p.gaps = append(p.gaps, gap{from, p.after})
	return nil, more, err
}

// read returns up to limit rows after the key. With an error it returns those
// before it.
func (p *passage) read(ctx context.Context, limit int) (pieces []piece, err error) {
	args := append(append([]any{}, p.args...), p.after, limit)
	rows, err := p.db.QueryContext(ctx, p.query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	last := p.after
	for size := 0; size < passageBytes && rows.Next(); {
		one, err := p.scan(rows)
		if err != nil {
			return pieces, err
		}
		if one.key <= last || one.key > p.upTo { // the damage has changed the key
			return pieces, fmt.Errorf("%w: key %d follows %d", errDamaged, one.key, last)
		}
		last, size = one.key, size+one.size
		pieces = append(pieces, one)
	}
	return pieces, rows.Err()
}

// leapOneByOne is how far a passage looks for the next readable row at each
// key, so that it misses none between two damaged pages. A page holds a few
// hundred rows at most.
const leapOneByOne = 2000

// leap moves on to the nearest key after which reading works, and reports false
// if there is none.
func (p *passage) leap(ctx context.Context) (bool, error) {
	for bad, step := p.after, int64(1); ; {
		at := min(bad+step, p.upTo)
		ok, err := p.works(ctx, at)
		if err != nil {
			return false, err
		}
		if ok {
			p.after, err = p.narrow(ctx, bad, at)
			return err == nil, err
		}
		if at == p.upTo {
			p.after = at
			return false, nil
		}
		if bad = at; bad-p.after > leapOneByOne {
			step *= 2
		}
	}
}

// narrow is the lowest key between that works.
func (p *passage) narrow(ctx context.Context, bad, good int64) (int64, error) {
	for bad+1 < good {
		middle := bad + (good-bad)/2
		ok, err := p.works(ctx, middle)
		if err != nil {
			return 0, err
		}
		if ok {
			good = middle
		} else {
			bad = middle
		}
	}
	return good, nil
}

// works reports whether what follows the key can be read. The end can.
func (p *passage) works(ctx context.Context, key int64) (bool, error) {
	probe := *p
	probe.after = key
	_, err := probe.read(ctx, 1)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return err == nil, nil
}

// scanRow reads a row of the table events with eventColumns.
func scanRow(rows *sql.Rows) (*row, error) {
	var r row
	var sum int64
	err := rows.Scan(&r.seq, &r.source, &r.id, &r.kind, &r.subject, &r.time, &r.received, &r.entity, &r.extra, &r.body, &r.total, &sum)
	r.checksum = uint32(sum)
	return &r, err
}
