//go:build !linux

package pluginhost

import "errors"

// measuresMemory says that max_memory cannot be kept.
const measuresMemory = false

func resident(int) (int64, error) { return 0, errors.ErrUnsupported }
