// Package acmetest runs a real certificate authority on loopback for tests:
// letsencrypt/pebble, strict, which rejects a part of all nonces, with a DNS
// server of its own that finds every name on 127.0.0.1.
package acmetest

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// Options configure a Server.
type Options struct {
	// TLSPort and HTTPPort are where the authority looks for the answers to
	// TLS-ALPN-01 and HTTP-01 challenges, instead of at 443 and 80.
	TLSPort, HTTPPort int
	// Validity is how long certificates are valid; zero for the authority's
	// default of some years. Profile is the name of the only profile.
	Validity time.Duration
	Profile  string
	// KeyID and MACKey, if set, are the one external account, without which
	// nobody gets an account.
	KeyID, MACKey string
}

// Server is a certificate authority.
type Server struct {
	// Directory is the URL of the ACME directory, Roots what trusts it.
	Directory string
	Roots     *x509.CertPool
	// RootsPEM is Roots as a file holds it.
	RootsPEM []byte
	// Issued trusts the certificates that the authority issues, IssuedPEM is
	// Issued as a file holds it.
	Issued    *x509.CertPool
	IssuedPEM []byte

	down       atomic.Bool
	held       sync.RWMutex // write-locked by Hold
	orders     atomic.Int64
	management http.Handler
}

// environment is read by pebble when it is made.
var environment = sync.OnceValue(func() error {
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
})

// Start runs an authority until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if err := environment(); err != nil {
		t.Fatal(err)
	}
	if o.Profile == "" {
		o.Profile = "default"
	}
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	if o.KeyID != "" {
		if err := store.AddExternalAccountKeyByID(o.KeyID, o.MACKey); err != nil {
			t.Fatal(err)
		}
	}
	authority := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{
		o.Profile: {Description: "for tests", ValidityPeriod: uint64(o.Validity / time.Second)},
	})
	validation := va.New(quiet, o.HTTPPort, o.TLSPort, true, startDNS(t), store)
	front := wfe.New(quiet, store, validation, authority, []string{"pebble.letsencrypt.org"}, true, o.KeyID != "", 1, 1)
	s := &Server{management: front.ManagementHandler(), Issued: x509.NewCertPool(), IssuedPEM: authority.GetRootCert(0).PEM()}
	s.Issued.AppendCertsFromPEM(s.IssuedPEM)
	server := httptest.NewUnstartedServer(s.gate(front.Handler()))
	server.Config.ErrorLog = quiet
	server.StartTLS()
	t.Cleanup(server.Close)
	s.Directory, s.Roots = server.URL+wfe.DirectoryPath, x509.NewCertPool()
	s.Roots.AddCert(server.Certificate())
	s.RootsPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return s
}

// SetDown makes the authority cut off every connection without an answer, or
// answer again.
func (s *Server) SetDown(down bool) { s.down.Store(down) }

// Hold makes every request wait until release is called.
func (s *Server) Hold() (release func()) {
	s.held.Lock()
	return sync.OnceFunc(s.held.Unlock)
}

// Orders is how many certificates have been ordered.
func (s *Server) Orders() int { return int(s.orders.Load()) }

// RenewNow makes the authority's renewal information say that the certificate is
// to be replaced at once.
func (s *Server) RenewNow(t testing.TB, leaf *x509.Certificate) {
	t.Helper()
	past := time.Now().Add(-time.Hour).UTC()
	window := fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, past.Format(time.RFC3339), past.Add(time.Minute).Format(time.RFC3339))
	body, err := json.Marshal(map[string]string{
		"Certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})), "ARIResponse": window,
	})
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodPost, "/set-renewal-info/", bytes.NewReader(body))
	request.Header.Set("User-Agent", "acmetest")
	s.management.ServeHTTP(answer, request)
	if answer.Code != http.StatusOK {
		t.Fatalf("renewal information not set: %d %s", answer.Code, answer.Body)
	}
}

func (s *Server) gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.down.Load() {
			panic(http.ErrAbortHandler)
		}
		s.held.RLock()
		defer s.held.RUnlock()
		next.ServeHTTP(&created{ResponseWriter: w, count: func() {
			if r.URL.Path == "/order-plz" {
				s.orders.Add(1)
			}
		}}, r)
	})
}

// created counts the answers of 201; a request with a stale nonce is repeated.
type created struct {
	http.ResponseWriter
	count func()
}

func (c *created) WriteHeader(status int) {
	if status == http.StatusCreated {
		c.count()
	}
	c.ResponseWriter.WriteHeader(status)
}

// startDNS answers that every name is at 127.0.0.1, over TCP, as pebble asks.
func startDNS(t testing.TB) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{Listener: listener, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
		answer := new(dns.Msg).SetReply(question)
		if q := question.Question[0]; q.Qtype == dns.TypeA {
			answer.Answer = []dns.RR{&dns.A{
				Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1),
			}}
		}
		_ = w.WriteMsg(answer) // who asked has gone, if it fails
	})}
	ended := make(chan struct{})
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() {
		defer close(ended)
		_ = server.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-ended
	})
	return listener.Addr().String()
}
