package edge

import (
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// protocol is a way to reach the door.
type protocol struct {
	name, version string
	tls           bool
}

var protocols = []protocol{
	{"plain HTTP/1.1", "HTTP/1.1", false},
	{"HTTPS HTTP/1.1", "HTTP/1.1", true},
	{"HTTPS HTTP/2", "HTTP/2.0", true},
}

// overEach runs a test over each protocol, against a door of its own.
func overEach(t *testing.T, change func(*Options), test func(t *testing.T, c *http.Client, url string)) {
	t.Helper()
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			_, c, url := p.start(t, change)
			test(t, c, url)
		})
	}
}

// start starts a door, and returns it with a client and its URL.
func (p protocol) start(t testing.TB, change func(*Options)) (*door, *http.Client, string) {
	t.Helper()
	var roots *x509.CertPool
	scheme := "http://"
	d := startDoor(t, func(o *Options) {
		if p.tls {
			o.TLS, roots = validTLS(t)
			scheme = "https://"
		}
		if change != nil {
			change(o)
		}
	})
	return d, newClient(t, p.version, roots), scheme + d.addr
}

// unannounced hides the length of a body, so that it is sent in chunks.
type unannounced struct{ io.Reader }

// answerTests are the rows of what the door answers. The body tells the acceptor
// of TestAnswers what to do.
var answerTests = []struct {
	name, method, path, body string
	unsigned, chunked        bool
	want                     int
}{
	{name: "accepted", path: "/hooks/catalog", body: "accept", want: 200},
	{name: "accepted below the path", path: "/hooks/catalog/products", body: "accept", want: 200},
	{name: "accepted in chunks", path: "/hooks/catalog", body: "accept", chunked: true, want: 200},
	{name: "unavailable", path: "/hooks/catalog", body: "refuse", want: 429},
	{name: "unsigned to the acceptor", path: "/hooks/catalog", body: "unsigned", want: 401},
	{name: "not an answer", path: "/hooks/catalog", body: "outside the set", want: 429},
	{name: "no body", path: "/hooks/catalog", want: 429},
	{name: "panic", path: "/hooks/catalog", body: "panic", want: 429},
	{name: "abort is a panic", path: "/hooks/catalog", body: "abort", want: 429},
	{name: "unsigned", path: "/hooks/catalog", body: "accept", unsigned: true, want: 401},
	{name: "unsigned elsewhere", path: "/nowhere", body: "accept", unsigned: true, want: 401},
	{name: "unsigned and large", path: "/hooks/catalog", body: strings.Repeat("x", 1025), unsigned: true, want: 401},
	{name: "signed elsewhere", path: "/nowhere", body: "accept", want: 429},
	{name: "signed beside", path: "/hooks/catalogue", body: "accept", want: 429},
	{name: "signed above", path: "/hooks", body: "accept", want: 429},
	{name: "signed root", path: "/", body: "accept", want: 429},
	{name: "at the limit", path: "/hooks/catalog", body: strings.Repeat("x", 1024), want: 429},
	{name: "over the limit", path: "/hooks/catalog", body: strings.Repeat("x", 1025), want: 413},
	{name: "over the limit in chunks", path: "/hooks/catalog", body: strings.Repeat("x", 1025), chunked: true, want: 413},
	{name: "at the limit in chunks", path: "/hooks/catalog", body: strings.Repeat("x", 1024), chunked: true, want: 429},
	{name: "get", method: "GET", path: "/hooks/catalog", unsigned: true, want: 200},
	{name: "get signed", method: "GET", path: "/hooks/catalog/products", want: 200},
	{name: "head", method: "HEAD", path: "/hooks/catalog", unsigned: true, want: 200},
	{name: "get elsewhere", method: "GET", path: "/nowhere", unsigned: true, want: 401},
	{name: "head elsewhere", method: "HEAD", path: "/nowhere", unsigned: true, want: 401},
	{name: "get signed elsewhere", method: "GET", path: "/nowhere", want: 429},
	{name: "put", method: "PUT", path: "/hooks/catalog", body: "accept", want: 405},
	{name: "delete elsewhere", method: "DELETE", path: "/nowhere", unsigned: true, want: 405},
	{name: "options", method: "OPTIONS", path: "/hooks/catalog", unsigned: true, want: 405},
	{name: "trace", method: "TRACE", path: "/hooks/catalog", unsigned: true, want: 405},
	{name: "unheard of", method: "BREW", path: "/hooks/catalog", want: 405},
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	// The acceptor answers as the body says.
	acceptor := accept(func(_ context.Context, d *Delivery) Answer {
		switch string(d.Body) {
		case "accept":
			return Accepted
		case "unsigned":
			return Unsigned
		case "panic":
			panic("as the test asked")
		case "abort":
			panic(http.ErrAbortHandler)
		case "outside the set":
			return Answer(99)
		}
		return Unavailable
	})
	limit := func(o *Options) { o.Acceptor, o.MaxBody = acceptor, 1024 }
	overEach(t, limit, func(t *testing.T, c *http.Client, url string) {
		for _, tt := range answerTests {
			t.Run(tt.name, func(t *testing.T) {
				method := tt.method
				if method == "" {
					method = http.MethodPost
				}
				var body io.Reader
				if tt.body != "" {
					body = strings.NewReader(tt.body)
				}
				if tt.chunked {
					body = unannounced{body}
				}
				r := newRequest(t, method, url+tt.path, body)
				if !tt.unsigned {
					r.Header.Set(signatureHeader, "00")
				}
				resp, got := do(t, c, r)
				if resp.StatusCode != tt.want {
					t.Errorf("answered %d, want %d", resp.StatusCode, tt.want)
				}
				if got != "" || resp.Header.Get("Content-Length") != "0" {
					t.Errorf("body %q with Content-Length %q, want none with 0", got, resp.Header.Get("Content-Length"))
				}
				allow := ""
				if tt.want == http.StatusMethodNotAllowed {
					allow = "GET, HEAD, POST"
				}
				if resp.Header.Get("Allow") != allow {
					t.Errorf("Allow %q, want %q", resp.Header.Get("Allow"), allow)
				}
			})
		}
	})
}

