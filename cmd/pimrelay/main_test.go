package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pimrelay/pimrelay/relay/admin"
	"github.com/pimrelay/pimrelay/sdk/serve"
)

// runAs makes the test binary behave as pimrelay.
const runAs = "TEST_RUNS_AS_PIMRELAY"

func TestMain(m *testing.M) {
	// A plugin's environment is its own: what the relay starts is known by its
	// arguments.
	if isPlugin := len(os.Args) == 4 && os.Args[1] == "plugin" && os.Args[2] == "serve"; isPlugin || os.Getenv(runAs) != "" {
		main()
	}
	if len(os.Args) == 2 && os.Args[1] == misbehaves {
		serve.Main(newMisbehaving)
	}
	os.Exit(m.Run())
}

// pimrelay runs a command in this process.
func pimrelay(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = execute(t.Context(), args, &out, &errOut)
	return code, out.String(), errOut.String()
}

func TestDemoOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "demo")
	code, out, errOut := pimrelay(t, "demo", "--once", "--events", "78", "--rate", "500", "--dir", dir)
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, out, errOut)
	}
	for _, want := range []string{"by the platform, of 39 types", "subscribed to all 39", filepath.Join(dir, "events.jsonl")} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	table := make(map[string]string)
	for line := range strings.Lines(out) {
		if name, rest, ok := strings.Cut(line, "  "); ok {
			if value := strings.Fields(rest); len(value) > 0 {
				table[name] = value[0]
			}
		}
	}
	for name, want := range map[string]string{"sent": "78", "accepted": "78", "duplicates": "0", "delivered to sink": "78", "delivered to archive": "78", "altered on the way": "0", "lost": "0"} {
		if table[name] != want {
			t.Errorf("%s is %q, want %s:\n%s", name, table[name], want, out)
		}
	}
	if code, _, errOut := pimrelay(t, "demo", "--once", "--dir", dir); code != exitFailure || !strings.Contains(errOut, "not empty") {
		t.Errorf("into a used directory: %d %s", code, errOut)
	}
}

// The demo's verdict is not always good.
func TestDemoResult(t *testing.T) {
	t.Parallel()
	good := demoResult{}
	good.report.Sent, good.report.Acknowledged = 5, 5
	if err := good.err(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*demoResult){
		"lost":         func(r *demoResult) { r.lost = 1 },
		"altered":      func(r *demoResult) { r.damaged = 1 },
		"not accepted": func(r *demoResult) { r.report.Acknowledged = 4 },
		"nothing sent": func(r *demoResult) { r.report.Sent, r.report.Acknowledged = 0, 0 },
	} {
		bad := good
		spoil(&bad)
		if bad.err() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

const childConfig = `
data_dir: {dir}/data
listen: {address: "127.0.0.1:0", tls: {mode: "off"}}
sources:
  catalog: {secrets: {primary: a-secret-of-more-than-16}}
forwarders:
  sink: {plugin: http, timeout: 10m, config: {url: "{sink}"}}
telemetry: {address: ""}
log: {level: debug, format: json}
drain_timeout: 10m
`

func writeConfig(t *testing.T, sink string) (file, dir string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "pimrelay.yaml")
	if err := os.WriteFile(file, []byte(strings.NewReplacer("{dir}", dir, "{sink}", sink).Replace(childConfig)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, filepath.Join(dir, "data")
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	file, data := writeConfig(t, "http://127.0.0.1:1/")
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("data_dir: 5\nlissen: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	noCertificate := filepath.Join(t.TempDir(), "tls.yaml")
	withTLS := strings.Replace(strings.NewReplacer("{dir}", t.TempDir(), "{sink}", "http://127.0.0.1:1/").Replace(childConfig),
		`tls: {mode: "off"}`, "tls: {mode: files, certificate: /nowhere.pem, key: /nowhere-key.pem}", 1)
	if err := os.WriteFile(noCertificate, []byte(withTLS), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"check -c " + file, 0, ": ok (1 source, 1 forwarder)"},
		{"check -c " + bad, exitConfiguration, "bad.yaml:2: unknown key \"lissen\", did you mean \"listen\"?"},
		{"run -c " + bad, exitConfiguration, "bad.yaml:1: data_dir: "},
		{"check -c /nonexistent.yaml", exitConfiguration, "name the configuration file with -c"},
		{"check -c " + noCertificate, exitConfiguration, "listen.tls: "},
		{"check extra", exitConfiguration, `unexpected argument "extra"`},
		{"run --wrong", exitConfiguration, "unknown flag: --wrong"},
		{"wrong", exitConfiguration, `unknown command "wrong"`},
		{"demo --events 0", exitConfiguration, "--events must be at least 1"},
		{"status -c " + file, exitFailure, "no pimrelay is running on data_dir " + data},
		{"version", 0, "forwarders: file http"},
		{"", 0, "Usage:"},
	} {
		code, out, errOut := pimrelay(t, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(out+errOut, tt.want) {
			t.Errorf("pimrelay %s: exit code %d, want %d with %q:\n%s%s", tt.args, code, tt.code, tt.want, out, errOut)
		}
	}
}

// child is a relay in a process of its own.
type child struct {
	*exec.Cmd
	t   *testing.T
	log *bufio.Scanner
}

func startChild(t *testing.T, args ...string) *child {
	t.Helper()
	return startCommand(t, func(cmd *exec.Cmd) { cmd.Args = append(cmd.Args, args...) })
}

// startCommand runs the test binary as pimrelay, after change.
func startCommand(t *testing.T, change func(*exec.Cmd)) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), runAs+"=1")
	change(cmd)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{Cmd: cmd, t: t, log: bufio.NewScanner(stderr)}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // if the test ended early
	return c
}

// logged reads the log up to a message and returns its attributes.
func (c *child) logged(msg string) map[string]any {
	c.t.Helper()
	var all []string
	for c.log.Scan() {
		all = append(all, c.log.Text())
		var line map[string]any
		if json.Unmarshal(c.log.Bytes(), &line) == nil && line["msg"] == msg {
			return line
		}
	}
	c.t.Fatalf("the log ended before %q:\n%s", msg, strings.Join(all, "\n"))
	return nil
}

// drain reads the rest of the log; the channel is closed when everybody who
// writes to it has ended.
func (c *child) drain() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c.log.Scan() {
			c.t.Log(c.log.Text())
		}
	}()
	return done
}

