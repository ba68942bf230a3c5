package config

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits on what a file may hold. They keep a file that is no configuration
// from costing more than a moment.
const (
	maxDepth  = 32
	maxValues = 50_000
	maxKey    = 128 // bytes
)

// reference says how far a value came from a reference.
type reference uint8

const (
	noReference    reference = iota
	withReference            // somewhere in the value
	wholeReference           // the value was one reference and nothing else
)

// entry is the place of one value: where it stands, and what is known about it
// apart from the value that the merged configuration has there.
type entry struct {
	parent  *entry
	name    string // key, or index in decimal
	indexed bool   // name is an index
	file    string // see Problem.File
	line    int

	value    any // of the file: string, bool, json.Number, or nil
	mapping  map[string]*entry
	list     []*entry
	ref      reference
	override bool     // the value is that of an environment variable
	resolved []string // what the references in the value resolved to
	faults   []string // why the value cannot be used; its children are then unknown
}

// child is the entry of a key or index of e. It is never nil: a key that has
// no entry stands where e stands.
func (e *entry) child(name string) *entry {
	if found := e.at([]string{name}); found != nil {
		return found
	}
	return &entry{parent: e, name: name, file: e.file, line: e.line}
}

// at is the entry at path below e, or nil.
func (e *entry) at(path []string) *entry {
	for _, name := range path {
		if e.mapping != nil {
			e = e.mapping[name]
		} else if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(e.list) {
			e = e.list[i]
		} else {
			return nil
		}
		if e == nil {
			return nil
		}
	}
	return e
}

// find is the entry at a path as people write it, "a.b[2].c" or "a.b.2.c", or
// the nearest one above it; exact tells which. Keys may contain dots.
func (e *entry) find(path string) (found *entry, exact bool) {
	rest := strings.NewReplacer("[", ".", "]", "").Replace(path)
	for rest != "" {
		next, length := e.step(rest)
		if next == nil {
			return e, false
		}
		e, rest = next, strings.TrimPrefix(rest[length:], ".")
	}
	return e, true
}

// step is the child of e whose name is the longest beginning of path, and the
// name's length.
func (e *entry) step(path string) (found *entry, length int) {
	name, _, _ := strings.Cut(path, ".")
	if e.mapping == nil {
		return e.at([]string{name}), len(name)
	}
	for name, candidate := range e.mapping {
		rest, ok := strings.CutPrefix(path, name)
		if ok && (rest == "" || rest[0] == '.') && (found == nil || len(name) > length) {
			found, length = candidate, len(name)
		}
	}
	return found, length
}

// path is the path from the root to e, as [Problem.Path] shows it.
func (e *entry) path() string {
	switch {
	case e.parent == nil:
		return ""
	case e.indexed:
		return e.parent.path() + "[" + e.name + "]"
	case e.parent.parent == nil:
		return e.name
	default:
		return e.parent.path() + "." + e.name
	}
}

// problem is message about the value at e.
func (e *entry) problem(message string) Problem {
	return Problem{File: e.file, Line: e.line, Path: e.path(), Message: oneLine(message)}
}

// problems appends the faults at and below e.
func (e *entry) problems(to Problems) Problems {
	for below := range e.all {
		for _, fault := range below.faults {
			to = append(to, below.problem(fault))
		}
	}
	return to
}

// all yields e and what is below it.
func (e *entry) all(yield func(*entry) bool) {
	e.each(yield)
}

// each is all; it reports whether yield wants more.
func (e *entry) each(yield func(*entry) bool) bool {
	if !yield(e) {
		return false
	}
	for _, below := range e.mapping {
		if !below.each(yield) {
			return false
		}
	}
	for _, below := range e.list {
		if !below.each(yield) {
			return false
		}
	}
	return true
}

// tree is the value at e in plain Go types. Values that cannot be used are
// nil.
func (e *entry) tree() any {
	switch {
	case len(e.faults) > 0:
		return nil
	case e.mapping != nil:
		out := make(map[string]any, len(e.mapping))
		for key, below := range e.mapping {
			out[key] = below.tree()
		}
		return out
	case e.list != nil:
		out := make([]any, len(e.list))
		for i, below := range e.list {
			out[i] = below.tree()
		}
		return out
	default:
		return e.value
	}
}

