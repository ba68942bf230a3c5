package pluginhost

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
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
// environment, and those of the keys that its schema marks as writeOnly, as they
// are, as JSON writes them, and line by line.
type redactor struct {
	others   func(string) string // what else is secret; may be nil
	replacer *strings.Replacer
}

func newRedactor(limits Limits, schema, config json.RawMessage, others func(string) string) *redactor {
	var secrets []string
	for _, value := range limits.Environment {
		secrets = append(secrets, forms(string(value))...)
	}
	var root, value any
	if json.Unmarshal(schema, &root) == nil && decodeNumbers(config, &value) == nil {
		c := collector{root: root, budget: collectorSteps}
		c.collect(root, value, false)
		for _, secret := range c.secrets {
			secrets = append(secrets, forms(secret)...)
		}
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return len(s) < shortestSecret })
	// The longest first, so that none is hidden only in part.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var pairs []string
	for _, s := range secrets {
		pairs = append(pairs, s, redacted)
	}
	return &redactor{others, strings.NewReplacer(pairs...)}
}

// decodeNumbers is json.Unmarshal that keeps numbers as they are written.
func decodeNumbers(raw json.RawMessage, into *any) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	return decoder.Decode(into)
}

// forms are the ways in which a secret comes up.
func forms(secret string) []string {
	all := []string{secret}
	if quoted, err := json.Marshal(secret); err == nil {
		all = append(all, string(quoted[1:len(quoted)-1]))
	}
	if strings.Contains(secret, "\n") {
		for line := range strings.Lines(secret) {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

func (r *redactor) text(s string) string {
	s = r.replacer.Replace(s)
	if r.others != nil {
		s = r.others(s)
	}
	return s
}

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

// err is the error, or another one without the secrets that were in it.
func (r *redactor) err(err error) error {
	if err == nil {
		return nil
	}
	if clean := r.text(err.Error()); clean != err.Error() {
		return errors.New(clean)
	}
	return err
}

// collectorSteps bound what looking for secrets costs: a schema comes from a
// plugin, and a small one can say a great deal.
const collectorSteps = 20_000

// collector looks for the values that a JSON Schema marks as writeOnly. What it
// does not understand of a schema says nothing.
type collector struct {
	root    any
	budget  int
	secrets []string
}

func (c *collector) collect(schema, value any, secret bool) {
	if c.budget--; c.budget < 0 {
		return
	}
	rules, _ := schema.(map[string]any)
	secret = secret || rules["writeOnly"] == true
	if reference, ok := rules["$ref"].(string); ok {
		c.collect(c.resolve(reference), value, secret)
	}
	for _, keyword := range []string{"allOf", "anyOf", "oneOf"} {
		options, _ := rules[keyword].([]any)
		for _, option := range options {
			c.collect(option, value, secret)
		}
	}
	switch v := value.(type) {
	case map[string]any:
		properties, _ := rules["properties"].(map[string]any)
		patterns, _ := rules["patternProperties"].(map[string]any)
		for name, below := range v {
			known, ok := properties[name]
			if !ok {
				known = rules["additionalProperties"]
			}
			c.collect(known, below, secret)
			for _, pattern := range patterns {
				c.collect(pattern, below, secret)
			}
		}
	case []any:
		for _, below := range v {
			c.collect(rules["items"], below, secret)
		}
	case nil, bool:
	default: // text and numbers
		if secret {
			c.secrets = append(c.secrets, fmt.Sprint(v))
		}
	}
}

// resolve finds a place within the schema: "#/$defs/url".
func (c *collector) resolve(reference string) any {
	path, ok := strings.CutPrefix(reference, "#")
	at := c.root
	for _, key := range strings.Split(path, "/")[1:] {
		below, _ := at.(map[string]any)
		at = below[strings.NewReplacer("~1", "/", "~0", "~").Replace(key)]
	}
	if !ok {
		return nil
	}
	return at
}
