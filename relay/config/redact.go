package config

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// minRedacted is the length from which on a resolved value is replaced
// wherever it occurs. Shorter ones, such as "true", occur everywhere.
const minRedacted = 8

// Referenced reports whether the value at path, one element a key or a list
// index, or any value below it, contains what ${env:NAME} or ${file:/path}
// resolved to. Such a value must not be shown.
func (d *Document) Referenced(path ...string) bool {
	e := d.root.at(path)
	if e == nil {
		return false
	}
	for below := range e.all {
		if below.ref != noReference {
			return true
		}
	}
	return false
}

// Redact is text with "[redacted]" in place of everything that a reference of
// the document resolved to, if it has 8 bytes or more. It is a second line of
// defence for text from elsewhere; a value that is known to be referenced
// should not be put into text at all.
func (d *Document) Redact(text string) string {
	var long []string
	for _, value := range d.resolved {
		if len(value) >= minRedacted {
			long = append(long, value, unquoted(value))
		}
	}
	return replaceAll(text, long)
}

// unquoted is value as it stands between the quotes of %q.
func unquoted(value string) string {
	quoted := strconv.Quote(value)
	return quoted[1 : len(quoted)-1]
}

// replaceAll is text with "[redacted]" in place of each of values, of which
// the longest goes first.
func replaceAll(text string, values []string) string {
	if len(values) == 0 {
		return text
	}
	slices.SortFunc(values, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	pairs := make([]string, 0, 2*len(values))
	for _, value := range values {
		pairs = append(pairs, value, redacted)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// redactFault is what a check said about the value at e, or about one below it
// if the entry is not exact, without what references resolved to.
func (d *Document) redactFault(message string, e *entry, exact bool) string {
	var values []string
	referenced := false
	for below := range e.all {
		if below.ref == noReference || !exact && below != e {
			continue
		}
		referenced = true
		for _, value := range below.resolved {
			values = append(values, strconv.Quote(value))
		}
	}
	if referenced {
		start, end := strings.Index(message, "(got "), strings.LastIndex(message, ")")
		if start >= 0 && start < end {
			message = message[:start] + "(got " + redacted + message[end:]
		}
	}
	return d.Redact(replaceAll(message, values))
}
