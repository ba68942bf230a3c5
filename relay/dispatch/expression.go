package dispatch

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
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

// expression is a compiled expression of a lane. It may be used concurrently.
type expression struct {
	name    string // the key in the configuration file
	program cel.Program
}

// kind is what the value of an expression must be.
type kind uint8

const (
	anyKind kind = iota
	truthKind
	textKind
)

// allows reports whether a value of the type may be of the kind, as far as that
// is known before the expression is evaluated.
func (k kind) allows(t *cel.Type) bool {
	return k == anyKind || t.IsExactType(cel.DynType) ||
		k == truthKind && t.IsExactType(cel.BoolType) || k == textKind && t.IsExactType(cel.StringType)
}

func (k kind) String() string { return [...]string{"a value", "true or false", "text"}[k] }

// compileExpression compiles and checks the expression under the key name. The
// error says where in the text the fault is.
func compileExpression(name, text string, k kind) (*expression, error) {
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
	out := ast.OutputType()
	if out.IsExactType(viewType) {
		return nil, errors.New("is the whole event: name the parts that are wanted, such as event.data")
	}
	if !k.allows(out) {
		return nil, fmt.Errorf("must be %s for an event, and this is a %s", k, out)
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(expressionCost))
	if err != nil {
		return nil, err
	}
	return &expression{name: name, program: program}, nil
}

// expressionError is the first fault of an expression, in one line.
func expressionError(issues *cel.Issues) error {
	first := issues.Errors()[0]
	return fmt.Errorf("line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1, strings.ReplaceAll(first.Message, "\n", " "))
}

// eval is the expression's value for an event. An error that is errMissing
// says that the event lacks a field; every error names the expression.
func (e *expression) eval(v *view) (ref.Val, error) {
	out, _, err := e.program.Eval(v)
	switch {
	case err == nil:
		return out, nil
	case !errors.Is(err, errMissing) && strings.HasPrefix(err.Error(), "no such key"):
		err = missingKey{err}
	}
	return nil, fmt.Errorf("%s: %w", e.name, err)
}

// missingKey is CEL's own error for a key that a map lacks.
type missingKey struct{ error }

func (missingKey) Is(target error) bool { return target == errMissing }

// text is the value of an expression that must be text.
func (e *expression) text(v *view) (string, error) {
	out, err := e.eval(v)
	if err != nil {
		return "", err
	}
	text, ok := out.(types.String)
	if !ok {
		return "", fmt.Errorf("%s: is no text but a %s: wrap it in string(...)", e.name, out.Type().TypeName())
	}
	return string(text), nil
}

// truth is the value of an expression that must be true or false.
func (e *expression) truth(v *view) (bool, error) {
	out, err := e.eval(v)
	if err != nil {
		return false, err
	}
	truth, ok := out.(types.Bool)
	if !ok {
		return false, fmt.Errorf("%s: is neither true nor false but a %s", e.name, out.Type().TypeName())
	}
	return bool(truth), nil
}
