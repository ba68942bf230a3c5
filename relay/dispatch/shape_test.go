package dispatch

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

func mustCompile(t testing.TB, c Config) *shaper {
	t.Helper()
	s, faults := c.compile()
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return s
}

func TestTransform(t *testing.T) {
	t.Parallel()
	bodied := func(data string) *sdk.Event {
		e := product()
		e.Body = []byte(`{"data":` + data + `}`)
		e.Payload, e.ContentType = e.Body, "application/cloudevents+json"
		return e
	}
	for _, tt := range []struct{ text, data, payload, contentType, fault string }{
		{"", `{"n":1}`, `{"data":{"n":1}}`, "application/cloudevents+json", ""},
		{`{"sku": event.data.product.?identifier.orValue(""), "at": event.time}`, `{"product":{}}`, `{"at":"2026-03-01T00:00:00Z","sku":""}`, jsonContent, ""},
		{`event.data`, `{"n":123456789012,"f":2.5,"e":1e3,"t":true,"z":null,"l":[1,[2]],"s":"<é&>"}`, `{"e":1000,"f":2.5,"l":[1,[2]],"n":123456789012,"s":"<é&>","t":true,"z":null}`, jsonContent, ""},
		{`event.data.n`, `{"n":9007199254740993}`, `9007199254740993`, jsonContent, ""},
		{`event.data.id`, `{"id":"line\n\"two\""}`, "line\n\"two\"", textContent, ""},
		{`"a" + string(event.data.n)`, `{"n":1234567890}`, "a1234567890", textContent, ""},
		{`[b"\x00\xff", duration("1.5s"), 1u, optional.none(), optional.of(3)]`, `{}`, `["AP8=","1.5s",1,null,3]`, jsonContent, ""},
		{`{1: "a", true: "b"}`, `{}`, `{"1":"a","true":"b"}`, jsonContent, ""},
		{`{?"a": event.data.?a, ?"b": event.data.?b}`, `{"b":0}`, `{"b":0}`, jsonContent, ""},
		{`event.author`, `{"author":{"identifier":"me"}}`, `{"identifier":"me"}`, jsonContent, ""},
		{`{"n": event.data.nothing}`, `{}`, "", "", "transform: no such key: nothing"},
		{`event.data.x`, `null`, "", "", "transform: no such field: event.data"},
		{`type(event.data)`, `{}`, "", "", "transform: a value of type type has no JSON form"},
		{`{"e": event}`, `{}`, "", "", "transform: a value of type pimrelay.Event has no JSON form"},
		{`1.0 / 0.0`, `{}`, "", "", "transform: the number +Inf has no JSON form"},
		{`event.data.a + 1`, `{"a":"x"}`, "", "", "transform: no such overload"},
	} {
		i := mustCompile(t, Config{Transform: tt.text}).prepare(journal.Entry{Event: *bodied(tt.data)})
		fault := ""
		if i.fault != nil {
			fault = i.fault.Error()
		}
		if fault != tt.fault {
			t.Errorf("%s of %s: fault %q, want %q", tt.text, tt.data, fault, tt.fault)
		}
		if fault == "" && (string(i.Event.Payload) != tt.payload || i.Event.ContentType != tt.contentType) {
			t.Errorf("%s of %s: %s as %q", tt.text, tt.data, i.Event.Payload, i.Event.ContentType)
		}
		if string(i.Event.Body) != `{"data":`+tt.data+`}` {
			t.Errorf("%s: the body has changed to %s", tt.text, i.Event.Body)
		}
	}
}

func TestFieldsKeyAndAuthors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		config Config
		want   item
		fault  string
	}{
		{"fields", Config{Fields: map[string]string{"topic": `"pim." + event.type`, "rows": `string(event.data.product.rows)`}},
			item{Entry: journal.Entry{Event: sdk.Event{Fields: map[string]string{"topic": "pim.com.akeneo.pim.v1.product.updated", "rows": "233"}}}}, ""},
		{"a field that is missing", Config{Fields: map[string]string{"topic": `event.data.topic`}}, item{}, "fields.topic: no such key: topic"},
		{"a field that is no text", Config{Fields: map[string]string{"rows": `event.data.product.rows`}}, item{}, "fields.rows: is no text but a int: wrap it in string(...)"},
		{"order", Config{OrderBy: `event.entity`}, item{key: "product:6a9f", Entry: journal.Entry{Event: sdk.Event{Key: "product:6a9f"}}}, ""},
		{"no order without the field", Config{OrderBy: `event.data.nothing`}, item{}, ""},
		{"an order that is no text", Config{OrderBy: `event.data.product.rows`}, item{}, "order_by: is no text but a int: wrap it in string(...)"},
		{"an author", Config{SkipAuthors: []string{"mark", "julia"}}, item{leftOut: authorSkip}, ""},
		{"another author", Config{SkipAuthors: []string{"mark"}}, item{}, ""},
		{"match before authors", Config{Match: "false", SkipAuthors: []string{"julia"}}, item{leftOut: noMatch}, ""},
	} {
		i := mustCompile(t, tt.config).prepare(journal.Entry{Event: *product()})
		fault := ""
		if i.fault != nil {
			fault = i.fault.Error()
		}
		if fault != tt.fault || i.leftOut != tt.want.leftOut || fault == "" && (i.key != tt.want.key || i.Event.Key != tt.want.Event.Key) {
			t.Errorf("%s: fault %q, left out %q, key %q and %q", tt.name, fault, i.leftOut, i.key, i.Event.Key)
		}
		if fault == "" {
			if diff := cmp.Diff(tt.want.Event.Fields, i.Event.Fields); diff != "" {
				t.Errorf("%s: fields (-want +got):\n%s", tt.name, diff)
			}
		}
	}
}

// What waited in the journal keeps the key it waited with.
func TestKeyOfARetry(t *testing.T) {
	t.Parallel()
	i := mustCompile(t, Config{OrderBy: "event.entity"}).prepare(journal.Entry{Event: *product(), Key: "old", Attempts: 1})
	if i.key != "old" || i.Event.Key != "old" {
		t.Errorf("keys %q and %q", i.key, i.Event.Key)
	}
}

// The data is decoded once for all the expressions of a lane.
func TestDataIsDecodedOnce(t *testing.T) {
	t.Parallel()
	v := &view{event: product()}
	first, err := v.payload()
	if err != nil {
		t.Fatal(err)
	}
	v.event.Body = []byte("no JSON")
	if again, err := v.payload(); err != nil || !cmp.Equal(first, again) {
		t.Errorf("got %v, %v", again, err)
	}
}

func BenchmarkPrepare(b *testing.B) {
	s := mustCompile(b, Config{
		Match: `event.type.startsWith("com.akeneo.")`, OrderBy: "event.entity",
		Transform: `{"sku": event.data.product.?identifier.orValue(""), "rows": event.data.product.rows, "at": event.time}`,
	})
	e := journal.Entry{Event: *product()}
	for b.Loop() {
		if i := s.prepare(e); i.fault != nil {
			b.Fatal(i.fault)
		}
	}
}
