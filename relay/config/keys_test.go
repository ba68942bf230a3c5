package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	var got []string
	for _, key := range Keys(&settings{}) {
		got = append(got, key.Path+" = "+key.Type)
	}
	want := []string{
		"data_dir = text",
		"listen.address = text",
		"listen.max_body = size",
		"listen.allow_from = list of text",
		"listen.tls.mode = text",
		"listen.tls.strict = true or false",
		"forwarders.<name>.plugin = text",
		"forwarders.<name>.retry = duration",
		"forwarders.<name>.timeout = duration",
		"forwarders.<name>.config = mapping",
		"forwarders.<name>.fields = mapping of text",
		"forwarders.<name>.rate.per_second = number",
		"forwarders.<name>.rate.burst = whole number",
		"peers.<name>.url = text",
		"limits = mapping of whole number",
		"rules[].match = text",
		"rules[].tags = list of text",
		"admin.address = text",
		"admin.token = secret",
		"log.level = text",
		"log.debug = true or false",
		"drain_timeout = duration",
		"numbers.int8 = whole number",
		"numbers.uint16 = whole number",
		"numbers.int = whole number",
		"numbers.uint64 = whole number",
		"numbers.float = number",
		"extra = mapping",
		"headers = mapping of secret",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

type recursive struct {
	Children []recursive `koanf:"children"`
}

func TestTargetsThatCannotBeFilled(t *testing.T) {
	t.Parallel()
	doc, err := Parse("c.yaml", []byte("a: 1\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for want, target := range map[string]any{
		"must be a pointer to a struct (got config.rate)":  rate{},
		"must be a pointer to a struct (got *int)":         new(int),
		"must be a pointer to a struct (got <nil>)":        nil,
		"must be a pointer to a struct (got *config.rate)": (*rate)(nil),
		"config.recursive contains itself":                 &recursive{},
		"a.[]: values of type chan int cannot be read from a file": &struct {
			A []chan int `koanf:"a"`
		}{},
		"a: values of type map[int]string cannot be read from a file": &struct {
			A map[int]string `koanf:"a"`
		}{},
		`has two fields with the key "plugin"`: &struct {
			lane
			P string `koanf:"plugin"`
		}{},
	} {
		if err := doc.Decode(target); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Decode: got %v, want %s", err, want)
		}
		func() {
			defer func() {
				if err, ok := recover().(error); !ok || !strings.Contains(err.Error(), want) {
					t.Errorf("Keys: got %v, want %s", err, want)
				}
			}()
			Keys(target)
		}()
	}
}

func TestSuggestion(t *testing.T) {
	t.Parallel()
	known := []string{"retry", "rate", "max_in_flight", "order_by"}
	for name, want := range map[string]string{
		"retires": `, did you mean "retry"?`, "reyrt": `, did you mean "retry"?`, "Rate": `, did you mean "rate"?`,
		"maxInFlight": `, did you mean "max_in_flight"?`, "max-in-flight": `, did you mean "max_in_flight"?`,
		"orderby": `, did you mean "order_by"?`, "x": "; known are retry, rate, max_in_flight, order_by",
		"": "; known are retry, rate, max_in_flight, order_by",
	} {
		if got := suggestion(name, known); got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
	if got := suggestion("a", nil); got != "; no key is known here" {
		t.Errorf("without known names: %s", got)
	}
	if got := suggestion("qqqqqq", strings.Fields(strings.Repeat("k ", 30))); !strings.HasSuffix(got, "k, k and others") {
		t.Errorf("with many: %s", got)
	}
}

func TestEditDistance(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 1}} {
		if got := editDistance(test.a, test.b); got != test.want {
			t.Errorf("%q %q: got %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
