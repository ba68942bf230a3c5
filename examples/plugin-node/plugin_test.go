package pluginnode

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/relay/pluginhost"
	"github.com/pimrelay/pimrelay/sdk"
)

// patience is how long anything may take on a busy machine.
const patience = 60 * time.Second

// node is the command that runs the plugin. Without Node.js, or without the
// packages, the test is skipped, or fails if REQUIRE_NODE says that it
// must not be.
func node(t *testing.T) []string {
	t.Helper()
	complain := t.Skipf
	if os.Getenv("REQUIRE_NODE") != "" {
		complain = t.Fatalf
	}
	const remedy = "install Node.js 20 or later, then: npm ci --prefix examples/plugin-node --ignore-scripts"
	program, err := exec.LookPath("node")
	if err != nil {
		complain("%v: %s", err, remedy)
	}
	if _, err := os.Stat("node_modules"); err != nil {
		complain("%v: %s", err, remedy)
	}
	main, err := filepath.Abs("main.js")
	if err != nil {
		t.Fatal(err)
	}
	return []string{program, main}
}

// destination answers as the event's id says, and keeps the keys it has seen.
type destination struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string // guarded by mu
	free chan struct{}
}

func newDestination(t *testing.T) *destination {
	d := &destination{free: make(chan struct{})}
	d.Server = httptest.NewServer(d)
	t.Cleanup(func() {
		close(d.free)
		d.Close()
	})
	return d
}

func (d *destination) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	key := r.Header.Get("Idempotency-Key")
	d.mu.Lock()
	d.seen = append(d.seen, fmt.Sprintf("%s %s %s %s", key, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), body))
	d.mu.Unlock()
	switch key {
	case "busy":
		w.Header().Set("Retry-After", "7")
		http.Error(w, "slow down, Bearer opensesame", http.StatusTooManyRequests)
	case "wrong":
		http.Error(w, "no such product", http.StatusUnprocessableEntity)
	case "forbidden":
		http.Error(w, "who are you?", http.StatusForbidden)
	case "broken":
		w.WriteHeader(http.StatusBadGateway)
	case "slow":
		select {
		case <-d.free:
		case <-r.Context().Done():
		}
	}
}

func (d *destination) requests() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.seen...)
}

// started is the plugin, configured through the host that the relay uses.
func started(t *testing.T, process pluginhost.Process, config map[string]any) (*pluginhost.Plugin, error) {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	process.Limits.StartTimeout = patience
	plugin := pluginhost.New(process, pluginhost.Options{Name: "shop", Directory: socketDirectory(t), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err := plugin.Configure(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := plugin.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return plugin, plugin.Started(ctx)
}

// socketDirectory has a path that is short enough for a socket's address.
func socketDirectory(t *testing.T) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "pr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	return directory
}

func event(id, payload string) sdk.Event {
	return sdk.Event{ID: id, Type: "com.akeneo.pim.v1.product.updated", Body: []byte(`{"id":"whole"}`), Payload: []byte(payload), ContentType: "application/json", Attempt: 1}
}

func deliver(t *testing.T, plugin *pluginhost.Plugin, timeout time.Duration, events ...sdk.Event) []sdk.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return plugin.Deliver(ctx, events)
}

func TestDeliversBatches(t *testing.T) {
	t.Parallel()
	to := newDestination(t)
	plugin, err := started(t, pluginhost.Process{Command: node(t)}, map[string]any{"url": to.URL, "token": "opensesame"})
	if err != nil {
		t.Fatal(err)
	}
	untouched := event("ünï", "")
	untouched.Payload = untouched.Body
	got := deliver(t, plugin, patience, event("one", `{"sku":"ä"}`), event("empty", ""), untouched,
		event("wrong", "x"), event("forbidden", "x"), event("broken", "x"), event("busy", "x"), event("late", "x"))
	want := []sdk.Outcome{
		sdk.Delivered(), sdk.Delivered(), sdk.Delivered(),
		{Result: sdk.ResultRejected, Reason: "answered 422", Answer: "no such product\n"},
		{Result: sdk.ResultRetry, Reason: "answered 403", Answer: "who are you?\n"},
		{Result: sdk.ResultRetry, Reason: "answered 502"},
		{Result: sdk.ResultThrottled, Reason: "answered 429", After: 7 * time.Second, Answer: "slow down, Bearer [redacted]\n"},
		{Result: sdk.ResultThrottled, Reason: "answered 429", After: 7 * time.Second, Answer: "slow down, Bearer [redacted]\n"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	wantRequests := []string{
		`one Bearer opensesame application/json {"sku":"ä"}`, `empty Bearer opensesame application/json `,
		`%C3%BCn%C3%AF Bearer opensesame application/json {"id":"whole"}`,
		`wrong Bearer opensesame application/json x`, `forbidden Bearer opensesame application/json x`,
		`broken Bearer opensesame application/json x`, `busy Bearer opensesame application/json x`,
	}
	if diff := cmp.Diff(wantRequests, to.requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	description := plugin.Status().Description
	if description.Name != "http-node" || !description.KeepsOrder || description.Limits != (sdk.BatchLimits{Events: 100, Bytes: 8 << 20}) || description.MaxMessage != 64<<20 {
		t.Errorf("described as %+v", description)
	}
}

func TestEndsAtTheTimeout(t *testing.T) {
	t.Parallel()
	to := newDestination(t)
	plugin, err := started(t, pluginhost.Process{Command: node(t)}, map[string]any{"url": to.URL})
	if err != nil {
		t.Fatal(err)
	}
	deliver(t, plugin, patience, event("warm", "x"))
	got := deliver(t, plugin, 2*time.Second, event("one", "x"), event("slow", "x"), event("late", "x"))
	want := []sdk.Outcome{sdk.Delivered(), {Result: sdk.ResultRetry, Reason: "no answer in time"}, {Result: sdk.ResultRetry, Reason: "there was no time left to send it"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}

func TestTakesLargeEvents(t *testing.T) {
	t.Parallel()
	to := newDestination(t)
	plugin, err := started(t, pluginhost.Process{Command: node(t)}, map[string]any{"url": to.URL})
	if err != nil {
		t.Fatal(err)
	}
	got := deliver(t, plugin, patience, event("large", strings.Repeat("x", 8<<20)))
	if diff := cmp.Diff([]sdk.Outcome{sdk.Delivered()}, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}

func TestNamesWhatIsWrongWithItsConfiguration(t *testing.T) {
	t.Parallel()
	command := node(t)
	for name, test := range map[string]struct {
		config map[string]any
		want   string
	}{
		"unknown":      {map[string]any{"url": "http://127.0.0.1:1", "urll": 1, "token": nil}, "urll: unknown key, known are token, url"},
		"missing":      {map[string]any{"token": 3}, "token: must be of the type string (got integer)\nurl: is required"},
		"what they do": {map[string]any{"url": "ftp://example.com", "token": "a b"}, "url: must be an absolute http or https URL, such as https://shop.example.com/hooks/akeneo\ntoken: must be visible ASCII without spaces"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := started(t, pluginhost.Process{Command: command}, test.config)
			var faults sdk.Faults
			if !errors.As(err, &faults) || faults.Error() != test.want {
				t.Errorf("got %v, want the faults:\n%s", err, test.want)
			}
		})
	}
}

func TestFinishesWhatIsInHand(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	to := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	}))
	t.Cleanup(to.Close)
	plugin, err := started(t, pluginhost.Process{Command: node(t)}, map[string]any{"url": to.URL})
	if err != nil {
		t.Fatal(err)
	}
	pid := plugin.Status().PID
	delivered := make(chan []sdk.Outcome, 1)
	go func() { delivered <- deliver(t, plugin, patience, event("one", "x")) }()
	<-arrived
	closed := make(chan error, 1)
	go func() { closed <- plugin.Close(context.Background()) }()
	select {
	case err := <-closed:
		t.Fatalf("closed during a delivery: %v", err)
	case <-time.After(100 * time.Millisecond): // a plugin that does not wait would be gone
	}
	close(release)
	if diff := cmp.Diff([]sdk.Outcome{sdk.Delivered()}, <-delivered); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after Close: %v", pid, err)
	}
}

// As a service it serves several forwarders, on a socket for this user alone,
// and finishes at SIGTERM.
func TestServesASocket(t *testing.T) {
	t.Parallel()
	to := newDestination(t)
	socket := filepath.Join(socketDirectory(t), "x.sock")
	command := node(t)
	service := exec.Command(command[0], append(command[1:], "--listen", "unix://"+socket)...)
	log, err := service.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = service.Process.Kill() })
	line := make([]byte, 4096) // "serving"
	if n, err := log.Read(line); err != nil || !bytes.Contains(line[:n], []byte(`"msg":"serving"`)) {
		t.Fatalf("%s %v", line[:n], err)
	}
	for range 2 {
		plugin, err := started(t, pluginhost.Process{Address: "unix://" + socket}, map[string]any{"url": to.URL})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]sdk.Outcome{sdk.Delivered()}, deliver(t, plugin, patience, event("one", "x"))); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
		if err := plugin.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := service.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := service.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket after the end: %v", err)
	}
}

