package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxProblems is how many problems are shown at once: a person reads no more,
// and a file of the wrong kind would give thousands.
const maxProblems = 100

// Problem is one thing that is wrong in a configuration, in a form that lets a
// person find and repair it.
type Problem struct {
	// File is the file's name as it was passed to Load or Parse, or
	// "environment variable NAME" if the value came from an override.
	File string
	// Line counts from 1; 0 means that no line can be named.
	Line int
	// Path is the key's path with dots; empty if the problem is not about
	// one key.
	Path string
	// Message says what is wrong and what would be right. It shows neither
	// secrets nor what a reference resolved to.
	Message string
}

// Error is the problem in one line:
// "pimrelay.yaml:14: forwarders.shop.rate.per_second: must be above 0 (got -1)".
func (p Problem) Error() string {
	var out strings.Builder
	out.WriteString(p.File)
	if p.Line > 0 {
		out.WriteString(":" + strconv.Itoa(p.Line))
	}
	if p.Path != "" {
		out.WriteString(": " + p.Path)
	}
	out.WriteString(": " + p.Message)
	return out.String()
}

// Problems are all the things wrong in a configuration, in the order of their
// lines; those without a line come last. A Problems with no element is no
// error: return Err().
type Problems []Problem

// Err is p as an error, or nil if there is no problem.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// With returns p together with those of more that are not a mere consequence: a
// value that could not be read leaves its key empty, and what a later check says
// of that key, or of what stands below it, would only mislead.
func (p Problems) With(more Problems) Problems {
	all := slices.Clone(p)
	for _, next := range more {
		if !slices.ContainsFunc(p, func(first Problem) bool { return first.explains(next) }) {
			all = append(all, next)
		}
	}
	return all.sorted()
}

// explains reports whether next follows from p. An unknown key takes nothing
// away from the section it stands in.
func (p Problem) explains(next Problem) bool {
	if strings.HasPrefix(p.Message, unknownKey) {
		return false
	}
	return next.Path == p.Path || strings.HasPrefix(next.Path, p.Path+".")
}

// Error is one line a problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// sorted is p in the order of its documentation, cut to maxProblems with a
// last element that counts the rest.
func (p Problems) sorted() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(
			compareLines(a.Line, b.Line),
			cmp.Compare(a.File, b.File),
			cmp.Compare(a.Path, b.Path),
			cmp.Compare(a.Message, b.Message),
		)
	})
	if len(p) <= maxProblems {
		return p
	}
	rest := Problem{File: p[0].File, Message: fmt.Sprintf("and %d more problems", len(p)-maxProblems)}
	return append(p[:maxProblems:maxProblems], rest)
}

// compareLines orders lines, with 0 after all others.
func compareLines(a, b int) int {
	if (a == 0) != (b == 0) {
		return cmp.Compare(b, a)
	}
	return cmp.Compare(a, b)
}

// oneLine is message without line breaks.
func oneLine(message string) string {
	return strings.Join(strings.FieldsFunc(message, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}
