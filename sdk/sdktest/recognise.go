package sdktest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// recognise finds the events of a request. If it finds none, the request is one
// event without a key.
func recognise(r *http.Request, body []byte) []Arrival {
	for _, name := range []string{"Idempotency-Key", "Ce-Id"} {
		if key := r.Header.Get(name); key != "" {
			return []Arrival{{Key: decoded(key), Payload: body}}
		}
	}
	if events := cloudEvents(body); len(events) > 0 {
		return events
	}
	query, err := url.QueryUnescape(r.URL.RawQuery)
	if err != nil {
		query = r.URL.RawQuery
	}
	var events []Arrival
	for _, key := range mentioned(query, r.URL.Path, texts(body)) {
		events = append(events, Arrival{Key: key, Payload: body})
	}
	if len(events) == 0 {
		events = []Arrival{{Payload: body}}
	}
	return events
}

// decoded is a header's value without percent-encoding, which stands for what a
// header cannot hold, and without the quotes of a structured field.
func decoded(value string) string {
	value = strings.TrimSpace(value)
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	if plain, err := url.PathUnescape(value); err == nil {
		return plain
	}
	return value
}

// cloudEvents are the events in a body that is one in JSON, an array of them,
// or one a line.
func cloudEvents(body []byte) (events []Arrival) {
	var parts []json.RawMessage
	if json.Unmarshal(body, &parts) != nil {
		if parts = []json.RawMessage{body}; !json.Valid(body) {
			parts = nil
			for line := range bytes.Lines(body) {
				parts = append(parts, bytes.TrimSpace(line))
			}
		}
	}
	for _, part := range parts {
		var attributes struct {
			SpecVersion string `json:"specversion"`
			ID          string `json:"id"`
		}
		if json.Unmarshal(part, &attributes) != nil || attributes.ID == "" || attributes.SpecVersion == "" {
			return nil
		}
		events = append(events, Arrival{Key: attributes.ID, Payload: part})
	}
	return events
}

// texts are the strings of a body in JSON, or the body.
func texts(body []byte) string {
	var value any
	if json.Unmarshal(body, &value) != nil {
		return string(body)
	}
	var all strings.Builder
	var walk func(any)
	walk = func(value any) {
		switch v := value.(type) {
		case string:
			all.WriteString(v + "\n")
		case []any:
			for _, one := range v {
				walk(one)
			}
		case map[string]any:
			for _, one := range v {
				walk(one)
			}
		}
	}
	walk(value)
	return all.String()
}

// ours is an id of the suite's events amid other text.
var ours = regexp.MustCompile(regexp.QuoteMeta(prefix) + "[^\\s\"'<>|*_`)\\]},;&?#]+")

func mentioned(in ...string) []string {
	var keys []string
	for _, key := range ours.FindAllString(strings.Join(in, "\n"), -1) {
		if key = strings.TrimRight(key, ".:!/"); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}
