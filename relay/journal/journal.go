package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pimrelay/pimrelay/sdk"
)

// FileName is the name of the database below the data directory.
const FileName = "journal.db"

// ErrClosed is returned by everything that is called after Close.
var ErrClosed = errors.New("the journal is closed")

// ErrNotPromised is returned by Append when its context ended before the event
// was known to be on disk. The event may be stored all the same.
var ErrNotPromised = errors.New("not on disk in time")

// LockedError says that another process uses the data directory.
type LockedError struct{ Dir string }

func (e *LockedError) Error() string {
	return fmt.Sprintf("data_dir %s is in use by another pimrelay: stop it first, or give this one a directory of its own", e.Dir)
}

// Options are what Open needs besides the directory.
type Options struct {
	// Config is valid; the zero value means the defaults.
	Config     Config
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	// salvageOnly is true where the limits are unknown: nothing is deleted.
	salvageOnly bool
}

// Receipt says what became of an appended event.
type Receipt struct {
	// Seq is the event's number in the journal; 0 for a duplicate.
	Seq int64
	// Duplicate is true if the journal had the event already.
	Duplicate bool
}

// Journal is an open journal. All methods may be called concurrently.
type Journal struct {
	path    string
	lock    *flock.Flock
	log     *slog.Logger
	metrics *metrics
	config  Config

	gate   sync.RWMutex  // held for reading while something is put into queue
	closed bool          // guarded by gate
	queue  chan *request // to the writer goroutine
	done   chan struct{} // closed when the writer has ended

	opening sync.RWMutex // held for reading while store.read is in use
	store   *store       // guarded by opening; written by the writer goroutine

	head       atomic.Int64 // the highest committed sequence number
	total      atomic.Int64 // the total of the event that has it
	duplicates atomic.Int64
	written    atomic.Int64          // requests, but for the keeper's
	refusal    atomic.Pointer[error] // why events are refused, or nil
	noRoom     atomic.Bool           // the disk is full and the reserve given up
	reserved   int64                 // a fresh journal would start above it; the writer's
	damage     atomic.Pointer[string]
	damageSeen atomic.Bool // damage was met at work
	tail       tail

	creating sync.Mutex // held while a cursor is made

	// settling is held from the moment when the changes of a cursor are
	// collected until they are on disk, so that they are written in order.
	settling sync.Mutex

	mu      sync.Mutex
	cursors map[string]*Cursor // guarded by mu
	dead    map[int64]tally    // guarded by mu; by cursor
	hurry   chan struct{}      // wakes the settler before its time
	settled sync.WaitGroup     // of the settler and the keeper
	stop    chan struct{}

	salvageOnly bool

	salvaging atomic.Bool   // a damaged file is being salvaged: nothing is deleted
	keeping   sync.Once     // closes kept
	kept      chan struct{} // closed when the forwarders are known
	salvaged  chan struct{} // closed when the salvage has ended
	results   []Salvage     // of the salvage, when it has ended
}

// queueLength bounds the requests that wait for the writer; beyond it Append
// waits for a place.
const queueLength = 1024

// Open opens the journal in dir, which it makes if need be (0700), and locks
// dir: one process at a time, or a *LockedError. A database that is damaged is
// set aside for a fresh one, see Damage; what can be read of it comes back in
// the background after the first call of Keep.
func Open(ctx context.Context, dir string, opt Options) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data_dir: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "lock"), flock.SetPermissions(0o600))
	switch held, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("lock data_dir: %w", err)
	case !held:
		return nil, &LockedError{Dir: dir}
	}
	j := &Journal{
		path: filepath.Join(dir, FileName), lock: lock, log: opt.Logger, metrics: newMetrics(opt.Registerer), config: opt.Config, salvageOnly: opt.salvageOnly,
		queue: make(chan *request, queueLength), done: make(chan struct{}),
		hurry: make(chan struct{}, 1), stop: make(chan struct{}), kept: make(chan struct{}), salvaged: make(chan struct{}),
	}
	if j.config == (Config{}) {
		j.config = Defaults()
	}
	err := j.setAside()
	if err == nil {
		err = j.start(ctx)
	}
	if isDamage(err) {
		if err = mark(j.path, err); err == nil {
			err = j.setAside()
		}
		if err == nil {
			err = j.start(ctx)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", j.path, err), lock.Unlock())
	}
	return j, nil
}

func (j *Journal) start(ctx context.Context) (err error) {
	j.cursors, j.dead = make(map[string]*Cursor), make(map[int64]tally)
	if j.reserved, err = readSequence(filepath.Dir(j.path)); err != nil {
		return err
	}
	if j.store, err = openStore(ctx, j.path); err != nil {
		return err
	}
	if err := os.Chmod(j.path, 0o600); err != nil {
		return errors.Join(err, j.store.close())
	}
	files, err := wrecks(j.path)
	for _, file := range files {
		if err := mendFirstPage(ctx, file); err != nil {
			j.log.Error("less can be salvaged than is there", "err", err)
		}
		if err == nil {
			err = j.store.adopt(ctx, file)
		}
	}
	if err == nil {
		err = j.load(ctx)
	}
	if err != nil {
		return errors.Join(err, j.store.close())
	}
	j.salvaging.Store(len(files) > 0)
	go j.runWriter()
	keeping, cancel := context.WithCancel(context.Background())
	j.settled.Add(2)
	if !j.salvageOnly {
		j.settled.Add(1)
		go j.runKeeper(keeping)
	}
	go j.runSalvage(keeping, files)
	go j.runSettler(cancel)
	return nil
}

