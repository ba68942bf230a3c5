//go:build unix

package file

import (
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pimrelay/pimrelay/sdk"
)

// limitedPath is set in the child process that runs under a file size limit.
const limitedPath = "PIMRELAY_TEST_LIMITED_PATH"

// A process at its file size limit meets what a full disk does: a write that
// ends early and then fails.
func TestWriteAtTheFileSizeLimit(t *testing.T) {
	if path := os.Getenv(limitedPath); path != "" {
		writeUnderLimit(t, path)
		return
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), limitedPath+"="+path)
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("the limited process: %v\n%s", err, out)
	}
	want := strings.Repeat("\"kept\"\n", 3) + "\"fits\"\n"
	wantContent(t, path, want)
}

func writeUnderLimit(t *testing.T, path string) {
	f := New(slog.New(slog.DiscardHandler)).(*forwarder)
	if err := f.Configure(t.Context(), []byte(`{"path":`+strconv.Quote(path)+`}`)); err != nil {
		t.Fatal(err)
	}
	wantDelivered(t, f, `"kept"`, `"kept"`, `"kept"`)
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limited := before
	limited.Cur = 30
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limited); err != nil {
		t.Fatal(err)
	}
	outcomes := f.Deliver(t.Context(), batch(`"first"`, `"second"`, `"third"`))
	for _, o := range outcomes {
		if o.Result != sdk.ResultRetry || !strings.Contains(o.Reason, "file too large") {
			t.Errorf("above the limit: %+v, want a retry", o)
		}
	}
	wantContent(t, path, strings.Repeat("\"kept\"\n", 3))
	wantDelivered(t, f, `"fits"`)
	closeNow(t, f)
	// The test binary has files of its own to write at its end.
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
}

// Opening a pipe that nobody reads could block for ever.
func TestNamedPipeIsNotOpened(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	f := to(t, path)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	wantRetry(t, f, path+" is a named pipe: move it away or change path")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantDelivered(t, f, `1`)
}
