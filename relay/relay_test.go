package relay_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/plugins"
	"github.com/pimrelay/pimrelay/relay"
	"github.com/pimrelay/pimrelay/relay/admin"
	"github.com/pimrelay/pimrelay/relay/akeneo/simulator"
)

const secret = "test-secret-0123456789"

// sink is a consumer that remembers what it got.
type sink struct {
	*httptest.Server
	mu      sync.Mutex
	answer  int               // guarded by mu
	bodies  map[string][]byte // guarded by mu; by event id
	headers map[string]http.Header
	arrived chan struct{} // one element for each request
}

func newSink(t *testing.T) *sink {
	s := &sink{answer: 200, bodies: make(map[string][]byte), headers: make(map[string]http.Header), arrived: make(chan struct{}, 10_000)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		var event struct{ ID string }
		_ = json.Unmarshal(body, &event) // what is no event is kept under ""
		s.mu.Lock()
		if s.answer == 200 {
			s.bodies[event.ID] = body
			s.headers[event.ID] = r.Header
		}
		w.WriteHeader(s.answer)
		s.mu.Unlock()
		s.arrived <- struct{}{}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *sink) set(answer int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *sink) got() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string][]byte)
	for id, body := range s.bodies {
		all[id] = body
	}
	return all
}

// daemon is a relay that runs in the test's process, from a configuration file.
type daemon struct {
	*relay.Relay
	t    *testing.T
	dir  string
	url  string
	stop func() // waits for the end
}

// start runs a relay on the configuration, in which {dir} and {address} are
// replaced.
func start(t *testing.T, dir, yaml string) *daemon {
	t.Helper()
	return startOn(t, listen(t), dir, yaml)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// startOn is start on a listener of one's own, with other options.
func startOn(t *testing.T, listener net.Listener, dir, yaml string, changes ...func(*relay.Options)) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: dir, url: "http://" + listener.Addr().String()}
	file := d.write(yaml)
	cfg, err := relay.Load(file, nil, plugins.Builtin)
	if err != nil {
		t.Fatal(err)
	}
	options := relay.Options{
		Version: "test", Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)), Builtin: plugins.Builtin, Listener: listener,
		Isolated: func(name string) []string { return []string{os.Args[0], isolatedMarker, name} }, PluginPace: quick,
		File: file, Load: func() (*relay.Config, error) { return relay.Load(file, nil, plugins.Builtin) },
	}
	for _, change := range changes {
		change(&options)
	}
	d.Relay = relay.New(cfg, options)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the relay ended with %v", err)
		}
	})
	t.Cleanup(d.stop)
	select {
	case <-d.Opened():
	case err := <-done:
		done <- nil
		t.Fatalf("the relay did not start: %v", err)
	}
	return d
}

// write writes the configuration, as an editor does: another file takes its
// place.
func (d *daemon) write(yaml string) (file string) {
	d.t.Helper()
	file = filepath.Join(d.dir, "pimrelay.yaml")
	yaml = strings.NewReplacer("{dir}", d.dir, "{address}", strings.TrimPrefix(d.url, "http://")).Replace(yaml)
	if err := errors.Join(os.WriteFile(file+".new", []byte(yaml), 0o600), os.Rename(file+".new", file)); err != nil {
		d.t.Fatal(err)
	}
	return file
}

// testWriter is the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

// eventually waits, as long as the test may, for something that other goroutines
// and the network bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out: %s", what)
		}
	}
}

const manual = `
data_dir: {dir}/data
listen:
  address: {address}
  tls: {mode: "off"}
sources:
  catalog:
    secrets: {primary: ` + secret + `}
telemetry: {address: "127.0.0.1:0"}
forwarders:
`

func signed(body []byte) http.Header { return signedWith(secret, body) }

func signedWith(secret string, body []byte) http.Header {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("X-AKENEO-SIGNATURE-PRIMARY", hex.EncodeToString(mac.Sum(nil)))
	h.Set("X-AKENEO-SIGNATURE-ALGORITHM", "HmacSHA256")
	return h
}

