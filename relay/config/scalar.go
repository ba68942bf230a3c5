package config

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxShown is how many bytes of a wrong value a message shows.
const maxShown = 60

// redacted stands for a value that must not be shown.
const redacted = "[redacted]"

// scalar puts a single value into a field that takes one.
func (d *decoding) scalar(e *entry, value any, into reflect.Value) {
	text, isText := value.(string)
	loose := isText && (e.override || e.ref == wholeReference)
	fault := ""
	switch s := shapeOf(into.Type()); s {
	case durationShape:
		fault = setDuration(into, value)
	case encodedShape:
		fault = setEncoded(into, value, e.ref != noReference)
	case textShape:
		if isText {
			into.SetString(text)
		} else {
			fault = notText(value)
		}
	case boolShape:
		truth, ok := value.(bool)
		if loose && (text == "true" || text == "false") {
			truth, ok = text == "true", true
		}
		if ok {
			into.SetBool(truth)
		} else {
			fault = "must be true or false"
		}
	default:
		number, ok := value.(json.Number)
		if loose && jsonNumber.MatchString(text) {
			number, ok = json.Number(text), true
		}
		fault = setNumber(into, s, number, ok)
	}
	if fault != "" {
		hidden := e.ref != noReference || into.Type() == secretType
		d.add(e, withValue(fault, value, hidden))
	}
}

// withValue is fault and the value that it is about.
func withValue(fault string, value any, hidden bool) string {
	shown := redacted
	switch v := value.(type) {
	case map[string]any, []any:
		shown = kindName(v)
	case string:
		if hidden {
			break
		}
		shown = strconv.Quote(shortened(v))
		if strings.Contains(fault, shown) {
			return fault
		}
	default:
		if !hidden {
			shown = shortened(fmt.Sprint(v))
		}
	}
	return fault + " (got " + shown + ")"
}

// shortened is text cut to maxShown bytes.
func shortened(text string) string {
	if len(text) <= maxShown {
		return text
	}
	end := maxShown
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// notText is the fault of a field that takes text only.
func notText(value any) string {
	switch value.(type) {
	case map[string]any, []any:
		return "must be text"
	default:
		return "must be text, in quotes"
	}
}

// setDuration fills a time.Duration or sdk.Duration and returns what is wrong,
// if anything. The number 0 needs no unit.
func setDuration(into reflect.Value, value any) string {
	text, ok := value.(string)
	if number, isNumber := value.(json.Number); isNumber && number == "0" {
		text, ok = "0", true
	}
	if ok {
		if duration, err := time.ParseDuration(text); err == nil {
			into.SetInt(int64(duration))
			return ""
		}
	}
	return `must be a duration with its unit, such as "5s"`
}

// setEncoded fills a field that reads text itself and returns what is wrong,
// if anything. The field's own words are not used for a hidden value, since
// they may quote it or a part of it.
func setEncoded(into reflect.Value, value any, hidden bool) string {
	text, ok := value.(string)
	switch {
	case !ok && into.Type() == sizeType:
		return `must be a size with its unit, such as "10MiB"`
	case !ok:
		return notText(value)
	}
	unmarshaler, _ := into.Addr().Interface().(encoding.TextUnmarshaler)
	err := unmarshaler.UnmarshalText([]byte(text))
	switch {
	case err == nil:
		return ""
	case into.Type() == sizeType:
		return `must be a size with its unit, such as "10MiB"`
	case hidden:
		return "is not valid here"
	default:
		return err.Error()
	}
}

// setNumber fills a field of a numeric shape and returns what is wrong, if
// anything. ok tells whether the value is a number at all.
func setNumber(into reflect.Value, s shape, number json.Number, ok bool) string {
	text, bits := number.String(), into.Type().Bits()
	switch s {
	case intShape:
		n, err := strconv.ParseInt(text, 10, bits)
		if ok && err == nil {
			into.SetInt(n)
			return ""
		}
		if ok && isWhole(text) {
			return fmt.Sprintf("must be from %d to %d", int64(-1)<<(bits-1), int64(1)<<(bits-1)-1)
		}
		return "must be a whole number"
	case uintShape:
		n, err := strconv.ParseUint(text, 10, bits)
		if ok && err == nil {
			into.SetUint(n)
			return ""
		}
		if ok && isWhole(text) {
			return fmt.Sprintf("must be from 0 to %d", uint64(math.MaxUint64)>>(64-bits))
		}
		return "must be a whole number"
	default:
		n, err := strconv.ParseFloat(text, bits)
		if ok && err == nil {
			into.SetFloat(n)
			return ""
		}
		if ok {
			return "is too large a number"
		}
		return "must be a number"
	}
}

// isWhole reports whether the number in text has neither fraction nor
// exponent.
func isWhole(text string) bool { return !strings.ContainsAny(text, ".eE") }
