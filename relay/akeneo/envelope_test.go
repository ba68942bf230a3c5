package akeneo

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

func TestDecode(t *testing.T) {
	t.Parallel()
	got, err := Decode([]byte(knownBody))
	if err != nil {
		t.Fatal(err)
	}
	want := sdk.Event{
		ID:              "018e197c-dfe2-70f8-9346-1a8e016f5fbb",
		Type:            "com.akeneo.pim.v1.product.deleted",
		EventSource:     "pim",
		Subject:         "0190fe8a-6213-76ce-8a9f-ba36a5ef555a",
		Time:            time.Date(2024, 3, 7, 15, 16, 37, 0, time.UTC),
		DataContentType: "application/json",
		DataSchema:      "https://event.prd.sdk.akeneo.cloud/spec/com.akeneo.pim.v1.product.deleted.schema.json",
		Entity:          "product:3444ec1b-058e-4208-9b6c-284f47a7aa17",
		Body:            []byte(knownBody),
		Payload:         []byte(knownBody),
		ContentType:     "application/cloudevents+json",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Decode (-want +got):\n%s", diff)
	}
}

// TestDecodeKeepsNothingOfBodyButBody: the caller may reuse the buffer once it
// has stored Body.
func TestDecodeKeepsNothingOfBodyButBody(t *testing.T) {
	t.Parallel()
	body := []byte(knownBody)
	got, err := Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	if &got.Body[0] != &body[0] {
		t.Error("Body is a copy")
	}
	id, entity := strings.Clone(got.ID), strings.Clone(got.Entity)
	clear(body)
	if got.ID != id || got.Entity != entity {
		t.Error("an attribute changed with the buffer")
	}
}

