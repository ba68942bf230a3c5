package sdk

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxConfigDepth is how deep lists and mappings may be nested in a
// configuration.
const maxConfigDepth = 100

// DecodeConfig reads a forwarder's configuration strictly into the struct that
// into points to. The struct holds the defaults: a key that is absent or null
// keeps what is there, a list replaces the default list, and a mapping is
// merged into the default one. An empty raw is an empty configuration.
//
// Keys are the names in the fields' json tags, in exactly that spelling, and
// an embedded struct without a name lends its fields. Fields may be strings,
// booleans, numbers, structs, slices, maps with string keys, pointers to
// these, [Secret], [Duration], [Size], time.Duration (written like Duration),
// anything that is an encoding.TextUnmarshaler (from a string only) or a
// json.Unmarshaler, and any for what is free in form.
//
// Unknown and repeated keys, wrong types, numbers out of range and null inside
// a list are faults. If into has a method
//
//	Validate() sdk.Faults
//
// it is called at the end, and its faults are added for the fields that could
// be read. The error is a [Faults] with all of them, so that a person sees
// them together; what into holds is then of no use. An into that is no
// pointer to a struct is a mistake in the program and gives another error.
//
// No message quotes a string of the configuration, for it may be a secret; the
// errors of the struct's own unmarshalers and of Validate must see to that
// themselves.
func DecodeConfig(raw json.RawMessage, into any) error {
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() || target.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("decode configuration: need a pointer to a struct to fill (got %T)", into)
	}
	d := &configDecoder{}
	if len(bytes.TrimSpace(raw)) > 0 {
		if problem := unreadable(raw); problem != "" {
			d.faults.Add("", problem)
			return d.faults
		}
		tokens := json.NewDecoder(bytes.NewReader(raw))
		tokens.UseNumber() // a number out of float64's range is a token too
		if !d.checkKeys(tokens, "", maxConfigDepth) {
			return d.faults
		}
		d.value("", raw, target.Elem())
	}
	if v, ok := into.(interface{ Validate() Faults }); ok {
		d.addUnlessFaulty(v.Validate())
	}
	return d.faults.Err()
}

// unreadable says why raw is not one JSON value, or nothing if it is.
func unreadable(raw json.RawMessage) string {
	if !utf8.Valid(raw) {
		return "must be UTF-8"
	}
	var whole json.RawMessage
	err := json.Unmarshal(raw, &whole)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("must be one JSON value (syntax error at byte %d)", syntax.Offset)
	}
	return ""
}

type configDecoder struct {
	faults Faults
}

// checkKeys reads one value from tokens and adds a fault for each key that
// stands twice in a mapping, also where the struct leaves the form free. It
// gives up, and returns false, below depth levels.
func (d *configDecoder) checkKeys(tokens *json.Decoder, path string, depth int) bool {
	token, err := tokens.Token()
	open, nested := token.(json.Delim)
	if err != nil || !nested {
		return err == nil
	}
	if depth == 0 {
		d.faults.Add("", fmt.Sprintf("must not be nested deeper than %d levels", maxConfigDepth))
		return false
	}
	seen := map[string]bool{}
	for i := 0; tokens.More(); i++ {
		var child string
		if open == '[' {
			child = indexed(path, i)
		} else {
			key, err := tokens.Token()
			name, isKey := key.(string)
			if err != nil || !isKey {
				return false
			}
			child = below(path, name)
			if seen[name] {
				d.faults.Add(child, "stands here twice, keep one")
			}
			seen[name] = true
		}
		if !d.checkKeys(tokens, child, depth-1) {
			return false
		}
	}
	_, err = tokens.Token() // the closing bracket
	return err == nil
}

// addUnlessFaulty adds those of found that concern a field of which nothing is
// known to be wrong yet.
func (d *configDecoder) addUnlessFaulty(found Faults) {
	known := slices.Clone(d.faults)
	for _, f := range found {
		covered := slices.ContainsFunc(known, func(k Fault) bool {
			return covers(k.Field, f.Field) || covers(f.Field, k.Field)
		})
		if !covered {
			d.faults = append(d.faults, f)
		}
	}
}

