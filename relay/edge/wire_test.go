package edge

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// converse sends bytes on a connection of its own, says that nothing more will
// come, and returns the status of the first final answer, or 0 if the
// connection ended without one.
func converse(t testing.TB, addr, sent string) int {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// The server may hang up while we are sending; it is the answer that counts.
	_, _ = io.WriteString(c, sent)
	_ = c.(*net.TCPConn).CloseWrite()
	in := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(in, nil)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
			return 0
		}
		if err != nil {
			t.Fatalf("%q: read the answer: %v", sent, err)
		}
		if resp.StatusCode >= 200 {
			return resp.StatusCode
		}
	}
}

// What net/http says to malformed requests before any handler runs is not in
// our hands. This is all of it: if an upgrade of Go adds a status, the platform
// may come to see it.
func TestMalformedHTTP(t *testing.T) {
	t.Parallel()
	d := startDoor(t, nil)
	const host, sign = "Host: x\r\n", signatureHeader + ": 00\r\n"
	tests := []struct {
		name, sent string
		want       int
	}{
		{"no HTTP", "hello\r\n\r\n", 400},
		{"no version", "POST /hooks/catalog\r\n\r\n", 400},
		{"no host", "POST /hooks/catalog HTTP/1.1\r\n" + sign + "\r\n", 400},
		{"two hosts", "POST /hooks/catalog HTTP/1.1\r\n" + host + host + sign + "\r\n", 400},
		{"malformed host", "POST /hooks/catalog HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		{"malformed escape", "POST /hooks/%zz HTTP/1.1\r\n" + host + "\r\n", 400},
		{"relative target", "POST hooks/catalog HTTP/1.1\r\n" + host + "\r\n", 400},
		{"malformed method", "P(ST /hooks/catalog HTTP/1.1\r\n" + host + "\r\n", 400},
		{"malformed header", "POST /hooks/catalog HTTP/1.1\r\n" + host + "no colon\r\n\r\n", 400},
		{"malformed header name", "POST /hooks/catalog HTTP/1.1\r\n" + host + "a b: c\r\n\r\n", 400},
		{"malformed length", "POST /hooks/catalog HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n", 400},
		{"two lengths", "POST /hooks/catalog HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
		{"unknown expectation", "POST /hooks/catalog HTTP/1.1\r\n" + host + "Expect: a miracle\r\n\r\n", 417},
		{"large headers", "POST /hooks/catalog HTTP/1.1\r\n" + host + "X: " + strings.Repeat("x", 2*defaultMaxHeaderBytes) + "\r\n\r\n", 431},
		{"unknown transfer coding", "POST /hooks/catalog HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\n", 501},
		{"HTTP/3.0", "POST /hooks/catalog HTTP/3.0\r\n" + host + "\r\n", 505},
		{"nothing", "", 0},
		{"half a header", "POST /hooks/catalog HTTP/1.1\r\nHost:", 400},
		{"empty lines before", "\r\n\r\nPOST /hooks/catalog HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\n{}", 400},
	}
	for _, tt := range tests {
		if got := converse(t, d.addr, tt.sent); got != tt.want {
			t.Errorf("%s: answered %d, want %d", tt.name, got, tt.want)
		}
	}
}

// Unusual, but HTTP: the door itself answers.
func TestUnusualHTTP(t *testing.T) {
	t.Parallel()
	d := startDoor(t, nil)
	const sign = signatureHeader + ": 00\r\n"
	tests := []struct {
		name, sent string
		want       int
	}{
		{"options of everything", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 405},
		{"post to everything", "POST * HTTP/1.1\r\nHost: x\r\n" + sign + "\r\n", 429},
		{"connect", "CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 405},
		{"absolute target without path", "POST http://x HTTP/1.1\r\nHost: x\r\n" + sign + "\r\n", 429},
		{"HTTP/1.0", "POST /hooks/catalog HTTP/1.0\r\n" + sign + "Content-Length: 2\r\n\r\n{}", 200},
		{"lower case everything", "POST /hooks/catalog HTTP/1.1\r\nhost: x\r\n" + strings.ToLower(sign) + "content-length: 2\r\n\r\n{}", 200},
		{"expects to continue", "POST /hooks/catalog HTTP/1.1\r\nHost: x\r\n" + sign + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", 200},
		{"trailer", "POST /hooks/catalog HTTP/1.1\r\nHost: x\r\n" + sign + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n", 200},
		{"malformed chunk", "POST /hooks/catalog HTTP/1.1\r\nHost: x\r\n" + sign + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", 429},
		{"chunks end early", "POST /hooks/catalog HTTP/1.1\r\nHost: x\r\n" + sign + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", 429},
		{"body ends early", "POST /hooks/catalog HTTP/1.1\r\nHost: x\r\n" + sign + "Content-Length: 3\r\n\r\n{}", 429},
		{"announced too large", "POST /hooks/catalog HTTP/1.1\r\nHost: x\r\n" + sign + "Content-Length: 99999999999\r\n\r\n{}", 413},
		{"announced too large, willing to wait", "POST /hooks/catalog HTTP/1.1\r\nHost: x\r\n" + sign + "Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n", 413},
	}
	for _, tt := range tests {
		if got := converse(t, d.addr, tt.sent); got != tt.want {
			t.Errorf("%s: answered %d, want %d", tt.name, got, tt.want)
		}
	}
}

// A client that sends everything before it reads must find the answer, although
// the door has long stopped reading.
func TestAnswerToABodyThatIsNotRead(t *testing.T) {
	t.Parallel()
	overEach(t, func(o *Options) { o.MaxBody = 1024 }, func(t *testing.T, c *http.Client, url string) {
		large := strings.Repeat("x", 1<<20)
		if resp, _ := do(t, c, post(t, url+"/hooks/catalog", large)); resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("announced: answered %d, want 413", resp.StatusCode)
		}
		r := newRequest(t, http.MethodPost, url+"/hooks/catalog", unannounced{strings.NewReader(large)})
		if resp, _ := do(t, c, r); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("unsigned: answered %d, want 401", resp.StatusCode)
		}
		if resp, _ := do(t, c, post(t, url+"/nowhere", large)); resp.StatusCode != http.StatusTooManyRequests {
			t.Errorf("unknown path: answered %d, want 429", resp.StatusCode)
		}
	})
}

func FuzzWire(f *testing.F) {
	d := startDoor(f, func(o *Options) { o.MaxBody = 64 })
	f.Add("POST /hooks/catalog HTTP/1.1\r\nHost: x\r\n" + signatureHeader + ": 00\r\nContent-Length: 2\r\n\r\n{}")
	f.Add("POST //hooks/../%2e/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
	f.Add("GET /hooks/catalog?x HTTP/1.0\r\n\r\n")
	f.Add("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
	f.Add("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	allowed := []int{0, 200, 401, 405, 413, 429, 400, 417, 431, 501, 505}
	f.Fuzz(func(t *testing.T, sent string) {
		if len(sent) > 4096 {
			return
		}
		if got := converse(t, d.addr, sent); !slices.Contains(allowed, got) {
			t.Errorf("%q: answered %d", sent, got)
		}
	})
}
