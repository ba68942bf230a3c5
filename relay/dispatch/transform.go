package dispatch

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// The content types of what a transformation makes.
const (
	textContent = "text/plain; charset=utf-8"
	jsonContent = "application/json"
)

// payload is an expression's value as it is sent, and its content type. Text is
// sent as it is; everything else is JSON, in which whole numbers stay whole,
// bytes are base64, times are as in RFC 3339 in UTC, durations are seconds
// ("1.5s"), and what is absent is null.
func payload(v ref.Val) ([]byte, string, error) {
	if text, ok := v.(types.String); ok {
		return []byte(text), textContent, nil
	}
	plain, err := native(v)
	if err != nil {
		return nil, "", err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(plain); err != nil {
		return nil, "", err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), jsonContent, nil
}

// native is a value as encoding/json takes it.
func native(v ref.Val) (any, error) {
	switch v := v.(type) {
	case types.String, types.Bool, types.Int, types.Uint:
		return v.Value(), nil
	case types.Double:
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return nil, fmt.Errorf("the number %v has no JSON form", float64(v))
		}
		return float64(v), nil
	case types.Null:
		return nil, nil
	case types.Bytes:
		return base64.StdEncoding.EncodeToString(v), nil
	case types.Timestamp:
		return v.UTC().Format(time.RFC3339Nano), nil
	case types.Duration:
		return fmt.Sprintf("%vs", v.Seconds()), nil
	case *types.Optional:
		if !v.HasValue() {
			return nil, nil
		}
		return native(v.GetValue())
	case traits.Mapper:
		return nativeMap(v)
	case traits.Lister:
		return nativeList(v)
	}
	return nil, fmt.Errorf("a value of type %s has no JSON form", v.Type().TypeName())
}

func nativeMap(m traits.Mapper) (any, error) {
	out := make(map[string]any)
	for it := m.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		name, ok := key.ConvertToType(types.StringType).(types.String)
		if !ok {
			return nil, fmt.Errorf("a key of type %s has no JSON form", key.Type().TypeName())
		}
		value, err := native(m.Get(key))
		if err != nil {
			return nil, err
		}
		out[string(name)] = value
	}
	return out, nil
}

func nativeList(l traits.Lister) (any, error) {
	out := []any{}
	for it := l.Iterator(); it.HasNext() == types.True; {
		value, err := native(it.Next())
		if err != nil {
			return nil, err
		}
		out = append(out, value)
	}
	return out, nil
}
