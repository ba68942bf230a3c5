package edge

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func prefixes(all ...string) (p []netip.Prefix) {
	for _, s := range all {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	a := newAccess(Access{TrustedProxies: prefixes("10.0.0.0/8", "2001:db8::/64")})
	for _, tt := range []struct {
		name, peer string
		forwarded  []string
		want       string // "" if it cannot be known
	}{
		{"no proxy", "192.0.2.1:1234", nil, "192.0.2.1"},
		{"a stranger's word", "192.0.2.1:1234", []string{"34.140.80.128"}, "192.0.2.1"},
		{"one proxy", "10.0.0.1:1234", []string{"34.140.80.128"}, "34.140.80.128"},
		{"several proxies", "10.0.0.1:1234", []string{"34.140.80.128, 10.0.0.3,10.0.0.2"}, "34.140.80.128"},
		{"several headers", "10.0.0.1:1234", []string{"1.1.1.1", "34.140.80.128", "10.0.0.2"}, "34.140.80.128"},
		{"forged before", "10.0.0.1:1234", []string{"10.9.9.9, 8.8.8.8, 34.140.80.128"}, "34.140.80.128"},
		{"with port", "10.0.0.1:1234", []string{"34.140.80.128:4711"}, "34.140.80.128"},
		{"IPv6", "[2001:db8::1]:1234", []string{"2001:db9::7"}, "2001:db9::7"},
		{"IPv6 with port", "[2001:db8::1]:1234", []string{"[2001:db9::7]:80"}, "2001:db9::7"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:1234", []string{"::ffff:34.140.80.128"}, "34.140.80.128"},
		{"proxies only", "10.0.0.1:1234", []string{"10.0.0.2"}, "10.0.0.2"},
		{"proxy without header", "10.0.0.1:1234", nil, "10.0.0.1"},
		{"nonsense", "10.0.0.1:1234", []string{"34.140.80.128, unknown"}, ""},
		{"empty", "10.0.0.1:1234", []string{""}, ""},
		{"empty element", "10.0.0.1:1234", []string{"34.140.80.128,"}, ""},
		{"very long", "10.0.0.1:1234", []string{strings.Repeat("1", 5000)}, ""},
		{"no address at all", "pipe", nil, ""},
	} {
		r := &http.Request{RemoteAddr: tt.peer, Header: http.Header{}}
		if tt.forwarded != nil {
			r.Header["X-Forwarded-For"] = tt.forwarded
		}
		got := a.client(r)
		if tt.want == "" && got.IsValid() || tt.want != "" && got != netip.MustParseAddr(tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzClientAddress(f *testing.F) {
	a := newAccess(Access{TrustedProxies: prefixes("10.0.0.0/8")})
	f.Add("10.0.0.1:1", "34.140.80.128", "10.0.0.2, 10.0.0.3")
	f.Add("[::1]:1", "", "unknown")
	f.Add("10.0.0.1:1", "::ffff:1.2.3.4%eth0", "[::1]:80")
	f.Fuzz(func(t *testing.T, peer, first, second string) {
		r := &http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": {first, second}}}
		client, from := a.client(r), hostAddr(peer)
		if !a.proxy(from) && client != from {
			t.Errorf("%q is no proxy, and its word %q counts: %v", peer, second, client)
		}
		if client.Is4In6() || client.Zone() != "" {
			t.Errorf("%v is not in the form that networks are compared in", client)
		}
	})
}

// Whoever is kept out is answered like everybody else, and signed requests raise
// an alarm: they may be the platform's.
func TestAllowFrom(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		access         Access
		forwarded      string
		signed, signOK int // POST with signature; GET
		unsigned       int // POST without
		alarm          string
	}{
		{"everybody", Access{}, "", 200, 200, 401, ""},
		{"allowed", Access{AllowFrom: prefixes("192.0.2.0/24", "127.0.0.1/32")}, "", 200, 200, 401, ""},
		{"kept out", Access{AllowFrom: prefixes("34.140.80.128/32")}, "", 429, 429, 401, "(from 127.0.0.1, "},
		{"through a proxy", Access{AllowFrom: prefixes("34.140.80.128/32"), TrustedProxies: prefixes("127.0.0.1/32")}, "34.140.80.128", 200, 200, 401, ""},
		{"kept out behind a proxy", Access{AllowFrom: prefixes("34.140.80.128/32"), TrustedProxies: prefixes("127.0.0.1/32")}, "34.140.80.129", 429, 429, 401, "(from 34.140.80.129, "},
		{"unknown behind a proxy", Access{AllowFrom: prefixes("0.0.0.0/0"), TrustedProxies: prefixes("127.0.0.1/32")}, "unknown", 429, 429, 401, "(from an unknown address, "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := startDoor(t, func(o *Options) { o.Access = tt.access })
			c := newClient(t, "HTTP/1.1", nil)
			url := "http://" + d.addr + "/hooks/catalog"
			send := func(r *http.Request, want int) {
				t.Helper()
				if tt.forwarded != "" {
					r.Header.Set("X-Forwarded-For", tt.forwarded)
				}
				if resp, _ := do(t, c, r); resp.StatusCode != want {
					t.Errorf("%s answered %d, want %d", r.Method, resp.StatusCode, want)
				}
			}
			send(post(t, url, "{}"), tt.signed)
			look := newRequest(t, http.MethodGet, url, nil)
			look.Header.Set(signatureHeader, "00")
			send(look, tt.signOK)
			send(newRequest(t, http.MethodPost, url, nil), tt.unsigned)
			checkConcern(t, d, concernAddress, tt.alarm)
		})
	}
}

// checkConcern wants the concern with a part of its message, or none if that is
// empty.
func checkConcern(t *testing.T, d *door, key, part string) {
	t.Helper()
	for _, c := range d.Concerns() {
		if c.Key == key {
			if part == "" || !strings.Contains(c.Message, part) {
				t.Errorf("%s: %q, want %q", key, c.Message, part)
			}
			return
		}
	}
	if part != "" {
		t.Errorf("no concern %s: %+v", key, d.Concerns())
	}
}

func TestAccessChangesWhileItServes(t *testing.T) {
	t.Parallel()
	d := startDoor(t, nil)
	c := newClient(t, "HTTP/1.1", nil)
	url := "http://" + d.addr + "/hooks/catalog"
	for want, access := range map[int]Access{429: {AllowFrom: prefixes("192.0.2.1/32")}, 200: {}} {
		d.SetAccess(access)
		if resp, _ := do(t, c, post(t, url, "{}")); resp.StatusCode != want {
			t.Errorf("answered %d, want %d", resp.StatusCode, want)
		}
	}
}

func TestRequireHeaders(t *testing.T) {
	t.Parallel()
	d := startDoor(t, func(o *Options) {
		o.Access.RequireHeaders = map[string]string{"x-tenant": "acme", "Authorization": "Bearer s3cret"}
	})
	c := newClient(t, "HTTP/1.1", nil)
	url := "http://" + d.addr + "/hooks/catalog"
	for _, tt := range []struct {
		name   string
		header http.Header
		want   int
	}{
		{"both", http.Header{"X-Tenant": {"acme"}, "Authorization": {"Bearer s3cret"}}, 200},
		{"none", nil, 429},
		{"one", http.Header{"X-Tenant": {"acme"}}, 429},
		{"another value", http.Header{"X-Tenant": {"acme"}, "Authorization": {"Bearer other"}}, 429},
		{"twice", http.Header{"X-Tenant": {"acme", "acme"}, "Authorization": {"Bearer s3cret"}}, 429},
	} {
		r := post(t, url, "{}")
		for name, values := range tt.header {
			r.Header[name] = values
		}
		if resp, _ := do(t, c, r); resp.StatusCode != tt.want {
			t.Errorf("%s: answered %d, want %d", tt.name, resp.StatusCode, tt.want)
		}
	}
	if resp, _ := do(t, c, newRequest(t, http.MethodGet, url, nil)); resp.StatusCode != 200 {
		t.Errorf("GET answered %d", resp.StatusCode)
	}
	if resp, _ := do(t, c, newRequest(t, http.MethodPost, url, nil)); resp.StatusCode != 401 {
		t.Errorf("unsigned answered %d", resp.StatusCode)
	}
	checkConcern(t, d, concernHeader, "4 times")
	if n := testutil.ToFloat64(d.metrics.refused.WithLabelValues("catalog", string(becauseHeader))); n != 4 {
		t.Errorf("%v counted", n)
	}
	if strings.Contains(d.log.String(), "s3cret") || strings.Contains(d.log.String(), "Bearer") {
		t.Errorf("the log shows a value:\n%s", d.log)
	}
}

// Beyond the limit a connection is closed unread; when another one of the same
// address has closed there is room again. Trusted proxies have no limit.
func TestConnectionsPerAddress(t *testing.T) {
	t.Parallel()
	d := startDoor(t, func(o *Options) { o.ConnectionsPerAddress = 2 })
	open := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	answers := func(c net.Conn) bool {
		t.Helper()
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, headers(2)+"\r\n{}") // it may be closed already
		one := make([]byte, 1)
		_, err := c.Read(one)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("neither answered nor closed")
		}
		return err == nil
	}
	first, second := open(), open()
	if !answers(first) || !answers(second) {
		t.Fatal("the first two are not answered")
	}
	if answers(open()) {
		t.Error("the third is answered")
	}
	first.Close()
	waitFor(t, "there is room again", func() bool { return answers(open()) })
	d.SetAccess(Access{TrustedProxies: prefixes("127.0.0.0/8")})
	for range 5 {
		if !answers(open()) {
			t.Error("a trusted proxy is limited")
		}
	}
	if n := testutil.ToFloat64(d.metrics.crowded); n < 1 {
		t.Errorf("%v counted", n)
	}
}

// waitFor waits for what goroutines bring about.
func waitFor(t *testing.T, what string, ok func() bool) {
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
