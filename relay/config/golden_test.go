package config

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what the code does into the golden files")

// TestGolden reads the file in each archive below testdata/decode and compares
// the struct, or the problems, with those in the archive. @DIR@ stands for a
// directory that holds the archive's other files.
func TestGolden(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/decode/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files (%v)", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			golden(t, path)
		})
	}
}

func golden(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir, in := t.TempDir(), map[string]string{}
	for _, f := range archive.Files {
		in[f.Name] = string(f.Data)
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	environ := strings.Split(strings.TrimSuffix(strings.ReplaceAll(in["environment"], "@DIR@", dir), "\n"), "\n")
	source := strings.ReplaceAll(in["pimrelay.yaml"], "@DIR@", dir)
	kind, got := decodeForGolden(t, source, environ)
	got = strings.ReplaceAll(got, dir, "@DIR@")
	if *update {
		updateGolden(t, path, archive, kind, got)
		return
	}
	for _, expected := range []string{"struct", "problems"} {
		want, ok := in[expected]
		if ok != (expected == kind) {
			t.Fatalf("got the %s\n%s", kind, got)
		}
		if ok {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", kind, diff)
			}
		}
	}
}

// decodeForGolden is the struct or the problems, and which of them.
func decodeForGolden(t *testing.T, source string, environ []string) (kind, text string) {
	doc, err := Parse("pimrelay.yaml", []byte(source), Options{
		Environ: environ, Prefix: "PIMRELAY_", Ignore: []string{"PIMRELAY_CONFIG"},
	})
	got := defaults()
	if err == nil {
		err = doc.Decode(&got)
	}
	if err != nil {
		if _, ok := err.(Problems); !ok {
			t.Fatalf("not Problems: %T %v", err, err)
		}
		return "problems", err.Error() + "\n"
	}
	out, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return "struct", string(out) + "\n"
}

// updateGolden replaces the expectation in the archive.
func updateGolden(t *testing.T, path string, archive *txtar.Archive, kind, got string) {
	kept := archive.Files[:0]
	for _, f := range archive.Files {
		if f.Name != "struct" && f.Name != "problems" {
			kept = append(kept, f)
		}
	}
	archive.Files = append(kept, txtar.File{Name: kind, Data: []byte(got)})
	if err := os.WriteFile(path, txtar.Format(archive), 0o600); err != nil {
		t.Fatal(err)
	}
}