// post delivers a body and returns the status.
func (d *daemon) post(path string, body []byte, header http.Header) int {
	d.t.Helper()
	req, err := http.NewRequest(http.MethodPost, d.url+path, bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode
}

func cloudEvent(id string) []byte {
	return fmt.Appendf(nil, `{"specversion":"1.0","id":%q,"source":"pim","type":"com.akeneo.pim.v1.product.updated","subject":"s","time":"2026-01-01T00:00:00Z","data":{"product":{"uuid":"u-%s"}}}`, id, id)
}

// The whole road: every documented event, over HTTPS, from a platform that the
// relay has subscribed itself to, into an HTTP sink and a file, byte for byte.
func TestWholeRoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority, err := simulator.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	platform, platformURL := startPlatform(t, authority)
	writeCertificate(t, authority, dir)
	if err := os.WriteFile(filepath.Join(dir, "root.pem"), authority.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSink(t)
	d := start(t, dir, strings.NewReplacer("{platform}", platformURL, "{sink}", s.URL).Replace(`
data_dir: {dir}/data
listen:
  address: {address}
  public_url: https://{address}
  tls: {mode: files, certificate: "{dir}/relay.pem", key: "{dir}/relay-key.pem"}
sources:
  catalog:
    pim: {url: "{platform}", client_id: demo-client, client_secret: demo-secret, username: demo-user, password: demo-password}
    platform_url: "{platform}"
    trusted_roots: "{dir}/root.pem"
    subscriber: {name: test, technical_email: ops@example.com}
    subscriptions:
      all: {events: [com.akeneo.pim.v1.*, com.akeneo.pim.v1.asset.updated.delta, com.akeneo.pim.v1.product.updated.delta, com.akeneo.pim.v1.product-model.updated.delta]}
forwarders:
  sink: {plugin: http, config: {url: "{sink}", pass_signatures: true}}
  archive: {plugin: file, config: {path: "{dir}/events.jsonl"}}
  models: {plugin: file, match: 'event.entity.startsWith("product_model:")', config: {path: "{dir}/models.jsonl"}}
telemetry: {address: ""}
`))
	eventually(t, "subscribed", func() bool {
		subs := d.Status().Sources[0].Subscriptions
		return len(subs) == 1 && subs[0].Status == "active"
	})
	const rounds = 3
	if _, err := platform.Fire(simulator.Firing{Count: 39 * rounds}); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{
		`{"product":{"uuid":"0","name":"zażółć 漢字 \u2028 🐘"},"author":{"identifier":"julia","type":"user"}}`,
		`{"product":{"uuid":"1","big":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + `}}`,
	} {
		if _, err := platform.Fire(simulator.Firing{Type: "com.akeneo.pim.v1.product.updated", Data: json.RawMessage(data)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := platform.Idle(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "delivered", func() bool {
		for _, f := range d.Status().Forwarders {
			if f.Backlog > 0 {
				return false
			}
		}
		return true
	})
	d.stop()

	sunk, types := s.got(), make(map[string]bool)
	var want bytes.Buffer
	for _, sent := range platform.Acknowledged() {
		types[sent.Type] = true
		if !bytes.Equal(sunk[sent.ID], sent.Body) {
			t.Errorf("event %s of type %s arrived as %q, was sent as %q", sent.ID, sent.Type, sunk[sent.ID], sent.Body)
		}
		want.Write(sent.Body)
		want.WriteByte('\n')
	}
	if len(types) != 39 || len(sunk) != 39*rounds+2 {
		t.Errorf("%d types and %d events arrived", len(types), len(sunk))
	}
	if diff := cmp.Diff(lines(want.Bytes()), lines(read(t, filepath.Join(dir, "events.jsonl")))); diff != "" {
		t.Errorf("file (-sent +got):\n%s", diff)
	}
	if models := lines(read(t, filepath.Join(dir, "models.jsonl"))); len(models) != 4*rounds {
		t.Errorf("%d product model events matched, want %d", len(models), 4*rounds)
	}
	report := platform.Report().Subscriptions[0]
	if report.Answers["200"] != 39*rounds+2 || report.Status != "active" {
		t.Errorf("the platform saw %+v", report)
	}
}

// lines is the set of lines, each with its number.
func lines(text []byte) map[string]int {
	all := make(map[string]int)
	for line := range bytes.Lines(text) {
		all[string(line)]++
	}
	return all
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What the door answers, with everything behind it.
func TestAnswers(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	d := start(t, t.TempDir(), manual+`
  sink: {plugin: http, config: {url: "`+s.URL+`", pass_signatures: true}}
`)
	body := cloudEvent("1")
	forged := signed(body)
	forged.Set("X-AKENEO-SIGNATURE-PRIMARY", strings.Repeat("0", 64))
	for _, tt := range []struct {
		name   string
		path   string
		body   []byte
		header http.Header
		want   int
	}{
		{"event", "/hooks/catalog", body, signed(body), 200},
		{"duplicate", "/hooks/catalog", body, signed(body), 200},
		{"below the path", "/hooks/catalog/products?x=1", cloudEvent("2"), signed(cloudEvent("2")), 200},
		{"ugly path", "//hooks/./catalog/", cloudEvent("3"), signed(cloudEvent("3")), 200},
		{"no signature", "/hooks/catalog", body, http.Header{}, 401},
		{"no signature, unknown path", "/", body, http.Header{}, 401},
		{"forged", "/hooks/catalog", body, forged, 429},
		{"unknown path", "/hooks/other", body, signed(body), 429},
		{"no CloudEvent", "/hooks/catalog", []byte("hello"), signed([]byte("hello")), 200},
		{"unknown type", "/hooks/catalog", bytes.Replace(cloudEvent("4"), []byte("product.updated"), []byte("thing.happened"), 1), nil, 200},
	} {
		header := tt.header
		if header == nil {
			header = signed(tt.body)
		}
		if got := d.post(tt.path, tt.body, header); got != tt.want {
			t.Errorf("%s: answered %d, want %d", tt.name, got, tt.want)
		}
	}
	for range 4 {
		<-s.arrived
	}
	status := d.Status()
	if status.Journal.Head != 4 || status.Journal.Duplicates != 1 {
		t.Errorf("journal %+v", status.Journal)
	}
	if h := s.headers["1"]; h.Get("X-Akeneo-Signature-Primary") != signed(body).Get("X-Akeneo-Signature-Primary") || h.Get("Idempotency-Key") != "1" {
		t.Errorf("headers at the sink: %v", h)
	}
}

// A relay that is stopped and started again goes on where it was, and knows
// what it has had.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir, s := t.TempDir(), newSink(t)
	config := manual + `
  sink: {plugin: http, retry: {initial: 20ms, max: 50ms}, config: {url: "` + s.URL + `"}}
  archive: {plugin: file, config: {path: "{dir}/events.jsonl"}}
`
	s.set(503)
	d := start(t, dir, config)
	for n := range 20 {
		body := cloudEvent(fmt.Sprint(n))
		if got := d.post("/hooks/catalog", body, signed(body)); got != 200 {
			t.Fatalf("answered %d while a sink is down", got)
		}
	}
	<-s.arrived
	eventually(t, "the file has them all while the sink is down", func() bool { return d.Status().Forwarders[0].Delivered == 20 })
	if f := d.Status().Forwarders[1]; f.Backlog != 20 || !f.Failing {
		t.Errorf("the sink's lane: %+v", f)
	}
	d.stop()

	s.set(200)
	d = start(t, dir, config)
	eventually(t, "the sink has them all", func() bool { return len(s.got()) == 20 })
	if got := d.post("/hooks/catalog", cloudEvent("7"), signed(cloudEvent("7"))); got != 200 {
		t.Errorf("answered %d", got)
	}
	if j := d.Status().Journal; j.Head != 20 || j.Duplicates != 1 {
		t.Errorf("journal %+v", j)
	}
	d.stop()
	if n := len(lines(read(t, filepath.Join(dir, "events.jsonl")))); n != 20 {
		t.Errorf("the file has %d different lines, want 20", n)
	}
}

func TestStatusAndTelemetry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := start(t, dir, manual+`
  archive: {plugin: file, config: {path: "{dir}/events.jsonl"}}
`)
	status, err := admin.NewClient(filepath.Join(dir, "data")).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !status.Ready || len(status.Forwarders) != 1 || len(status.Sources) != 1 || !status.Sources[0].Manual {
		t.Errorf("status %+v", status)
	}
	forged := signed([]byte("x"))
	d.post("/hooks/catalog", []byte("y"), forged)
	for path, want := range map[string]string{
		"/livez": "", "/readyz": "sources.catalog.signature", "/metrics": `pimrelay_edge_answers_total{code="429",source="catalog"} 1`,
	} {
		resp, err := http.Get("http://" + status.Telemetry + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || !bytes.Contains(body, []byte(want)) {
			t.Errorf("%s answered %d without %q:\n%s", path, resp.StatusCode, want, body)
		}
	}
	d.post("/hooks/catalog", cloudEvent("1"), signed(cloudEvent("1")))
	if w := d.Status().Warnings; len(w) != 0 {
		t.Errorf("a good signature leaves warnings %+v", w)
	}
}

// A platform that cannot be reached delays the subscription, not the daemon, and
// shows as a warning.
func TestUnreachablePlatform(t *testing.T) {
	t.Parallel()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	pim := "http://" + gone.Addr().String()
	d := start(t, t.TempDir(), strings.NewReplacer("{pim}", pim).Replace(`
data_dir: {dir}/data
listen: {address: "{address}", public_url: "http://{address}", tls: {mode: "off"}}
sources:
  catalog:
    pim: {url: "{pim}", client_id: a, client_secret: b, username: c, password: d}
    platform_url: "{pim}"
    subscriber: {name: test, technical_email: ops@example.com}
    subscriptions: {all: {events: [com.akeneo.pim.v1.product.*]}}
telemetry: {address: ""}
forwarders:
  archive: {plugin: file, config: {path: "{dir}/events.jsonl"}}
`))
	eventually(t, "a warning", func() bool {
		w := d.Status().Warnings
		return len(w) == 1 && w[0].Key == "sources.catalog" && strings.Contains(w[0].Message, "connection refused")
	})
	if got := d.post("/hooks/catalog", cloudEvent("1"), http.Header{}); got != 401 {
		t.Errorf("the door answers %d", got)
	}
}

// A second relay on the same directory is refused, and says why.
func TestOneRelayPerDataDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, dir, manual+`
  archive: {plugin: file, config: {path: "{dir}/events.jsonl"}}
`)
	cfg, err := relay.Load(filepath.Join(dir, "pimrelay.yaml"), nil, plugins.Builtin)
	if err != nil {
		t.Fatal(err)
	}
	err = relay.New(cfg, relay.Options{Logger: slog.New(slog.DiscardHandler), Builtin: plugins.Builtin}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "in use by another pimrelay") {
		t.Errorf("got %v", err)
	}
}
