package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// keeper keeps the journal within its limits: backlogs, dead letters, ids,
// events, in this order, because each step frees what the next one may delete.
// It works in steps that the writer runs between appends.
type keeper struct {
	j *Journal

	written int64     // the count of what was written before the last round
	last    time.Time // when that was
	reasons []string  // why events are refused, in this round
	warned  bool      // that there is no room for the reserve

	swept              int64 // up to here every event is deleted or needed, as of sweptAt
	sweptAt            time.Time
	ids, events, pages pace
}

// pace is the size of a step, such that one takes about stepTime.
type pace struct{ n int }

const (
	stepTime = 5 * time.Millisecond
	stepMin  = 16
	stepMax  = 500
)

func (p *pace) size() int { return max(p.n, stepMin) }

func (p *pace) took(d time.Duration) {
	switch {
	case d > stepTime:
		p.n = max(p.n/2, stepMin)
	case d < stepTime/2:
		p.n = min(max(p.n, stepMin)*2, stepMax)
	}
}

// keepEvery is how often the limits are looked after while something is
// written, and keepIdle how often otherwise.
const (
	keepEvery = time.Second
	keepIdle  = time.Minute
)

// runKeeper looks after the limits until ctx ends.
func (j *Journal) runKeeper(ctx context.Context) {
	defer j.settled.Done()
	k := keeper{j: j}
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			written := j.written.Load()
			if written == k.written && j.refusal.Load() == nil && now.Sub(k.last) < keepIdle {
				continue
			}
			k.written, k.last = written, now
			if err := j.watch(k.round(ctx, now)); err != nil && ctx.Err() == nil {
				j.log.Error("looking after the journal's limits failed, it is tried again", "err", err)
			}
		}
	}
}

// round brings everything within its limits, or refuses events until it is.
func (k *keeper) round(ctx context.Context, now time.Time) error {
	k.reasons = nil
	k.reserve()
	err := errors.Join(k.forget(ctx, now), k.backlogs(ctx, now), k.deadLetters(ctx, now), k.forgetIDs(ctx, now), k.retain(ctx, now))
	if err == nil {
		err = k.vacuum(ctx)
	}
	k.j.refuse(k.reasons)
	return errors.Join(err, k.measure(ctx, now))
}

