package edge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
)

func TestTLSServesEveryClient(t *testing.T) {
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
