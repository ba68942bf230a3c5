package dispatch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/pimrelay/pimrelay/sdk"
)

// errMissing is what an expression meets where the event lacks a field.
var errMissing = errors.New("no such field")

// view is an event as expressions see it, and what they see beside it. Its data
// is decoded when an expression first needs it, and once.
type view struct {
	event   *sdk.Event
	decoded bool
	data    any
	err     error
}

var viewType = types.NewObjectType("pimrelay.Event")

// viewFields are what `event.` offers: name, type, and value.
var viewFields = map[string]struct {
	kind *types.Type
	get  func(*view) (any, error)
}{
	"id":      {types.StringType, func(v *view) (any, error) { return v.event.ID, nil }},
	"type":    {types.StringType, func(v *view) (any, error) { return v.event.Type, nil }},
	"source":  {types.StringType, func(v *view) (any, error) { return v.event.EventSource, nil }},
	"subject": {types.StringType, func(v *view) (any, error) { return v.event.Subject, nil }},
	"time":    {types.TimestampType, (*view).time},
	"entity":  {types.StringType, (*view).entity},
	"data":    {types.DynType, (*view).payload},
	"author":  {types.NewMapType(types.StringType, types.DynType), (*view).author},
}

// ResolveName finds the variables of an expression.
func (v *view) ResolveName(name string) (any, bool) {
	switch name {
	case "event":
		return v, true
	case "source":
		return v.event.Source, true
	}
	return nil, false
}

// Parent says that there are no further variables.
func (v *view) Parent() cel.Activation { return nil }

func (v *view) time() (any, error) {
	if v.event.Time.IsZero() {
		return nil, fmt.Errorf("%w: event.time", errMissing)
	}
	return v.event.Time, nil
}

func (v *view) entity() (any, error) {
	if v.event.Entity == "" {
		return nil, fmt.Errorf("%w: event.entity", errMissing)
	}
	return v.event.Entity, nil
}

func (v *view) payload() (any, error) {
	if !v.decoded {
		v.decoded = true
		v.data, v.err = decodeData(v.event.Body)
	}
	return v.data, v.err
}

func (v *view) author() (any, error) {
	data, err := v.payload()
	if err != nil {
		return nil, err
	}
	if fields, ok := data.(map[string]any); ok {
		if author, ok := fields["author"].(map[string]any); ok {
			return author, nil
		}
	}
	return nil, fmt.Errorf("%w: event.author", errMissing)
}

// decodeData returns the data attribute of a CloudEvent. Integral numbers
// become ints, so that they print without an exponent.
func decodeData(body []byte) (any, error) {
	var envelope struct {
		Data any `json:"data"`
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&envelope); err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	if envelope.Data == nil {
		return nil, fmt.Errorf("%w: event.data", errMissing)
	}
	return plainNumbers(envelope.Data), nil
}

func plainNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
		return v.String()
	case map[string]any:
		for key, value := range v {
			v[key] = plainNumbers(value)
		}
	case []any:
		for i, value := range v {
			v[i] = plainNumbers(value)
		}
	}
	return v
}

// The methods of ref.Val. Expressions cannot do more with an event than to
// select its fields.

func (v *view) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("an event cannot become a %s", t)
}

func (v *view) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return viewType
	}
	return types.NewErr("an event cannot become a %s", t.TypeName())
}

func (v *view) Equal(other ref.Val) ref.Val { return types.Bool(ref.Val(v) == other) }
func (v *view) Type() ref.Type              { return viewType }
func (v *view) Value() any                  { return v }

// viewProvider tells CEL about the type of `event`, and leaves the rest to the
// standard registry.
type viewProvider struct{ *types.Registry }

func (p viewProvider) FindStructType(name string) (*types.Type, bool) {
	if name == viewType.TypeName() {
		return types.NewTypeTypeWithParam(viewType), true
	}
	return p.Registry.FindStructType(name)
}

func (p viewProvider) FindStructFieldNames(name string) ([]string, bool) {
	if name != viewType.TypeName() {
		return p.Registry.FindStructFieldNames(name)
	}
	names := make([]string, 0, len(viewFields))
	for field := range viewFields {
		names = append(names, field)
	}
	return names, true
}

func (p viewProvider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if name != viewType.TypeName() {
		return p.Registry.FindStructFieldType(name, field)
	}
	f, ok := viewFields[field]
	if !ok {
		return nil, false
	}
	return &types.FieldType{
		Type: f.kind,
		IsSet: func(target any) bool {
			_, err := f.get(target.(*view))
			return err == nil
		},
		GetFrom: func(target any) (any, error) { return f.get(target.(*view)) },
	}, true
}
