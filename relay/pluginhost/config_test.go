package pluginhost

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	var good Process
	good.SetDefaults()
	if f := good.Validate(); f != nil {
		t.Errorf("the defaults are wrong: %v", f)
	}
	bad := Process{
		Command: []string{"node", "main.js"}, Checksum: "md5:1", Files: map[string]string{"main.js": "sha256:12"}, Address: "tcp://127.0.0.1:1",
		Limits: Limits{Environment: map[string]sdk.Secret{"A-B": "", "PLUGIN_X": "", "NUL": "\x00"}, MaxMemory: 1, StartTimeout: time.Hour},
	}
	var fields []string
	for _, f := range bad.Validate() {
		fields = append(fields, f.Field)
	}
	want := []string{"command", "checksum", "files.main.js", "files.main.js", "address", "address",
		"process.environment.A-B", "process.environment.NUL", "process.environment.PLUGIN_X", "process.max_memory", "process.start_timeout"}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	alone := Process{Checksum: "sha256:" + strings.Repeat("a", 64), Limits: good.Limits}
	if f := alone.Validate(); len(f) != 1 || f[0].Field != "checksum" {
		t.Errorf("%v", f)
	}
}

// A configuration that the plugin accepts and its schema does not is refused,
// by field, without showing a value that could be a secret.
func TestSchema(t *testing.T) {
	t.Parallel()
	const schema = `{"type": "object", "additionalProperties": false, "required": ["url"], "properties": {
		"url": {"type": "string", "pattern": "^https://", "writeOnly": true},
		"retries": {"type": "integer", "minimum": 1},
		"list": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}}}`
	for config, want := range map[string]sdk.Faults{
		`{"url": "https://x", "retries": 3, "list": ["a"]}`: nil,
		`{"url": "https://x", "retries": null}`:             nil,
		`{}`:                                                {{Field: "", Problem: "missing property 'url'"}},
		`{"url": "https://x", "urll": 1}`:                   {{Field: "", Problem: "additional properties 'urll' not allowed"}},
		`{"url": "hunter2"}`:                                {{Field: "url", Problem: "does not fit the plugin's schema (pattern)"}},
		`{"url": "https://x", "retries": "3"}`:              {{Field: "retries", Problem: "got string, want integer"}},
		`{"url": "https://x", "list": ["c"]}`:               {{Field: "list.0", Problem: "does not fit the plugin's schema (enum)"}},
	} {
		var got sdk.Faults
		if err := checkSchema(json.RawMessage(schema), json.RawMessage(config)); err != nil {
			got = err.(sdk.Faults)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", config, diff)
		}
	}
	for _, broken := range []string{`{`, `{"type": 7}`, `{"$ref": "file:///etc/passwd"}`, `{"$ref": "https://example.com/schema.json"}`} {
		if err := checkSchema(json.RawMessage(broken), json.RawMessage(`{}`)); err == nil || !strings.Contains(err.Error(), "its config_schema is no JSON") {
			t.Errorf("%s: %v", broken, err)
		}
	}
	if err := checkSchema(nil, json.RawMessage(`{"any": "thing"}`)); err != nil {
		t.Error(err)
	}
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(`{"type":"object","properties":{"a":{"type":"string","default":"b"}}}`), []byte(`{"a":1}`))
	f.Add([]byte(`{"$defs":{"x":{"$ref":"#/$defs/x"}},"$ref":"#/$defs/x"}`), []byte(`[null]`))
	f.Fuzz(func(t *testing.T, schema, config []byte) {
		if !json.Valid(config) {
			return
		}
		_ = checkSchema(schema, config) // must come back, and not panic
		_ = newRedactor(Limits{}, schema, config)
	})
}

func TestWaits(t *testing.T) {
	t.Parallel()
	for failures, longest := range map[int]time.Duration{1: 250 * time.Millisecond, 2: 500 * time.Millisecond, 5: 4 * time.Second, 40: time.Minute} {
		seen := make(map[time.Duration]bool)
		for range 100 {
			wait := usualPace.wait(failures)
			seen[wait] = true
			if wait < longest/2 || wait > longest {
				t.Errorf("after %d failures: %s", failures, wait)
			}
		}
		if len(seen) < 50 {
			t.Errorf("%d different waits of 100", len(seen))
		}
	}
}
