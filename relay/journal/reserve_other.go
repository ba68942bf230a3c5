//go:build !linux

package journal

import "os"

// allocate takes room on the disk for size bytes of the file.
func allocate(file *os.File, size int64) error { return fill(file, size) }
