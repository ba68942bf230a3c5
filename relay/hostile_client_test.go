package relay_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pimrelay/pimrelay/relay/akeneo/simulator"
)

// What well-formed requests may be answered, and what net/http itself says to
// malformed ones; 0 is a connection closed without an answer.
var (
	doorSays    = []int{200, 401, 405, 413, 429}
	netHTTPSays = []int{0, 400, 417, 431, 501, 505}
)

// siege is a relay over HTTPS with strangers before it.
type siege struct {
	*daemon
	roots *x509.CertPool

	mu      sync.Mutex
	answers map[string]map[int]int // guarded by mu; by attack and status
}

func besiege(t *testing.T) *siege {
	t.Helper()
	dir := t.TempDir()
	authority, err := simulator.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, authority, dir)
	s := &siege{roots: x509.NewCertPool(), answers: make(map[string]map[int]int)}
	s.roots.AppendCertsFromPEM(authority.PEM())
	s.daemon = start(t, dir, strings.Replace(manual, `tls: {mode: "off"}`,
		`tls: {mode: files, certificate: "{dir}/relay.pem", key: "{dir}/relay-key.pem"}
  max_body: 64KiB
  limits: {header_timeout: 6s, headers: 16KiB, idle_timeout: 10s}`, 1)+archive)
	return s
}

func (s *siege) address() string { return strings.TrimPrefix(s.url, "http://") }

// dial opens a connection; its deadline is longer than any of the door's.
func (s *siege) dial(protocol string) *tls.Conn {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.address(), &tls.Config{RootCAs: s.roots, ServerName: "127.0.0.1", NextProtos: []string{protocol}})
	if err != nil {
		s.t.Error(err)
		return nil
	}
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		s.t.Error(err)
	}
	return c
}

// got notes an answer to an attack.
func (s *siege) got(attack string, status int, allowed ...[]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answers[attack] == nil {
		s.answers[attack] = make(map[int]int)
	}
	s.answers[attack][status]++
	if !slices.Contains(slices.Concat(allowed...), status) {
		s.t.Errorf("%s: answered %d", attack, status)
	}
}

// raw sends bytes over HTTP/1.1, says that no more will come, and returns the
// statuses of all answers; none stands for a connection that is just closed.
func (s *siege) raw(sent string) (statuses []int) {
	s.t.Helper()
	c := s.dial("http/1.1")
	if c == nil {
		return nil
	}
	defer c.Close()
	_, _ = io.WriteString(c, sent) // the door may hang up while we send
	_ = c.CloseWrite()
	return finalAnswers(c)
}

func finalAnswers(c io.Reader) (statuses []int) {
	in := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return statuses
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode >= 200 {
			statuses = append(statuses, resp.StatusCode)
		}
	}
}

// attack sends a text and checks the answers.
func (s *siege) attack(name, sent string, allowed ...[]int) {
	s.t.Helper()
	statuses := s.raw(sent)
	if len(statuses) == 0 {
		s.got(name, 0, append(allowed, []int{0})...)
	}
	for _, status := range statuses {
		s.got(name, status, allowed...)
	}
}

// head is the beginning of a signed delivery of body to path.
func head(path string, body []byte, more ...string) string {
	h := signed(body)
	text := "POST " + path + " HTTP/1.1\r\nHost: x\r\n"
	for name := range h {
		text += name + ": " + h.Get(name) + "\r\n"
	}
	return text + strings.Join(more, "")
}

func length(n int) string { return fmt.Sprintf("Content-Length: %d\r\n", n) }