// covers reports whether field is outer or lies below it, as everything does
// below "", the section itself.
func covers(outer, field string) bool {
	rest, ok := strings.CutPrefix(field, outer)
	return ok && (outer == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// value reads raw, valid JSON, into into, which is addressable.
func (d *configDecoder) value(path string, raw json.RawMessage, into reflect.Value) {
	raw = bytes.TrimSpace(raw)
	if raw[0] == 'n' {
		return // null: absent
	}
	if into.Kind() == reflect.Pointer {
		fresh := reflect.New(into.Type().Elem())
		if !into.IsNil() {
			fresh.Elem().Set(into.Elem())
		}
		d.value(path, raw, fresh.Elem())
		into.Set(fresh)
		return
	}
	switch target := into.Addr().Interface().(type) {
	case *Secret:
		d.secret(path, raw, target)
	case *time.Duration:
		d.quantity(path, raw, (*Duration)(target))
	case *Duration:
		d.quantity(path, raw, target)
	case *Size:
		d.quantity(path, raw, target)
	case encoding.TextUnmarshaler:
		if text, ok := d.text(path, raw); ok {
			d.check(path, target.UnmarshalText([]byte(text)))
		}
	case json.Unmarshaler:
		d.check(path, target.UnmarshalJSON(raw))
	default:
		d.plain(path, raw, into)
	}
}

// plain reads into a type that has no way of its own to be read.
func (d *configDecoder) plain(path string, raw json.RawMessage, into reflect.Value) {
	switch into.Kind() {
	case reflect.String:
		if text, ok := d.text(path, raw); ok {
			into.SetString(text)
		}
	case reflect.Bool:
		if raw[0] != 't' && raw[0] != 'f' {
			d.faults.Add(path, "must be true or false ("+got(raw)+")")
			return
		}
		into.SetBool(raw[0] == 't')
	case reflect.Slice:
		d.list(path, raw, into)
	case reflect.Map:
		d.mapping(path, raw, into)
	case reflect.Struct:
		d.structure(path, raw, into)
	case reflect.Interface:
		d.free(path, raw, into)
	default:
		d.number(path, raw, into)
	}
}

func (d *configDecoder) number(path string, raw json.RawMessage, into reflect.Value) {
	text := string(raw)
	if kindOf(raw) != "a number" {
		text = "" // no number in any of the forms below
	}
	var err error
	wanted := "a number"
	switch {
	case into.CanInt():
		var n int64
		n, err = strconv.ParseInt(text, 10, into.Type().Bits())
		into.SetInt(n)
		wanted = "a whole number"
		if errors.Is(err, strconv.ErrRange) {
			limit := uint64(1) << (into.Type().Bits() - 1)
			wanted = fmt.Sprintf("a whole number from -%d to %d", limit, limit-1)
		}
	case into.CanUint():
		var n uint64
		n, err = strconv.ParseUint(text, 10, into.Type().Bits())
		into.SetUint(n)
		wanted = "a whole number, 0 or above"
		if errors.Is(err, strconv.ErrRange) {
			wanted = fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-into.Type().Bits()))
		}
	case into.CanFloat():
		var n float64
		n, err = strconv.ParseFloat(text, into.Type().Bits())
		into.SetFloat(n)
	default:
		d.faults.Add(path, fmt.Sprintf("cannot be configured: the forwarder keeps it as a %s", into.Type()))
		return
	}
	if err != nil {
		d.faults.Add(path, "must be "+wanted+" ("+got(raw)+")")
	}
}

// secret reads a secret, of which no message shows anything, be it of the
// wrong type.
func (d *configDecoder) secret(path string, raw json.RawMessage, into *Secret) {
	if raw[0] != '"' {
		d.faults.Add(path, "must be a string, put it in quotes (got "+kindOf(raw)+")")
		return
	}
	if text, ok := d.text(path, raw); ok {
		*into = Secret(text)
	}
}

// quantity reads a number with a unit. A bare number goes the same way, so
// that the message speaks of the unit.
func (d *configDecoder) quantity(path string, raw json.RawMessage, into encoding.TextUnmarshaler) {
	text, isText := string(raw), raw[0] == '"'
	if isText {
		text, _ = d.text(path, raw)
	}
	err := into.UnmarshalText([]byte(text))
	if err != nil && !isText {
		err = fmt.Errorf("%w (%s)", err, got(raw))
	}
	d.check(path, err)
}

// text is the string that raw holds.
func (d *configDecoder) text(path string, raw json.RawMessage) (text string, ok bool) {
	if raw[0] != '"' {
		d.faults.Add(path, "must be a string ("+got(raw)+")")
		return "", false
	}
	err := json.Unmarshal(raw, &text)
	d.check(path, err)
	return text, err == nil
}

func (d *configDecoder) check(path string, err error) {
	if err != nil {
		d.faults.Add(path, strings.Join(strings.Fields(err.Error()), " "))
	}
}

func (d *configDecoder) list(path string, raw json.RawMessage, into reflect.Value) {
	var items []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
		d.faults.Add(path, "must be a list (got "+kindOf(raw)+")")
		return
	}
	fresh := reflect.MakeSlice(into.Type(), len(items), len(items))
	for i, item := range items {
		if string(item) == "null" {
			d.faults.Add(indexed(path, i), "must not be null, leave it out")
			continue
		}
		d.value(indexed(path, i), item, fresh.Index(i))
	}
	into.Set(fresh)
}

