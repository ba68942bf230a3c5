package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// reserveName is a file that takes room on the disk, to be given up when the
// disk is full, so that settlements can still be written: without them nothing
// could ever be deleted.
const reserveName = "reserve"

const reserveBytes = 64 << 20

// isFull reports whether a commit failed for want of room. SQLite has then
// rolled it back and goes on.
func isFull(err error) bool {
	if errors.Is(err, syscall.ENOSPC) {
		return true
	}
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL
}

// makeReserve takes the room, unless that has been done.
func makeReserve(path string) (err error) {
	if info, err := os.Stat(path); err == nil && info.Size() == reserveBytes {
		return nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the reserve: %w", err)
	}
	// Twice the room has to be there, so that the journal does not run full
	// again at once.
	err = allocate(file, 2*reserveBytes)
	if err == nil {
		err = file.Truncate(reserveBytes)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("make the reserve: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// fill fills the file with size zeros, where the system has no other way to
// take the room.
func fill(file *os.File, size int64) error {
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := file.WriteAt(zeros, at); err != nil {
			return err
		}
	}
	return nil
}

func (j *Journal) reservePath() string { return filepath.Join(filepath.Dir(j.path), reserveName) }

// outOfRoom gives up the reserve and refuses events until there is room for a
// new one.
func (j *Journal) outOfRoom() {
	j.noRoom.Store(true)
	if err := os.Remove(j.reservePath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		j.log.Error("the reserve cannot be given up", "err", err)
	}
	j.refuse([]string{noRoom})
}

const noRoom = "the disk has no room left: free some, or move data_dir to a larger one"

// reserve takes the reserve back when there is room.
func (k *keeper) reserve() {
	switch err := makeReserve(k.j.reservePath()); {
	case err == nil:
		k.j.noRoom.Store(false)
		k.warned = false
	case k.j.noRoom.Load():
		k.reasons = append(k.reasons, noRoom)
	case !k.warned:
		k.warned = true
		k.j.log.Warn("no room on the disk for the journal's reserve", "err", err)
	}
}
