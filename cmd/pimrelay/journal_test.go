package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestJournalCheckAndRepair(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "pimrelay.yaml")
	content := "data_dir: " + data + "\nlisten: {address: 127.0.0.1:0, tls: {mode: \"off\"}}\n" +
		"sources: {catalog: {secrets: {primary: a-secret-of-more-than-16}}}\nforwarders: {out: {plugin: file, config: {path: " + filepath.Join(dir, "out") + "}}}\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := pimrelay(t, "journal", "check", "-c", file); code != exitFailure || !strings.Contains(errOut, "there is no journal in") {
		t.Errorf("check of nothing: exit code %d\n%s", code, errOut)
	}
	if err := os.WriteFile(filepath.Join(data, "journal.db"), bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"journal", 0, "Usage:"},
		{"journal check --data-dir " + data, exitFailure, "problem: check the file: "},
		{"journal check --json -c " + file, exitFailure, `"problems": [`},
		{"journal repair --data-dir " + data, exitFailure, "give the configuration file"},
		{"journal repair -c " + file, 0, "salvaged: 0 events were read"},
		{"journal check -c " + file, 0, "\nok\n"},
		{"journal check --json -c " + file, 0, `"problems": []`},
		{"journal repair -c " + file, 0, "\nok\n"},
	} {
		code, out, errOut := pimrelay(t, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(out+errOut, tt.want) {
			t.Errorf("pimrelay %s: exit code %d, want %d with %q:\n%s%s", tt.args, code, tt.code, tt.want, out, errOut)
		}
	}
}