// Whatever strangers do, the door says only what it may say, the platform's own
// deliveries are accepted meanwhile, nothing unsigned is stored, and in the
// end nothing is left of it.
func TestHostileClients(t *testing.T) {
	// Not parallel: what is left in the end is counted.
	s := besiege(t)
	platform := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}, ForceAttemptHTTP2: true}}
	defer platform.CloseIdleConnections()
	delivered := s.deliver(t, platform, "before")
	quiet(t)
	before := footprint()

	stop, done := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				done <- n
				return
			default:
				s.deliver(t, platform, fmt.Sprint("during-", n))
			}
		}
	}()
	var attacks sync.WaitGroup
	for name, attack := range map[string]func(*siege){
		"malformed": (*siege).malformed, "slow": (*siege).slow, "bodies": (*siege).bodies, "smuggling": (*siege).smuggling,
		"paths and methods": (*siege).pathsAndMethods, "signatures": (*siege).signatures, "http2": (*siege).http2, "handshakes": (*siege).handshakes,
	} {
		attacks.Go(func() {
			began := time.Now()
			attack(s)
			t.Logf("%s: %s", name, time.Since(began).Round(time.Millisecond))
		})
	}
	attacks.Wait()
	close(stop)
	delivered += <-done
	delivered += s.deliver(t, platform, "after")
	t.Logf("answers by attack: %v", s.answers)
	if own := s.answers["the platform's own"]; own[429] > own[200]/20 {
		t.Errorf("the platform's own deliveries were answered %v", own)
	}

	if head := s.Status().Journal.Head; head != int64(delivered+wellSigned) {
		t.Errorf("%d events stored, want %d of the platform and %d replayed or oddly signed", head, delivered, wellSigned)
	}
	platform.CloseIdleConnections()
	quiet(t)
	eventually(t, "nothing is left of the connections", func() bool { return footprint().goroutines <= before.goroutines+5 })
	if after := footprint(); after.heap > before.heap+8<<20 {
		t.Errorf("%d MiB of memory before, %d MiB after", before.heap>>20, after.heap>>20)
	}
}

// deliver is one delivery of the platform, which tries again after a 429 as it
// does: this machine may be too slow for the siege.
func (s *siege) deliver(t *testing.T, platform *http.Client, id string) int {
	body := cloudEvent(id)
	for {
		req, err := http.NewRequest(http.MethodPost, "https://"+s.address()+"/hooks/catalog", bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return 0
		}
		req.Header = signed(body)
		resp, err := platform.Do(req)
		if err != nil {
			t.Errorf("%s: %v", id, err)
			return 0
		}
		resp.Body.Close()
		s.got("the platform's own", resp.StatusCode, []int{200, 429})
		if resp.StatusCode == http.StatusOK {
			return 1
		}
	}
}

type weight struct {
	goroutines int
	heap       uint64
}

func footprint() weight {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return weight{runtime.NumGoroutine(), m.HeapAlloc}
}

// quiet collects the garbage.
func quiet(t *testing.T) {
	t.Helper()
	for range 3 {
		runtime.GC()
	}
}

// malformed is what is no HTTP.
func (s *siege) malformed() {
	body := cloudEvent("m")
	for name, sent := range map[string]string{
		"binary":            string(bytes.Repeat([]byte{0, 1, 0xff}, 1000)),
		"no version":        "POST /hooks/catalog\r\n\r\n",
		"no host":           strings.Replace(head("/hooks/catalog", body, length(0), "\r\n"), "Host: x\r\n", "", 1),
		"two hosts":         head("/hooks/catalog", body, "Host: y\r\n", length(0), "\r\n"),
		"bad length":        head("/hooks/catalog", body, "Content-Length: -1\r\n\r\n"),
		"huge length":       head("/hooks/catalog", body, "Content-Length: 99999999999999999999\r\n\r\n"),
		"bad header":        head("/hooks/catalog", body, "no colon\r\n\r\n"),
		"folded header":     head("/hooks/catalog", body, "X: a\r\n b\r\n", length(len(body)), "\r\n", string(body)),
		"control character": head("/hooks/catalog", body, "X: a\x00b\r\n\r\n"),
		"expectation":       head("/hooks/catalog", body, "Expect: a miracle\r\n\r\n"),
		"transfer coding":   head("/hooks/catalog", body, "Transfer-Encoding: gzip\r\n\r\n"),
		"next version":      strings.Replace(head("/hooks/catalog", body, "\r\n"), "HTTP/1.1", "HTTP/3.0", 1),
		"one large header":  head("/hooks/catalog", body, "X: ", strings.Repeat("x", 1<<20), "\r\n\r\n"),
		"many headers":      head("/hooks/catalog", body, strings.Repeat("X-A: "+strings.Repeat("x", 100)+"\r\n", 2000), "\r\n"),
		"endless line":      "POST /" + strings.Repeat("x", 1<<20),
		"h2 preface":        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		for range 5 {
			s.attack(name, sent, netHTTPSays, doorSays)
		}
	}
}

