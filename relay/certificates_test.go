package relay_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pimrelay/pimrelay/relay/akeneo/simulator"
	"github.com/pimrelay/pimrelay/relay/edge/certificates/acmetest"
)

const subscribing = `
sources:
  catalog:
    pim: {url: "{platform}", client_id: demo-client, client_secret: demo-secret, username: demo-user, password: demo-password}
    platform_url: "{platform}"
    trusted_roots: "{dir}/root.pem"
    subscriber: {name: test, technical_email: ops@example.com}
    subscriptions: {all: {events: [com.akeneo.pim.v1.product.*]}}
forwarders:
  archive: {plugin: file, config: {path: "{dir}/events.jsonl"}}
telemetry: {address: ""}
`

// The whole road with a certificate that the relay obtains: as long as the
// authority does not answer, the door is open and nobody is told to deliver; then
// the relay subscribes, and what a verifying platform delivers arrives.
func TestSubscribesWhenItHasACertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority, err := simulator.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t)
	port := listener.Addr().(*net.TCPAddr).Port
	ca := acmetest.Start(t, acmetest.Options{TLSPort: port})
	release := ca.Hold()
	defer release()
	platform, platformURL := startPlatform(t, authority, ca.IssuedPEM)
	for name, data := range map[string][]byte{"root.pem": authority.PEM(), "ca.pem": ca.RootsPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := startOn(t, listener, dir, strings.NewReplacer("{platform}", platformURL, "{directory}", ca.Directory, "{port}", strconv.Itoa(port)).Replace(`
data_dir: {dir}/data
listen:
  address: {address}
  public_url: https://localhost:{port}
  tls: {mode: acme, email: ops@example.com, directory: "{directory}", trusted_roots: "{dir}/ca.pem"}
`+subscribing))
	status := d.Status()
	if w := status.Warnings; len(w) != 1 || w[0].Key != "listen.tls.localhost" || !strings.Contains(w[0].Message, "there is no certificate for localhost yet") {
		t.Errorf("warnings without a certificate: %+v", w)
	}
	if c := status.Door.Certificates; len(c) != 1 || c[0].Host != "localhost" || !c[0].NotAfter.IsZero() {
		t.Errorf("certificates: %+v", c)
	}
	if !status.Ready || status.Sources[0].Subscriber != "" {
		t.Errorf("without a certificate: %+v", status)
	}
	if calls := platform.Report().Subscriptions; len(calls) != 0 {
		t.Errorf("subscribed without a certificate: %+v", calls)
	}
	release()
	eventually(t, "subscribed", func() bool {
		subs := d.Status().Sources[0].Subscriptions
		return len(subs) == 1 && subs[0].Status == "active"
	})
	if _, err := platform.Fire(simulator.Firing{Type: "com.akeneo.pim.v1.product.updated", Count: 20}); err != nil {
		t.Fatal(err)
	}
	if err := platform.Idle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if report := platform.Report().Subscriptions[0]; report.Answers["200"] != 20 || report.Status != "active" {
		t.Errorf("the platform saw %+v", report)
	}
	if w := d.Status().Warnings; len(w) != 0 {
		t.Errorf("warnings: %+v", w)
	}
	if c := d.Status().Door.Certificates; len(c) != 1 || time.Until(c[0].NotAfter) <= 0 {
		t.Errorf("certificates: %+v", c)
	}
}

// The other challenge: the second listener answers it and nothing else.
func TestChallengesOverHTTP(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	reserved := listen(t)
	challenges := reserved.Addr().(*net.TCPAddr)
	reserved.Close() // for the relay to open
	ca := acmetest.Start(t, acmetest.Options{HTTPPort: challenges.Port})
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca.RootsPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, dir, strings.NewReplacer(`tls: {mode: "off"}`,
		fmt.Sprintf(`public_url: https://over-http.example
  tls: {mode: acme, directory: %q, trusted_roots: "{dir}/ca.pem", challenges: [http-01], http_address: "%s"}`, ca.Directory, challenges)).Replace(manual)+archive)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/", "//hooks/catalog", "/hooks/catalog", "/.well-known/acme-challenge/none"} {
		for want, header := range map[int]http.Header{401: {}, 429: signed(cloudEvent("1"))} {
			req, err := http.NewRequest(http.MethodPost, "http://"+challenges.String()+path, bytes.NewReader(cloudEvent("1")))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = header
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s: answered %d, want %d", path, resp.StatusCode, want)
			}
		}
	}
	eventually(t, "a certificate", func() bool { return len(d.Status().Warnings) == 0 })
	c, err := tls.Dial("tcp", strings.TrimPrefix(d.url, "http://"), &tls.Config{RootCAs: ca.Issued, ServerName: "over-http.example"})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	d.stop()
	if again, err := net.Listen("tcp", challenges.String()); err != nil {
		t.Errorf("the listener outlives the relay: %v", err)
	} else {
		again.Close()
	}
}

// startPlatform runs a platform whose certificate the authority has issued, and
// which trusts it and the further ones.
func startPlatform(t *testing.T, authority *simulator.Authority, further ...[]byte) (*simulator.Simulator, string) {
	t.Helper()
	roots := x509.NewCertPool()
	for _, pem := range append(further, authority.PEM()) {
		roots.AppendCertsFromPEM(pem)
	}
	platform, err := simulator.New(simulator.Options{Roots: roots, Pace: 1000, KeepBodies: true})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := authority.Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- platform.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return platform, "https://" + listener.Addr().String()
}

func writeCertificate(t *testing.T, authority *simulator.Authority, dir string) {
	t.Helper()
	certificate, err := authority.Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "relay.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}), 0o600),
		os.WriteFile(filepath.Join(dir, "relay-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
	); err != nil {
		t.Fatal(err)
	}
}
