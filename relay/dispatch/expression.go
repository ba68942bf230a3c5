package dispatch

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"

	"github.com/pimrelay/pimrelay/sdk"
)

const (
	// expressionCost bounds the work of one evaluation, in CEL's own unit
	// of about one operation.
	expressionCost = 1_000_000
	// expressionLength bounds an expression's text, in bytes.
	expressionLength = 8 << 10
)

// environment is what every expression may use: `event` and `source`, the
// standard functions, optional fields and the string functions.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	provider := viewProvider{registry}
	return cel.NewEnv(
		cel.CustomTypeProvider(provider),
		cel.CustomTypeAdapter(registry),
		cel.Variable("event", viewType),
		cel.Variable("source", cel.StringType),
		cel.OptionalTypes(),
		ext.Strings(),
	)
})

// match is a compiled `match` expression. It may be used concurrently.
type match struct{ program cel.Program }

// compileMatch compiles and checks an expression. The error says where in the
// expression the fault is.
func compileMatch(text string) (*match, error) {
	if len(text) > expressionLength {
		return nil, fmt.Errorf("is longer than %d bytes", expressionLength)
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, expressionError(issues)
	}
	if kind := ast.OutputType(); !kind.IsExactType(cel.BoolType) && !kind.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("must be true or false for an event, and this is a %s", kind)
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(expressionCost))
	if err != nil {
		return nil, err
	}
	return &match{program: program}, nil
}

// expressionError is the first fault of an expression, in one line.
func expressionError(issues *cel.Issues) error {
	first := issues.Errors()[0]
	return fmt.Errorf("line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1, strings.ReplaceAll(first.Message, "\n", " "))
}

// matches evaluates the expression. An event that lacks a field the expression
// asks for does not match; missing says so. Any other failure is an error.
func (m *match) matches(event *sdk.Event) (matched, missing bool, err error) {
	out, _, err := m.program.Eval(map[string]any{"event": &view{event: event}, "source": event.Source})
	switch {
	case err == nil:
		b, ok := out.(types.Bool)
		if !ok {
			return false, false, fmt.Errorf("match is neither true nor false but a %s", out.Type().TypeName())
		}
		return bool(b), false, nil
	case errors.Is(err, errMissing), strings.HasPrefix(err.Error(), "no such key"):
		return false, true, nil
	}
	return false, false, fmt.Errorf("match: %w", err)
}
