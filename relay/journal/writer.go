package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// The states of a request: only the one who leaves requestQueued decides what
// becomes of it.
const (
	requestQueued int32 = iota
	requestTaken
	requestWithdrawn
)

// request is one thing to write: an event, or changes of another kind.
type request struct {
	// An event.
	row   *row
	hash  []byte
	event *sdk.Event
	// Another change; upkeep is true for the keeper's, arrival for one that
	// is given up for others when there is no room.
	apply           func(*store) error
	upkeep, arrival bool

	state atomic.Int32
	done  chan error // buffered; receives once if the writer has taken it

	// Written by the writer before done receives.
	seq       int64
	duplicate bool
}

const (
	groupRequests = 512
	groupBytes    = 8 << 20
)

// submit queues the request and waits until it is on disk. When ctx ends first
// the request is withdrawn if the writer has not taken it.
func (j *Journal) submit(ctx context.Context, r *request) error {
	if err := j.enqueue(ctx, r); err != nil {
		return err
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
	}
	r.state.CompareAndSwap(requestQueued, requestWithdrawn)
	select {
	case err := <-r.done: // it was done at the same moment
		return err
	default:
		return fmt.Errorf("%w: %w", ErrNotPromised, ctx.Err())
	}
}

func (j *Journal) enqueue(ctx context.Context, r *request) error {
	j.gate.RLock()
	defer j.gate.RUnlock()
	if j.closed {
		return ErrClosed
	}
	select {
	case j.queue <- r:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotPromised, ctx.Err())
	}
}

// apply runs change in the writer's next transaction and returns when it is on
// disk. When ctx ends before change has begun it never begins.
func (j *Journal) apply(ctx context.Context, change func(*store) error) error {
	return j.submitChange(ctx, &request{apply: change})
}

// submitChange is apply for a request.
func (j *Journal) submitChange(ctx context.Context, r *request) error {
	r.done = make(chan error, 1)
	if err := j.enqueue(ctx, r); err != nil {
		return err
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
	}
	if r.state.CompareAndSwap(requestQueued, requestWithdrawn) {
		return fmt.Errorf("%w: %w", ErrNotPromised, ctx.Err())
	}
	return <-r.done
}

// runWriter is the goroutine that writes. It ends when the queue is closed and
// empty.
func (j *Journal) runWriter() {
	defer close(j.done)
	w := writer{j: j}
	for first := range j.queue {
		w.group = append(w.group[:0], first)
		w.gather()
		w.commit()
	}
}

type writer struct {
	j     *Journal
	group []*request
	// broken is set when a commit has failed: the store is replaced before
	// anything else is written.
	broken bool
}

// gather adds what is queued already to the group, up to its limits, and
// leaves out what was withdrawn.
func (w *writer) gather() {
	size := 0
	taken := w.group[:0]
	take := func(r *request) {
		if r.state.CompareAndSwap(requestQueued, requestTaken) {
			taken = append(taken, r)
			if r.row != nil {
				size += len(r.row.body)
			}
		}
	}
	take(w.group[0])
	for len(taken) < groupRequests && size < groupBytes {
		select {
		case r, ok := <-w.j.queue:
			if !ok {
				w.group = taken
				return
			}
			take(r)
			continue
		default:
		}
		break
	}
	w.group = taken
}

// commit writes the group in one transaction and answers each request.
func (w *writer) commit() {
	if len(w.group) == 0 {
		return
	}
	began := time.Now()
	end, err := w.transact()
	if isFull(err) {
		w.j.outOfRoom()
		w.dropArrivals(fmt.Errorf("%w: %s", ErrFull, noRoom))
		end, err = w.transact()
	}
	switch {
	case err == nil:
		w.j.publish(w.group, end)
		w.j.duplicates.Add(w.j.metrics.committed(w.group, time.Since(began)))
	case isFull(err):
		w.j.metrics.commitErrors.Inc()
		w.j.log.Error("commit failed for want of room", "err", err)
	default:
		w.broken = true
		err = w.j.watch(err)
		w.j.metrics.commitErrors.Inc()
		w.j.log.Error("commit failed, the journal is reopened before the next one", "err", err)
	}
	for i, r := range w.group {
		w.answer(r, err)
		w.group[i] = nil
	}
}

