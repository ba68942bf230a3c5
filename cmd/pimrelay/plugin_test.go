package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pimrelay/pimrelay/relay"
)

// pluginsFile is a configuration with an isolated built-in and two plugins of
// which one does not start.
func pluginsFile(t *testing.T, forwarders string) (file, dir string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "pimrelay.yaml")
	config := fmt.Sprintf(`data_dir: %[1]s/data
listen: {address: "127.0.0.1:0", tls: {mode: "off"}}
sources: {catalog: {secrets: {primary: a-secret-of-more-than-16}}}
telemetry: {address: ""}
forwarders:
`, dir) + strings.ReplaceAll(forwarders, "{dir}", dir)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, dir
}

const someForwarders = `
  archive: {plugin: file, isolate: true, config: {path: "{dir}/events.jsonl"}}
  broken: {command: [/bin/echo, hello]}
`

func TestPluginList(t *testing.T) {
	t.Parallel()
	code, out, errOut := pimrelay(t, "plugin", "list")
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	for _, want := range []string{"http devel", "file devel", "takes batches, keeps the order within them", "config.path", "file to append to", `config.method`, `["POST"]`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	file, _ := pluginsFile(t, someForwarders)
	code, out, errOut = pimrelay(t, "plugin", "list", "-c", file)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	for _, want := range []string{
		"forwarder archive: file (isolated)\n  takes batches of up to 1000 events and 8MiB",
		"forwarder broken: echo (command)\n  does not start: it ended before its handshake with exit status 0 (its last words: hello)",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	code, out, errOut = pimrelay(t, "plugin", "list", "-c", file, "--json")
	var all []listedPlugin
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 || len(all) != 4 {
		t.Fatalf("%d, %v, %s\n%s", code, err, errOut, out)
	}
	if archive := all[2]; archive.Forwarder != "archive" || archive.MaxEvents != 1000 || len(archive.Schema) == 0 {
		t.Errorf("%+v", archive)
	}
}

// check starts the plugins, and says at which line one does not.
func TestCheckStartsPlugins(t *testing.T) {
	t.Parallel()
	file, _ := pluginsFile(t, someForwarders)
	code, out, errOut := pimrelay(t, "check", "-c", file)
	if code != exitConfiguration || !strings.Contains(errOut, ":8: forwarders.broken.command: the plugin does not start: it ended before its handshake") {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
	file, dir := pluginsFile(t, `
  archive: {plugin: file, isolate: true, config: {path: "{dir}/events.jsonl"}}
`)
	code, out, errOut = pimrelay(t, "check", "-c", file)
	if code != 0 || !strings.Contains(out, "forwarder archive: plugin file starts and accepts its configuration") {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
	if _, err := os.Stat(filepath.Join(dir, "events.jsonl")); !os.IsNotExist(err) {
		t.Errorf("check has touched the destination: %v", err)
	}
	for forwarders, want := range map[string]string{
		`  a: {config: {}}`: "forwarders.a.plugin: is missing",
		`  a: {plugin: file, command: [/bin/x], config: {path: /tmp/x}}`: "stands beside command or address: keep one",
		`  a: {command: [node]}`:                                          "forwarders.a.command: must begin with the absolute path",
		`  a: {command: [/bin/x], isolate: true}`:                         "forwarders.a.isolate: is for built-in forwarders",
		`  a: {command: [/bin/x], process: {environment: {PLUGIN_X: y}}}`: "forwarders.a.process.environment.PLUGIN_X: is reserved",
		`  a: {address: "tcp://127.0.0.1:1"}`:                             "forwarders.a.address: must be the absolute path of a Unix socket",
	} {
		file, _ := pluginsFile(t, forwarders+"\n")
		if code, _, errOut := pimrelay(t, "check", "-c", file); code != exitConfiguration || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit code %d, want %q\n%s", forwarders, code, want, errOut)
		}
	}
}

// --attach connects a forwarder to a plugin that somebody runs by hand.
func TestRunRefusesToAttachNothing(t *testing.T) {
	t.Parallel()
	file, _ := pluginsFile(t, someForwarders)
	for _, attach := range []string{"nobody=unix:///x", "archive=tcp://x"} {
		if code, _, errOut := pimrelay(t, "run", "-c", file, "--attach", attach); code != exitConfiguration || !strings.Contains(errOut, "--attach NAME=unix:///path") {
			t.Errorf("%s: exit code %d\n%s", attach, code, errOut)
		}
	}
	cfg := &relay.Config{Forwarders: map[string]relay.Forwarder{"archive": {}}}
	if err := checkAttach(cfg, file, map[string]string{"archive": "unix:///run/x.sock"}); err != nil {
		t.Errorf("what can be attached is refused: %v", err)
	}
}
