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
	// Another change.
	apply func(*store) error

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
// disk.
func (j *Journal) apply(ctx context.Context, change func(*store) error) error {
	return j.submit(ctx, &request{apply: change, done: make(chan error, 1)})
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
	head, err := w.transact()
	if err == nil {
		w.j.publish(w.group, head)
		w.j.duplicates.Add(w.j.metrics.committed(w.group, time.Since(began)))
	} else {
		w.broken = true
		w.j.metrics.commitErrors.Inc()
		w.j.log.Error("commit failed, the journal is reopened before the next one", "err", err)
	}
	for i, r := range w.group {
		r.done <- err
		w.group[i] = nil
	}
}

func (w *writer) transact() (head int64, err error) {
	if w.broken {
		if err := w.j.reopen(); err != nil {
			return 0, err
		}
		w.broken = false
	}
	s, head := w.j.store, w.j.head.Load()
	if _, err := s.begin.Exec(); err != nil {
		return 0, fmt.Errorf("begin: %w", err)
	}
	for _, r := range w.group {
		if r.apply != nil {
			err = r.apply(s)
		} else {
			head, err = r.insert(s, head)
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		if _, err = s.commit.Exec(); err == nil {
			return head, nil
		}
		err = fmt.Errorf("commit: %w", err)
	}
	if _, rollback := s.rollback.Exec(); rollback != nil && !errors.Is(rollback, sql.ErrTxDone) {
		w.j.log.Debug("rollback after a failed commit", "err", rollback)
	}
	return 0, err
}

// insert stores the request's event under the number after head, unless its id
// is known, and returns the new head.
func (r *request) insert(s *store, head int64) (int64, error) {
	seq := head + 1
	result, err := s.insertID.Exec(seq, r.hash, r.row.received)
	if err != nil {
		return head, fmt.Errorf("remember id: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil {
		return head, fmt.Errorf("remember id: %w", err)
	} else if n == 0 {
		r.duplicate = true
		return head, nil
	}
	e := r.row
	e.seq = seq
	_, err = s.insertEvent.Exec(seq, e.source, e.id, e.kind, e.subject, e.time, e.received, e.entity, e.extra, e.body, int64(e.checksum))
	if err != nil {
		return head, fmt.Errorf("insert event: %w", err)
	}
	r.seq = seq
	return seq, nil
}

// publish makes committed events visible to the cursors.
func (j *Journal) publish(group []*request, head int64) {
	if head == j.head.Load() {
		return
	}
	j.tail.add(group)
	j.head.Store(head)
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
	head, err := lastSeq(context.Background(), next)
	if err != nil {
		return errors.Join(fmt.Errorf("reopen journal: %w", err), next.close())
	}
	j.store = next
	if head != j.head.Load() {
		j.tail.reset(head)
		j.head.Store(head)
		for _, c := range j.allCursors() {
			c.wakeUp()
		}
	}
	j.log.Warn("journal reopened", "head", head)
	return nil
}
