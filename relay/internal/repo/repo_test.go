package repo

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"

	"github.com/pimrelay/pimrelay/plugins"
	"github.com/pimrelay/pimrelay/relay"
	"github.com/pimrelay/pimrelay/relay/config"
)

const (
	module = "github.com/pimrelay/pimrelay"
	root   = "../../.."
)

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath, Doc string
	Standard        bool
	Imports         []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Imports", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	decoder := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// imports says which packages of this module each of them may import; the
// longest prefix counts. A package that is not listed fails the test: decide
// where it belongs.
var imports = map[string][]string{
	"sdk":                     nil,
	"sdk/sdktest":             {"sdk", "sdk/wire"}, // for tests of plugins, and for cmd
	"sdk/serve":               {"sdk", "sdk/wire"},
	"sdk/wire":                {"sdk", "sdk/wire/forwarderv1"},
	"relay/config":            {"sdk"},
	"relay/edge":              nil,
	"relay/edge/certificates": nil,
	"relay/observe":           nil,
	"relay/admin":             nil,
	"relay/akeneo":            {"sdk"},
	"relay/akeneo/simulator":  nil,
	"relay/subscription":      {"relay/akeneo", "sdk"},
	"relay/journal":           {"sdk"},
	"relay/dispatch":          {"relay/journal", "sdk"},
	"relay/pluginhost":        {"sdk", "sdk/serve", "sdk/wire"},
	"relay": {"relay/config", "relay/edge", "relay/edge/certificates", "relay/observe", "relay/admin", "relay/akeneo", "relay/subscription",
		"relay/journal", "relay/dispatch", "relay/pluginhost", "sdk"},
	"relay/internal/testplugin": {"sdk", "sdk/serve", "sdk/wire", "sdk/wire/forwarderv1"},
	"relay/internal/repo":       nil,
	"plugins":                   {"plugins", "sdk"},
	"examples":                  {"sdk", "sdk/serve"},
	"cmd":                       {"examples/plugin-node", "relay", "relay/admin", "relay/journal", "relay/config", "relay/observe", "relay/akeneo/simulator", "relay/pluginhost", "plugins", "sdk", "sdk/serve", "sdk/sdktest", "sdk/wire"},
}

func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		rule := longest(name)
		if rule == "" {
			t.Errorf("%s: no rule says what it may import", name)
		}
		for _, imported := range p.Imports {
			ours, ok := strings.CutPrefix(imported, module+"/")
			if ok && !slices.Contains(imports[rule], ours) && !(rule == "plugins" && strings.HasPrefix(ours, "plugins/")) {
				t.Errorf("%s imports %s", name, ours)
			}
			if rule == "sdk" && !ok && strings.Contains(strings.Split(imported, "/")[0], ".") {
				t.Errorf("%s imports %s: sdk is for the standard library only", name, imported)
			}
		}
	}
}

func longest(name string) string {
	best := ""
	for prefix := range imports {
		if (name == prefix || strings.HasPrefix(name, prefix+"/")) && len(prefix) > len(best) {
			best = prefix
		}
	}
	return best
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if len(p.Doc) < 40 {
			t.Errorf("%s: package comment %q", p.ImportPath, p.Doc)
		}
	}
}

// environ is what the shown configurations refer to.
var environ = []string{
	"HOOK_SECRET=a-secret-of-more-than-16", "PIM_CLIENT_ID=id", "PIM_CLIENT_SECRET=secret", "PIM_USERNAME=user", "PIM_PASSWORD=password",
	"CHAT_TOKEN=token", "SHOP_TOKEN=token", "CHAT_URL=https://chat.example.com/hook",
}

// around is what a shown configuration of forwarders alone stands in.
const around = "listen: {tls: {mode: \"off\"}}\nsources: {catalog: {secrets: {primary: a-secret-of-more-than-16}}}\n"

