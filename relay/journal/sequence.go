package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// sequenceName is a file that says which numbers may have been given to events,
// for a journal that has to start anew because its database is damaged. It is
// written, with an fsync, once for a whole block of numbers.
const sequenceName = "sequence"

// sequenceBlock is how many numbers are reserved at a time.
const sequenceBlock = 1_000_000

// readSequence is the highest number that may have been given according to the
// file in dir, and 0 if there is no file that can be read.
func readSequence(dir string) (int64, error) {
	content, err := os.ReadFile(filepath.Join(dir, sequenceName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the reserved sequence numbers: %w", err)
	}
	var upTo int64
	var sum uint32
	if _, err := fmt.Sscanf(string(content), "%d %08x\n", &upTo, &sum); err != nil || upTo < 0 || sum != sequenceSum(upTo) {
		return 0, nil // as good as missing: the database says
	}
	return upTo, nil
}

func sequenceSum(upTo int64) uint32 { return crc32.Checksum(fmt.Append(nil, upTo), castagnoli) }

// writeSequence puts upTo on disk.
func writeSequence(dir string, upTo int64) error {
	if err := replaceFile(filepath.Join(dir, sequenceName), fmt.Appendf(nil, "%d %08x\n", upTo, sequenceSum(upTo))); err != nil {
		return fmt.Errorf("reserve sequence numbers: %w", err)
	}
	return nil
}

// replaceFile writes a small file so that after a crash there is either the old
// one or the new one.
func replaceFile(path string, content []byte) error {
	next := path + ".new"
	file, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// reserveNumbers makes sure, before an event with the number seq is committed,
// that a fresh journal would start above it. Only the writer calls it.
func (j *Journal) reserveNumbers(seq int64) error {
	if seq <= j.reserved {
		return nil
	}
	if err := writeSequence(filepath.Dir(j.path), seq+sequenceBlock); err != nil {
		return err
	}
	j.reserved = seq + sequenceBlock
	return nil
}