func (k *keeper) backlogs(ctx context.Context, now time.Time) error {
	var errs []error
	for _, c := range k.j.allCursors() {
		refusal, err := c.overflow(ctx, now)
		if refusal != "" {
			k.reasons = append(k.reasons, refusal)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// refuse makes Append return ErrFull with the reasons, or accept if there are
// none.
func (j *Journal) refuse(reasons []string) {
	was := j.refusal.Load()
	if len(reasons) == 0 {
		if was != nil {
			j.refusal.Store(nil)
			j.log.Info("events are accepted again")
		}
		return
	}
	err := fmt.Errorf("%w: %s", ErrFull, strings.Join(reasons, "; "))
	j.refusal.Store(&err)
	if was == nil {
		j.log.Error("events are refused", "err", err)
	}
}

// steps repeats step until it does less than it was asked for. Each runs in
// the writer's transaction between appends.
func (k *keeper) steps(ctx context.Context, p *pace, step func(s *store, limit int) (done int, err error)) error {
	for ctx.Err() == nil {
		asked, done := p.size(), 0
		var took time.Duration
		err := k.j.submitChange(ctx, &request{upkeep: true, apply: func(s *store) (err error) {
			began := time.Now()
			done, err = step(s, asked)
			took = time.Since(began)
			return err
		}})
		if err != nil || done < asked {
			return err
		}
		p.took(took)
	}
	return nil
}

// forgetIDs deletes the oldest ids beyond the limits of age and number.
func (k *keeper) forgetIDs(ctx context.Context, now time.Time) error {
	limits := k.j.config.Dedupe
	old, lowest := now.Add(-limits.Age).UnixMicro(), k.j.head.Load()-int64(limits.IDs)
	return k.steps(ctx, &k.ids, func(s *store, limit int) (int, error) {
		last, done, err := s.prefix("SELECT seq, seen FROM ids ORDER BY seq LIMIT ?", func(seq, seen int64) bool {
			return seq <= lowest || seen < old
		}, limit)
		if err != nil || done == 0 {
			return 0, err
		}
		return done, s.exec("DELETE FROM ids WHERE seq <= ?", last)
	})
}

// needed is true for an event that something refers to.
const needed = `(EXISTS (SELECT 1 FROM retries r WHERE r.seq = events.seq) OR EXISTS (SELECT 1 FROM parked p WHERE p.seq = events.seq)
	OR EXISTS (SELECT 1 FROM requeued q WHERE q.seq = events.seq) OR EXISTS (SELECT 1 FROM dead_letters d WHERE d.seq = events.seq AND d.seq > 0))`

// retain deletes the oldest events that nobody needs any more, beyond the
// limits of age and size.
func (k *keeper) retain(ctx context.Context, now time.Time) error {
	if now.Sub(k.sweptAt) >= keepIdle { // what was needed then may be free now
		k.swept, k.sweptAt = 0, now
	}
	if k.j.salvaging.Load() { // what is needed is not all known yet
		return nil
	}
	limits := k.j.config.Retention
	old := now.Add(-limits.Age).UnixMicro()
	if err := k.sweep(ctx, func(received int64) bool { return received < old }); err != nil {
		return err
	}
	for first := true; ; first = false {
		live, _, err := k.j.bytes(ctx)
		if err != nil || live <= limits.Size {
			return err
		}
		before := k.swept
		// A step at a time, because what it frees is known only afterwards.
		average := live / sdk.Size(max(k.j.head.Load()-k.swept, 1))
		budget := min(k.events.size(), int((live-limits.Size)/max(average, 1))+1)
		err = k.sweep(ctx, func(int64) bool { budget--; return budget >= 0 })
		switch {
		case err != nil:
			return err
		case k.swept > before:
		case first && k.swept > 0:
			k.swept, k.sweptAt = 0, now
		default:
			k.reasons = append(k.reasons, fmt.Sprintf(
				"%d MiB are in use and the limit is %d MiB, and all of it is still needed: see to the forwarders that are behind, discard dead letters, or raise journal.retention.size",
				live>>20, limits.Size>>20))
			return nil
		}
	}
}

// sweep deletes events from the oldest on, as long as they are settled by every
// forwarder and drop, which is called with the time they were received, is
// true. It steps over events that are needed.
func (k *keeper) sweep(ctx context.Context, drop func(received int64) bool) error {
	return k.steps(ctx, &k.events, func(s *store, limit int) (int, error) {
		floor, err := s.floor(k.j.head.Load())
		if err != nil {
			return 0, err
		}
		last, done, err := s.prefix("SELECT seq, received FROM events WHERE seq > ? ORDER BY seq LIMIT ?", func(seq, received int64) bool {
			return seq <= floor && drop(received)
		}, k.swept, limit)
		if err != nil || done == 0 {
			return 0, err
		}
		if err := s.exec("DELETE FROM events WHERE seq > ? AND seq <= ? AND NOT "+needed, k.swept, last); err != nil {
			return 0, err
		}
		k.swept = last
		return done, nil
	})
}

// floor is the number up to which every forwarder has settled everything, on
// disk.
func (s *store) floor(head int64) (floor int64, err error) {
	err = s.write.QueryRowContext(context.Background(), "SELECT coalesce(min(watermark), ?) FROM cursors WHERE forgotten = 0", head).Scan(&floor)
	return floor, err
}

// prefix counts the rows of the query, which have two integers, as long as keep
// is true, and returns the first integer of the last of them.
func (s *store) prefix(query string, keep func(a, b int64) bool, args ...any) (last int64, n int, err error) {
	rows, err := s.write.QueryContext(context.Background(), query, args...)
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var a, b int64
		if err := rows.Scan(&a, &b); err != nil {
			return 0, 0, err
		}
		if !keep(a, b) {
			break
		}
		last, n = a, n+1
	}
	return last, n, rows.Err()
}

func (s *store) exec(query string, args ...any) error {
	_, err := s.write.ExecContext(context.Background(), query, args...)
	return err
}

// freeBytes is how much of the file may be free before it is made smaller: what
// is free is used again, and moving pages costs.
const freeBytes = 64 << 20

// vacuum gives free pages back to the file system, beyond freeBytes and an
// eighth of the file.
func (k *keeper) vacuum(ctx context.Context) error {
	live, free, err := k.j.bytes(ctx)
	if err != nil || free <= max(freeBytes, (live+free)/8) {
		return err
	}
	surplus := (free - freeBytes) / pageBytes
	return k.steps(ctx, &k.pages, func(s *store, limit int) (int, error) {
		n := min(limit, int(surplus))
		surplus -= sdk.Size(n)
		if n == 0 {
			return 0, nil
		}
		rows, err := s.write.QueryContext(context.Background(), fmt.Sprintf("PRAGMA incremental_vacuum(%d)", n))
		if err != nil {
			return 0, err
		}
		defer rows.Close()
		for rows.Next() { // a page each
		}
		return n, rows.Err()
	})
}

// pageBytes is SQLite's page size, which the journal leaves as it is.
const pageBytes = 4096

// bytes is how much of the file is in use, and how much is free.
func (j *Journal) bytes(ctx context.Context) (live, free sdk.Size, err error) {
	j.opening.RLock()
	defer j.opening.RUnlock()
	var pages, unused int64
	err = j.store.read.QueryRowContext(ctx, "SELECT (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM pragma_freelist_count)").Scan(&pages, &unused)
	if err != nil {
		return 0, 0, fmt.Errorf("measure the journal: %w", err)
	}
	return sdk.Size(pages-unused) * pageBytes, sdk.Size(unused) * pageBytes, nil
}

// measure sets the gauges.
func (k *keeper) measure(ctx context.Context, now time.Time) error {
	live, free, err := k.j.bytes(ctx)
	if err != nil {
		return err
	}
	m := k.j.metrics
	m.liveBytes.Set(float64(live))
	m.freeBytes.Set(float64(free))
	k.j.opening.RLock()
	defer k.j.opening.RUnlock()
	for query, gauge := range map[string]interface{ Set(float64) }{
		"SELECT received FROM events ORDER BY seq LIMIT 1": m.oldestSeconds,
		"SELECT seen FROM ids ORDER BY seq LIMIT 1":        m.horizonSeconds,
	} {
		var at int64
		switch err := k.j.store.read.QueryRowContext(ctx, query).Scan(&at); {
		case errors.Is(err, sql.ErrNoRows):
			gauge.Set(0)
		case err != nil:
			return fmt.Errorf("measure the journal: %w", err)
		default:
			gauge.Set(now.Sub(fromMicros(at)).Seconds())
		}
	}
	return nil
}