func TestShownConfigurationsLoad(t *testing.T) {
	t.Parallel()
	var files []string
	for _, pattern := range []string{"configs/*.yaml", "examples/*/*.yaml"} {
		matches, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, matches...)
	}
	if len(files) < 4 {
		t.Fatalf("only %v", files)
	}
	for _, file := range files {
		if filepath.Base(file) == "verify.yaml" {
			continue // a plugin's own configuration, for `pimrelay plugin verify`
		}
		if _, err := relay.Load(file, environ, plugins.Builtin); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// The README's configuration is one that works.
func TestReadmeConfigurationLoads(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(readme, -1)
	if len(blocks) == 0 {
		t.Fatal("README.md shows no configuration")
	}
	for _, block := range blocks {
		file := filepath.Join(t.TempDir(), "pimrelay.yaml")
		if !bytes.Contains(block[1], []byte("sources:")) {
			block[1] = append([]byte(around), block[1]...)
		}
		if err := os.WriteFile(file, block[1], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := relay.Load(file, environ, plugins.Builtin); err != nil {
			t.Errorf("%v\nin:\n%s", err, block[1])
		}
	}
	for _, command := range []string{"go run ./cmd/pimrelay demo", "go test ./..."} {
		if !bytes.Contains(readme, []byte(command)) {
			t.Errorf("README.md lacks %q", command)
		}
	}
}

const reference = root + "/configs/pimrelay.reference.yaml"

// The reference has every key that the code knows, no other, and a sentence to
// each.
func TestReferenceIsComplete(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	// A key that excludes another one stands commented out.
	data = regexp.MustCompile(`(?m)^(\s*)# (\w+: \S+ +#)`).ReplaceAll(data, []byte("$1$2"))
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	var known, shown []string
	for _, key := range config.Keys(&relay.Config{}) {
		known = append(known, key.Path)
	}
	walk(t, doc.Content[0], "", known, &shown)
	slices.Sort(known)
	slices.Sort(shown)
	if diff := cmp.Diff(known, shown); diff != "" {
		t.Errorf("keys (-the code +the reference):\n%s", diff)
	}
}

// walk collects the paths of the keys at and below a mapping; a name of the
// user's own is <name>.
func walk(t *testing.T, node *yaml.Node, path string, known []string, shown *[]string) {
	t.Helper()
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		if !anyBelow(known, at) {
			at = strings.TrimPrefix(path+".<name>", ".")
		} else if key.HeadComment == "" && key.LineComment == "" && value.LineComment == "" {
			t.Errorf("line %d: %s has no sentence", key.Line, at)
		}
		leaf := slices.Contains(known, at)
		if leaf {
			*shown = append(*shown, at)
		}
		if value.Kind == yaml.MappingNode && anyBelow(known, at+".") {
			walk(t, value, at, known, shown)
		}
	}
}

func anyBelow(known []string, prefix string) bool {
	return slices.ContainsFunc(known, func(k string) bool {
		return k == prefix || strings.HasPrefix(k, strings.TrimSuffix(prefix, ".")+".")
	})
}

// Where a key has a default, the reference shows it.
func TestReferenceShowsTheDefaults(t *testing.T) {
	t.Parallel()
	got, err := relay.Load(reference, environ, plugins.Builtin)
	if err != nil {
		t.Fatal(err)
	}
	var lane relay.Forwarder
	lane.SetDefaults()
	shop := got.Forwarders["shop"]
	lane.Match, lane.Plugin, lane.Own = shop.Match, shop.Plugin, shop.Own
	if diff := cmp.Diff(lane, shop); diff != "" {
		t.Errorf("forwarders.shop (-default +reference):\n%s", diff)
	}
	var source relay.Source
	source.SetDefaults()
	if catalog := got.Sources["catalog"]; catalog.PlatformURL != source.PlatformURL || catalog.Path != "/hooks/catalog" {
		t.Errorf("sources.catalog: %+v", catalog)
	}
	want := relay.Defaults()
	got.Redact = nil
	want.Listen.PublicURL, want.Listen.TLS = got.Listen.PublicURL, got.Listen.TLS // examples
	want.Sources, want.Forwarders = got.Sources, got.Forwarders
	if diff := cmp.Diff(want, *got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-default +reference):\n%s", diff)
	}
}

// The generated code is what the contract says today.
func TestGeneratedCodeIsInStep(t *testing.T) {
	t.Parallel()
	const directory = root + "/sdk/wire/forwarderv1"
	into, err := filepath.Abs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", "../internal/generate", "forwarder.proto", into)
	cmd.Dir = directory
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"forwarder.pb.go", "forwarder_grpc.pb.go"} {
		want, err := os.ReadFile(filepath.Join(into, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, got) {
			t.Errorf("%s is out of step with forwarder.proto: run go generate ./sdk/wire/...", name)
		}
	}
}
