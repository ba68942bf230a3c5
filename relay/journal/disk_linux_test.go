package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk is a file system of that size, which goes with the test.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, options)
	if errors.Is(err, unix.EPERM) {
		t.Skip("a small file system can only be mounted by root: run the tests as root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// soon waits for what the keeper does once a second.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out: %s", what)
		}
	}
}

// A disk that is really full: nothing is acknowledged that is not there, what is
// settled is written in the room of the reserve, and when there is room again
// everything goes on.
func TestDiskWithoutRoom(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "size=160m")
	j := open(t, dir)
	c := mustCursor(t, j, "shop", Start{})
	mustAppend(t, j, event(0))
	reserve := filepath.Join(dir, reserveName)
	soon(t, "the reserve is made", func() bool {
		info, err := os.Stat(reserve)
		return err == nil && info.Size() == reserveBytes
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 200<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	info, err := os.Stat(ballast)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(ballast, info.Size()-4<<20); err != nil { // room for some
		t.Fatal(err)
	}
	acknowledged := 1
	for err == nil {
		e := event(acknowledged)
		e.Body = make([]byte, 64<<10)
		if _, err = j.Append(context.Background(), e); err == nil {
			acknowledged++
		}
	}
	if acknowledged < 10 {
		t.Fatalf("only %d events were acknowledged before %v", acknowledged, err)
	}
	soon(t, "the reserve is given up", func() bool {
		_, err := os.Stat(reserve)
		return errors.Is(err, os.ErrNotExist)
	})
	c.Delivered(seqs(next(t, c, time.Now(), 1))...)
	if err := j.settle(); err != nil {
		t.Errorf("settlements on a full disk: %v", err)
	}
	if _, err := j.Append(context.Background(), event(10_000)); err == nil {
		t.Error("an event was acknowledged without a reserve")
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	soon(t, "events are taken again", func() bool {
		_, err := j.Append(context.Background(), event(10_001))
		return err == nil
	})
	closeJournal(t, j)
	j = open(t, dir)
	if got := len(next(t, mustCursor(t, j, "shop", Start{}), time.Now(), acknowledged+10)); got != acknowledged { // one was settled, one has come since
		t.Errorf("%d events are there, want %d", got, acknowledged)
	}
}
