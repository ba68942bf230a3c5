package relay_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/plugins"
	"github.com/pimrelay/pimrelay/relay"
)

// Everything that is wrong comes at once, each with file, line, path and remedy.
func TestLoadNamesEverythingThatIsWrong(t *testing.T) {
	t.Parallel()
	const file = `
data_dir: ` + "/tmp/{long}" + `
listen:
  address: example.com:443
  tls: {mode: acme, certificate: x.pem, email: nobody, domains: ["*.example.com"], directory: http://ca.example.com, trusted_roots: /nowhere.pem, http_address: nonsense, challenges: [dns-01], external_account: {key_id: x}}
  max_body: 1B
sources:
  catalog:
    path: /hooks/a/
    secrets: {primary: "${env:UNSET}"}
    subscriptions: {all: {events: [com.akeneo.pim.v1.product.*]}}
  other:
    path: /hooks/a/
    pim: {url: http://pim.example.com, client_id: x, client_secret: "s3cr3t", username: u}
    trusted_roots: /nowhere.pem
    subscriber: {name: "", technical_email: nobody}
    subscriptions: {notifications: {events: [com.akeneo.pim.v1.nothing.*]}}
    secrets: {primary: short}
forwarders:
  shop:
    match: event.typ == "x"
    plugin: http
    timeout: 5
    retires: {max: 10m}
    config: {url: ftp://shop.example.com, secret_token: hunter2}
  odd: {plugin: htpp, max_in_flight: 0, retry: {initial: 1s, max: 1ms}}
telemetry: {address: nonsense}
log: {level: loud, format: xml}
drain_timeout: -1s
`
	path := filepath.Join(t.TempDir(), "pimrelay.yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(file, "{long}", strings.Repeat("x", 100), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := relay.Load(path, nil, plugins.Builtin)
	if err == nil {
		t.Fatal("loaded")
	}
	golden := filepath.Join("testdata", "wrong.txt")
	text := strings.ReplaceAll(err.Error(), path, "pimrelay.yaml") + "\n"
	want, readErr := os.ReadFile(golden)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("(-%s +got):\n%s", golden, diff)
	}
	for _, secret := range []string{"hunter2", "s3cr3t", "short\""} {
		if strings.Contains(text, secret) {
			t.Errorf("shows the secret %s", secret)
		}
	}
}

// The settings of one way to a certificate are not those of another.
func TestTLSSettingsBelongToTheirMode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ tls, want string }{
		{`{mode: "off", email: ops@example.com}`, "listen.tls.email: is for tls.mode acme, and the mode is off: use acme, or remove it"},
		{`{mode: files, certificate: a, key: b, external_account: {key_id: x, mac_key: y}}`, "listen.tls.external_account: is for tls.mode acme"},
		{`{mode: files, key: b}`, "listen.tls.certificate: must name a PEM file"},
		{"{mode: acme}\n  public_url: https://ereignisse.müller.example", `listen.public_url: must have a host that a certificate can be for, in ASCII`},
		{"{mode: acme}\n  public_url: https://events.example.com.", `listen.public_url: must have a host that a certificate can be for`},
		{`{mode: acme}`, "listen.public_url: must be set, because tls.mode is acme"},
		{`{mode: acme, challenges: [http-01]}`, `listen.tls.challenges: has http-01, which needs http_address, usually ":80"`},
		{`{mode: acme, challenges: [tls-alpn-01], http_address: ":80"}`, "listen.tls.http_address: is for http-01, which is not among the challenges"},
		{`{}`, `listen.tls.mode: must be "acme" (a certificate is obtained), "files" (it is in files) or "off"`},
	} {
		file := filepath.Join(t.TempDir(), "pimrelay.yaml")
		text := strings.Replace(strings.ReplaceAll(manual+archive, "{dir}", t.TempDir()), `{mode: "off"}`, tt.tls, 1)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "{address}", "127.0.0.1:0")), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := relay.Load(file, nil, plugins.Builtin); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.tls, err, tt.want)
		}
	}
}
