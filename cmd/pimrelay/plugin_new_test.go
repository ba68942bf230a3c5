package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/relay/pluginhost"
	"github.com/pimrelay/pimrelay/sdk"
)

const repository = "../.."

// begin runs `pimrelay plugin new` and returns the directory that it wrote.
func begin(t *testing.T, args ...string) string {
	t.Helper()
	directory := filepath.Join(t.TempDir(), "a plugin")
	var stdout, stderr bytes.Buffer
	code := execute(t.Context(), append([]string{"plugin", "new", "shop", "--dir", directory}, args...), &stdout, &stderr)
	if code != 0 || stderr.Len() > 0 || !strings.Contains(stdout.String(), "cd \""+directory+"\"\n") || !strings.Contains(stdout.String(), "pimrelay plugin verify --config verify.yaml -- ") {
		t.Fatalf("exit code %d\n%s%s", code, &stdout, &stderr)
	}
	return directory
}

// runIn runs one of the commands that a new plugin's author types.
func runIn(t *testing.T, directory, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = directory
	// What this repository needs is there; nothing else is to be fetched.
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false", "GOPROXY=off", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

func TestNewPluginInGoWorks(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compiles a program")
	}
	directory := begin(t, "--sdk", repository)
	tidy(t, directory)
	runIn(t, directory, "go", "vet", "./...")
	runIn(t, directory, "go", "test", "./...")
	runIn(t, directory, "go", "build", "-o", "shop", ".")
	tryNewPlugin(t, filepath.Join(directory, "shop"))
}

