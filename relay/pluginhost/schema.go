package pluginhost

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/pimrelay/pimrelay/sdk"
)

// CompileSchema reads a plugin's JSON Schema. It may refer to itself and to
// nothing else.
func CompileSchema(schema json.RawMessage) (*jsonschema.Schema, error) {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return nil, fmt.Errorf("its config_schema is no JSON: %w", err)
	}
	const location = "config.json"
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(nothing{})
	if err := compiler.AddResource(location, document); err != nil {
		return nil, fmt.Errorf("its config_schema is no JSON Schema: %w", err)
	}
	compiled, err := compiler.Compile(location)
	if err != nil {
		return nil, fmt.Errorf("its config_schema is no JSON Schema: %w", err)
	}
	return compiled, nil
}

// nothing loads no schemas: a plugin makes the relay read no files.
type nothing struct{}

func (nothing) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s cannot be loaded: put it into $defs", url)
}

// checkSchema checks a configuration that the plugin has accepted against its
// schema. The error is sdk.Faults if it does not fit.
func checkSchema(schema, config json.RawMessage) error {
	if len(schema) == 0 {
		return nil
	}
	compiled, err := CompileSchema(schema)
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(config))
	if err != nil {
		return err
	}
	err = compiled.Validate(withoutNull(value))
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return err
	}
	var faults sdk.Faults
	addFaults(invalid, &faults)
	return faults.Err()
}

// withoutNull leaves out keys without a value, which count as absent.
func withoutNull(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			if below == nil {
				delete(v, key)
			} else {
				v[key] = withoutNull(below)
			}
		}
	case []any:
		for i := range v {
			v[i] = withoutNull(v[i])
		}
	}
	return value
}

// addFaults adds what is wrong at the leaves. The messages of the library name
// values, which may be secrets, in the kinds that compare them: these say what
// is wanted only.
func addFaults(e *jsonschema.ValidationError, faults *sdk.Faults) {
	for _, cause := range e.Causes {
		addFaults(cause, faults)
	}
	if len(e.Causes) == 0 {
		faults.Add(strings.Join(e.InstanceLocation, "."), problem(e))
	}
}

func problem(e *jsonschema.ValidationError) string {
	switch keyword := strings.Join(e.ErrorKind.KeywordPath(), "/"); keyword {
	case "type", "required", "additionalProperties", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "dependentRequired":
		return e.ErrorKind.LocalizedString(message.NewPrinter(language.English))
	default:
		return fmt.Sprintf("does not fit the plugin's schema (%s)", keyword)
	}
}
