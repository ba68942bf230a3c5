package pluginhost

import (
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

// Whatever a plugin says of its secrets, they are found, or nothing is; and
// looking for them is bounded.
func FuzzRedactor(f *testing.F) {
	f.Add([]byte(`{"type":"object","properties":{"a":{"type":"string","writeOnly":true}}}`), []byte(`{"a":"hunter2-hunter2"}`))
	f.Add([]byte(`{"$defs":{"x":{"anyOf":[{"$ref":"#/$defs/x"},{"$ref":"#"}]}},"$ref":"#/$defs/x"}`), []byte(`{"a":[null,1e400]}`))
	f.Fuzz(func(t *testing.T, schema, config []byte) {
		_ = newRedactor(Limits{}, schema, config, nil).text("text")
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