// slow holds connections and sends next to nothing on them.
func (s *siege) slow() {
	var clients sync.WaitGroup
	defer clients.Wait()
	for name, sent := range map[string]string{
		"silent": "", "slow line": "POST /hooks", "slow headers": head("/hooks/catalog", nil),
		"slow body":          head("/hooks/catalog", nil, length(1000), "\r\n{"),
		"slow chunks":        head("/hooks/catalog", nil, "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"),
		"slow unsigned body": "POST /hooks/catalog HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
		"slow elsewhere":     head("/nowhere", nil, length(1000), "\r\n{"),
	} {
		for range 8 {
			clients.Go(func() {
				c := s.dial("http/1.1")
				if c == nil {
					return
				}
				defer c.Close()
				_, _ = io.WriteString(c, sent)
				statuses := finalAnswers(c) // until the door hangs up
				var slow net.Error
				if _, err := c.Read(make([]byte, 1)); errors.As(err, &slow) && slow.Timeout() {
					s.t.Errorf("%s: the connection is held for a minute", name)
				}
				if len(statuses) == 0 {
					s.got(name, 0, []int{0})
				}
				for _, status := range statuses {
					s.got(name, status, []int{400, 401, 429}) // 400 for half a request line
				}
			})
		}
	}
}

// bodies are larger, or shorter, than they may be.
func (s *siege) bodies() {
	large, body := strings.Repeat("x", 65<<10), cloudEvent("b")
	chunks := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(large), large)
	for name, tt := range map[string]struct {
		sent string
		want int
	}{
		"announced too large":   {head("/hooks/catalog", body, length(1<<30), "\r\n"), 413},
		"too large":             {head("/hooks/catalog", body, length(len(large)), "\r\n", large), 413},
		"too large, in chunks":  {head("/hooks/catalog", body, "Transfer-Encoding: chunked\r\n\r\n", chunks), 413},
		"too large, unsigned":   {"POST /hooks/catalog HTTP/1.1\r\nHost: x\r\n" + length(len(large)) + "\r\n" + large, 401},
		"too large, elsewhere":  {head("/nowhere", body, length(len(large)), "\r\n", large), 429},
		"truncated":             {head("/hooks/catalog", body, length(len(body)), "\r\n", string(body[:20])), 429},
		"truncated chunks":      {head("/hooks/catalog", body, "Transfer-Encoding: chunked\r\n\r\n5\r\n{}"), 429},
		"malformed chunks":      {head("/hooks/catalog", body, "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"), 429},
		"endless chunk length":  {head("/hooks/catalog", body, "Transfer-Encoding: chunked\r\n\r\n", strings.Repeat("0", 10_000)), 429},
		"large chunk extension": {head("/hooks/catalog", body, "Transfer-Encoding: chunked\r\n\r\n2;", strings.Repeat("x", 100_000), "\r\n{}\r\n0\r\n\r\n"), 429},
		"large trailer":         {head("/hooks/catalog", body, "Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", strings.Repeat("x", 100_000), "\r\n\r\n"), 429},
		"compressed":            {head("/hooks/catalog", body, "Content-Encoding: gzip\r\n", length(2), "\r\n{}"), 429},
	} {
		for range 5 {
			s.attack(name, tt.sent, []int{tt.want})
		}
	}
}