// envelope is a small event with members replaced or added; a member whose
// value is empty is left out.
func envelope(members ...string) string {
	m := map[string]string{"specversion": `"1.0"`, "id": `"i"`, "type": `"t"`, "source": `"pim"`}
	for i := 0; i < len(members); i += 2 {
		m[members[i]] = members[i+1]
	}
	var parts []string
	for name, value := range m {
		if value != "" {
			parts = append(parts, `"`+name+`":`+value)
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestDecodeTolerates(t *testing.T) {
	t.Parallel()
	day := time.Date(2024, 3, 7, 15, 16, 37, 0, time.UTC)
	tests := []struct {
		name string
		body string
		want sdk.Event // attributes beside the four required ones, "i", "t" and "pim"
	}{
		{"only what is required", envelope(), sdk.Event{}},
		{"a later 1.x", envelope("specversion", `"1.1"`), sdk.Event{}},
		{"unknown attributes", envelope("traceparent", `"x"`, "sequence", `[1,{"a":null}]`), sdk.Event{}},
		{"white space", " \r\n\t" + envelope() + "\n", sdk.Event{}},
		{"nulls", envelope("subject", "null", "time", "null", "data", "null", "dataschema", "null"), sdk.Event{}},
		{"time with an offset", envelope("time", `"2024-03-07T17:16:37+02:00"`), sdk.Event{Time: day}},
		{"time with a fraction", envelope("time", `"2024-03-07T15:16:37.000001Z"`), sdk.Event{Time: day.Add(time.Microsecond)}},
		{"no time at all", envelope("time", `"yesterday"`), sdk.Event{}},
		{"time as a number", envelope("time", `1709824597`), sdk.Event{}},
		{"subject of another type", envelope("subject", `{"a":1}`), sdk.Event{}},
		{"subject with a newline", envelope("subject", `"a\nb"`), sdk.Event{}},
		{"long subject", envelope("subject", `"`+strings.Repeat("s", 2049)+`"`), sdk.Event{}},
		{"escapes", envelope("subject", `"\u00e9\ud83d\ude00\/\""`), sdk.Event{Subject: "é😀/\""}},
		{"half a pair", envelope("subject", `"\ud83d"`), sdk.Event{Subject: "\uFFFD"}},
		{"an escaped name", `{"specversion":"1.0","\u0069d":"i","type":"t","source":"pim"}`, sdk.Event{}},
		{"names are case-sensitive", `{"specversion":"1.0","id":"i","ID":"j","type":"t","source":"pim"}`, sdk.Event{}},
		{"the last of two counts", `{"id":"h","specversion":"1.0","id":"i","type":"t","source":"pim"}`, sdk.Event{}},
		{"data of any kind", envelope("data", `[1,-0.5e+3,"x",true,false,null]`), sdk.Event{}},
		{"deep, but not too deep", envelope("data", strings.Repeat("[", 511)+strings.Repeat("]", 511)), sdk.Event{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode([]byte(test.body))
			if err != nil {
				t.Fatal(err)
			}
			want := test.want
			want.ID, want.Type, want.EventSource = "i", "t", "pim"
			want.Body, want.Payload, want.ContentType = []byte(test.body), []byte(test.body), ContentType
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Decode (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, body, problem string }{
		{"nothing", "", "not a JSON object"},
		{"an array", "[" + envelope() + "]", "not a JSON object"},
		{"a string", `"x"`, "not a JSON object"},
		{"null", "null", "not a JSON object"},
		{"a byte order mark", "\uFEFF" + envelope(), "not a JSON object"},
		{"a form", "a=b", "not a JSON object"},
		{"an empty object", "{}", "specversion is missing"},
		{"not UTF-8", envelope("subject", "\"\xff\""), "not valid UTF-8"},
		{"two values", envelope() + "{}", "text after the end"},
		{"cut off", envelope()[:20], "not valid JSON"},
		{"a trailing comma", `{"id":"i",}`, "no string"},
		{"a missing comma", `{"id":"i" "type":"t"}`, "neither a comma nor an end"},
		{"a missing colon", `{"id" "i"}`, "no colon"},
		{"a bare word", `{"id":i}`, "no value"},
		{"a leading zero", `{"data":01}`, "neither a comma nor an end"},
		{"a lonely point", `{"data":1.}`, "without digits after its point"},
		{"a lonely exponent", `{"data":1e}`, "without digits in its exponent"},
		{"a lonely minus", `{"data":-}`, "without digits"},
		{"a raw newline", "{\"id\":\"a\nb\"}", "a control character in a string"},
		{"an unknown escape", `{"id":"\x"}`, "an unknown escape"},
		{"a short escape", `{"id":"\u12"}`, "four hexadecimal digits"},
		{"too deep", envelope("data", strings.Repeat("[", 512)+strings.Repeat("]", 512)), "more than 512 levels"},
		{"far too deep", strings.Repeat(`{"a":`, 1_000_000), "more than 512 levels"},
		{"no specversion", envelope("specversion", ""), "specversion is missing"},
		{"specversion 0.3", envelope("specversion", `"0.3"`), "specversion is not 1.0"},
		{"specversion as a number", envelope("specversion", "1.0"), "specversion is not a string"},
		{"no id", envelope("id", ""), "id is missing"},
		{"null id", envelope("id", "null"), "id is missing"},
		{"empty id", envelope("id", `""`), "id is empty"},
		{"id as a number", envelope("id", "7"), "id is not a string"},
		{"long id", envelope("id", `"`+strings.Repeat("i", 1025)+`"`), "id has more than 1024 bytes"},
		{"id with a newline", envelope("id", `"a\r\nX-Evil: 1"`), "id has control characters"},
		{"no type", envelope("type", ""), "type is missing"},
		{"empty type", envelope("type", `""`), "type is empty"},
		{"long type", envelope("type", `"`+strings.Repeat("t", 257)+`"`), "type has more than 256 bytes"},
		{"no source", envelope("source", ""), "source is missing"},
		{"empty source", envelope("source", `""`), "source is empty"},
		{"the old Events API", `{"events":[{"action":"product.updated"}]}`, "specversion is missing"},
		{"a load test", `{"action":"a","event_id":"e","data":{"product":{"uuid":"u"}}}`, "specversion is missing"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode([]byte(test.body))
			if err == nil || !strings.Contains(err.Error(), test.problem) {
				t.Errorf("error %v, want one with %q", err, test.problem)
			}
			if diff := cmp.Diff(sdk.Event{}, got); diff != "" {
				t.Errorf("event of an error (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzDecode compares the scanner with encoding/json: both take the same texts
// for JSON, and both read the same attributes.
func FuzzDecode(f *testing.F) {
	for _, file := range sampleFiles(f) {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(knownBody))
	f.Add([]byte(envelope("data", `{"asset":{"code":"a","asset_family":{"code":"b"}}}`)))
	f.Add([]byte(`{"id":"\u0069\n","data":[-0.1e-9,{"":{}}]} `))
	f.Fuzz(func(t *testing.T, body []byte) {
		event, err := Decode(body)
		var object map[string]json.RawMessage
		standard := json.Unmarshal(body, &object)
		if err == nil && (standard != nil || !utf8.Valid(body)) {
			t.Fatalf("accepted what encoding/json refuses: %v", standard)
		}
		if err != nil {
			syntax := strings.Contains(err.Error(), "not valid JSON") && !strings.Contains(err.Error(), "levels")
			if syntax && json.Valid(body) {
				t.Fatalf("refused what encoding/json accepts: %v", err)
			}
			return
		}
		for name, got := range map[string]string{"id": event.ID, "type": event.Type, "source": event.EventSource} {
			var want string
			if err := json.Unmarshal(object[name], &want); err != nil || got != want {
				t.Errorf("%s = %q, encoding/json reads %q (%v)", name, got, want, err)
			}
		}
		if !bytes.Equal(event.Body, body) {
			t.Error("Body is not the body")
		}
	})
}

// sampleFiles are the events of testdata: one of each documented type and
// twelve unusual shapes.
func sampleFiles(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob("testdata/event*/*.json")
	if err != nil || len(files) != 51 {
		tb.Fatalf("%d sample events (%v), want 51", len(files), err)
	}
	return files
}

func BenchmarkDecode(b *testing.B) {
	delta, err := os.ReadFile("testdata/events/com.akeneo.pim.v1.product.updated.delta.json")
	if err != nil {
		b.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, delta); err != nil {
		b.Fatal(err)
	}
	note := strings.Repeat("An ordinary sentence. ", 23)
	kilobyte := strings.TrimSuffix(knownBody, "}}") + `,"note":"` + note + `"}}`
	for name, body := range map[string][]byte{"1KiB": []byte(kilobyte), "delta": compact.Bytes()} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