func TestDeliveryIsWhatWasSent(t *testing.T) {
	t.Parallel()
	got := make(chan *Delivery, 1)
	keep := func(o *Options) {
		o.Acceptor = accept(func(_ context.Context, d *Delivery) Answer {
			got <- d
			return Accepted
		})
	}
	overEach(t, keep, func(t *testing.T, c *http.Client, url string) {
		for _, size := range []int{0, 1, firstBuffer - 1, firstBuffer, firstBuffer + 1, 300_000, defaultMaxBody} {
			body := strings.Repeat("é\x00\n", size/4+1)[:size]
			r := post(t, url+"/hooks//assets/./new%20ones/?x=1", body)
			r.Header.Add("X-Custom", "a")
			r.Header.Add("X-Custom", "b")
			if resp, _ := do(t, c, r); resp.StatusCode != http.StatusOK {
				t.Fatalf("%d bytes: answered %d", size, resp.StatusCode)
			}
			d := <-got
			if string(d.Body) != body {
				t.Errorf("%d bytes: the body is not what was sent", size)
			}
			if diff := cmp.Diff([]string{"a", "b"}, d.Header.Values("X-Custom")); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			if d.Source != "assets" || d.Path != "/hooks/assets/new ones" {
				t.Errorf("source %q, path %q", d.Source, d.Path)
			}
			if d.Received.IsZero() || d.Received.Location().String() != "UTC" {
				t.Errorf("received %v, want a time in UTC", d.Received)
			}
		}
	})
}

