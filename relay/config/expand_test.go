package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReferencedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, data := range map[string]string{
		"empty": "", "newline": "\n", "plain": "secret", "ended": "secret\n", "crlf": "secret\r\n",
		"two": "secret\n\n", "space": " secret ", "reference": "${env:HOME}", "full": strings.Repeat("x", 64<<10),
		"large": strings.Repeat("x", 64<<10+1), "binary": "\xff\xfe",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("ended", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ want, fault string }{
		"empty":     {"", ""},
		"newline":   {"", ""},
		"plain":     {"secret", ""},
		"ended":     {"secret", ""},
		"crlf":      {"secret", ""},
		"two":       {"secret\n", ""},
		"space":     {" secret ", ""},
		"reference": {"${env:HOME}", ""},
		"full":      {strings.Repeat("x", 64<<10), ""},
		"link":      {"secret", ""},
		"large":     {"", "must have at most 64 KiB"},
		"binary":    {"", "must be UTF-8 text"},
		"pipe":      {"", "must be a regular file"},
		"absent":    {"", "no such file or directory: create the file, or correct the path"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reference := "${file:" + filepath.Join(dir, name) + "}"
			got, err := decoded(t, "data_dir: "+reference+"\n", Options{})
			if test.fault == "" {
				if err != nil || got.DataDir != test.want {
					t.Errorf("got %.100q, %v; want %.100q", got.DataDir, err, test.want)
				}
				return
			}
			if want := "c.yaml:1: data_dir: " + reference + ": " + test.fault; err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func TestEnvironmentMustBeText(t *testing.T) {
	t.Parallel()
	opts := Options{Prefix: "PIMRELAY_", Environ: []string{"BYTES=\xff", "PIMRELAY_LISTEN__ADDRESS=\xff", "PIMRELAY_ADMIN__TOKEN=\xfe"}}
	_, err := decoded(t, "data_dir: x${env:BYTES}\nadmin: {token: a}\n", opts)
	want := "c.yaml:1: data_dir: ${env:BYTES}: the environment variable is not UTF-8 text\n" +
		"environment variable PIMRELAY_ADMIN__TOKEN: admin.token: must be UTF-8 text\n" +
		"environment variable PIMRELAY_LISTEN__ADDRESS: listen.address: must be UTF-8 text"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestSecretsArriveWhole(t *testing.T) {
	t.Parallel()
	opts := Options{Prefix: "PIMRELAY_", Environ: []string{"KEY=k=1", "PIMRELAY_ADMIN__TOKEN=${env:KEY}!"}}
	got, err := decoded(t, "admin: {token: old}\nheaders: {Authorization: \"Bearer ${env:KEY}\", X-Plain: abc}\n", opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct{ got, want string }{
		{string(got.Admin.Token), "k=1!"},
		{string(got.Headers["Authorization"]), "Bearer k=1"},
		{string(got.Headers["X-Plain"]), "abc"},
	} {
		if s.got != s.want {
			t.Errorf("got %q, want %q", s.got, s.want)
		}
	}
}

func TestOverridesAreOffWithoutPrefix(t *testing.T) {
	t.Parallel()
	got, err := decoded(t, "log: {level: warn}\n", Options{Environ: []string{"LOG__LEVEL=debug", "PIMRELAY_LOG__LEVEL=debug", "nonsense"}})
	if err != nil || got.Log.Level != "warn" {
		t.Errorf("got %q, %v", got.Log.Level, err)
	}
}
