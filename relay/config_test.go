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
  tls: {mode: acme}
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
