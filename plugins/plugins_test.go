package plugins_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/pimrelay/pimrelay/plugins"
)

func TestEachDirectoryIsBuiltIn(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var directories []string
	for _, entry := range entries {
		if !entry.IsDir() || entry.Name() == "internal" {
			continue
		}
		directories = append(directories, entry.Name())
		for _, name := range []string{"forwarder.go", "forwarder_test.go", "README.md"} {
			if _, err := os.Stat(filepath.Join(entry.Name(), name)); err != nil {
				t.Error(err)
			}
		}
	}
	if diff := cmp.Diff(directories, plugins.Names()); diff != "" {
		t.Errorf("directories and built-in names differ (-directories +names):\n%s", diff)
	}
}

func TestBuiltinGivesNewOnes(t *testing.T) {
	t.Parallel()
	logger := slog.New(slog.DiscardHandler)
	for _, name := range plugins.Names() {
		first, ok := plugins.Builtin(name, logger)
		second, _ := plugins.Builtin(name, logger)
		if !ok || first == nil || first == second {
			t.Errorf("%s gave %v, %v, %v", name, first, second, ok)
		}
	}
	for _, name := range []string{"", "HTTP", "internal", "smtp"} {
		if f, ok := plugins.Builtin(name, logger); ok || f != nil {
			t.Errorf("%q gave %v, %v; want none", name, f, ok)
		}
	}
}

// The smallest configuration in each README must be one.
func TestREADMEConfigurationsAreAccepted(t *testing.T) {
	t.Parallel()
	for _, name := range plugins.Names() {
		readme, err := os.ReadFile(filepath.Join(name, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(readme), "```yaml\n")
		example, _, closed := strings.Cut(rest, "```")
		if !found || !closed {
			t.Errorf("%s: the README has no YAML example", name)
			continue
		}
		var document struct {
			Forwarders map[string]struct {
				Plugin string
				Config map[string]any
			}
		}
		if err := yaml.Unmarshal([]byte(example), &document); err != nil || len(document.Forwarders) != 1 {
			t.Errorf("%s: the example has %d forwarders, %v", name, len(document.Forwarders), err)
		}
		for _, section := range document.Forwarders {
			raw, err := json.Marshal(section.Config)
			if err != nil || section.Plugin != name {
				t.Errorf("%s: the example is for %q, %v", name, section.Plugin, err)
				continue
			}
			f, _ := plugins.Builtin(name, slog.New(slog.DiscardHandler))
			if err := f.Configure(t.Context(), raw); err != nil {
				t.Errorf("%s: the example is refused: %v", name, err)
			}
		}
	}
}