// mapping reads into a map. It leaves the map that it finds alone, which may
// be everybody's default, and puts a merged one in its place.
func (d *configDecoder) mapping(path string, raw json.RawMessage, into reflect.Value) {
	t := into.Type()
	if t.Key().Kind() != reflect.String {
		d.faults.Add(path, fmt.Sprintf("cannot be configured: the forwarder keeps it as a %s", t))
		return
	}
	fresh := reflect.MakeMap(t)
	for it := into.MapRange(); it.Next(); {
		fresh.SetMapIndex(it.Key(), it.Value())
	}
	d.members(path, raw, func(child, name string, value json.RawMessage) {
		if string(value) == "null" {
			return
		}
		key := reflect.ValueOf(name).Convert(t.Key())
		element := reflect.New(t.Elem()).Elem()
		if old := fresh.MapIndex(key); old.IsValid() {
			element.Set(old)
		}
		d.value(child, value, element)
		fresh.SetMapIndex(key, element)
	})
	into.Set(fresh)
}

func (d *configDecoder) structure(path string, raw json.RawMessage, into reflect.Value) {
	fields := map[string]reflect.Value{}
	collectFields(into, fields)
	d.members(path, raw, func(child, name string, value json.RawMessage) {
		field, ok := fields[name]
		if !ok {
			d.faults.Add(child, unknownKey(name, slices.Sorted(maps.Keys(fields))))
			return
		}
		d.value(child, value, field)
	})
}

// free reads whatever there is, as encoding/json does.
func (d *configDecoder) free(path string, raw json.RawMessage, into reflect.Value) {
	if into.NumMethod() > 0 {
		d.faults.Add(path, fmt.Sprintf("cannot be configured: the forwarder keeps it as a %s", into.Type()))
		return
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		d.faults.Add(path, "holds a number that is out of range")
		return
	}
	into.Set(reflect.ValueOf(v))
}

// members calls each with the members of the JSON object raw in their order; of
// a repeated one it takes the first.
func (d *configDecoder) members(path string, raw json.RawMessage, each func(child, name string, value json.RawMessage)) {
	if raw[0] != '{' {
		d.faults.Add(path, "must be a mapping (got "+kindOf(raw)+")")
		return
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil {
		return
	}
	seen := map[string]bool{}
	for dec.More() {
		var value json.RawMessage
		key, err := dec.Token()
		name, ok := key.(string)
		if err != nil || !ok || dec.Decode(&value) != nil {
			return // cannot be: raw is valid
		}
		if !seen[name] {
			seen[name] = true
			each(below(path, name), name, value)
		}
	}
}

// collectFields puts the fields of the struct v into fields by their
// configuration names; an outer field hides an embedded one.
func collectFields(v reflect.Value, fields map[string]reflect.Value) {
	var embedded []reflect.Value
	for i := range v.NumField() {
		name, wanted := configKey(v.Type().Field(i))
		switch {
		case !wanted:
		case name == "":
			embedded = append(embedded, v.Field(i))
		default:
			if _, hidden := fields[name]; !hidden {
				fields[name] = v.Field(i)
			}
		}
	}
	for _, e := range embedded {
		collectFields(e, fields)
	}
}

// kindOf names what raw is, without showing it.
func kindOf(raw json.RawMessage) string {
	switch raw[0] {
	case '{':
		return "a mapping"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	}
	return "a number"
}

// got is what a message says about a value of the wrong type. Only booleans
// and numbers are shown.
func got(raw json.RawMessage) string {
	kind := kindOf(raw)
	if (kind == "a boolean" || kind == "a number") && len(raw) <= 32 {
		return "got " + string(raw)
	}
	return "got " + kind
}

// below is the path of key name under path. A name that would not be readable
// in a path is quoted and cut.
func below(path, name string) string {
	plain := name != "" && len(name) <= 64 && !strings.ContainsFunc(name, func(r rune) bool {
		return !strconv.IsPrint(r) || r == ' ' || r == '"'
	})
	if !plain {
		name = strconv.Quote(strings.ToValidUTF8(name[:min(len(name), 64)], ""))
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

func indexed(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func unknownKey(name string, known []string) string {
	best, least := "", 0
	for _, candidate := range known {
		distance := editDistance(folded(name), folded(candidate))
		if distance <= max(1, len(candidate)/3) && (best == "" || distance < least) {
			best, least = candidate, distance
		}
	}
	if best != "" {
		return fmt.Sprintf("unknown key, did you mean %q?", best)
	}
	return "unknown key, known are " + cmp.Or(strings.Join(known, ", "), "none")
}

// folded is name without what people get wrong when they spell it from memory.
func folded(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name[:min(len(name), 64)]))
}

// editDistance counts the insertions, deletions, substitutions and swaps of
// neighbours, in bytes, that turn a into b.
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			substitute := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				substitute++
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, substitute)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