// builder makes the entries of a document from YAML nodes.
type builder struct {
	doc   *Document
	count int // of values so far
}

// build fills e from node, which stands depth levels below the root.
func (b *builder) build(e *entry, node *yaml.Node, depth int) {
	b.count++
	switch {
	case b.count > maxValues:
		if b.count == maxValues+1 {
			e.faults = append(e.faults, fmt.Sprintf("the file holds more than %d values", maxValues))
		}
	case depth > maxDepth:
		e.faults = append(e.faults, fmt.Sprintf("is nested deeper than %d levels", maxDepth))
	case unsupported(node) != "":
		e.faults = append(e.faults, unsupported(node))
	case node.Kind == yaml.MappingNode:
		b.mapping(e, node, depth)
	case node.Kind == yaml.SequenceNode:
		b.list(e, node, depth)
	default:
		b.scalar(e, node)
	}
}

// unsupported says which feature of YAML node uses that a configuration may
// not, or nothing. Anchors and aliases are refused because they let a small
// file grow without limit, and tags because they change types invisibly.
func unsupported(node *yaml.Node) string {
	switch {
	case node.Kind == yaml.AliasNode || node.Anchor != "" || node.Tag == "!!merge":
		return "anchors, aliases and merge keys (&name, *name, <<) are not supported: write the value out, or put it in quotes if it is text"
	case node.Style&yaml.TaggedStyle != 0:
		return "tags (!name) are not supported: put the value in quotes if it is text"
	}
	return ""
}

func (b *builder) mapping(e *entry, node *yaml.Node, depth int) {
	e.mapping = make(map[string]*entry, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content) && b.count <= maxValues; i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		child := &entry{parent: e, name: key.Value, file: e.file, line: key.Line}
		first, duplicate := e.mapping[key.Value]
		fault := keyFault(key)
		if fault == "" && duplicate {
			fault = fmt.Sprintf("duplicate key %q, first at line %d: keep one of them", key.Value, first.line)
		}
		if fault != "" {
			b.count++ // as if it had a value
			problem := e.problem(fault)
			problem.Line = key.Line
			b.doc.problems = append(b.doc.problems, problem)
			continue
		}
		e.mapping[key.Value] = child
		b.build(child, value, depth+1)
	}
}

// keyFault says why key cannot be a key, or nothing.
func keyFault(key *yaml.Node) string {
	switch {
	case unsupported(key) != "":
		return unsupported(key)
	case key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null":
		return "a key must be text"
	case len(key.Value) > maxKey:
		return fmt.Sprintf("a key may have at most %d bytes", maxKey)
	case strings.ContainsFunc(key.Value, isControl):
		return fmt.Sprintf("key %q contains a control character: remove it", key.Value)
	}
	return ""
}

func (b *builder) list(e *entry, node *yaml.Node, depth int) {
	e.list = make([]*entry, len(node.Content))
	for i, element := range node.Content {
		child := &entry{parent: e, name: strconv.Itoa(i), indexed: true, file: e.file, line: element.Line}
		e.list[i] = child
		b.build(child, element, depth+1)
		if element.Kind == yaml.ScalarNode && element.ShortTag() == "!!null" {
			child.faults = append(child.faults, "an element of a list must have a value: remove it, or write \"\" for empty text")
		}
	}
}

// jsonNumber is a number as JSON writes it. YAML has many more forms, of which
// some are mistaken for others (0600 is octal, 1_000 is a number), so they are
// not taken.
var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

func (b *builder) scalar(e *entry, node *yaml.Node) {
	switch node.ShortTag() {
	case "!!null":
	case "!!bool":
		switch node.Value {
		case "true", "false":
			e.value = node.Value == "true"
		default: // True, TRUE and the like
			e.value = node.Value
		}
	case "!!int", "!!float":
		if !jsonNumber.MatchString(node.Value) {
			e.faults = append(e.faults, "write the number in plain decimal digits, without a leading zero, or put it in quotes if it is text")
			return
		}
		e.value = json.Number(node.Value)
	default: // text, and timestamps as text
		b.doc.expand(e, node.Value)
	}
}
