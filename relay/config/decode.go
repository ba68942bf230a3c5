package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
)

// defaulter is implemented by sections that appear only where the file has
// them: elements of maps and lists, and what optional pointers point to.
type defaulter interface {
	// SetDefaults is called on the zero value, before the file's values.
	SetDefaults()
}

// Decode fills the struct that into points to from the file and the
// environment's overrides. The error is [Problems], all there are, and into is
// then filled in part and of no use; or another error if into cannot be
// filled whatever the file says, a mistake of the program.
//
// A field's key is its `koanf` tag; a field without one is left alone, an
// embedded struct's keys are those of the struct around it. Fields hold their
// defaults when Decode is called, and keep them where the file has no key or a
// key without a value. Lists and free-form mappings are replaced as a whole;
// of a map[string]T the entries that the file does not name stay. Elements of
// maps and lists, and structs behind nil pointers, are given defaults by a
// method SetDefaults of their pointer, if they have it. A name in a
// map[string]T whose value is a struct is present even without a value.
//
// No type is converted into another: text for a number is a problem, and so is
// a number without a unit for a [sdk.Duration]. The exceptions are a value
// that is one reference and nothing else, and an override: they are text by
// nature, and are read as the type that the field has. Numbers in
// map[string]any are json.Number.
func (d *Document) Decode(into any) error {
	t, err := structType(into)
	if err != nil {
		return err
	}
	places, err := placesOf(t)
	if err != nil {
		return err
	}
	values, problems, err := d.merge(places)
	if err != nil {
		return err
	}
	d.values = values
	run := decoding{}
	run.section(d.root, values, reflect.ValueOf(into).Elem())
	problems = append(problems, d.problems...)
	problems = append(problems, run.problems...)
	return d.root.problems(problems).sorted().Err()
}

// unknownKey begins the message about a key that the struct does not have.
const unknownKey = "unknown key"

// decoding is one call of Decode.
type decoding struct {
	problems Problems
}

func (d *decoding) add(e *entry, message string) { d.problems = append(d.problems, e.problem(message)) }

// value puts value, which stands at e, into the field. A nil value is none.
func (d *decoding) value(e *entry, value any, into reflect.Value) {
	if value == nil || len(e.faults) > 0 {
		return
	}
	if into.Kind() == reflect.Pointer {
		if into.IsNil() {
			into.Set(newValue(into.Type().Elem()).Addr())
		}
		d.value(e, value, into.Elem())
		return
	}
	switch shapeOf(into.Type()) {
	case sectionShape:
		d.section(e, value, into)
	case namedShape:
		d.named(e, value, into)
	case listShape:
		d.list(e, value, into)
	case freeShape:
		d.free(e, value, into)
	default:
		d.scalar(e, value, into)
	}
}

// newValue is an addressable value of t with its defaults.
func newValue(t reflect.Type) reflect.Value {
	fresh := reflect.New(t)
	if section, ok := fresh.Interface().(defaulter); ok {
		section.SetDefaults()
	}
	return fresh.Elem()
}

func (d *decoding) section(e *entry, value any, into reflect.Value) {
	keys, ok := value.(map[string]any)
	if !ok {
		d.add(e, "must be a section with keys (got "+kindName(value)+")")
		return
	}
	fields := fieldsOf(into.Type())
	known := map[string]bool{}
	for _, f := range fields {
		known[f.name] = true
		d.value(e.child(f.name), keys[f.name], into.FieldByIndex(f.index))
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if known[key] {
			continue
		}
		message := fmt.Sprintf("%s %q", unknownKey, key)
		if len(d.problems) < maxProblems { // the rest is hardly ever shown, and comparing takes long
			message += suggestion(key, namesOf(fields))
		}
		problem := e.problem(message)
		problem.Line = e.child(key).line
		d.problems = append(d.problems, problem)
	}
}

// namePattern is what names of sources, forwarders and the like must be: they appear
// in metrics, file names and URLs.
var namePattern = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

func (d *decoding) named(e *entry, value any, into reflect.Value) {
	keys, ok := value.(map[string]any)
	if !ok {
		d.add(e, "must be a mapping by name (got "+kindName(value)+")")
		return
	}
	t := into.Type()
	strict := pointed(t.Elem()).Kind() != reflect.String // text by any name: headers, fields
	section := shapeOf(pointed(t.Elem())) == sectionShape
	filled := reflect.MakeMapWithSize(t, len(keys)+into.Len())
	for old := into.MapRange(); old.Next(); {
		filled.SetMapIndex(old.Key(), old.Value())
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		below := e.child(key)
		if strict && !namePattern.MatchString(key) {
			d.add(below, "a name must begin with a-z and consist of at most 63 of a-z, 0-9, _ and -")
		}
		if keys[key] == nil && !section {
			continue
		}
		index := reflect.ValueOf(key).Convert(t.Key())
		element := newValue(t.Elem())
		if old := into.MapIndex(index); old.IsValid() {
			element.Set(old)
		}
		if keys[key] == nil && element.Kind() == reflect.Pointer && element.IsNil() {
			element.Set(newValue(t.Elem().Elem()).Addr())
		}
		d.value(below, keys[key], element)
		filled.SetMapIndex(index, element)
	}
	into.Set(filled)
}

func (d *decoding) list(e *entry, value any, into reflect.Value) {
	values, ok := value.([]any)
	if !ok {
		d.add(e, "must be a list, such as [a, b] (got "+kindName(value)+")")
		return
	}
	filled := reflect.MakeSlice(into.Type(), len(values), len(values))
	for i, element := range values {
		fresh := newValue(into.Type().Elem())
		d.value(e.child(strconv.Itoa(i)), element, fresh)
		filled.Index(i).Set(fresh)
	}
	into.Set(filled)
}

func (d *decoding) free(e *entry, value any, into reflect.Value) {
	if _, ok := value.(map[string]any); !ok && into.Type() == freeMapType {
		d.add(e, "must be a mapping (got "+kindName(value)+")")
		return
	}
	into.Set(reflect.ValueOf(plain(value)))
}

// kindName says what value is without showing it.
func kindName(value any) string {
	switch value.(type) {
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case bool:
		return "true or false"
	case string:
		return "text"
	default:
		return "a number"
	}
}
