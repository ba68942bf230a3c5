package repo

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The example in Node.js has a copy of the contract, so that its directory can
// be taken as it is. It is a copy.
func TestNodeExampleHasTheContract(t *testing.T) {
	t.Parallel()
	const original = "sdk/wire/forwarderv1/forwarder.proto"
	want := read(t, original)
	if got := read(t, "examples/plugin-node/forwarder.proto"); !bytes.Equal(want, got) {
		t.Errorf("examples/plugin-node/forwarder.proto differs: cp %s examples/plugin-node/", original)
	}
}

// The lock file names versions and checksums, and leaves it to whoever installs
// where the packages come from.
func TestNodeExampleNamesNoRegistry(t *testing.T) {
	t.Parallel()
	lock := read(t, "examples/plugin-node/package-lock.json")
	for _, address := range []string{`"resolved"`, "://"} {
		if bytes.Contains(lock, []byte(address)) {
			t.Errorf("package-lock.json contains %s: npm install --omit-lockfile-registry-resolved=true, and remove the funding entries", address)
		}
	}
	if !bytes.Contains(lock, []byte(`"integrity"`)) {
		t.Error("package-lock.json has no checksums")
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
