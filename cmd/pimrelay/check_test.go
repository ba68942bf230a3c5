package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pimrelay/pimrelay/relay/edge/certificates/acmetest"
)

// writeOnlineConfig is a relay on address that is told to be at public.
func writeOnlineConfig(t *testing.T, address, public, tls string) string {
	t.Helper()
	file, _ := writeTakeoverConfig(t, address, fmt.Sprintf("public_url: %q, %s", public, tls))
	return file
}

func TestCheckOnline(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if _, err := fmt.Sscan(port, &number); err != nil {
		t.Fatal(err)
	}
	ca := acmetest.Start(t, acmetest.Options{TLSPort: number})
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, ca.RootsPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	acme := fmt.Sprintf("tls: {mode: acme, directory: %q, trusted_roots: %q}", ca.Directory, roots)
	file := writeOnlineConfig(t, address, "https://localhost:"+port, acme)
	check := func(code int, file string, want ...string) {
		t.Helper()
		got, out, errOut := pimrelay(t, "check", "--online", "-c", file, "--staging-directory", ca.Directory)
		if got != code {
			t.Errorf("exit code %d, want %d:\n%s%s", got, code, out, errOut)
		}
		for _, part := range want {
			if !strings.Contains(out+errOut, part) {
				t.Errorf("no %q in:\n%s%s", part, out, errOut)
			}
		}
	}
	check(0, file, ": ok (1 source", "ok    dns    localhost is at ", "ok    acme   "+ca.Directory+" has issued a certificate for localhost",
		"ok    reach  https://localhost:"+port+"/hooks/catalog leads here")
	if code, out, _ := pimrelay(t, "check", "--online", "-c", file); code != 0 || !strings.Contains(out, "warn  acme   "+ca.Directory+" answers; no certificate was tried") {
		t.Errorf("without a directory for trying out: %d\n%s", code, out)
	}
	ca.SetDown(true)
	check(exitFailure, file, "fail  acme   ", "of the online checks failed")
	ca.SetDown(false)

	// The address belongs to somebody else.
	taken, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	check(exitFailure, file, "fail  door   listen.address is in use, and no relay runs on data_dir")
	taken.Close()
}

// Behind a proxy that does what proxies do when they are not set up.
func TestCheckOnlineBehindAProxy(t *testing.T) {
	t.Parallel()
	var answer http.Handler
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer.ServeHTTP(w, r) }))
	defer proxy.Close()
	address := freeAddress(t)
	file := writeOnlineConfig(t, address, proxy.URL, noTLS)
	for _, tt := range []struct {
		name string
		http.Handler
		code int
		want string
	}{
		{"404", http.NotFoundHandler(), exitFailure, "is answered 404 Not Found by something else: the platform would suspend the subscription at once"},
		{"redirect", http.RedirectHandler("/login", http.StatusFound), exitFailure, "is answered 302 Found by something else: the platform would suspend"},
		{"a page", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), exitFailure, "is answered 200 OK by something else: let it lead to listen.address"},
		{"the relay", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			resp, err := http.Get("http://" + address + r.URL.Path)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			w.Header().Set("X-Pimrelay-Check", resp.Header.Get("X-Pimrelay-Check"))
			w.WriteHeader(resp.StatusCode)
		}), 0, "/hooks/catalog leads here"},
	} {
		answer = tt.Handler
		code, out, errOut := pimrelay(t, "check", "--online", "-c", file)
		if code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s%s", tt.name, code, tt.code, tt.want, out, errOut)
		}
	}
	file = writeOnlineConfig(t, address, "https://pimrelay.invalid", noTLS)
	if code, out, _ := pimrelay(t, "check", "--online", "-c", file); code != exitFailure || !strings.Contains(out, "fail  dns    pimrelay.invalid: ") || !strings.Contains(out, "fail  reach  ") {
		t.Errorf("a name that does not resolve: %d\n%s", code, out)
	}
}