func (w *writer) answer(r *request, err error) {
	if !r.upkeep {
		w.j.written.Add(1)
	}
	r.done <- err
}

// dropArrivals answers everything that came from outside and leaves the rest of
// the group.
func (w *writer) dropArrivals(err error) {
	rest := w.group[:0]
	for _, r := range w.group {
		if r.arrival || r.apply == nil {
			w.answer(r, err)
		} else {
			rest = append(rest, r)
		}
	}
	w.group = rest
}

func (w *writer) transact() (end position, err error) {
	if w.broken {
		if err := w.j.reopen(); err != nil {
			return end, err
		}
		w.broken = false
	}
	s, end := w.j.store, w.j.end()
	if _, err := s.begin.Exec(); err != nil {
		return end, fmt.Errorf("begin: %w", err)
	}
	for _, r := range w.group {
		if r.apply != nil {
			err = r.apply(s)
		} else {
			end, err = r.insert(s, end)
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		err = w.j.reserveNumbers(end.seq)
	}
	if err == nil {
		if _, err = s.commit.Exec(); err == nil {
			return end, nil
		}
		err = fmt.Errorf("commit: %w", err)
	}
	if _, rollback := s.rollback.Exec(); rollback != nil && !errors.Is(rollback, sql.ErrTxDone) {
		w.j.log.Debug("rollback after a failed commit", "err", rollback)
	}
	return end, err
}

// insert stores the request's event behind end, unless its id is known, and
// returns the new end.
func (r *request) insert(s *store, end position) (position, error) {
	seq := end.seq + 1
	result, err := s.insertID.Exec(seq, r.hash, r.row.received)
	if err != nil {
		return end, fmt.Errorf("remember id: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil {
		return end, fmt.Errorf("remember id: %w", err)
	} else if n == 0 {
		r.duplicate = true
		return end, nil
	}
	e := r.row
	e.seq, e.total = seq, end.total+e.size()
	_, err = s.insertEvent.Exec(seq, e.source, e.id, e.kind, e.subject, e.time, e.received, e.entity, e.extra, e.body, e.total, int64(e.checksum))
	if err != nil {
		return end, fmt.Errorf("insert event: %w", err)
	}
	r.seq = seq
	return position{seq, e.total}, nil
}

// publish makes committed events visible to the cursors.
func (j *Journal) publish(group []*request, end position) {
	if end.seq == j.head.Load() {
		return
	}
	j.tail.add(group)
	j.total.Store(end.total)
	j.head.Store(end.seq)
	for _, c := range j.allCursors() {
		c.wakeUp()
	}
}

// reopen replaces the store. Readers wait meanwhile.
func (j *Journal) reopen() error {
	j.opening.Lock()
	defer j.opening.Unlock()
	if err := j.store.close(); err != nil {
		j.log.Debug("close of the journal after a failed commit", "err", err)
	}
	next, err := openStore(context.Background(), j.path)
	if err != nil {
		return fmt.Errorf("reopen journal: %w", err)
	}
	// A commit that reported a failure may be on disk all the same.
	end, err := lastPosition(context.Background(), next)
	if err != nil {
		return errors.Join(fmt.Errorf("reopen journal: %w", err), next.close())
	}
	j.store = next
	if end.seq != j.head.Load() {
		j.tail.reset(end.seq)
		j.total.Store(max(end.total, j.total.Load()))
		j.head.Store(end.seq)
		for _, c := range j.allCursors() {
			c.wakeUp()
		}
	}
	j.log.Warn("journal reopened", "head", end.seq)
	return nil
}
