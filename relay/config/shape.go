package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// shape is what a Go type looks like in the file.
type shape uint8

const (
	unsupportedShape shape = iota
	textShape
	boolShape
	intShape
	uintShape
	floatShape
	durationShape // time.Duration, sdk.Duration
	encodedShape  // any other encoding.TextUnmarshaler
	sectionShape  // struct
	namedShape    // map[string]T: settings by name
	freeShape     // map[string]any, any: whatever the file holds
	listShape
)

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	secretType      = reflect.TypeFor[sdk.Secret]()
	sizeType        = reflect.TypeFor[sdk.Size]()
	timeType        = reflect.TypeFor[time.Duration]()
	durationType    = reflect.TypeFor[sdk.Duration]()
	freeMapType     = reflect.TypeFor[map[string]any]()
	anyType         = reflect.TypeFor[any]()
)

// shapeOf is the shape of t, which is no pointer.
func shapeOf(t reflect.Type) shape {
	switch {
	case t == timeType || t == durationType:
		return durationShape
	case reflect.PointerTo(t).Implements(textUnmarshaler):
		return encodedShape
	case t == freeMapType || t == anyType:
		return freeShape
	}
	switch t.Kind() {
	case reflect.String:
		return textShape
	case reflect.Bool:
		return boolShape
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return intShape
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return uintShape
	case reflect.Float32, reflect.Float64:
		return floatShape
	case reflect.Struct:
		return sectionShape
	case reflect.Slice:
		return listShape
	case reflect.Map:
		if t.Key().Kind() == reflect.String {
			return namedShape
		}
	}
	return unsupportedShape
}

// pointed is t without its pointers.
func pointed(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// field is one key of a section.
type field struct {
	name  string
	index []int // for reflect.Value.FieldByIndex
	typ   reflect.Type
}

// fieldsOf are the keys of the struct type t in the order of its fields, with
// those of embedded structs in place. Fields without a `koanf` tag have no key.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("koanf"), ",")
		switch {
		case name != "" && name != "-" && f.IsExported():
			fields = append(fields, field{name, f.Index, f.Type})
		case f.Anonymous && f.Type.Kind() == reflect.Struct && name == "":
			for _, inner := range fieldsOf(f.Type) {
				inner.index = slices.Concat(f.Index, inner.index)
				fields = append(fields, inner)
			}
		}
	}
	return fields
}

// namesOf are the names of fields, sorted.
func namesOf(fields []field) []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	slices.Sort(names)
	return names
}

// place is one key that a struct type knows, at any depth.
type place struct {
	path []string // "<name>" stands for a key of the user's choice, "[]" for an index
	typ  reflect.Type
}

// placesOf are all keys that the struct type t knows, sections included, each
// before what is below it. The error is about t itself, a mistake of the
// program.
func placesOf(t reflect.Type) ([]place, error) {
	w := walker{}
	err := w.section(t, nil)
	return w.places, err
}

// walker collects places.
type walker struct {
	places []place
	within []reflect.Type // the structs around the current one
}

func (w *walker) section(t reflect.Type, path []string) error {
	if slices.Contains(w.within, t) {
		return fmt.Errorf("config: %s contains itself", t)
	}
	w.within = append(w.within, t)
	defer func() { w.within = w.within[:len(w.within)-1] }()
	seen := map[string]bool{}
	for _, f := range fieldsOf(t) {
		if seen[f.name] {
			return fmt.Errorf("config: %s has two fields with the key %q", t, f.name)
		}
		seen[f.name] = true
		if err := w.add(f.typ, below(path, f.name)); err != nil {
			return err
		}
	}
	return nil
}

// add collects the place at path and those below it.
func (w *walker) add(t reflect.Type, path []string) error {
	t = pointed(t)
	w.places = append(w.places, place{path, t})
	return w.inside(t, path)
}

// inside collects what is below path.
func (w *walker) inside(t reflect.Type, path []string) error {
	t = pointed(t)
	switch shapeOf(t) {
	case unsupportedShape:
		return fmt.Errorf("config: %s: values of type %s cannot be read from a file", strings.Join(path, "."), t)
	case sectionShape:
		return w.section(t, path)
	case namedShape:
		return w.inside(t.Elem(), below(path, "<name>"))
	case listShape:
		return w.inside(t.Elem(), below(path, "[]"))
	}
	return nil
}

// below is a copy of path with name at its end.
func below(path []string, name string) []string { return append(slices.Clip(path), name) }
