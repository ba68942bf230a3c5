package http

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

func TestConfigureRefuses(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	const notURL = "url: must be an absolute http or https URL, such as https://shop.example.com/hooks/akeneo"
	const notValue = "must have a value of one line without control characters and without space at its ends"
	for name, test := range map[string]struct {
		raw  string
		want []string
	}{
		"nothing":            {``, []string{"url: is required, such as https://shop.example.com/hooks/akeneo"}},
		"relative":           {`{"url":"/hooks"}`, []string{notURL}},
		"no host":            {`{"url":"https:///hunter2"}`, []string{notURL}},
		"port only":          {`{"url":"https://:443/"}`, []string{notURL}},
		"opaque":             {`{"url":"http:hunter2"}`, []string{notURL}},
		"another scheme":     {`{"url":"ftp://hunter2.example.com"}`, []string{notURL}},
		"bad escape":         {`{"url":"https://example.com/%zzhunter2"}`, []string{notURL}},
		"line break":         {`{"url":"https://example.com/\nhunter2"}`, []string{notURL}},
		"port out of range":  {`{"url":"https://example.com:70000/"}`, []string{"url: must have a port from 1 to 65535"}},
		"credentials":        {`{"url":"https://u:hunter2@example.com/"}`, []string{"url: must hold no user name and no password, put them into an Authorization header under headers"}},
		"fragment":           {`{"url":"https://example.com/#hunter2"}`, []string{"url: must have no fragment, cut it off at the #"}},
		"method":             {`{"url":"https://example.com/","method":"post"}`, []string{"method: must be POST, PUT or PATCH"}},
		"idle connections":   {`{"url":"https://example.com/","max_idle_connections":0}`, []string{"max_idle_connections: must be from 1 to 10000 (got 0)"}},
		"no such file":       {`{"url":"https://example.com/","trusted_roots":"/hunter2"}`, []string{"trusted_roots: must name a readable file: no such file or directory"}},
		"no certificate":     {`{"url":"https://example.com/","trusted_roots":"` + empty + `"}`, []string{"trusted_roots: must name a file with certificates in PEM form, it holds none"}},
		"unknown key":        {`{"url":"https://example.com/","header":{}}`, []string{`header: unknown key, did you mean "headers"?`}},
		"reserved headers":   {`{"url":"https://example.com/","headers":{"host":"x","transfer-encoding":"x","x-akeneo-signature-primary":"x"}}`, []string{"headers.host: is taken from url, leave it out", "headers.transfer-encoding: is set by HTTP itself, leave it out", "headers.x-akeneo-signature-primary: is the platform's, see pass_signatures"}},
		"header names":       {`{"url":"https://example.com/","headers":{"":"x","A B":"x","Ä":"x","X:":"x"}}`, []string{`headers: "" is no header name, use letters, digits and hyphens`, `headers: "A B" is no header name, use letters, digits and hyphens`, `headers: "X:" is no header name, use letters, digits and hyphens`, `headers: "Ä" is no header name, use letters, digits and hyphens`}},
		"repeated header":    {`{"url":"https://example.com/","headers":{"X-A":"x","x-a":"x"}}`, []string{"headers.x-a: is the same header as X-A, keep one"}},
		"header values":      {`{"url":"https://example.com/","headers":{"X-A":"hunter2\r\nX: y","X-B":" hunter2","X-C":"\u0000hunter2"}}`, []string{"headers.X-A: " + notValue, "headers.X-B: " + notValue, "headers.X-C: " + notValue}},
		"type and the rest":  {`{"url":5,"method":"GET"}`, []string{"url: must be a string (got 5)", "method: must be POST, PUT or PATCH"}},
		"secret as a number": {`{"url":"https://example.com/","headers":{"X-A":12345}}`, []string{"headers.X-A: must be a string, put it in quotes (got a number)"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := New(slog.New(slog.DiscardHandler)).Configure(t.Context(), json.RawMessage(test.raw))
			var faults sdk.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("the error is %v, want sdk.Faults", err)
			}
			if diff := cmp.Diff(test.want, strings.Split(faults.Error(), "\n")); diff != "" {
				t.Errorf("unexpected faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConfigureAccepts(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		`{"url":"https://example.com"}`,
		`{"url":"http://[::1]:8080/a%20b?c=d","method":"PATCH"}`,
		`{"url":"https://example.com/","headers":{"Authorization":"Bearer x","X_Odd!":"","Cookie":"é"}}`,
		`{"url":"https://example.com/","trusted_roots":"","headers":null,"max_idle_connections":10000}`,
	} {
		if err := New(slog.New(slog.DiscardHandler)).Configure(t.Context(), json.RawMessage(raw)); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestCloseBeforeConfigure(t *testing.T) {
	t.Parallel()
	if err := New(slog.New(slog.DiscardHandler)).Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSecretsOfConfiguration(t *testing.T) {
	t.Parallel()
	c := config{
		URL: "https://example.com/path?token=a%20secret&v=1",
		Headers: map[string]sdk.Secret{
			"Authorization": "Bearer hunter2", "X-Key": "hunter2", "X-Tenant": "7",
		},
	}
	got := c.secrets()
	slices.Sort(got)
	want := []string{"Bearer hunter2", "a secret", "hunter2", "token=a%20secret&v=1"}
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
		t.Errorf("unexpected secrets (-want +got):\n%s", diff)
	}
}

func TestREADMENamesEveryKey(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for field := range reflect.TypeFor[config]().Fields() {
		key := field.Tag.Get("json")
		if key != "" && !strings.Contains(string(readme), "| `"+key+"` |") {
			t.Errorf("README.md has no row for %s", key)
		}
	}
}
