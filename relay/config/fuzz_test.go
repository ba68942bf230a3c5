package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzParse checks for any file that reading it ends, that problems are
// complete and show no secret, and that what was read can be used.
func FuzzParse(f *testing.F) {
	const secret = "q7Zk-is-never-shown"
	paths, err := filepath.Glob("testdata/decode/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if file.Name == "pimrelay.yaml" {
				f.Add(file.Data)
			}
		}
	}
	f.Add([]byte("admin: {token: \"${env:S}\"}\nlisten: {max_body: \"1${env:S}\"}\ndata_dir: ${env:S}"))
	opts := Options{Prefix: "PIMRELAY_", Environ: []string{"S=" + secret, "PIMRELAY_LOG__LEVEL=x", "PIMRELAY_LISTEN__TLS__STRICT=true"}}
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte("${file:")) || bytes.Contains(data, []byte(secret)) {
			return
		}
		into := defaults()
		doc, err := Parse("fuzz.yaml", data, opts)
		if err == nil {
			err = doc.Decode(&into)
		}
		if err != nil {
			checkProblems(t, err, bytes.Count(data, []byte("\n"))+1, secret)
			return
		}
		if out, err := doc.JSON(); err != nil || !json.Valid(out) {
			t.Fatalf("JSON: %s, %v", out, err)
		}
		again := defaults()
		if err := doc.Decode(&again); err != nil {
			t.Fatalf("second Decode: %v", err)
		}
		if !reflect.DeepEqual(into, again) {
			t.Fatalf("second Decode differs:\n%+v\n%+v", into, again)
		}
	})
}

func checkProblems(t *testing.T, err error, lines int, secret string) {
	t.Helper()
	problems, ok := errors.AsType[Problems](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	for _, p := range problems {
		switch {
		case p.File != "fuzz.yaml" && !strings.HasPrefix(p.File, "environment variable PIMRELAY_"):
			t.Fatalf("no file: %v", p)
		case p.Message == "" || strings.Contains(p.Error(), "\n"):
			t.Fatalf("not one line: %q", p.Error())
		case p.Line < 0 || p.Line > lines:
			t.Fatalf("line %d of %d: %v", p.Line, lines, p)
		case strings.Contains(p.Error(), secret):
			t.Fatalf("shows the secret: %v", p)
		}
	}
}
