package sdk_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

type schemaBase struct {
	Name string `json:"name" doc:"what it is called"`
}

type schemaConfig struct {
	schemaBase
	URL     sdk.Secret            `json:"url"`
	Wait    sdk.Duration          `json:"wait"`
	Pause   time.Duration         `json:"pause"`
	Size    sdk.Size              `json:"size"`
	Count   int                   `json:"count"`
	Ratio   float64               `json:"ratio"`
	On      bool                  `json:"on"`
	List    []string              `json:"list"`
	Headers map[string]sdk.Secret `json:"headers"`
	Inner   *struct {
		Key string `json:"key"`
	} `json:"inner"`
	Free   any `json:"free"`
	Hidden int `json:"-"`
	//lint:ignore U1000 stands for what a forwarder keeps beside its configuration
	own int
}

func TestConfigSchema(t *testing.T) {
	t.Parallel()
	defaults := schemaConfig{
		URL: "never shown", Wait: sdk.Duration(5 * time.Second), Pause: time.Minute, Size: 1 << 20, Count: 3, Ratio: 0.5, On: true, List: []string{"a"},
		Headers: map[string]sdk.Secret{"never": "shown"},
	}
	raw := sdk.ConfigSchema(&defaults)
	if strings.Contains(string(raw), "shown") {
		t.Errorf("a secret in\n%s", raw)
	}
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	text := func(more ...any) map[string]any {
		m := map[string]any{"type": "string"}
		for i := 0; i < len(more); i += 2 {
			m[more[i].(string)] = more[i+1]
		}
		return m
	}
	want := map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false,
		"properties": map[string]any{
			"name": text("description", "what it is called"), "url": text("writeOnly", true), "wait": text("default", "5s"), "pause": text("default", "1m0s"), "size": text("default", "1MiB"),
			"count": map[string]any{"type": "integer", "default": 3.0}, "ratio": map[string]any{"type": "number", "default": 0.5},
			"on": map[string]any{"type": "boolean", "default": true}, "list": map[string]any{"type": "array", "items": text(), "default": []any{"a"}},
			"headers": map[string]any{"type": "object", "additionalProperties": text("writeOnly", true)},
			"inner":   map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{"key": text()}},
			"free":    map[string]any{},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, mistake := range []any{nil, 3, schemaConfig{}, &struct{ C chan int }{}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T: no panic", mistake)
				}
			}()
			sdk.ConfigSchema(mistake)
		}()
	}
}

func ExampleConfigSchema() {
	type config struct {
		URL   sdk.Secret `json:"url" doc:"incoming webhook of the channel"`
		Style string     `json:"style" doc:"slack or teams"`
	}
	schema := sdk.ConfigSchema(&config{Style: "slack"})
	fmt.Println(string(schema))
	// Output:
	// {
	//   "$schema": "https://json-schema.org/draft/2020-12/schema",
	//   "type": "object",
	//   "properties": {
	//     "style": {
	//       "description": "slack or teams",
	//       "type": "string",
	//       "default": "slack"
	//     },
	//     "url": {
	//       "description": "incoming webhook of the channel",
	//       "type": "string",
	//       "writeOnly": true
	//     }
	//   },
	//   "additionalProperties": false
	// }
}
