package pluginhost

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/pimrelay/pimrelay/sdk"
)

const (
	redacted = "[redacted]"
	// shortestSecret is the length below which a value is not looked for in
	// what a plugin says: shorter ones, such as "true", occur everywhere.
	shortestSecret = 8
)

// redactor replaces a plugin's secrets in what it says: the values of its
// environment, and those of the keys that its schema marks as writeOnly.
type redactor struct{ replacer *strings.Replacer }

func newRedactor(limits Limits, schema, config json.RawMessage) *redactor {
	var secrets []string
	for _, value := range limits.Environment {
		secrets = append(secrets, string(value))
	}
	var root secretSchema
	var value any
	if json.Unmarshal(schema, &root) == nil && json.Unmarshal(config, &value) == nil {
		root.collect(value, &secrets)
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return len(s) < shortestSecret })
	// The longest first, so that none is hidden only in part.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var pairs []string
	for _, s := range secrets {
		pairs = append(pairs, s, redacted)
	}
	return &redactor{strings.NewReplacer(pairs...)}
}

func (r *redactor) text(s string) string { return r.replacer.Replace(s) }

// outcomes redacts what people read of outcomes, in place.
func (r *redactor) outcomes(all []sdk.Outcome) {
	for i, o := range all {
		if o.Reason != "" || o.Answer != "" {
			all[i].Reason, all[i].Answer = r.text(o.Reason), r.text(o.Answer)
		}
	}
}

// faults redacts faults, in place.
func (r *redactor) faults(all sdk.Faults) {
	for i := range all {
		all[i].Problem = r.text(all[i].Problem)
	}
}

// secretSchema is a JSON Schema as far as it says what is secret.
type secretSchema struct {
	WriteOnly  bool                    `json:"writeOnly"`
	Properties map[string]secretSchema `json:"properties"`
	// Others and Items are secretSchemas, or something else that says
	// nothing.
	Others json.RawMessage `json:"additionalProperties"`
	Items  json.RawMessage `json:"items"`
}

// collect adds the secret texts of a value.
func (s *secretSchema) collect(value any, into *[]string) {
	switch v := value.(type) {
	case string:
		if s.WriteOnly {
			*into = append(*into, v)
		}
	case map[string]any:
		for name, below := range v {
			known, ok := s.Properties[name]
			if !ok {
				known = s.below(s.Others)
			}
			known.WriteOnly = known.WriteOnly || s.WriteOnly
			known.collect(below, into)
		}
	case []any:
		items := s.below(s.Items)
		items.WriteOnly = items.WriteOnly || s.WriteOnly
		for _, below := range v {
			items.collect(below, into)
		}
	}
}

func (s *secretSchema) below(raw json.RawMessage) (below secretSchema) {
	_ = json.Unmarshal(raw, &below) // true, false and the like say nothing
	return below
}
