package dispatch

import (
	"strings"
	"testing"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

func product() *sdk.Event {
	return &sdk.Event{
		ID: "018e197c", Type: "com.akeneo.pim.v1.product.updated", EventSource: "pim", Source: "catalog", Subject: "0190",
		Time: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), Entity: "product:6a9f",
		Body: []byte(`{"data":{"product":{"uuid":"6a9f","rows":233},"author":{"identifier":"julia","type":"user"},"list":[1,2.5]}}`),
	}
}

// matches is what a lane makes of the value of match.
func matches(e *expression, event *sdk.Event) (matched, missing bool, err error) {
	why, err := (&shaper{match: e}).wants(&view{event: event})
	return why == "" && err == nil, why == fieldMissing, err
}

func TestMatch(t *testing.T) {
	t.Parallel()
	bare := &sdk.Event{ID: "x", Type: "new.type", Source: "catalog", Body: []byte(`{"data":null}`)}
	for _, tt := range []struct {
		text             string
		event            *sdk.Event
		matched, missing bool
		err              string
	}{
		{`event.type.startsWith("com.akeneo.pim.v1.product.")`, product(), true, false, ""},
		{`event.type == "other"`, product(), false, false, ""},
		{`source == "catalog" && event.source == "pim"`, product(), true, false, ""},
		{`event.data.product.uuid == "6a9f"`, product(), true, false, ""},
		{`string(event.data.product.rows) == "233"`, product(), true, false, ""},
		{`event.data.product.rows > 200 && event.data.list[1] == 2.5`, product(), true, false, ""},
		{`event.data.product.identifier == "sku"`, product(), false, true, ""},
		{`event.data.product.?identifier.orValue("none") == "none"`, product(), true, false, ""},
		{`has(event.data.product.identifier)`, product(), false, false, ""},
		{`event.author.identifier != "me"`, product(), true, false, ""},
		{`event.author.identifier != "me"`, bare, false, true, ""},
		{`has(event.author) && event.author.identifier == "me"`, bare, false, false, ""},
		{`event.data.x == 1`, bare, false, true, ""},
		{`event.entity == "product:6a9f"`, product(), true, false, ""},
		{`event.entity == ""`, bare, false, true, ""},
		{`event.time > timestamp("2026-01-01T00:00:00Z")`, product(), true, false, ""},
		{`event.data.product.uuid > 5`, product(), false, false, "match: "},
		{`event.data.product`, product(), false, false, "neither true nor false"},
		{`[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, a+b+c+d+e+f > 0))))))`, product(), false, false, "cost limit"},
	} {
		m, err := compileExpression("match", tt.text, truthKind)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		matched, missing, err := matches(m, tt.event)
		if matched != tt.matched || missing != tt.missing || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got matched %v, missing %v, err %v", tt.text, matched, missing, err)
		}
	}
}

func TestMatchFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`event.typ == "x"`:              "line 1, column 6: undefined field 'typ'",
		`evnt.type == "x"`:              "column 1: undeclared reference to 'evnt'",
		`event.type`:                    "must be true or false for an event, and this is a string",
		`event.type == `:                "line 1, column 15: Syntax error",
		`event.type == 5`:               "no matching overload",
		`event`:                         "name the parts that are wanted",
		strings.Repeat("x", 9000):       "longer than 8192 bytes",
		`event.id == "a" ? true : "no"`: "no matching overload",
	} {
		_, err := compileExpression("match", text, truthKind)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: got %v, want %q", text, err, want)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for name, text := range map[string]string{
		"type": `event.type.startsWith("com.akeneo.pim.v1.product.")`,
		"data": `event.data.product.uuid == "6a9f"`,
	} {
		b.Run(name, func(b *testing.B) {
			m, err := compileExpression("match", text, truthKind)
			if err != nil {
				b.Fatal(err)
			}
			e := product()
			for b.Loop() {
				if ok, _, err := matches(m, e); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}