// smuggling hides a request, whose signature is good, in another one's body in
// ways in which servers disagree about where that ends.
func (s *siege) smuggling() {
	hidden := cloudEvent("smuggled")
	inner := head("/hooks/catalog", hidden, length(len(hidden)), "\r\n", string(hidden))
	outer := "POST /nowhere HTTP/1.1\r\nHost: x\r\n"
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(inner), inner)
	for name, sent := range map[string]string{
		"length hides":               outer + length(len(inner)) + "\r\n" + inner,
		"chunks hide":                outer + "Transfer-Encoding: chunked\r\n\r\n" + chunked,
		"length and chunks":          outer + length(len(chunked)) + "Transfer-Encoding: chunked\r\n\r\n" + chunked,
		"two lengths":                outer + length(len(inner)) + length(0) + "\r\n" + inner,
		"two lengths in one":         outer + "Content-Length: 0, " + fmt.Sprint(len(inner)) + "\r\n\r\n" + inner,
		"signed length":              outer + "Content-Length: +" + fmt.Sprint(len(inner)) + "\r\n\r\n" + inner,
		"space before the colon":     outer + "Content-Length : " + fmt.Sprint(len(inner)) + "\r\n\r\n" + inner,
		"chunked twice":              outer + "Transfer-Encoding: chunked, chunked\r\n\r\n" + chunked,
		"identity":                   outer + length(len(inner)) + "Transfer-Encoding: identity\r\n\r\n" + inner,
		"vertical tab":               outer + length(len(inner)) + "Transfer-Encoding: \vchunked\r\n\r\n" + inner,
		"bare line feeds in a chunk": outer + "Transfer-Encoding: chunked\r\n\r\n" + strings.ReplaceAll(chunked, "\r\n", "\n"),
		"HTTP/1.0 with chunks":       strings.Replace(outer, "1.1", "1.0", 1) + "Transfer-Encoding: chunked\r\n\r\n" + chunked,
	} {
		s.attack(name, sent, netHTTPSays, doorSays)
	}
}

// pathsAndMethods are well-formed.
func (s *siege) pathsAndMethods() {
	body := cloudEvent("ugly") // the same each time: a duplicate
	for _, path := range []string{
		"//hooks/catalog", "/./hooks/catalog", "/hooks/../hooks/catalog", "/%2e%2e/hooks/catalog", "/hooks/catalog/", "/hooks%2Fcatalog",
		"/hooks/catalog/" + strings.Repeat("x", 8<<10), "/hooks/catalog?" + strings.Repeat("x", 8<<10), "http://elsewhere/hooks/catalog", "/hooks/catalog/%00",
	} {
		s.attack("ugly path", head(path, body, length(len(body)), "\r\n", string(body)), []int{200})
	}
	for _, path := range []string{"/", "*", "/hooks", "/hooks/catalogue", "/hooks/catalog/../..", "/" + strings.Repeat("x", 8<<10)} {
		s.attack("signed elsewhere", head(path, body, length(len(body)), "\r\n", string(body)), []int{429})
		s.attack("unsigned elsewhere", "POST "+path+" HTTP/1.1\r\nHost: x\r\n"+length(0)+"\r\n", []int{401})
	}
	for _, method := range []string{"PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", strings.Repeat("X", 4000)} {
		target := "/hooks/catalog"
		if method == "CONNECT" {
			target = "x:443"
		}
		s.attack("method", method+" "+target+" HTTP/1.1\r\nHost: x\r\n"+length(0)+"\r\n", []int{405})
	}
}

// handshakes are broken off, or no TLS.
func (s *siege) handshakes() {
	hello := recordHello(s.t)
	for _, sent := range [][]byte{nil, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), hello[:len(hello)/2], hello, bytes.Repeat([]byte{0x16, 3, 1, 0xff, 0xff}, 100)} {
		for range 10 {
			c, err := net.Dial("tcp", s.address())
			if err != nil {
				s.t.Error(err)
				return
			}
			_, _ = c.Write(sent)
			c.Close()
		}
	}
}

// recordHello is the first message of a handshake.
func recordHello(t *testing.T) []byte {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: "127.0.0.1"}).Handshake() // never answered
	}()
	hello := make([]byte, 4096)
	n, err := ours.Read(hello)
	if err != nil {
		t.Error(err)
	}
	return hello[:n]
}
