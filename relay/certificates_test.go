package relay_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

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
