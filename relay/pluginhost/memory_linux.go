package pluginhost

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// measuresMemory says that max_memory can be kept.
const measuresMemory = true

// resident is the resident memory of a process, in bytes.
func resident(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data)) // proc(5): total, resident, … in pages
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm has %d fields", pid, len(fields))
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
