package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/v2"
)

// delimiter separates keys inside koanf. Keys cannot contain it, because they
// contain no control characters; a dot would split event types.
const delimiter = "\x1f"

// override is an environment variable that stands for a key.
type override struct {
	path  []string
	value string // with references resolved
}

// merge loads the file's values and the overrides into a fresh koanf instance
// and returns the result.
func (d *Document) merge(places []place) (map[string]any, Problems, error) {
	overrides, problems := d.overrides(places)
	k := koanf.New(delimiter)
	if err := k.Load(confmap.Provider(d.file, ""), nil); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", d.name, err)
	}
	if err := k.Load(env.Provider(delimiter, env.Opt{
		Prefix:      d.options.Prefix,
		EnvironFunc: func() []string { return d.options.Environ },
		TransformFunc: func(name, _ string) (string, any) {
			o, ok := overrides[name]
			if !ok {
				return "", nil
			}
			return strings.Join(o.path, delimiter), o.value
		},
	}), nil); err != nil {
		return nil, nil, fmt.Errorf("%s: environment: %w", d.name, err)
	}
	return k.Raw(), problems, nil
}

// overrides are the environment variables that stand for a key of places, by
// name, and the problems with those that look as if they should.
func (d *Document) overrides(places []place) (map[string]override, Problems) {
	if d.options.Prefix == "" {
		return nil, nil
	}
	var problems Problems
	overrides := map[string]override{}
	known := d.variables(places)
	for _, name := range slices.Sorted(maps.Keys(d.env)) {
		if !strings.HasPrefix(name, d.options.Prefix) || slices.Contains(d.options.Ignore, name) {
			continue
		}
		origin := &entry{file: "environment variable " + name}
		p, ok := known[name]
		if !ok {
			if fault := d.unknownVariable(name, known); fault != "" {
				problems = append(problems, origin.problem(fault))
			}
			continue
		}
		if fault := notOverridable(p); fault != "" {
			problems = append(problems, origin.problem(fault))
			continue
		}
		e := d.override(p.path, origin.file, d.env[name])
		if e != nil && len(e.faults) == 0 {
			text, _ := e.value.(string)
			overrides[name] = override{p.path, text}
		}
	}
	return overrides, problems
}

// variables are the names of the variables for places. What is inside a
// mapping by name or a list has none.
func (d *Document) variables(places []place) map[string]place {
	known := make(map[string]place, len(places))
	for _, p := range places {
		if !slices.Contains(p.path, "<name>") && !slices.Contains(p.path, "[]") {
			known[d.options.Prefix+strings.ToUpper(strings.Join(p.path, "__"))] = p
		}
	}
	return known
}

// notOverridable says why no variable can stand for p, or nothing.
func notOverridable(p place) string {
	path := strings.Join(p.path, ".")
	switch shapeOf(p.typ) {
	case sectionShape:
		return fmt.Sprintf("%s is a section: add two underscores and the name of a key in it", path)
	case listShape:
		return fmt.Sprintf("%s is a list: set it in the file, where its elements may be ${env:NAME}", path)
	case namedShape, freeShape:
		return fmt.Sprintf("%s is a mapping: set it in the file, where its values may be ${env:NAME}", path)
	}
	return ""
}

// serviceLink matches the variables, less their prefix, that Kubernetes sets
// in each container for each service whose name begins like the program's.
// They are no overrides, whoever names a service so.
var serviceLink = regexp.MustCompile(`^([A-Z0-9]+_)*(SERVICE_HOST=.+|SERVICE_PORT(_[A-Z0-9]+)*=[0-9]+|` +
	`PORT=[a-z]+://.+|PORT_[0-9]+_(TCP|UDP|SCTP)=[a-z]+://.+|PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=.+)$`)

// unknownVariable says what is wrong with a variable that is no key, or
// nothing if it need not be one.
func (d *Document) unknownVariable(name string, known map[string]place) string {
	for outer := name; ; {
		i := strings.LastIndex(outer, "__")
		if i < 0 {
			break
		}
		outer = outer[:i]
		if p, ok := known[outer]; ok && shapeOf(p.typ) != sectionShape {
			if fault := notOverridable(p); fault != "" {
				return fault
			}
		}
	}
	if serviceLink.MatchString(strings.TrimPrefix(name, d.options.Prefix) + "=" + d.env[name]) {
		return ""
	}
	var names []string
	for candidate, p := range known {
		if notOverridable(p) == "" {
			names = append(names, strings.TrimPrefix(candidate, d.options.Prefix))
		}
	}
	slices.Sort(names)
	prefix := d.options.Prefix
	if best := nearestVariable(strings.TrimPrefix(name, prefix), names); best != "" {
		return fmt.Sprintf("stands for no key, did you mean %s?", prefix+best)
	}
	return fmt.Sprintf("stands for no key: unset it, or write the key's path in capitals with two underscores between the levels, such as %s",
		prefix+exampleVariable(names))
}

// exampleVariable is the first of names that has more than one level.
func exampleVariable(names []string) string {
	for _, name := range names {
		if strings.Contains(name, "__") {
			return name
		}
	}
	return "SECTION__KEY"
}

// override puts an entry for a variable with value in place of what the file
// has at path. It is nil, and the file's entry stays, if the file has
// something else than a section above path, which Decode reports.
func (d *Document) override(path []string, file, value string) *entry {
	e := d.root
	for i, name := range path {
		if !e.open() {
			return nil
		}
		last := i == len(path)-1
		if last || e.mapping[name] == nil {
			e.mapping[name] = &entry{parent: e, name: name, file: file, override: last}
		}
		e = e.mapping[name]
	}
	if !utf8.ValidString(value) {
		e.faults = append(e.faults, "must be UTF-8 text")
		return e
	}
	d.expand(e, value)
	return e
}

// open prepares e to take keys and reports whether it can: whether the file
// has a section there, or nothing.
func (e *entry) open() bool {
	if len(e.faults) > 0 || e.list != nil || e.value != nil {
		return false
	}
	if e.mapping == nil {
		e.mapping = map[string]*entry{}
	}
	return true
}
