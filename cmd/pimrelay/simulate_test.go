package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pimrelay/pimrelay/relay/akeneo/simulator"
)

// simulate runs the command until stop is called, which gives the rest of the
// output. guide is what it printed before it served.
func simulate(t *testing.T, args ...string) (guide string, stop func() string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	out, in := io.Pipe()
	cmd := newSimulateCommand()
	cmd.SetOut(in)
	cmd.SetErr(io.Discard)
	cmd.SetArgs(append([]string{"--listen", "127.0.0.1:0"}, args...))
	ended := make(chan error, 1)
	go func() {
		err := cmd.ExecuteContext(ctx)
		in.CloseWithError(err)
		ended <- err
	}()
	lines := bufio.NewReader(out)
	var text strings.Builder
	for !strings.Contains(text.String(), "/simulator/report") {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the command ended: %v after %s", err, &text)
		}
		text.WriteString(line)
	}
	return text.String(), func() string {
		t.Helper()
		cancel()
		rest, err := io.ReadAll(lines)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("simulate: %v", err)
		}
		return string(rest)
	}
}

// found gives the first group of a pattern in the guide.
func found(t *testing.T, pattern, text string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in:\n%s", pattern, text)
	}
	return m[1]
}

func TestSimulate(t *testing.T) {
	guide, stop := simulate(t, "--client-id", "other-client", "--insecure-destinations")
	if !strings.Contains(guide, "CLIENT_ID=other-client") {
		t.Errorf("the guide lacks the client id:\n%s", guide)
	}
	url := found(t, `export EVENT_PLATFORM_URL=(http://127\.0\.0\.1:\d+)\n`, guide)
	resp, err := http.Post(url+"/simulator/events", "application/json", strings.NewReader(`{"count":3}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("fire: %s", resp.Status)
	}
	if report := stop(); !strings.Contains(report, "3 events fired, 0 subscriptions") {
		t.Errorf("report at the end:\n%s", report)
	}
}

func TestSimulateTLS(t *testing.T) {
	guide, stop := simulate(t, "--tls")
	url := found(t, `export TARGET_PIM_URL=(https://127\.0\.0\.1:\d+)\n`, guide)
	file := found(t, `--cacert (\S+)`, guide)
	pem, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	resp, err := client.Get(url + "/simulator/report")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	stop()
	if _, err := os.Stat(file); err == nil {
		t.Errorf("%s is still there", file)
	}
}

func TestSimulateRefuses(t *testing.T) {
	authority, err := simulator.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root, empty := filepath.Join(dir, "root.pem"), filepath.Join(dir, "empty.pem")
	for name, content := range map[string][]byte{root: authority.PEM(), empty: nil} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, args := range map[string][]string{
		"speed must be above 0":  {"--speed", "-1"},
		"holds no certificate":   {"--ca", empty},
		"read --ca":              {"--ca", filepath.Join(dir, "missing.pem")},
		"load --tls-cert":        {"--ca", root, "--tls-cert", root, "--tls-key", root},
		"choose another address": {"--listen", "256.0.0.1:0"},
		"tls-key":                {"--tls-cert", root},
		"unexpected argument":    {"extra"},
	} {
		cmd := newSimulateCommand()
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		cmd.SetArgs(append([]string{"--listen", "127.0.0.1:0"}, args...))
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("simulate %q: %v, want %q", args, err, want)
		}
	}
}