// setAside sets the database aside if that is to be done, and says so.
func (j *Journal) setAside() error {
	reason, err := setAside(j.path)
	if err != nil || reason == "" {
		return err
	}
	j.tellDamage(fmt.Sprintf("the journal's file is damaged (%s): it was set aside, and what can be read of it is being salvaged", reason))
	j.log.Error("the journal is damaged, its file is set aside and a fresh one takes its place", "err", reason)
	return nil
}

// load takes up what the database says of the journal's end and of the
// forwarders' places.
func (j *Journal) load(ctx context.Context) error {
	end, err := lastPosition(ctx, j.store)
	if err != nil {
		return err
	}
	j.head.Store(end.seq)
	j.total.Store(end.total)
	j.tail.reset(end.seq)
	if err := j.loadTallies(ctx); err != nil {
		return err
	}
	return j.loadCursors(ctx, "true")
}

// position is a place among the events: a sequence number, and the sizes of
// all events up to it.
type position struct{ seq, total int64 }

func (j *Journal) end() position { return position{j.head.Load(), j.total.Load()} }

// lastPosition has the highest number ever used: the events themselves may have
// been deleted, and their ids forgotten.
func lastPosition(ctx context.Context, s *store) (end position, err error) {
	err = s.write.QueryRowContext(ctx, `SELECT max(
		coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0),
		coalesce((SELECT max(seq) FROM ids), 0),
		coalesce((SELECT max(watermark) FROM cursors), 0)),
		coalesce((SELECT total FROM events ORDER BY seq DESC LIMIT 1), 0)`).Scan(&end.seq, &end.total)
	if err != nil {
		return end, fmt.Errorf("read the last sequence number: %w", err)
	}
	return end, nil
}

// Close writes what has been settled, closes the database and releases the
// lock. Appends that are queued are stored first.
func (j *Journal) Close() error {
	j.gate.Lock()
	if j.closed {
		j.gate.Unlock()
		return ErrClosed
	}
	close(j.stop)
	j.gate.Unlock()
	j.settled.Wait() // the settler's last write still passes the gate

	j.gate.Lock()
	j.closed = true
	close(j.queue)
	j.gate.Unlock()
	<-j.done
	return errors.Join(j.store.close(), j.lock.Unlock())
}

// Append stores the event durably, or finds that it is there already. It keeps
// the event's body and headers, which nobody may change any more. It returns
// ErrNotPromised when ctx ends first, and ErrFull when a limit is reached.
func (j *Journal) Append(ctx context.Context, e *sdk.Event) (Receipt, error) {
	if refusal := j.refusal.Load(); refusal != nil {
		return Receipt{}, *refusal
	}
	kept := *e
	kept.Time, kept.Received = fromMicros(micros(e.Time)), fromMicros(micros(e.Received))
	kept.Payload, kept.Key, kept.Fields, kept.Attempt, kept.Replayed = kept.Body, "", nil, 0, false
	r, err := newRow(&kept)
	if err != nil {
		return Receipt{}, err
	}
	req := &request{row: r, hash: idHash(e.Source, e.ID), event: &kept, done: make(chan error, 1)}
	if err := j.submit(ctx, req); err != nil {
		return Receipt{}, err
	}
	return Receipt{Seq: req.seq, Duplicate: req.duplicate}, nil
}

// Head is the highest sequence number on disk.
func (j *Journal) Head() int64 { return j.head.Load() }

// Duplicates counts the events that were dropped as duplicates since Open.
func (j *Journal) Duplicates() int64 { return j.duplicates.Load() }

// DiskBytes is the size of the journal's files.
func (j *Journal) DiskBytes() int64 {
	var total int64
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(j.path + suffix); err == nil {
			total += info.Size()
		}
	}
	return total
}

// runSettler writes the cursors once a second, or when one asks for it. At the
// end it stops the keeper.
func (j *Journal) runSettler(stopKeeper context.CancelFunc) {
	defer j.settled.Done()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for stopped := false; !stopped; {
		select {
		case <-ticker.C:
		case <-j.hurry:
		case <-j.stop:
			stopKeeper()
			stopped = true
		}
		if err := j.settle(); err != nil {
			j.log.Error("settlements not written, they are kept and tried again", "err", err)
		}
	}
}

// settle writes what all cursors have settled in one transaction. What could
// not be written stays with the cursors and is written next time.
func (j *Journal) settle() error {
	j.settling.Lock()
	defer j.settling.Unlock()
	var pending []*settlements
	for _, c := range j.allCursors() {
		if p := c.collect(); p != nil {
			pending = append(pending, p)
		}
	}
	if len(pending) == 0 {
		return nil
	}
	err := j.apply(context.Background(), func(s *store) error {
		for _, p := range pending {
			if err := p.write(s); err != nil {
				return err
			}
		}
		return nil
	})
	for _, p := range pending {
		p.finish(err)
	}
	return err
}

func (j *Journal) allCursors() []*Cursor {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]*Cursor, 0, len(j.cursors))
	for _, c := range j.cursors {
		all = append(all, c)
	}
	return all
}
