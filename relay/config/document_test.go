package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

// parsed is data after Decode, which must succeed.
func parsed(t *testing.T, data string, environ ...string) *Document {
	t.Helper()
	doc, err := Parse("c.yaml", []byte(data), Options{Environ: environ, Prefix: "PIMRELAY_"})
	if err != nil {
		t.Fatal(err)
	}
	into := defaults()
	if err := doc.Decode(&into); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestProblemsOfFaults(t *testing.T) {
	t.Parallel()
	doc := parsed(t, `data_dir: ${env:DIR}
listen:
  allow_from:
    - 10.0.0.0/8
    - 10.0.0.0/9
forwarders:
  shop:
    config:
      com.akeneo: 1
      com.akeneo.pim: {a: 2}
      url: "https://${env:PASSWORD}@host"
    fields: {a: x}
`, "DIR=/d", "PASSWORD=correct horse", "PIMRELAY_LOG__LEVEL=loud")
	var faults sdk.Faults
	for field, problem := range map[string]string{
		"listen.allow_from[1]":                  "a",
		"listen.allow_from.0":                   "b",
		"listen.allow_from[7]":                  "c",
		"listen.tls.mode":                       "d",
		"forwarders.shop.config.com.akeneo":     "e",
		"forwarders.shop.config.com.akeneo.pim": "f",
		"forwarders.shop.rate.burst":            "must be above 0 (got -1)",
		"forwarders.shop.config.url":            `must be https (got "https://correct horse@host") or http`,
		"forwarders.shop.config":                `url "https://correct horse@host" is bad`,
		"forwarders.shop.fields.a":              "uses correct horse\nand more",
		"data_dir":                              `"/d" must be short (got "/d")`,
		"log.level":                             `must be one of info (got "loud")`,
		"sources":                               "must have one",
		"":                                      "all wrong",
	} {
		faults.Add(field, problem)
	}
	want := `c.yaml:1: data_dir: [redacted] must be short (got [redacted])
c.yaml:2: listen.tls.mode: d
c.yaml:3: listen.allow_from[7]: c
c.yaml:4: listen.allow_from.0: b
c.yaml:5: listen.allow_from[1]: a
c.yaml:7: forwarders.shop.rate.burst: must be above 0 (got -1)
c.yaml:8: forwarders.shop.config: url [redacted] is bad
c.yaml:9: forwarders.shop.config.com.akeneo: e
c.yaml:10: forwarders.shop.config.com.akeneo.pim: f
c.yaml:11: forwarders.shop.config.url: must be https (got [redacted]) or http
c.yaml:12: forwarders.shop.fields.a: uses [redacted] and more
c.yaml: all wrong
c.yaml: sources: must have one
environment variable PIMRELAY_LOG__LEVEL: log.level: must be one of info (got "loud")`
	if diff := cmp.Diff(want, doc.Problems(faults).Error()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := doc.Problems(nil).Err(); err != nil {
		t.Errorf("no fault gave %v", err)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	doc := parsed(t, `forwarders:
  shop:
    config:
      url: https://example.com/?a=1&b=<${env:KEY}>
      port: "${env:PORT}"
      none: ~
      n: [1.50, 12345678901234567890, {x: true, y: null}]
data_dir:
log: {level: warn}
`, `KEY=a"b`, "PORT=5", "PIMRELAY_LOG__LEVEL=debug", "PIMRELAY_ADMIN__TOKEN=abc")
	for _, test := range []struct {
		path []string
		want string
	}{
		{[]string{"forwarders", "shop", "config"}, `{"n":[1.50,12345678901234567890,{"x":true}],"port":"5","url":"https://example.com/?a=1&b=<a\"b>"}`},
		{[]string{"forwarders", "shop", "config", "n", "1"}, `12345678901234567890`},
		{[]string{"forwarders", "shop", "config", "n", "3"}, ``},
		{[]string{"forwarders", "shop", "config", "n", "x"}, ``},
		{[]string{"forwarders", "shop", "config", "url", "x"}, ``},
		{[]string{"forwarders", "other", "config"}, ``},
		{[]string{"data_dir"}, ``},
		{[]string{"log"}, `{"level":"debug"}`},
		{[]string{"admin"}, `{"token":"abc"}`},
	} {
		got, err := doc.JSON(test.path...)
		if err != nil || string(got) != test.want {
			t.Errorf("%v: got %s, %v\nwant %s", test.path, got, err, test.want)
		}
	}
	whole, err := doc.JSON()
	if err != nil || !json.Valid(whole) {
		t.Errorf("everything: %s, %v", whole, err)
	}
}

func TestJSONRefusesWhatIsUnresolved(t *testing.T) {
	t.Parallel()
	doc, err := Parse("c.yaml", []byte("forwarders:\n  a: {config: {x: [\"${env:NO}\"]}}\n  b: {config: {x: 1}}\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := doc.JSON("forwarders", "a", "config"); err == nil || !strings.HasPrefix(err.Error(), "c.yaml:2: forwarders.a.config.x[0]: ${env:NO}") {
		t.Errorf("got %s, %v", got, err)
	}
	if got, err := doc.JSON("forwarders", "b", "config"); err != nil || string(got) != `{"x":1}` {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestReferencedAndRedact(t *testing.T) {
	t.Parallel()
	doc := parsed(t, `data_dir: /plain
listen: {address: "${env:HOST}:1"}
extra: [a, {b: "x${env:LONG}y"}]
log: {level: "${env:SHORT}"}
`, "HOST=localhost", "LONG=line \"one\"\nline two", "SHORT=info", "PIMRELAY_ADMIN__TOKEN=${env:HOST}")
	for path, want := range map[string]bool{
		"": true, "data_dir": false, "listen": true, "listen.address": true, "listen.tls": false,
		"extra": true, "extra.0": false, "extra.1": true, "extra.1.b": true, "extra.2": false, "log.level": true, "admin.token": true,
	} {
		var keys []string
		if path != "" {
			keys = strings.Split(path, ".")
		}
		if got := doc.Referenced(keys...); got != want {
			t.Errorf("Referenced(%q) = %v", path, got)
		}
	}
	const long = "line \"one\"\nline two"
	text := fmt.Sprintf("%s | %q | x%sy | info localhost localhost:1", long, long, long)
	if got, want := doc.Redact(text), `[redacted] | "[redacted]" | [redacted] | info [redacted] [redacted]`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := parsed(t, "data_dir: /plain\n").Redact("/plain text"); got != "/plain text" {
		t.Errorf("without references: %q", got)
	}
}

func TestDecodeTwiceAndShare(t *testing.T) {
	t.Parallel()
	doc := parsed(t, "forwarders: {a: {config: {x: 1}}}\nextra: ${env:A}\n", "A=somewhat long", "PIMRELAY_LOG__LEVEL=debug")
	var first, second settings
	for _, into := range []*settings{&first, &second} {
		if err := doc.Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(first, second) {
		t.Errorf("first %+v\nsecond %+v", first, second)
	}
	first.Forwarders["a"].Config["x"] = "changed"
	if got, err := doc.JSON("forwarders", "a", "config", "x"); err != nil || string(got) != "1" {
		t.Errorf("the struct shares memory with the document: %s, %v", got, err)
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			_ = doc.Redact("somewhat long")
			_ = doc.Problems(sdk.Faults{{Field: "extra.x", Problem: "bad"}})
			if _, err := doc.JSON("extra"); err != nil {
				t.Error(err)
			}
		})
	}
	readers.Wait()
}

func TestDefaultsAreNotShared(t *testing.T) {
	t.Parallel()
	limits := map[string]int{"a": 1}
	into := settings{Limits: limits}
	doc := parsed(t, "limits: {a: 2, b: 3}\n")
	if err := doc.Decode(&into); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"a": 2, "b": 3}, into.Limits); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]int{"a": 1}, limits); diff != "" {
		t.Errorf("the map of the defaults was changed:\n%s", diff)
	}
}

func TestFreeFormNumbers(t *testing.T) {
	t.Parallel()
	got, err := decoded(t, "forwarders: {a: {config: {n: 1, l: [2.0]}}}\n", Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"n": json.Number("1"), "l": []any{json.Number("2.0")}}
	if diff := cmp.Diff(want, got.Forwarders["a"].Config); diff != "" {
		t.Error(diff)
	}
}

func TestProblemsAreErrors(t *testing.T) {
	t.Parallel()
	p := Problem{File: "f", Line: 3, Path: "a.b", Message: "is wrong"}
	for _, test := range []struct {
		err  error
		want string
	}{
		{p, "f:3: a.b: is wrong"},
		{Problem{File: "f", Path: "a", Message: "m"}, "f: a: m"},
		{Problem{File: "f", Line: 1, Message: "m"}, "f:1: m"},
		{Problems{p, p}.Err(), "f:3: a.b: is wrong\nf:3: a.b: is wrong"},
	} {
		if test.err.Error() != test.want {
			t.Errorf("got %q, want %q", test.err, test.want)
		}
	}
	if (Problems{}).Err() != nil {
		t.Error("no problem is an error")
	}
}

func TestWithLeavesOutConsequences(t *testing.T) {
	t.Parallel()
	first := Problems{
		{File: "f", Line: 4, Path: "a.b", Message: "must be a number"},
		{File: "f", Line: 9, Path: "c", Message: unknownKey + ` "x"`},
	}
	more := Problems{
		{File: "f", Line: 4, Path: "a.b", Message: "must be set"},
		{File: "f", Line: 4, Path: "a.b.deep", Message: "must be set"},
		{File: "f", Line: 4, Path: "a.bc", Message: "is kept"},
		{File: "f", Line: 8, Path: "c.d", Message: "is kept"},
	}
	want := Problems{first[0], more[2], more[3], first[1]}
	if diff := cmp.Diff(want, first.With(more)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
