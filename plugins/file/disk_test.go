package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// disk is a file on a disk whose next operations fail as told. It fails after
// having done the thing, in the way that is worse for the caller.
type disk struct {
	*os.File
	mu                    sync.Mutex
	write, sync, truncate error // guarded by mu
	hang                  chan struct{}
	syncs                 int // guarded by mu
}

func (d *disk) set(write, sync, truncate error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write, d.sync, d.truncate = write, sync, truncate
}

func (d *disk) Write(p []byte) (int, error) {
	d.mu.Lock()
	err, hang := d.write, d.hang
	d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if err == nil {
		return d.File.Write(p)
	}
	n, _ := d.File.Write(p[:len(p)/2])
	return n, err
}

func (d *disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs++
	return errors.Join(d.File.Sync(), d.sync)
}

func (d *disk) Truncate(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.truncate != nil {
		return d.truncate
	}
	return d.File.Truncate(size)
}

// onDisk is a forwarder that writes through d.
func onDisk(t *testing.T, path, fsync string, d *disk) *forwarder {
	t.Helper()
	f := New(slog.New(slog.DiscardHandler)).(*forwarder)
	f.open = func(path string, mode fs.FileMode) (handle, error) {
		opened, err := openFile(path, mode)
		if err != nil {
			return nil, err
		}
		d.File = opened.(*os.File)
		return d, nil
	}
	raw := json.RawMessage(fmt.Sprintf(`{"path":%q,"fsync":%q}`, path, fsync))
	if err := f.Configure(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFailedWriteLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		write, sync, truncate error
		reason                string
	}{
		"disk full":                  {syscall.ENOSPC, nil, nil, "no space left on device"},
		"short write":                {syscall.EIO, nil, nil, "input/output error"},
		"fsync":                      {nil, syscall.EIO, nil, "input/output error"},
		"disk full, and no cutting":  {syscall.ENOSPC, nil, syscall.EIO, "no space left on device (and what was written stays, for it cannot be cut off: input/output error)"},
		"short write without reason": {errShort, nil, nil, "short write"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "events.jsonl")
			d := &disk{}
			f := onDisk(t, path, "batch", d)
			wantDelivered(t, f, `"kept"`)
			d.set(test.write, test.sync, test.truncate)
			wantRetry(t, f, test.reason)
			if test.truncate == nil {
				wantContent(t, path, "\"kept\"\n")
			}
			d.set(nil, nil, nil)
			wantDelivered(t, f, `"after"`)
			closeNow(t, f)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(string(content), "\n")
			for _, line := range lines[:len(lines)-1] {
				if !json.Valid([]byte(line)) {
					t.Errorf("there is a torn line %q in %q", line, content)
				}
			}
			if lines[0] != `"kept"` || lines[len(lines)-2] != `"after"` {
				t.Errorf("unexpected content %q", content)
			}
		})
	}
}

var errShort = errors.New("short write")

func TestFsync(t *testing.T) {
	t.Parallel()
	for fsync, want := range map[string][2]int{"batch": {2, 3}, "never": {0, 1}} {
		d := &disk{}
		f := onDisk(t, filepath.Join(t.TempDir(), "events.jsonl"), fsync, d)
		wantDelivered(t, f, `1`, `2`, `3`)
		wantDelivered(t, f, `4`)
		got := [2]int{d.syncs, 0}
		closeNow(t, f)
		got[1] = d.syncs
		if got != want {
			t.Errorf("fsync: %s makes %d syncs before and %d after Close, want %v", fsync, got[0], got[1], want)
		}
	}
}

func TestCloseReportsLostLines(t *testing.T) {
	t.Parallel()
	d := &disk{}
	f := onDisk(t, filepath.Join(t.TempDir(), "events.jsonl"), "never", d)
	wantDelivered(t, f, `1`)
	d.set(nil, syscall.EIO, nil)
	if err := f.Close(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("close gave %v, want the disk's error", err)
	}
}

func TestHangingDiskHoldsNobody(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	d := &disk{hang: make(chan struct{})}
	f := onDisk(t, path, "batch", d)
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		ctx    func() context.Context
		reason string
	}{
		{soon, "the write takes too long: context deadline exceeded"},
		{soon, "another write still hangs: context deadline exceeded"},
		{func() context.Context { return over }, "not written: context canceled"},
	} {
		got := f.Deliver(test.ctx(), batch(`1`))
		if len(got) != 1 || got[0].Result != sdk.ResultRetry || !strings.Contains(got[0].Reason, test.reason) {
			t.Errorf("got %+v, want a retry because of %q", got, test.reason)
		}
	}
	if err := f.Close(soon()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close gave %v, want the deadline's error", err)
	}
	close(d.hang)
	wantDelivered(t, f, `2`)
	closeNow(t, f)
	wantContent(t, path, "1\n2\n")
}
