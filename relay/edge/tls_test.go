package edge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLoadTLSServesEveryClient(t *testing.T) {
	t.Parallel()
	config, roots := validTLS(t)
	d := startDoor(t, func(o *Options) { o.TLS = config })
	tests := []struct {
		name   string
		client *tls.Config
		proto  string
	}{
		{"TLS 1.2", &tls.Config{RootCAs: roots, ServerName: "localhost", MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}, "h2"},
		{"TLS 1.3", &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}, "http/1.1"},
		{"no ALPN", &tls.Config{RootCAs: roots, ServerName: "localhost"}, ""},
		{"no SNI", &tls.Config{InsecureSkipVerify: true}, ""},
		{"an address", &tls.Config{InsecureSkipVerify: true, ServerName: "127.0.0.1"}, ""},
		{"another host", &tls.Config{InsecureSkipVerify: true, ServerName: "elsewhere.example"}, ""},
	}
	for _, tt := range tests {
		c, err := tls.Dial("tcp", d.addr, tt.client)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := c.ConnectionState().NegotiatedProtocol; got != tt.proto {
			t.Errorf("%s: speaks %q, want %q", tt.name, got, tt.proto)
		}
		c.Close()
	}
	old := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if c, err := tls.Dial("tcp", d.addr, old); err == nil {
		c.Close()
		t.Error("TLS 1.1 is served")
	}
}

// A configuration that someone else made may name other protocols only.
func TestTLSKeepsOtherProtocols(t *testing.T) {
	t.Parallel()
	config, roots := validTLS(t)
	config.NextProtos = []string{"acme-tls/1"}
	d := startDoor(t, func(o *Options) { o.TLS = config })
	for _, proto := range []string{"h2", "http/1.1", "acme-tls/1"} {
		c, err := tls.Dial("tcp", d.addr, &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{proto}})
		if err != nil {
			t.Errorf("%s: %v", proto, err)
			continue
		}
		if got := c.ConnectionState().NegotiatedProtocol; got != proto {
			t.Errorf("speaks %q, want %q", got, proto)
		}
		c.Close()
	}
	if len(config.NextProtos) != 1 {
		t.Errorf("the caller's configuration was changed: %v", config.NextProtos)
	}
}

func TestLoadTLSExplainsWhatIsWrong(t *testing.T) {
	t.Parallel()
	now := time.Now()
	cert, key, _ := issue(t, now.Add(-time.Hour), now.Add(time.Hour))
	_, otherKey, _ := issue(t, now.Add(-time.Hour), now.Add(time.Hour))
	expired, expiredKey, _ := issue(t, now.Add(-2*time.Hour), now.Add(-time.Hour))
	early, earlyKey, _ := issue(t, now.Add(time.Hour), now.Add(2*time.Hour))
	dir := t.TempDir()
	file := func(name, content string) string {
		p := filepath.Join(dir, name)
		writeFile(t, p, []byte(content))
		return p
	}
	empty := file("empty.pem", "")
	broken := file("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	encryptedKey := file("encrypted.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
	oldEncryptedKey := file("old.pem", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n")
	tests := []struct{ name, cert, key, want string }{
		{"no certificate", filepath.Join(dir, "none"), key, "read the certificate: open " + filepath.Join(dir, "none")},
		{"no key", cert, filepath.Join(dir, "none"), "read the private key: open "},
		{"a directory", dir, key, "read the certificate: "},
		{"empty certificate", empty, key, "certificate " + empty + ": no PEM block found"},
		{"empty key", cert, empty, "private key " + empty + ": no PEM block found"},
		{"broken certificate", broken, key, "certificate " + broken},
		{"encrypted key", cert, encryptedKey, "is encrypted: store it without a passphrase"},
		{"key encrypted the old way", cert, oldEncryptedKey, "is encrypted: store it without a passphrase"},
		{"another's key", cert, otherKey, "give the key that the certificate was issued for"},
		{"the two exchanged", key, cert, "certificate " + key},
		{"expired", expired, expiredKey, "expired on " + now.Add(-time.Hour).UTC().Format("2006-01-02T15:04")},
		{"not yet valid", early, earlyKey, "not valid before " + now.Add(time.Hour).UTC().Format("2006-01-02T15:04")},
	}
	for _, tt := range tests {
		_, err := LoadTLS(tt.cert, tt.key)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one that says %q", tt.name, err, tt.want)
		}
	}
}

// net/http sends the end of an answer this way while the client still sends.
func TestWatchedConnKeepsHalfClose(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := (&watchedListener{Listener: l}).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := server.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the client reads %v, want EOF", err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Errorf("the client can no longer send: %v", err)
	}

	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := (&watchedConn{Conn: a}).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("half-close of a pipe: %v, want ErrUnsupported", err)
	}
}
