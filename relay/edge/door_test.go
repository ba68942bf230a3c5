package edge

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const signatureHeader = "X-Akeneo-Signature-Primary"

func signed(h http.Header) bool { return h.Get(signatureHeader) != "" }

// accept makes a function an Acceptor.
type accept func(ctx context.Context, d *Delivery) Answer

func (f accept) Accept(ctx context.Context, d *Delivery) Answer { return f(ctx, d) }

func always(a Answer) accept {
	return func(context.Context, *Delivery) Answer { return a }
}

// syncBuffer is a log that tests may read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// door is a Server that serves.
type door struct {
	*Server
	addr     string
	log      *syncBuffer
	registry *prometheus.Registry
	served   chan error // what Serve returned
}

// newDoor returns a server that knows the source catalog at /hooks/catalog.
func newDoor(t testing.TB, change func(*Options)) *door {
	t.Helper()
	d := &door{log: &syncBuffer{}, registry: prometheus.NewRegistry(), served: make(chan error, 1)}
	o := Options{
		Acceptor:   always(Accepted),
		Signed:     signed,
		Logger:     slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Registerer: d.registry,
	}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetRoutes([]Route{{"/hooks/catalog", "catalog"}, {"/hooks/assets", "assets"}}); err != nil {
		t.Fatal(err)
	}
	d.Server = s
	return d
}

// startDoor lets a door serve on loopback until the test ends.
func startDoor(t testing.TB, change func(*Options)) *door {
	t.Helper()
	d := newDoor(t, change)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.addr = l.Addr().String()
	d.serveOn(t, l)
	return d
}

// serveOn serves on l until the test ends.
func (d *door) serveOn(t testing.TB, l net.Listener) {
	go func() { d.served <- d.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		if err := <-d.served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// newClient follows no redirect and ends with the test.
func newClient(t testing.TB, protocol string, roots *x509.CertPool) *http.Client {
	t.Helper()
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"},
		Protocols:       new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(protocol == "HTTP/1.1")
	transport.Protocols.SetHTTP2(protocol == "HTTP/2.0")
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// do sends one request and returns the response, whose body it has read.
func do(t testing.TB, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read the answer: %v", r.Method, r.URL, err)
	}
	return resp, string(b)
}

func newRequest(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// post is a signed delivery.
func post(t testing.TB, url, body string) *http.Request {
	t.Helper()
	r := newRequest(t, http.MethodPost, url, strings.NewReader(body))
	r.Header.Set(signatureHeader, "00")
	return r
}

// validTLS is a configuration with a self-signed certificate for localhost, and
// the roots that trust it.
func validTLS(t testing.TB) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "localhost"},
		DNSNames:              []string{"localhost"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}
