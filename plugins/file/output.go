package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// handle is what output needs of an open file; *os.File has it.
type handle interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Sync() error
	Truncate(size int64) error
}

type opener func(path string, mode fs.FileMode) (handle, error)

// openFile opens path for appending and creates it if need be.
func openFile(path string, mode fs.FileMode) (handle, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, mode)
	if err != nil {
		return nil, err // not f: a nil *os.File would be no nil handle
	}
	return f, nil
}

// output is the file and the lock that makes this the only writer. It is not
// safe for concurrent use.
type output struct {
	path   string // absolute
	mode   fs.FileMode
	sync   bool // fsync each batch
	open   opener
	logger *slog.Logger

	file handle // nil: not open
	lock *flock.Flock
}

// append writes batch, whole lines, at the end of the file. After an error the
// file is as long as it was, as far as the disk allows, and closed: the next
// append opens it anew and looks at its end.
func (o *output) append(batch []byte) error {
	if err := o.ensureOpen(); err != nil {
		return err
	}
	info, err := o.file.Stat()
	if err != nil {
		o.release()
		return fmt.Errorf("look at the open file: %w", err)
	}
	if err := o.write(batch); err != nil {
		if undo := o.file.Truncate(info.Size()); undo != nil {
			err = fmt.Errorf("%w (and what was written stays, for it cannot be cut off: %w)", err, undo)
		}
		o.release()
		return err
	}
	return nil
}

func (o *output) write(batch []byte) error {
	if n, err := o.file.Write(batch); err != nil {
		return err
	} else if n < len(batch) {
		return fmt.Errorf("write %s: %w", o.path, io.ErrShortWrite)
	}
	if o.sync {
		return o.file.Sync()
	}
	return nil
}

// ensureOpen opens the file if it is not open, or if the path leads to another
// one by now because somebody has renamed or deleted ours.
func (o *output) ensureOpen() error {
	if o.file == nil {
		return o.reopen()
	}
	same, err := o.stillThere()
	if err != nil || same {
		return err
	}
	o.logger.Info("file was moved away, beginning a new one")
	if err := o.close(); err != nil {
		// Its lines were durable already with fsync: batch. With never,
		// nothing can bring them back.
		o.logger.Warn("file that was moved away may be incomplete", "err", err)
	}
	return o.reopen()
}

func (o *output) stillThere() (bool, error) {
	named, err := os.Stat(o.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	open, err := o.file.Stat()
	return err == nil && os.SameFile(named, open), err
}

func (o *output) reopen() error {
	named, err := os.Stat(o.path)
	if err == nil && !named.Mode().IsRegular() {
		return fmt.Errorf("%s is a %s: move it away or change path", o.path, kindOf(named.Mode()))
	}
	o.file, err = o.open(o.path, o.mode)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("directory %s does not exist: create it, or mount what belongs there", filepath.Dir(o.path))
	}
	if err != nil {
		return err
	}
	if err := o.prepare(); err != nil {
		o.release()
		return err
	}
	return nil
}

// prepare makes the file that has just been opened ours alone, whole and, for
// it may be new, durable under its name.
func (o *output) prepare() error {
	if err := o.takeLock(); err != nil {
		return err
	}
	if err := o.cutTornLine(); err != nil {
		return fmt.Errorf("look for a torn line: %w", err)
	}
	if o.sync {
		return syncDirectory(filepath.Dir(o.path))
	}
	return nil
}

// takeLock locks the file itself rather than a file beside it, so that writers
// which come by different links meet.
func (o *output) takeLock() error {
	lock := flock.New(o.path, flock.SetFlag(os.O_RDONLY))
	locked, err := lock.TryLock()
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	if !locked {
		return fmt.Errorf("%s has another writer: give each forwarder and each process a file of its own", o.path)
	}
	o.lock = lock
	ours, err := o.file.Stat()
	if err != nil {
		return err
	}
	theirs, err := lock.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(ours, theirs) {
		return fmt.Errorf("%s was moved away while it was being opened", o.path)
	}
	return nil
}

// cutTornLine cuts off what follows the last line feed: a crash has left it
// there, and no event of it was reported as delivered.
func (o *output) cutTornLine() error {
	info, err := o.file.Stat()
	if err != nil {
		return err
	}
	end, err := endOfLines(o.file, info.Size())
	if err != nil || end == info.Size() {
		return err
	}
	o.logger.Warn("cut off a torn line that a crash has left", "bytes", info.Size()-end)
	return o.file.Truncate(end)
}

// endOfLines is the offset behind the last line feed before size, or 0.
func endOfLines(r io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for end := size; end > 0; {
		chunk := buf[:min(int64(len(buf)), end)]
		start := end - int64(len(chunk))
		if n, err := r.ReadAt(chunk, start); n < len(chunk) {
			return 0, err
		}
		if i := bytes.LastIndexByte(chunk, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// close makes the file durable and releases it.
func (o *output) close() error {
	if o.file == nil {
		return nil
	}
	err := o.file.Sync()
	if closing := o.release(); err == nil {
		err = closing
	}
	return err
}

// release closes the file and the lock as they are.
func (o *output) release() error {
	err := o.file.Close()
	o.file = nil
	if o.lock == nil {
		return err
	}
	if unlocking := o.lock.Close(); err == nil {
		err = unlocking
	}
	o.lock = nil
	return err
}

// syncDirectory makes a new name in the directory survive a power cut.
func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	defer directory.Close()
	return directory.Sync()
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeNamedPipe != 0:
		return "named pipe"
	case mode&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}