// A relay that is gone cannot say so: the plugin ends when its standard input
// does, after a SIGTERM has not ended it. And only the relay may call it.
func TestBelongsToTheRelayThatStartedIt(t *testing.T) {
	t.Parallel()
	relay, other := newIdentity(t), newIdentity(t)
	command := node(t)
	plugin := exec.Command(command[0], command[1:]...)
	plugin.Env = append(os.Environ(), "PIMRELAY_PLUGIN=forwarder", "PIMRELAY_PARENT=stdin", "PLUGIN_UNIX_SOCKET_DIR="+socketDirectory(t),
		"PLUGIN_CLIENT_CERT="+string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: relay.Certificate[0]})))
	plugin.Stderr = t.Output()
	parent, err := plugin.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := plugin.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := plugin.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plugin.Process.Kill() })
	var address, certificate string
	handshake := make([]byte, 8192)
	n, err := stdout.Read(handshake)
	if fields := strings.Split(strings.TrimSpace(string(handshake[:n])), "|"); err == nil && len(fields) == 6 {
		address, certificate = fields[3], fields[5]
	} else {
		t.Fatalf("handshake %q: %v", handshake[:n], err)
	}
	if err := plugin.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := call(address, certificate, relay); err != nil {
		t.Errorf("the relay, after SIGTERM: %v", err)
	}
	for name, certificates := range map[string][]tls.Certificate{"without a certificate": {}, "with another certificate": {other}} {
		if err := call(address, certificate, certificates...); err == nil {
			t.Errorf("a client %s is let in", name)
		}
	}
	if err := parent.Close(); err != nil {
		t.Fatal(err)
	}
	_ = plugin.Wait()
	if code := plugin.ProcessState.ExitCode(); code != 1 {
		t.Errorf("ended with %s, want exit status 1", plugin.ProcessState)
	}
}

// call opens a connection and waits for the beginning of HTTP/2: only then has
// the server accepted the client's certificate.
func call(address, certificate string, own ...tls.Certificate) error {
	der, err := base64.RawStdEncoding.DecodeString(certificate)
	if err != nil {
		return err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "unix", address,
		&tls.Config{ServerName: "localhost", RootCAs: roots, Certificates: own, NextProtos: []string{"h2"}})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 9)) // a frame's header
	return err
}

func newIdentity(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
