package simulator

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestCatalogue renders every documented event with its own id, subject and
// time, and expects the bytes of its file without white space.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	if len(samples.types) != 39 {
		t.Fatalf("%d event types, want 39", len(samples.types))
	}
	for _, name := range samples.types {
		raw, err := eventFiles.ReadFile("events/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var attributes struct {
			ID, Subject string
			Time        time.Time
		}
		if err := json.Unmarshal(raw, &attributes); err != nil {
			t.Fatal(err)
		}
		want, err := compact(raw)
		if err != nil {
			t.Fatal(err)
		}
		e := event{template: samples.byType[name], id: attributes.ID, time: attributes.Time}
		if diff := cmp.Diff(string(want), string(e.body(attributes.Subject, false))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		about := strings.HasPrefix(name, "com.akeneo.pim.v1.product.")
		const pair = `","identifier":"my-product-identifier"`
		if got := e.body(attributes.Subject, true); bytes.Contains(got, []byte(pair)) != about || !json.Valid(got) {
			t.Errorf("%s with the product's identifier: %s", name, got)
		}
	}
}

func TestOwnData(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ eventType, data, plain, identified string }{
		"identifier is left out": {updated, `{ "product": {"uuid": "u", "identifier": "i", "10": 1, "9": 2} }`,
			`{"product":{"uuid":"u","10":1,"9":2}}`, `{"product":{"uuid":"u","identifier":"i","10":1,"9":2}}`},
		"no identifier":     {updated, `{"product":{"uuid":"u"}}`, `{"product":{"uuid":"u"}}`, `{"product":{"uuid":"u"}}`},
		"no product":        {updated, `{"x":1}`, `{"x":1}`, `{"x":1}`},
		"product is a text": {updated, `{"product":"p"}`, `{"product":"p"}`, `{"product":"p"}`},
		"names with markup": {updated, `{"<é>":"<&>","product":{}}`, `{"<é>":"<&>","product":{}}`, `{"<é>":"<&>","product":{}}`},
		"product model": {"com.akeneo.pim.v1.product-model.updated", `{"product":{"identifier":"i"}}`,
			`{"product":{"identifier":"i"}}`, `{"product":{"identifier":"i"}}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Firing{Type: tt.eventType, Data: json.RawMessage(tt.data)}.template()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{tt.plain, tt.identified}, []string{string(got.data), string(got.identified)}); diff != "" {
				t.Errorf("data (-want +got):\n%s", diff)
			}
			if bytes.Contains(samples.byType[tt.eventType].data, []byte(`"u"`)) {
				t.Error("the sample itself was changed")
			}
		})
	}
	if _, err := (Firing{Type: updated, Data: json.RawMessage(`{"a":1} x`)}).template(); err == nil {
		t.Error("text after the object was accepted")
	}
}

// TestSign checks the known answers computed with Python and OpenSSL.
func TestSign(t *testing.T) {
	t.Parallel()
	const body = `{"specversion":"1.0","id":"018e197c-dfe2-70f8-9346-1a8e016f5fbb","source":"pim","type":"com.akeneo.pim.v1.product.deleted","subject":"0190fe8a-6213-76ce-8a9f-ba36a5ef555a","datacontenttype":"application/json","dataschema":"https://event.prd.sdk.akeneo.cloud/spec/com.akeneo.pim.v1.product.deleted.schema.json","time":"2024-03-07T15:16:37Z","data":{"product":{"uuid":"3444ec1b-058e-4208-9b6c-284f47a7aa17"},"author":{"identifier":"b238e9f7-fcec-45bd-9431-d43cd624b244","type":"api"}}}`
	for secret, want := range map[string]string{
		primarySecret:   "02009bb93a497a2c758167fd6a64d1055d3063aa9bbc038656090259c1f7075f",
		secondarySecret: "c246089840ef65786e9ab09e4c3239cfe23a578ec162c82241e75a21588bfcfd",
	} {
		if got := sign(secret, []byte(body)); got != want {
			t.Errorf("sign with %s: %s, want %s", secret, got, want)
		}
	}
}

func TestNewID(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(0x018dd1dedc20)
	valid := regexp.MustCompile(`^018dd1de-dc20-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for range 10_000 {
		id := newID(at)
		if !valid.MatchString(id) || seen[id] {
			t.Fatalf("id %s is malformed or not new", id)
		}
		seen[id] = true
	}
}
