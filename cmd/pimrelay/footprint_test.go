//go:build linux && !race

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The README states what a release weighs on disk and at rest.
const (
	largestBinary = 36 << 20
	largestAtRest = 48 << 20
)

func TestFootprint(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "pimrelay")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > largestBinary {
		t.Errorf("the binary has %d bytes, more than %d", info.Size(), largestBinary)
	}
	file, _ := writeConfig(t, "http://127.0.0.1:1/")
	c := startCommand(t, func(cmd *exec.Cmd) { cmd.Path, cmd.Args = binary, []string{binary, "run", "-c", file} })
	c.logged("the door is open")
	atRest := resident(t, c.Process.Pid)
	if atRest > largestAtRest {
		t.Errorf("at rest it takes %d bytes of memory, more than %d", atRest, largestAtRest)
	}
	t.Logf("binary %.1f MB, memory at rest %.1f MiB", float64(info.Size())/1e6, float64(atRest)/(1<<20))
	c.signal()
	c.end(time.Minute)
}

// resident is the memory of a process in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	t.Fatalf("no VmRSS in\n%s", status)
	return 0
}
