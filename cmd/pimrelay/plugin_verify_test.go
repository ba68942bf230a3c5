package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/plugins"
	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/sdktest"
)

// misbehaves, as its only argument, makes the test binary a plugin that does.
const misbehaves = "misbehave"

// misbehaving is the built-in http, but ends at an event of one byte and does
// not know when a call is over.
type misbehaving struct{ sdk.Forwarder }

func newMisbehaving(logger *slog.Logger) sdk.Forwarder {
	forwarder, _ := plugins.Builtin("http", logger)
	return &misbehaving{forwarder}
}

func (m *misbehaving) Deliver(ctx context.Context, events []sdk.Event) []sdk.Outcome {
	if len(events[0].Payload) == 1 {
		fmt.Fprintln(os.Stderr, "what is this?")
		os.Exit(3)
	}
	return m.Forwarder.Deliver(context.WithoutCancel(ctx), events)
}

func ownConfigFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "own.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const httpConfig = "url: ${destination}\nheaders: {Authorization: Bearer hunter2}\n"

// statuses are the cases of the table that have the status.
func statuses(table, status string) (names []string) {
	for line := range strings.Lines(table) {
		name, rest, _ := strings.Cut(line, " ")
		if strings.HasPrefix(strings.TrimSpace(rest), status) && slices.ContainsFunc(sdktest.Cases(), func(c sdktest.Case) bool { return c.Name == name }) {
			names = append(names, name)
		}
	}
	return names
}

func TestPluginVerifyBuiltin(t *testing.T) {
	t.Parallel()
	if raceDetector {
		t.Skip("TestPluginVerifyFindsDefects does the same, and starts as many processes")
	}
	code, out, errOut := pimrelay(t, "plugin", "verify", "-c", ownConfigFile(t, httpConfig), "--plugin", "http")
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, out, errOut)
	}
	if diff := cmp.Diff([]string{"faulty-configurations", "batch", "order", "health"}, statuses(out, "left out")); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	for _, want := range []string{"plugin       http: pimrelay plugin serve http\n", "takes one event a call", "destination  http://127.0.0.1:", "34 cases: 30 passed, 4 left out, none failed ("} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

// A plugin that does not deliver to ${destination} is verified as far as that
// goes.
func TestPluginVerifyWithoutDestination(t *testing.T) {
	t.Parallel()
	code, out, errOut := pimrelay(t, "plugin", "verify", "-c", ownConfigFile(t, `{"path": "${dir}/events.jsonl"}`), "--json", "--plugin", "file")
	var report verifyReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, errOut)
	}
	if report.Plugin.Name != "file" || !report.Plugin.KeepsOrder || report.Destination != "" || report.Failed != 0 || report.Passed+report.LeftOut != len(report.Cases) {
		t.Errorf("%+v", report)
	}
	for _, c := range report.Cases {
		if passed := c.Status == sdktest.Passed; passed != slices.Contains([]string{
			"configuration", "description", "empty-configuration", "unknown-key", "wrong-types", "delivery", "batch", "thousand-events", "tiny-event",
			"empty-data", "large-event", "unicode", "unknown-type", "event-memory", "concurrent-calls", "expired-call", "restart",
		}, c.Case) {
			t.Errorf("%+v", c)
		}
		if c.Status == sdktest.LeftOut && c.Detail == "" {
			t.Errorf("%s is left out, and does not say why", c.Case)
		}
	}
}

