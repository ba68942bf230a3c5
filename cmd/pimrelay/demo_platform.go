package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pimrelay/pimrelay/relay/akeneo/simulator"
)

// demoSecret signs the demo's deliveries.
const demoSecret = "demo-signing-secret-0123456789"

// demoPlatform is the simulated Event Platform, over HTTPS.
type demoPlatform struct {
	simulator *simulator.Simulator
	url       string
	rootFile  string // the demo's certificate authority
	stop      func()
}

func startPlatform(authority *simulator.Authority, dir string, rate float64) (*demoPlatform, error) {
	p := &demoPlatform{rootFile: filepath.Join(dir, "authority.pem")}
	if err := os.WriteFile(p.rootFile, authority.PEM(), 0o600); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.PEM())
	var err error
	if p.simulator, err = simulator.New(simulator.Options{Roots: roots, Pace: rate, KeepBodies: true}); err != nil {
		return nil, err
	}
	listener, err := listenLoopback()
	if err != nil {
		return nil, err
	}
	certificate, err := authority.Issue("127.0.0.1", "localhost")
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	p.url = "https://" + listener.Addr().String()
	p.stop = inBackground(func(ctx context.Context) {
		// It serves until the demo ends; a listener that breaks shows as
		// events that do not arrive.
		if err := p.simulator.Serve(ctx, tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}})); err != nil {
			slog.Error("simulator", "err", err)
		}
	})
	return p, nil
}

// report is that of the demo's one subscription.
func (p *demoPlatform) report() simulator.SubscriptionReport {
	if all := p.simulator.Report().Subscriptions; len(all) > 0 {
		return all[0]
	}
	return simulator.SubscriptionReport{}
}

func (p *demoPlatform) fire(count int, rate float64) error {
	_, err := p.simulator.Fire(simulator.Firing{Count: count, Rate: rate})
	return err
}

// demoSink is somebody's endpoint behind the relay: it verifies the platform's
// signature as it always did, and knows nothing of the relay.
type demoSink struct {
	url  string
	stop func()

	mu       sync.Mutex
	received map[string][]byte // guarded by mu; bodies by event id
}

func startSink() (*demoSink, error) {
	listener, err := listenLoopback()
	if err != nil {
		return nil, err
	}
	s := &demoSink{url: "http://" + listener.Addr().String() + "/akeneo", received: make(map[string][]byte)}
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	s.stop = inBackground(func(ctx context.Context) {
		stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // nothing of it is needed any more
		defer stop()
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("sink", "err", err)
		}
	})
	return s, nil
}

func (s *demoSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	mac := hmac.New(sha256.New, []byte(demoSecret))
	mac.Write(body)
	if r.Header.Get("X-AKENEO-SIGNATURE-PRIMARY") != hex.EncodeToString(mac.Sum(nil)) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var event struct{ ID string }
	if err := json.Unmarshal(body, &event); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received[event.ID] = body
}

func (s *demoSink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.received)
}

func (s *demoSink) bodies() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string][]byte, len(s.received))
	for id, body := range s.received {
		all[id] = body
	}
	return all
}

// inBackground runs f until the returned function is called, which waits for
// its end.
func inBackground(f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// listenLoopback opens a free port.
func listenLoopback() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }
