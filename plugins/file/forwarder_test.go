package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

// configured is a forwarder with the keys of its configuration.
func configured(t *testing.T, keys map[string]string) *forwarder {
	t.Helper()
	raw, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	f := New(slog.New(slog.DiscardHandler)).(*forwarder)
	if err := f.Configure(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	return f
}

// to is a forwarder that appends to path and is closed at the end of the test.
func to(t *testing.T, path string) *forwarder {
	t.Helper()
	f := configured(t, map[string]string{"path": path})
	t.Cleanup(func() { closeNow(t, f) })
	return f
}

func closeNow(t *testing.T, f *forwarder) {
	t.Helper()
	if err := f.Close(context.Background()); err != nil {
		t.Errorf("close: %v", err)
	}
}

func batch(payloads ...string) []sdk.Event {
	events := make([]sdk.Event, len(payloads))
	for i, payload := range payloads {
		events[i] = sdk.Event{ID: fmt.Sprint(i), Payload: []byte(payload), Body: []byte(payload)}
	}
	return events
}

func wantDelivered(t *testing.T, f *forwarder, payloads ...string) {
	t.Helper()
	got := f.Deliver(t.Context(), batch(payloads...))
	if diff := cmp.Diff(sdk.Each(len(payloads), sdk.Delivered()), got); diff != "" {
		t.Fatalf("unexpected outcomes (-want +got):\n%s", diff)
	}
}

// wantRetry delivers a batch that must fail as a whole, for the reason.
func wantRetry(t *testing.T, f *forwarder, reason string) {
	t.Helper()
	got := f.Deliver(t.Context(), batch(`"lost"`, `"lost too"`))
	if len(got) != 2 {
		t.Fatalf("two events gave %d outcomes", len(got))
	}
	for _, o := range got {
		if o.Result != sdk.ResultRetry || !strings.Contains(o.Reason, reason) || strings.Contains(o.Reason, "\n") {
			t.Fatalf("got %v, %q; want a retry because of %q", o.Result, o.Reason, reason)
		}
	}
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("unexpected content of %s (-want +got):\n%s", filepath.Base(path), diff)
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDeliverAppendsLines(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	put(t, path, "{\"old\":1}\n")
	f := to(t, path)
	wantDelivered(t, f, `{"a": "é<>"}`, "{\n  \"b\": [1, 2]\r\n}", "no JSON")
	wantDelivered(t, f, `{"c":1}`)
	wantContent(t, path, "{\"old\":1}\n{\"a\": \"é<>\"}\n{\"b\":[1,2]}\n\"no JSON\"\n{\"c\":1}\n")
	if none := f.Deliver(t.Context(), nil); len(none) != 0 {
		t.Errorf("no event gave %d outcomes", len(none))
	}
}

func TestFileIsCreatedAtFirstEvent(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]fs.FileMode{"": 0o600, "0640": 0o640, "600": 0o600} {
		path := filepath.Join(t.TempDir(), "events.jsonl")
		keys := map[string]string{"path": path, "fsync": "never"}
		if mode != "" {
			keys["mode"] = mode
		}
		f := configured(t, keys)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Configure has touched the file: %v", err)
		}
		wantDelivered(t, f, `{}`)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		// The umask may take rights of the group away.
		if got := info.Mode().Perm(); got&0o700 != want&0o700 || got&^want != 0 {
			t.Errorf("mode %q creates a file with %v, want %v", mode, got, want)
		}
		closeNow(t, f)
		wantContent(t, path, "{}\n")
	}
}

func TestTornLineIsCutOff(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200<<10)
	for name, test := range map[string]struct{ before, after string }{
		"whole":           {"{}\n", "{}\n"},
		"empty":           {"", ""},
		"torn":            {"{}\n{\"a\":", "{}\n"},
		"only a torn one": {"{\"a\":", ""},
		"long":            {"{}\n" + long, "{}\n"},
		"long and alone":  {long, ""},
		"behind a block":  {"{}\n" + long[:64<<10], "{}\n"},
		"long whole":      {long + "\n", long + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "events.jsonl")
			put(t, path, test.before)
			wantDelivered(t, to(t, path), `{"new":1}`)
			wantContent(t, path, test.after+"{\"new\":1}\n")
		})
	}
}