// tidy stands for `go mod tidy`, which asks for more than is on this machine: it
// gives the plugin the versions that this repository has.
func tidy(t *testing.T, directory string) {
	t.Helper()
	files := make(map[string][]byte)
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	own, err := os.ReadFile(filepath.Join(directory, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	required := regexp.MustCompile(`(?ms)^require \(.*?^\)\n`).FindAll(files["go.mod"], -1)
	if len(required) == 0 {
		t.Fatal("go.mod requires nothing")
	}
	files["go.mod"] = append(own, bytes.Join(required, nil)...)
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(directory, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNewPluginInNodeWorks(t *testing.T) {
	t.Parallel()
	complain := t.Skipf
	if os.Getenv("REQUIRE_NODE") != "" {
		complain = t.Fatalf
	}
	node, err := exec.LookPath("node")
	modules, absErr := filepath.Abs(filepath.Join(repository, "examples/plugin-node/node_modules"))
	_, statErr := os.Stat(modules)
	if err := errors.Join(err, absErr, statErr); err != nil {
		complain("%v: install Node.js 20 or later, then: npm ci --prefix examples/plugin-node --ignore-scripts", err)
	}
	directory := begin(t, "--lang", "node")
	// Stands for `npm ci`: the lock file is the same.
	if err := os.Symlink(modules, filepath.Join(directory, "node_modules")); err != nil {
		t.Fatal(err)
	}
	tryNewPlugin(t, node, filepath.Join(directory, "main.js"))
}

// tryNewPlugin starts a plugin as a relay does and delivers two events with it.
func tryNewPlugin(t *testing.T, command ...string) {
	t.Helper()
	destination := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "Bearer opensesame" || r.Header.Get("Content-Type") != "application/json" || string(body) != `{"sku":"a"}` {
			t.Errorf("%v %s", r.Header, body)
		}
		if r.Header.Get("Idempotency-Key") == "busy" {
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}))
	t.Cleanup(destination.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := func(config map[string]string) (*pluginhost.Plugin, error) {
		raw, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		sockets, err := os.MkdirTemp("", "pr") // short enough for a socket's address
		if err != nil {
			t.Fatal(err)
		}
		process := pluginhost.Process{Command: command, Limits: pluginhost.Limits{StartTimeout: 2 * time.Minute}}
		plugin := pluginhost.New(process, pluginhost.Options{Name: "shop", Directory: sockets, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
		t.Cleanup(func() {
			if err := errors.Join(plugin.Close(context.Background()), os.RemoveAll(sockets)); err != nil {
				t.Error(err)
			}
		})
		return plugin, errors.Join(plugin.Configure(ctx, raw), plugin.Started(ctx))
	}
	plugin, err := start(map[string]string{"url": destination.URL, "token": "opensesame"})
	if err != nil {
		t.Fatal(err)
	}
	if name := plugin.Status().Description.Name; name != "shop" {
		t.Errorf("it calls itself %q", name)
	}
	event := sdk.Event{ID: "1", Payload: []byte(`{"sku":"a"}`), ContentType: "application/json", Attempt: 1}
	busy := event
	busy.ID = "busy"
	got := append(plugin.Deliver(ctx, []sdk.Event{event}), plugin.Deliver(ctx, []sdk.Event{busy})...)
	if len(got) != 2 || got[0] != sdk.Delivered() || got[1].Result != sdk.ResultThrottled || got[1].After != 5*time.Second {
		t.Errorf("outcomes: %+v", got)
	}
	_, err = start(map[string]string{"url": "shop", "tokn": "x"})
	var faults sdk.Faults
	if !errors.As(err, &faults) || !strings.Contains(err.Error(), "tokn: unknown key") {
		t.Errorf("a wrong configuration: %v", err)
	}
}

func TestNewPluginRefuses(t *testing.T) {
	t.Parallel()
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(t.TempDir(), "none")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{}, "give exactly one NAME for the plugin"},
		{[]string{"../shop", "--dir", none}, `(got "../shop")`},
		{[]string{"Shop", "--dir", none}, "lower-case letters"},
		{[]string{"a--b", "--dir", none}, "single hyphens"},
		{[]string{strings.Repeat("a", 41), "--dir", none}, "up to 40"},
		{[]string{"shop", "--lang", "perl", "--dir", none}, `--lang is go or node (got "perl")`},
		{[]string{"shop", "--lang", "node", "--sdk", repository, "--dir", none}, "--sdk is for a plugin in Go"},
		{[]string{"shop", "--sdk", full, "--dir", none}, "is not the directory of pimrelay's source"},
		{[]string{"shop", "--sdk", repository, "--dir", full}, "is not empty (it has thesis.tex): choose another directory with --dir"},
	} {
		var stdout, stderr bytes.Buffer
		code := execute(t.Context(), append([]string{"plugin", "new"}, test.args...), &stdout, &stderr)
		if code != exitConfiguration || stdout.Len() > 0 || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%q: exit code %d, want %d and %q\n%s%s", test.args, code, exitConfiguration, test.want, &stdout, &stderr)
		}
	}
	if _, err := os.Stat(none); !os.IsNotExist(err) {
		t.Errorf("a refused plugin has left a directory: %v", err)
	}
}

// A release's plugin requires that release, a development build's says where
// its source is.
func TestNewPluginRequiresThisVersion(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1.2.3", "v1.2.3-rc.1", "v0.0.0-20260102030405-abcdef012345"} {
		p := newPlugin{Name: "shop", language: "go"}
		if err := p.check(version); err != nil {
			t.Errorf("%s: %v", version, err)
			continue
		}
		files, err := p.files()
		if err != nil {
			t.Fatal(err)
		}
		want := "module example.com/shop\n\ngo " + goVersion + "\n\nrequire github.com/pimrelay/pimrelay " + version + "\n"
		if diff := cmp.Diff(want, string(files["go.mod"])); diff != "" {
			t.Errorf("go.mod (-want +got):\n%s", diff)
		}
	}
	for _, version := range []string{"devel", "devel-abcdef012345", "unknown", "v1.2.3+dirty"} {
		p := newPlugin{Name: "shop", language: "go"}
		if err := p.check(version); err == nil || !strings.Contains(err.Error(), "--sdk DIR") {
			t.Errorf("%s: %v", version, err)
		}
	}
	mod, err := os.ReadFile(filepath.Join(repository, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(mod), "\ngo "+goVersion+"\n") {
		t.Errorf("a new plugin's go.mod says go %s, this module's does not", goVersion)
	}
}
