// Package config reads a configuration file into a struct, strictly: what the
// struct does not know, what has the wrong type and what cannot be resolved is
// a [Problem] that names file, line, key and remedy, and all problems come
// together.
//
// The file is YAML without anchors and tags. Its values may refer to the
// environment and to files (${env:NAME}, ${file:/path}), and environment
// variables may override them (PIMRELAY_LOG__LEVEL sets log.level). koanf merges
// the file and the overrides; the strict reading of the result is this package's
// own, because it has to report every problem with its position.
//
// The package knows no section of any configuration: the struct, its defaults
// and the checks beyond types belong to the caller, who gives positions to the
// faults that its checks find with [Document.Problems]. Watching the file for
// changes is left to the caller, too.
package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/pimrelay/pimrelay/sdk"
)

// Options say where values outside the file come from.
type Options struct {
	// Environ are the environment variables, each "NAME=value" as
	// os.Environ returns them, for ${env:NAME} and for overrides. Nil means
	// an empty environment.
	Environ []string
	// Prefix begins the name of each variable that overrides a key, for
	// example "PIMRELAY_". Empty turns overrides off.
	Prefix string
	// Ignore are names of variables that begin with Prefix and are no
	// overrides, because another part of the program reads them.
	Ignore []string
}

// Document is one configuration file that was read and resolved. Decode must
// have returned before other methods are called; after that they may be called
// concurrently.
type Document struct {
	name     string
	options  Options
	env      map[string]string
	root     *entry
	file     map[string]any // what the file says
	values   map[string]any // the same with overrides, once Decode has run
	problems Problems       // of the file's structure, which do not belong to one value
	resolved []string       // what references resolved to
}

// Load reads the file at path; see [Parse]. If the file cannot be read, the
// error wraps that of the file system.
func Load(path string, opts Options) (*Document, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer func() { _ = file.Close() }() // opened for reading: nothing is lost
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, opts)
}

// Parse reads data, one YAML document of at most 1 MiB whose root is a
// mapping, and resolves the references in its values. name stands for the file
// in problems. The error is [Problems] if data is no such document; what is
// wrong with single values is kept for [Document.Decode].
func Parse(name string, data []byte, opts Options) (*Document, error) {
	node, problem := parseYAML(data)
	if problem != nil {
		problem.File = name
		return nil, Problems{*problem}
	}
	d := &Document{name: name, options: opts, env: environment(opts.Environ)}
	d.root = &entry{file: name}
	b := builder{doc: d}
	b.build(d.root, node, 0)
	d.file, _ = d.root.tree().(map[string]any)
	d.values = d.file
	return d, nil
}

// environment is environ by name.
func environment(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, variable := range environ {
		if name, value, ok := strings.Cut(variable, "="); ok {
			env[name] = value
		}
	}
	return env
}

// Problems gives file and line to the faults that the checks of a decoded
// configuration found. A fault's field is the key's full path, such as
// "forwarders.shop.batch.max_events" or "allow_from[2]"; if the key stands
// nowhere, the line is that of the nearest section around it that does. No
// message shows what a reference resolved to.
func (d *Document) Problems(faults sdk.Faults) Problems {
	var problems Problems
	for _, fault := range faults {
		e, exact := d.root.find(fault.Field)
		problems = append(problems, Problem{
			File: e.file, Line: e.line, Path: fault.Field,
			Message: oneLine(d.redactFault(fault.Problem, e, exact)),
		})
	}
	return problems.sorted()
}

// JSON is the value at path, one element a key or a list index, in JSON:
// references are resolved, keys without a value are left out, and numbers
// stand as in the file. It serves free-form sections that another part of the
// program checks. It is nil if path has no value, and an error if a value at
// or below path could not be resolved.
func (d *Document) JSON(path ...string) (json.RawMessage, error) {
	if e := d.root.at(path); e != nil {
		if problems := e.problems(nil); len(problems) > 0 {
			return nil, problems.sorted()
		}
	}
	value := lookup(d.values, path)
	if value == nil {
		return nil, nil
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(plain(value)); err != nil {
		return nil, fmt.Errorf("%s: %s as JSON: %w", d.name, strings.Join(path, "."), err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// lookup is the value at path below value, or nil.
func lookup(value any, path []string) any {
	for _, name := range path {
		switch v := value.(type) {
		case map[string]any:
			value = v[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(v) {
				return nil
			}
			value = v[i]
		default:
			return nil
		}
	}
	return value
}

// plain is a copy of value without the keys that have no value.
func plain(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, element := range v {
			if element != nil {
				out[key] = plain(element)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, element := range v {
			out[i] = plain(element)
		}
		return out
	default:
		return value
	}
}
