package sdk

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// schemaDialect is the JSON Schema that ConfigSchema writes.
const schemaDialect = "https://json-schema.org/draft/2020-12/schema"

// property is a JSON Schema of one value.
type property struct {
	Dialect              string              `json:"$schema,omitempty"`
	Description          string              `json:"description,omitempty"`
	Type                 string              `json:"type,omitempty"`
	Default              any                 `json:"default,omitempty"`
	WriteOnly            bool                `json:"writeOnly,omitempty"`
	Properties           map[string]property `json:"properties,omitempty"`
	AdditionalProperties any                 `json:"additionalProperties,omitempty"`
	Items                *property           `json:"items,omitempty"`
}

// ConfigSchema is the JSON Schema of a configuration that [DecodeConfig] reads
// into the struct that defaults points to, with the values there as defaults. A
// field's `doc` tag is its description. A [Secret] is writeOnly and shows no
// default, and neither do durations and sizes of zero. It panics if defaults is
// no pointer to a struct, or has a field that DecodeConfig could not read: that
// is a mistake in the program.
func ConfigSchema(defaults any) json.RawMessage {
	v := reflect.ValueOf(defaults)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("sdk.ConfigSchema needs a pointer to a struct (got %T)", defaults))
	}
	root := schemaOf(v.Elem())
	root.Dialect = schemaDialect
	raw, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("sdk.ConfigSchema: the defaults of %T cannot be written as JSON: %v", defaults, err))
	}
	return raw
}

var (
	secretType  = reflect.TypeFor[Secret]()
	encodedType = reflect.TypeFor[encoding.TextUnmarshaler]()
	decodedType = reflect.TypeFor[json.Unmarshaler]()
	timeType    = reflect.TypeFor[time.Duration]()
)

func schemaOf(v reflect.Value) property {
	t := v.Type()
	for t.Kind() == reflect.Pointer {
		if v.IsNil() {
			v = reflect.New(t.Elem())
		}
		v, t = v.Elem(), t.Elem()
	}
	switch {
	case t == secretType:
		return property{Type: "string", WriteOnly: true}
	case t == timeType:
		return withDefault(property{Type: "string"}, v, time.Duration(v.Int()).String())
	case reflect.PointerTo(t).Implements(encodedType):
		return withDefault(property{Type: "string"}, v, v.Interface())
	case reflect.PointerTo(t).Implements(decodedType) || t.Kind() == reflect.Interface:
		return property{}
	}
	switch t.Kind() {
	case reflect.String:
		return withDefault(property{Type: "string"}, v, v.Interface())
	case reflect.Bool:
		return property{Type: "boolean", Default: v.Bool()}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return withDefault(property{Type: "integer"}, v, v.Interface())
	case reflect.Float32, reflect.Float64:
		return withDefault(property{Type: "number"}, v, v.Interface())
	case reflect.Slice:
		items := schemaOf(reflect.New(t.Elem()).Elem())
		return withDefault(property{Type: "array", Items: &items}, v, v.Interface())
	case reflect.Map:
		return property{Type: "object", AdditionalProperties: schemaOf(reflect.New(t.Elem()).Elem())}
	case reflect.Struct:
		return sectionOf(v)
	}
	panic(fmt.Sprintf("sdk.ConfigSchema: a %s cannot be configured", t))
}

// sectionOf is the schema of a struct: its keys are those that DecodeConfig
// knows.
func sectionOf(v reflect.Value) property {
	section := property{Type: "object", Properties: make(map[string]property), AdditionalProperties: false}
	addProperties(v, section.Properties)
	return section
}

func addProperties(v reflect.Value, into map[string]property) {
	var embedded []reflect.Value
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, wanted := configKey(field)
		switch {
		case !wanted:
		case name == "":
			embedded = append(embedded, v.Field(i))
		default:
			if _, hidden := into[name]; !hidden {
				p := schemaOf(v.Field(i))
				p.Description = strings.TrimSpace(field.Tag.Get("doc"))
				into[name] = p
			}
		}
	}
	for _, e := range embedded {
		addProperties(e, into)
	}
}

// configKey is the key of a struct's field, or empty for an embedded struct that
// lends its own. Not every field is wanted.
func configKey(field reflect.StructField) (name string, wanted bool) {
	tag := field.Tag.Get("json")
	name, _, _ = strings.Cut(tag, ",")
	switch {
	case tag == "-":
		return "", false
	case name == "" && field.Anonymous && field.Type.Kind() == reflect.Struct:
		return "", true
	case !field.IsExported():
		return "", false
	}
	return cmp.Or(name, field.Name), true
}

// withDefault shows a default that is not zero.
func withDefault(p property, v reflect.Value, shown any) property {
	if !v.IsZero() {
		p.Default = shown
	}
	return p
}