func TestOneWriter(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	path, link := filepath.Join(directory, "events.jsonl"), filepath.Join(directory, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	first := configured(t, map[string]string{"path": path})
	wantDelivered(t, first, `1`)
	second, third := to(t, path), to(t, link)
	wantRetry(t, second, path+" has another writer: give each forwarder and each process a file of its own")
	wantRetry(t, third, "has another writer")
	wantRetry(t, second, "has another writer") // nor at the second attempt
	wantDelivered(t, first, `2`)
	closeNow(t, first)
	wantDelivered(t, second, `3`)
	wantContent(t, path, "1\n2\n3\n")
}

func TestFileMovedAway(t *testing.T) {
	t.Parallel()
	for _, fsync := range []string{"batch", "never"} {
		directory := t.TempDir()
		path, rotated := filepath.Join(directory, "events.jsonl"), filepath.Join(directory, "events.jsonl.1")
		f := configured(t, map[string]string{"path": path, "fsync": fsync})
		wantDelivered(t, f, `1`)
		if err := os.Rename(path, rotated); err != nil {
			t.Fatal(err)
		}
		wantDelivered(t, f, `2`)
		wantContent(t, rotated, "1\n")
		wantContent(t, path, "2\n")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		wantDelivered(t, f, `3`)
		wantContent(t, path, "3\n")
		// Copied and truncated in place, as logrotate can do too.
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		wantDelivered(t, f, `4`)
		wantContent(t, path, "4\n")
		closeNow(t, f)
	}
}

func TestRotatedFileIsFree(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	path, rotated := filepath.Join(directory, "events.jsonl"), filepath.Join(directory, "events.jsonl.1")
	f := to(t, path)
	wantDelivered(t, f, `1`)
	if err := os.Rename(path, rotated); err != nil {
		t.Fatal(err)
	}
	wantDelivered(t, f, `2`)
	wantDelivered(t, to(t, rotated), `"appended"`)
}

// Between opening the file and locking it, somebody may rotate it: the lock is
// then on another file than the one that would be written to.
func TestFileMovedAwayWhileOpening(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	path, rotated := filepath.Join(directory, "events.jsonl"), filepath.Join(directory, "events.jsonl.1")
	f := to(t, path)
	f.output.open = func(path string, mode fs.FileMode) (handle, error) {
		opened, err := openFile(path, mode)
		if err != nil {
			return nil, err
		}
		f.output.open = openFile
		if err := os.Rename(path, rotated); err != nil {
			t.Error(err)
		}
		put(t, path, "")
		return opened, nil
	}
	wantRetry(t, f, path+" was moved away while it was being opened")
	wantDelivered(t, f, `1`)
	wantContent(t, path, "1\n")
	wantContent(t, rotated, "")
}

func TestDestinationAway(t *testing.T) {
	t.Parallel()
	directory := filepath.Join(t.TempDir(), "mount")
	path := filepath.Join(directory, "events.jsonl")
	f := to(t, path)
	wantRetry(t, f, "directory "+directory+" does not exist: create it, or mount what belongs there")
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	wantDelivered(t, f, `1`)
	if err := os.RemoveAll(directory); err != nil {
		t.Fatal(err)
	}
	wantRetry(t, f, "does not exist")
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	wantRetry(t, f, path+" is a directory: move it away or change path")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantDelivered(t, f, `2`)
	wantContent(t, path, "2\n")
}

func TestDeliverConcurrently(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	f := to(t, path)
	var calls sync.WaitGroup
	for worker := range 8 {
		calls.Go(func() {
			for i := range 25 {
				one, two := fmt.Sprintf(`"%d-%d-a"`, worker, i), fmt.Sprintf(`"%d-%d-b"`, worker, i)
				wantDelivered(t, f, one, two)
			}
		})
	}
	calls.Wait()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		if strings.TrimSuffix(lines[i], `a"`) != strings.TrimSuffix(lines[i+1], `b"`) {
			t.Errorf("the batches are mixed: %s, %s", lines[i], lines[i+1])
		}
	}
	if len(lines) != 400 {
		t.Errorf("there are %d lines, want 400", len(lines))
	}
}

func TestConfigureRefuses(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	for raw, want := range map[string][]string{
		``:                                {"path: is required, such as /var/lib/pimrelay/events.jsonl"},
		`{"path":"` + directory + `"}`:    {"path: must name a regular file (there is a directory)"},
		`{"path":"` + directory + `/x/"}`: {"path: must name a file, not a directory"},
		`{"path":"/dev/null"}`:            {"path: must name a regular file (there is a device)"},
		`{"path":"a\u0000b"}`:             {"path: must not contain a NUL byte"},
		`{"path":"x","mode":384}`:         {"mode: must be a string (got 384)"},
		`{"path":"x","mode":"0400","fsync":"always","pth":"x"}`: {
			`pth: unknown key, did you mean "path"?`,
			`fsync: must be "batch" or "never"`,
			`mode: must be an octal string that lets the owner read and write, such as "0600" or "0640"`,
		},
		`{"path":"x","mode":"01777"}`: {`mode: must be an octal string that lets the owner read and write, such as "0600" or "0640"`},
		`{"path":"x","mode":"rw"}`:    {`mode: must be an octal string that lets the owner read and write, such as "0600" or "0640"`},
	} {
		err := New(slog.New(slog.DiscardHandler)).Configure(t.Context(), json.RawMessage(raw))
		var faults sdk.Faults
		if !errors.As(err, &faults) {
			t.Errorf("%s: the error is %v, want sdk.Faults", raw, err)
			continue
		}
		if diff := cmp.Diff(want, strings.Split(faults.Error(), "\n")); diff != "" {
			t.Errorf("%s: unexpected faults (-want +got):\n%s", raw, diff)
		}
	}
}

func TestRelativePathIsFixedByConfigure(t *testing.T) {
	directory := t.TempDir()
	t.Chdir(directory)
	f := to(t, "events.jsonl")
	t.Chdir(t.TempDir())
	wantDelivered(t, f, `1`)
	wantContent(t, filepath.Join(directory, "events.jsonl"), "1\n")
}

func TestCloseWithoutFile(t *testing.T) {
	t.Parallel()
	closeNow(t, New(slog.New(slog.DiscardHandler)).(*forwarder))
	closeNow(t, configured(t, map[string]string{"path": filepath.Join(t.TempDir(), "events.jsonl")}))
}

func TestREADMENamesEveryKey(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for field := range reflect.TypeFor[config]().Fields() {
		if key := field.Tag.Get("json"); !strings.Contains(string(readme), "| `"+key+"` |") {
			t.Errorf("README.md has no row for %s", key)
		}
	}
}