// end waits for the process, which must end within the time.
func (c *child) end(within time.Duration) *os.ProcessState {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.Process.Kill() })
	defer stop()
	for c.log.Scan() { // Wait closes the pipe
	}
	err := c.Wait()
	if ctx.Err() != nil {
		c.t.Fatalf("did not end within %s", within)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return c.ProcessState
}

func (c *child) signal() {
	c.t.Helper()
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		c.t.Fatal(err)
	}
}

// The first Ctrl-C lets deliveries in hand finish while the door still answers;
// the second ends the process at once.
func TestSignals(t *testing.T) {
	t.Parallel()
	hanging, release := make(chan struct{}, 10), make(chan struct{})
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // then the server notices when the client goes
		hanging <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer sink.Close()
	file, data := writeConfig(t, sink.URL)

	c := startChild(t, "run", "-c", file)
	address := c.logged("the door is open")["address"].(string)
	deliver(t, address, "1")
	<-hanging
	code, out, errOut := pimrelay(t, "status", "--data-dir", data)
	if code != 0 || !strings.Contains(out, "sink") || !strings.Contains(out, "(by hand)") {
		t.Errorf("status: %d\n%s%s", code, out, errOut)
	}
	c.signal()
	c.logged("stopping")
	deliver(t, address, "2") // draining, and the door still answers
	var status admin.Status
	if code, out, _ := pimrelay(t, "status", "--json", "-c", file); code != 0 || json.Unmarshal([]byte(out), &status) != nil || status.Journal.Head != 2 {
		t.Errorf("status while draining: %d\n%s", code, out)
	}
	c.signal()
	if state := c.end(10 * time.Second); state.Success() {
		t.Error("the second signal ended the process as if all were well")
	}

	// What was in hand is delivered again.
	c = startChild(t, "run", "-c", file)
	c.logged("the door is open")
	<-hanging
	<-hanging
	close(release)
	c.signal()
	if state := c.end(time.Minute); !state.Success() {
		t.Errorf("after one signal: %v", state)
	}
}

func request(url, id string) (*http.Request, error) {
	body := `{"specversion":"1.0","id":"` + id + `","source":"pim","type":"com.akeneo.pim.v1.product.updated","data":{"product":{"uuid":"u"}}}`
	mac := hmac.New(sha256.New, []byte("a-secret-of-more-than-16"))
	mac.Write([]byte(body))
	req, err := http.NewRequest(http.MethodPost, url+"/hooks/catalog", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-AKENEO-SIGNATURE-PRIMARY", hex.EncodeToString(mac.Sum(nil)))
	return req, nil
}

func deliver(t *testing.T, address, id string) {
	t.Helper()
	req, err := request("http://"+address, id)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("event %s was answered %s", id, resp.Status)
	}
}
