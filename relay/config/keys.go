package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Key is one key that a configuration file may have.
type Key struct {
	// Path is the key's path with dots. A name that the user chooses is
	// shown as "<name>", an element of a list as "[]":
	// "forwarders.<name>.rate.burst", "listen.allow_from", "rules[].match".
	Path string
	// Type is "text", "true or false", "whole number", "number",
	// "duration", "size", "secret", "mapping" (free-form), "list of …" or
	// "mapping of …" (by names that the user chooses).
	Type string
}

// Keys are all keys that Decode would take into target, in the order of the
// struct's fields. Sections are represented by the keys in them. It panics if
// target is nothing that [Document.Decode] could fill.
func Keys(target any) []Key {
	t, err := structType(target)
	if err != nil {
		panic(err)
	}
	places, err := placesOf(t)
	if err != nil {
		panic(err)
	}
	var keys []Key
	for _, p := range places {
		if holdsSection(p.typ) {
			continue
		}
		path := strings.ReplaceAll(strings.Join(p.path, "."), ".[]", "[]")
		keys = append(keys, Key{Path: path, Type: typeName(p.typ)})
	}
	return keys
}

// structType is the type of the struct that target points to.
func structType(target any) (reflect.Type, error) {
	v := reflect.ValueOf(target)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("config: the target must be a pointer to a struct (got %T)", target)
	}
	return v.Elem().Type(), nil
}

// holdsSection reports whether the keys of t, or of its elements, are places
// of their own.
func holdsSection(t reflect.Type) bool {
	t = pointed(t)
	switch shapeOf(t) {
	case sectionShape:
		return true
	case namedShape, listShape:
		return holdsSection(t.Elem())
	default:
		return false
	}
}

// typeName is the type of values of t; see [Key].
func typeName(t reflect.Type) string {
	t = pointed(t)
	switch shapeOf(t) {
	case boolShape:
		return "true or false"
	case intShape, uintShape:
		return "whole number"
	case floatShape:
		return "number"
	case durationShape:
		return "duration"
	case freeShape:
		return "mapping"
	case namedShape:
		return "mapping of " + typeName(t.Elem())
	case listShape:
		return "list of " + typeName(t.Elem())
	}
	switch t {
	case secretType:
		return "secret"
	case sizeType:
		return "size"
	default:
		return "text"
	}
}
