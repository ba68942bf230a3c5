package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// firstPageSuffix is given to a copy of a damaged file's first page that was
// replaced.
const firstPageSuffix = ".page1"

// mendFirstPage replaces the first page of a file that was set aside and is no
// database any more, by that of a journal that has just been made. All journals
// of a format have the same first page, but for numbers that reading does not
// need: with it, what else the file has can be read.
func mendFirstPage(ctx context.Context, path string) error {
	w, err := openWreck(path)
	if err != nil {
		return err
	}
	err = w.db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(new(int))
	if err := w.close(); err != nil {
		return err
	}
	info, statErr := os.Stat(path)
	if statErr != nil {
		return statErr
	}
	if !isDamage(err) || info.Size() < 2*pageBytes {
		return nil
	}
	page, err := firstPage(ctx, filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("mend %s: %w", path, err)
	}
	binary.BigEndian.PutUint32(page[28:], uint32(info.Size()/pageBytes)) // the size of the database in pages
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	old := make([]byte, pageBytes)
	_, err = file.ReadAt(old, 0)
	if err == nil {
		err = replaceFile(path+firstPageSuffix, old)
	}
	if err == nil {
		_, err = file.WriteAt(page, 0)
	}
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	return nil
}

// firstPage is the first page of an empty journal.
func firstPage(ctx context.Context, dir string) (page []byte, err error) {
	dir, err = os.MkdirTemp(dir, "firstpage")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, FileName)
	s, err := openStore(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := s.close(); err != nil { // the log goes into the file
		return nil, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return content[:pageBytes], nil
}
