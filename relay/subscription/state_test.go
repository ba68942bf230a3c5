package subscription

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

func TestStateIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	state := openState(t, dir)
	if _, err := os.Stat(filepath.Join(dir, stateFile)); !os.IsNotExist(err) {
		t.Errorf("a state that holds nothing is written: %v", err)
	}
	want := sourceState{GeneratedPrimary: randomHex(), SubscriberID: "s", Subscriptions: map[string]subscriptionState{
		"k": {ID: "i", Patterns: []string{"a.*"}, Events: []string{"a.b"}, SecretsHash: "h"},
	}}
	if err := state.update("catalog", func(s *sourceState) { *s = want }); err != nil {
		t.Fatal(err)
	}
	if err := state.update("other", func(s *sourceState) { s.SubscriberID = "o" }); err != nil {
		t.Fatal(err)
	}
	again := openState(t, dir)
	if diff := cmp.Diff(want, again.source("catalog")); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	if state.hash("a", "b") != again.hash("a", "b") {
		t.Error("hashes differ after reopening")
	}
	info, err := os.Stat(filepath.Join(dir, stateFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
}

func TestHashTellsPairsApart(t *testing.T) {
	t.Parallel()
	state := openState(t, t.TempDir())
	pairs := [][2]sdk.Secret{{"ab", ""}, {"a", "b"}, {"", "ab"}, {"b", "a"}, {"ab", "\x00"}}
	seen := map[string]bool{}
	for _, pair := range pairs {
		seen[state.hash(pair[0], pair[1])] = true
	}
	if len(seen) != len(pairs) {
		t.Errorf("%d hashes of %d pairs", len(seen), len(pairs))
	}
	if openState(t, t.TempDir()).hash("a", "b") == state.hash("a", "b") {
		t.Error("another state has the same hash: it has no key of its own")
	}
}

func TestDamagedStateIsSetAside(t *testing.T) {
	t.Parallel()
	key := `"hash_key":"` + strings.Repeat("ab", 32) + `"`
	for name, text := range map[string]string{
		"empty":        "",
		"cut off":      `{"version":1,` + key,
		"zeroes":       strings.Repeat("\x00", 100),
		"no version":   `{` + key + `}`,
		"no key":       `{"version":1}`,
		"short key":    `{"version":1,"hash_key":"ab"}`,
		"short secret": `{"version":1,` + key + `,"sources":{"a":{"generated_primary":"abc"}}}`,
		"wrong types":  `{"version":1,` + key + `,"sources":[]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, stateFile)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			state, err := Open(dir, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "state.json.damaged-") {
				t.Errorf("log without an error:\n%s", log.String())
			}
			aside, err := filepath.Glob(path + ".damaged-*")
			if err != nil || len(aside) != 1 {
				t.Fatalf("%d files set aside (%v), want 1", len(aside), err)
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || string(kept) != text {
				t.Errorf("set aside: %q (%v), want %q", kept, err, text)
			}
			if err := state.update("catalog", func(s *sourceState) { s.SubscriberID = "s" }); err != nil {
				t.Fatal(err)
			}
			if got := openState(t, dir).source("catalog").SubscriberID; got != "s" {
				t.Errorf("the new state holds %q", got)
			}
		})
	}
}

func TestStateThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	t.Run("a later version", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path := filepath.Join(dir, stateFile)
		if err := os.WriteFile(path, []byte(`{"version":2,"sources":"in another form"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "has version 2") {
			t.Errorf("error %v, want one about the version", err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the file is gone: %v", err)
		}
	})
	t.Run("a directory", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, stateFile), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, slog.New(slog.DiscardHandler)); err == nil {
			t.Error("no error")
		}
	})
}

func TestStateForOthersToReadIsClosed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := openState(t, dir).update("a", func(s *sourceState) { s.SubscriberID = "s" }); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, stateFile)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	openState(t, dir)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
}

// TestFailedWriteChangesNothing: the directory is gone, so nothing can be
// written; and a file that an earlier crash left behind is no obstacle.
func TestFailedWriteChangesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stateFile+".tmp"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	state := openState(t, dir)
	set := func(id string) error {
		return state.update("a", func(s *sourceState) { s.SubscriberID = id })
	}
	if err := set("before"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := set("after"); err == nil {
		t.Error("no error")
	}
	if got := state.source("a").SubscriberID; got != "before" {
		t.Errorf("the state holds %q, want what is on disk", got)
	}
	source := catalog()
	source.Secrets = Secrets{}
	if _, err := New(state, []Source{source}, Options{}); err == nil {
		t.Error("a generated secret that cannot be kept is used")
	}
}

func FuzzParseContent(f *testing.F) {
	f.Add([]byte(`{"version":1,"hash_key":"` + strings.Repeat("ab", 32) + `","sources":{"a":{"subscriptions":{"k":{"id":"i"}}}}}`))
	f.Add([]byte(`{"version":9}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseContent(text)
		if err == nil && c.Version <= stateVersion && (c.Sources == nil || len(c.HashKey) != 64) {
			t.Errorf("a state without sources or key: %+v", c)
		}
	})
}
