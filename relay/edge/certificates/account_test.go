package certificates

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pimrelay/pimrelay/relay/edge/certificates/acmetest"
)

// An account that was deactivated, or revoked, stays so: another is registered.
func TestAccountThatIsNoLongerAccepted(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	ca := d.authority(t, acmetest.Options{})
	o := d.options(t, ca, "first.revoked.example")
	a, stop := d.keep(t, o)
	awaitUsable(t, a)
	stop()
	before := deactivate(t, a)

	o.Hosts, o.Registerer = []string{"second.revoked.example"}, prometheus.NewRegistry()
	a, _ = d.keep(t, o)
	eventually(t, "the failure is told", func() bool {
		return strings.Contains(a.Status()[0].Err, "no longer accepts the account") || !a.Status()[0].NotAfter.IsZero()
	})
	awaitUsable(t, a)
	if key := accountKey(t, o.Dir); bytes.Equal(key, before) {
		t.Error("the account is the same")
	}
}

func accountKey(t *testing.T, dir string) []byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "acme", "*", "users", "*", "*.key"))
	if err != nil || len(files) != 1 {
		t.Fatalf("account keys: %v, %v", files, err)
	}
	key, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// deactivate ends the account at the authority, and returns its key.
func deactivate(t *testing.T, a *ACME) []byte {
	t.Helper()
	keyPEM := accountKey(t, a.options.Dir)
	key, err := certmagic.PEMDecodePrivateKey(keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	client := acme.Client{Directory: a.options.Directory, HTTPClient: a.client()}
	account, err := client.GetAccount(t.Context(), acme.Account{PrivateKey: key})
	if err != nil {
		t.Fatal(err)
	}
	account.PrivateKey, account.Status = key, acme.StatusDeactivated
	if _, err := client.UpdateAccount(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	return keyPEM
}

func TestExternalAccount(t *testing.T) {
	t.Parallel()
	const keyID, mac = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	d := newDoor(t)
	ca := d.authority(t, acmetest.Options{KeyID: keyID, MACKey: mac})
	o := d.options(t, ca, "bound.example")
	a, stop := d.keep(t, o)
	eventually(t, "an account of nobody is refused", func() bool {
		return strings.Contains(a.Status()[0].Err, "externalAccountRequired") || strings.Contains(a.Status()[0].Err, "external account")
	})
	stop()
	o.KeyID, o.MACKey, o.Registerer = keyID, mac, prometheus.NewRegistry()
	a, _ = d.keep(t, o)
	awaitUsable(t, a)
	d.mustPresent(t, ca, "bound.example")
}