func TestUglyPathsReachTheirSource(t *testing.T) {
	t.Parallel()
	targets := []string{
		"/hooks/catalog", "/hooks/catalog/", "/hooks/catalog//", "//hooks/catalog", "/hooks//catalog",
		"///hooks///catalog///", "/./hooks/catalog", "/hooks/./catalog", "/hooks/catalog/.", "/hooks/x/../catalog",
		"/../hooks/catalog", "/hooks/catalog/x/..", "/%2e/hooks/catalog", "/hooks/%2E%2e/hooks/catalog",
		"/hooks%2Fcatalog", "/%68ooks/catalog", "/hooks/catalog?", "/hooks/catalog?a=b&c", "/hooks/catalog/?x=/../",
		"/hooks/catalog?x=%zz", "/hooks/catalog/a/b/c/", "/hooks/catalog/products/..;/", "/hooks/catalog/%00",
		"/hooks/catalog/%ff", "/hooks/catalog/a\\b", "/hooks/catalog/a%0d%0ab", "/" + strings.Repeat("/", 4000) + "hooks/catalog",
		"/" + strings.Repeat("x/../", 4000) + "hooks/catalog",
	}
	reached := func(o *Options) {
		o.Acceptor = accept(func(_ context.Context, d *Delivery) Answer {
			if d.Source != "catalog" || !within(d.Path, "/hooks/catalog") {
				return Unavailable
			}
			return Accepted
		})
	}
	overEach(t, reached, func(t *testing.T, c *http.Client, url string) {
		for _, target := range targets {
			r := post(t, url+target, "{}")
			if resp, _ := do(t, c, r); resp.StatusCode != http.StatusOK {
				t.Errorf("%s: answered %d, want 200", shorten(target), resp.StatusCode)
			}
		}
	})
	t.Run("as sent on the wire", func(t *testing.T) {
		t.Parallel()
		d := startDoor(t, reached)
		absolute := []string{"http://elsewhere.example/hooks/catalog", "http://elsewhere.example//hooks/catalog/", "HTTPS://elsewhere.example:99/hooks/catalog?x"}
		for _, target := range append(absolute, targets...) {
			got := converse(t, d.addr, "POST "+target+" HTTP/1.1\r\nHost: x\r\n"+signatureHeader+": 00\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
			if got != http.StatusOK {
				t.Errorf("%s: answered %d, want 200", shorten(target), got)
			}
		}
	})
}

// Whatever is answered with HTTP/2, the connection stays: ending it would end
// all the requests that it carries.
func TestHTTP2ConnectionIsKept(t *testing.T) {
	t.Parallel()
	d, c, url := protocols[2].start(t, func(o *Options) { o.MaxBody = 1024 })
	large := strings.Repeat("x", 1<<20)
	for i, tt := range []struct {
		r    *http.Request
		want int
	}{
		{post(t, url+"/hooks/catalog", large), http.StatusRequestEntityTooLarge},
		{newRequest(t, http.MethodPost, url+"/hooks/catalog", strings.NewReader(large)), http.StatusUnauthorized},
		{newRequest(t, http.MethodPut, url+"/hooks/catalog", strings.NewReader(large)), http.StatusMethodNotAllowed},
		{post(t, url+"/nowhere", large), http.StatusTooManyRequests},
		{post(t, url+"/hooks/catalog", "{}"), http.StatusOK},
	} {
		var reused bool
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
		resp, _ := do(t, c, tt.r.WithContext(httptrace.WithClientTrace(t.Context(), trace)))
		if resp.StatusCode != tt.want || resp.ProtoMajor != 2 {
			t.Errorf("%s %s: answered %d over %s, want %d", tt.r.Method, tt.r.URL.Path, resp.StatusCode, resp.Proto, tt.want)
		}
		if i > 0 && !reused {
			t.Errorf("%s %s: came on a new connection", tt.r.Method, tt.r.URL.Path)
		}
	}
	if held := d.bodies.used.Load(); held != 0 {
		t.Errorf("%d bytes stay reserved", held)
	}
}
