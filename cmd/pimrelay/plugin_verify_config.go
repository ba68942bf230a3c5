package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/pimrelay/pimrelay/relay/config"
	"github.com/pimrelay/pimrelay/sdk"
)

// ownConfig is a plugin's own configuration.
type ownConfig struct {
	file string // empty: there is none, and the configuration is empty
	json json.RawMessage
	uses map[string]bool // the placeholders in it
	root *yaml.Node      // nil without a file
}

// readOwnConfig reads a plugin's configuration and puts values in the places of
// the placeholders.
func readOwnConfig(file string, values map[string]string) (*ownConfig, error) {
	c := &ownConfig{file: file, json: json.RawMessage("{}"), uses: make(map[string]bool)}
	if file == "" {
		return c, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, usageError{err}
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, config.Problems{{File: file, Message: err.Error()}}
	}
	if len(document.Content) == 0 {
		return c, nil
	}
	c.root = document.Content[0]
	c.replace(c.root, values)
	content := map[string]any{}
	if c.root.Kind != yaml.MappingNode {
		err = errors.New("must hold the plugin's own configuration, a mapping")
	} else if err = c.root.Decode(&content); err == nil {
		c.json, err = json.Marshal(content)
	}
	if err != nil {
		return nil, config.Problems{{File: file, Line: c.root.Line, Message: err.Error()}}
	}
	return c, nil
}

// replace puts values into the scalars at and below node.
func (c *ownConfig) replace(node *yaml.Node, values map[string]string) {
	if node.Kind == yaml.ScalarNode {
		for placeholder, value := range values {
			if strings.Contains(node.Value, placeholder) {
				c.uses[placeholder] = true
				node.Value = strings.ReplaceAll(node.Value, placeholder, value)
			}
		}
	}
	for _, below := range node.Content {
		c.replace(below, values)
	}
}

// refused is what the command says when the plugin refuses its configuration.
func (c *ownConfig) refused(faults sdk.Faults) error {
	if c.file != "" {
		var problems config.Problems
		for _, f := range faults {
			problems = append(problems, config.Problem{File: c.file, Line: c.line(f.Field), Path: f.Field, Message: f.Problem})
		}
		return problems
	}
	var text strings.Builder
	fmt.Fprintln(&text, "the plugin needs a configuration:")
	for _, f := range faults {
		fmt.Fprintf(&text, "  %s\n", f)
	}
	fmt.Fprintln(&text, "Write it into a file, in YAML or JSON, and name that with --config. For example:")
	for _, f := range faults {
		if f.Field != "" && !strings.ContainsAny(f.Field, ".[") {
			fmt.Fprintf(&text, "  %s: %s\n", f.Field, placeholderFor(f.Field))
		}
	}
	fmt.Fprint(&text, "${destination} is the URL of a destination that verify serves, ${dir} a directory for the time of the test.")
	return usageError{errors.New(text.String())}
}

// line is where the key, or the nearest one above it, stands.
func (c *ownConfig) line(field string) int {
	at := c.root
	if at == nil {
		return 0
	}
	line := at.Line
	for name := range strings.FieldsFuncSeq(field, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		var next *yaml.Node
		for i := 0; at.Kind == yaml.MappingNode && i+1 < len(at.Content); i += 2 {
			if at.Content[i].Value == name {
				next, line = at.Content[i+1], at.Content[i].Line
			}
		}
		if next == nil {
			return line
		}
		at = next
	}
	return line
}

// placeholderFor is what may stand for a key that a plugin asks for.
func placeholderFor(key string) string {
	for _, part := range []string{"url", "endpoint", "webhook", "address"} {
		if strings.Contains(strings.ToLower(key), part) {
			return "${destination}"
		}
	}
	for _, part := range []string{"path", "file", "dir"} {
		if strings.Contains(strings.ToLower(key), part) {
			return "${dir}/events"
		}
	}
	return "..."
}