// A defect is in the table, and makes the command fail.
func TestPluginVerifyFindsDefects(t *testing.T) {
	t.Parallel()
	code, out, errOut := pimrelay(t, "plugin", "verify", "-c", ownConfigFile(t, httpConfig), "--", os.Args[0], misbehaves)
	if code != exitFailure || !strings.Contains(errOut, "3 of 34 cases failed") {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
	if diff := cmp.Diff([]string{"tiny-event", "deadline", "cancellation"}, statuses(out, "FAILED")); diff != "" {
		t.Errorf("failed (-want +got):\n%s\n%s", diff, out)
	}
	for _, want := range []string{"exit status 3 (its last words: what is this?)", "A forwarder takes an event of one byte.", "Deliver has returned", "after a call was cancelled: "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

func TestPluginVerifyRefuses(t *testing.T) {
	t.Parallel()
	notExecutable := ownConfigFile(t, "")
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"--plugin file -- /bin/ls":       {exitConfiguration, "either --plugin or a command"},
		"--plugin smtp":                  {exitConfiguration, `no built-in forwarder "smtp", there are file, http`},
		"":                               {exitConfiguration, "give the plugin's command: pimrelay plugin verify -- ./my-plugin"},
		"--timeout 1ms -- /bin/ls":       {exitConfiguration, "--timeout must be from 1s to 1h (got 1ms)"},
		"--timeout soon -- /bin/ls":      {exitConfiguration, "invalid argument"},
		"--verbose -- /bin/ls":           {exitConfiguration, "unknown flag: --verbose"},
		"-- /nonexistent/plugin":         {exitConfiguration, "no such file or directory"},
		"-- " + notExecutable:            {exitConfiguration, "permission denied"},
		"-c /nonexistent.yaml -- /bin/x": {exitConfiguration, "no such file or directory"},
		"-- /bin/ls -d /bin":             {exitFailure, "/bin/ls does not start as a plugin: it ended before its handshake with exit status 0 (its last words: /bin): is it a pimrelay plugin, and complete?"},
		"-- /bin/sh -c 'exit 7'":         {exitFailure, "exit status"},
		"--plugin http":                  {exitConfiguration, "the plugin needs a configuration:\n  url: is required"},
		"--plugin file":                  {exitConfiguration, "  path: ${dir}/events\n"},
	} {
		code, out, errOut := pimrelay(t, append([]string{"plugin", "verify"}, strings.Fields(line)...)...)
		if code != want.code || !strings.Contains(errOut, want.says) || out != "" {
			t.Errorf("verify %s: exit code %d, want %q\n%s%s", line, code, want.says, out, errOut)
		}
	}
}

// What is wrong with the configuration file is said with its line.
func TestPluginVerifyRefusesConfigurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"url: ${destination}\nheadres: {}\n":        `own.yaml:2: headres: unknown key, did you mean "headers"?`,
		"method: POST\nheaders:\n  Host: hunter2\n": "own.yaml:3: headers.Host: is taken from url",
		"- url":            "own.yaml:1: must hold the plugin's own configuration, a mapping",
		"url: [":           "own.yaml: yaml: ",
		"1: {2: 3}\n":      "own.yaml:1: ",
		"# nothing but me": "url: is required",
	} {
		code, out, errOut := pimrelay(t, "plugin", "verify", "-c", ownConfigFile(t, text), "--plugin", "http")
		if code != exitConfiguration || !strings.Contains(errOut, want) || strings.Contains(errOut, "hunter2") || out != "" {
			t.Errorf("%q: exit code %d, want %q\n%s%s", text, code, want, out, errOut)
		}
	}
}

// Ctrl-C ends the command, the plugin's process and what the command has put
// into the directory for temporary files.
func TestPluginVerifyInterrupted(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	destination := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that the end of the connection is noticed
		select {
		case asked <- struct{}{}:
		default:
		}
		<-r.Context().Done()
	}))
	t.Cleanup(destination.Close)
	temporary, err := os.MkdirTemp("", "v") // t.TempDir is too long for the address of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(temporary) })
	cmd := exec.Command(os.Args[0], "plugin", "verify", "-c", ownConfigFile(t, "url: "+destination.URL), "--plugin", "http")
	cmd.Env = append(os.Environ(), runAs+"=1", "TMPDIR="+temporary)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-asked: // a delivery of the case "delivery" hangs
	case err := <-ended:
		t.Fatalf("ended early: %v\n%s", err, errOut.String())
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-ended
	if code := cmd.ProcessState.ExitCode(); code != exitFailure || !strings.Contains(errOut.String(), "interrupted") {
		t.Errorf("exit code %d\n%s", code, errOut.String())
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
