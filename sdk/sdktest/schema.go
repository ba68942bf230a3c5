package sdktest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
)

// schema is the part of JSON Schema that the suite understands. The relay
// understands all of it.
type schema struct {
	Type                 any                `json:"type"`
	Properties           map[string]*schema `json:"properties"`
	Required             []string           `json:"required"`
	AdditionalProperties *schema            `json:"additionalProperties"`
	Items                *schema            `json:"items"`
	Enum                 []any              `json:"enum"`
	WriteOnly            bool               `json:"writeOnly"`
	Default              any                `json:"default"`

	nothing bool // the schema false
}

// UnmarshalJSON reads a schema, which may be true or false as well.
func (s *schema) UnmarshalJSON(raw []byte) error {
	switch string(bytes.TrimSpace(raw)) {
	case "true":
		return nil
	case "false":
		s.nothing = true
		return nil
	}
	type plain schema
	err := json.Unmarshal(raw, (*plain)(s))
	maps.DeleteFunc(s.Properties, func(_ string, property *schema) bool { return property == nil })
	return err
}

// readSchema reads a forwarder's schema; nil if it has none.
func readSchema(raw json.RawMessage) (*schema, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || raw[0] != '{' {
		return nil, errors.New("the JSON Schema must be a JSON object")
	}
	s := &schema{}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("the JSON Schema: %w", err)
	}
	if types := s.types(); len(types) > 0 && !slices.Contains(types, "object") {
		return nil, fmt.Errorf("the JSON Schema describes %v, and a configuration is an object", types)
	}
	return s, nil
}

// check looks for what is wrong with the schema itself.
func (s *schema) check(path string) error {
	for _, t := range s.types() {
		if !slices.Contains([]string{"string", "number", "integer", "boolean", "array", "object", "null"}, t) {
			return fmt.Errorf("the JSON Schema of %q: %q is no type", path, t)
		}
	}
	if s.WriteOnly && s.Default != nil && s.Default != "" {
		return fmt.Errorf("the JSON Schema of %q shows the default of a secret", path)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if err := s.Properties[name].check(below(path, name)); err != nil {
			return err
		}
	}
	return nil
}

// types are the types that a value may have; none if it may have each.
func (s *schema) types() []string {
	switch t := s.Type.(type) {
	case string:
		return []string{t}
	case []any:
		var all []string
		for _, one := range t {
			all = append(all, fmt.Sprint(one))
		}
		return all
	}
	return nil
}

// misfit says where value does not fit, or nothing.
func (s *schema) misfit(path string, value any) string {
	types := s.types()
	fits := slices.ContainsFunc(kinds(value), func(kind string) bool { return slices.Contains(types, kind) })
	switch {
	case s.nothing:
		return fmt.Sprintf("%q is no key of it", path)
	case len(types) > 0 && !fits:
		return fmt.Sprintf("%q must be of type %v", path, types)
	case len(s.Enum) > 0 && !slices.ContainsFunc(s.Enum, func(one any) bool { return reflect.DeepEqual(one, value) }):
		return fmt.Sprintf("%q must be one of %v", path, s.Enum)
	}
	switch v := value.(type) {
	case map[string]any:
		return s.misfitObject(path, v)
	case []any:
		for i := range v {
			if s.Items == nil {
				break
			}
			if problem := s.Items.misfit(fmt.Sprintf("%s[%d]", path, i), v[i]); problem != "" {
				return problem
			}
		}
	}
	return ""
}

func (s *schema) misfitObject(path string, value map[string]any) string {
	for _, name := range s.Required {
		if _, ok := value[name]; !ok {
			return fmt.Sprintf("%q is required", below(path, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(value)) {
		under := s.Properties[name]
		if under == nil {
			under = s.AdditionalProperties
		}
		if under == nil || value[name] == nil { // null: absent
			continue
		}
		if problem := under.misfit(below(path, name), value[name]); problem != "" {
			return problem
		}
	}
	return ""
}

// kinds are the types that value has.
func kinds(value any) []string {
	switch v := value.(type) {
	case string:
		return []string{"string"}
	case bool:
		return []string{"boolean"}
	case float64:
		if v == math.Trunc(v) {
			return []string{"integer", "number"}
		}
		return []string{"number"}
	case []any:
		return []string{"array"}
	case map[string]any:
		return []string{"object"}
	}
	return []string{"null"}
}

func below(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// field is one key that a schema knows.
type field struct {
	path   []string
	schema *schema
}

// fields are the keys of the schema and of the objects in it.
func (s *schema) fields(path ...string) (all []field) {
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		f := field{append(slices.Clone(path), name), s.Properties[name]}
		all = append(all, f)
		if len(path) < 4 {
			all = append(all, f.schema.fields(f.path...)...)
		}
	}
	return all
}

// wrongValue is a value of a type that the schema does not allow.
func (s *schema) wrongValue() (value any, ok bool) {
	types := s.types()
	for _, candidate := range []any{[]any{secretMarker}, map[string]any{"sdktest": secretMarker}, "sdktest " + secretMarker, 7.0, true} {
		fits := slices.ContainsFunc(kinds(candidate), func(kind string) bool { return slices.Contains(types, kind) })
		if len(types) > 0 && !fits {
			return candidate, true
		}
	}
	return nil, false
}

// secretMarker stands where a configuration has a secret.
const secretMarker = "sdktest-s3cr3t-4711"

// secret reports whether the value, or what is in it, is a secret.
func (s *schema) secret() bool {
	return s != nil && (s.WriteOnly || s.Items.secret() || s.AdditionalProperties.secret())
}

// marked is a value for a secret that can be recognised.
func (s *schema) marked() any {
	types := s.types()
	switch {
	case slices.Contains(types, "object"):
		return map[string]any{"x-sdktest": secretMarker}
	case slices.Contains(types, "array"):
		return []any{secretMarker}
	}
	return secretMarker
}

// with is config with another value at path. Objects on the way that are
// missing are made.
func with(config json.RawMessage, value any, path ...string) (json.RawMessage, error) {
	root := map[string]any{}
	if len(bytes.TrimSpace(config)) > 0 {
		if err := json.Unmarshal(config, &root); err != nil {
			return nil, fmt.Errorf("the suite's configuration must be a JSON object: %w", err)
		}
	}
	at := root
	for _, name := range path[:len(path)-1] {
		next, ok := at[name].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[name] = next
		}
		at = next
	}
	at[path[len(path)-1]] = value
	return json.Marshal(root)
}
