package certificates

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// lookInterval is how often the files are looked at.
const lookInterval = 2 * time.Second

// FilesOptions configure a Files. All are required, except Host.
type FilesOptions struct {
	// Certificate is a file with the certificate and its chain, Key one with its
	// private key, both PEM.
	Certificate, Key string
	// Host is the DNS name or IP address that clients connect to; empty if it is
	// not known.
	Host string

	Logger     *slog.Logger
	Registerer prometheus.Registerer

	look time.Duration // zero stands for lookInterval
}

// Files presents a certificate from files, and another one when they change.
type Files struct {
	options FilesOptions
	metrics *metrics
	usable  chan struct{}
	current atomic.Pointer[tls.Certificate]
	first   [sha256.Size]byte // of what was loaded first

	mu     sync.Mutex
	failed failure // guarded by mu
}

// OpenFiles loads the certificate. It must be valid now.
func OpenFiles(o FilesOptions) (*Files, error) {
	if o.look == 0 {
		o.look = lookInterval
	}
	f := &Files{options: o, usable: make(chan struct{})}
	p, err := readPair(o.Certificate, o.Key)
	if err != nil {
		return nil, err
	}
	cert, err := p.load()
	if err != nil {
		return nil, err
	}
	if err := f.covers(cert); err != nil {
		o.Logger.Error("clients that verify will refuse the certificate", "err", err)
		f.failed = f.failed.again(err)
	}
	f.first = p.digest()
	f.current.Store(cert)
	close(f.usable)
	if f.metrics, err = newMetrics(o.Registerer, f.Status, []string{f.name()}); err != nil {
		return nil, err
	}
	return f, nil
}

// CheckFiles reports what keeps the certificate and its key from being used.
func CheckFiles(certificate, key string) error {
	p, err := readPair(certificate, key)
	if err == nil {
		_, err = p.load()
	}
	return err
}

// name is what the certificate is called in status and metrics.
func (f *Files) name() string {
	if f.options.Host != "" {
		return f.options.Host
	}
	return "files"
}

// TLSConfig presents the certificate of the moment.
func (f *Files) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.current.Load(), nil },
	}
}

// Usable is closed from the beginning.
func (f *Files) Usable() <-chan struct{} { return f.usable }

// Status is how the certificate stands.
func (f *Files) Status() []Status {
	s := of(f.name(), f.current.Load().Leaf)
	f.mu.Lock()
	defer f.mu.Unlock()
	s.Err, s.Failed = f.failed.err, f.failed.at
	return []Status{s}
}

// Run loads the files when their content changes, however that comes about: they
// are written in place, replaced, or stand behind a link that is turned round. A
// content counts when it was the same at two looks, so neither half-written files
// nor a new certificate beside the old key are taken, and it is tried once. What
// is not better than the one in use leaves that in use.
func (f *Files) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	alarms := time.NewTicker(time.Minute)
	defer alarms.Stop()
	wg.Go(func() { reportAlarms(ctx, alarms.C, f.Status, f.options.Logger) })

	look := time.NewTicker(f.options.look)
	defer look.Stop()
	used, tried, last := f.first, f.first, f.first // contents
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		p, err := readPair(f.options.Certificate, f.options.Key)
		now := p.digest()
		if err != nil {
			now = sha256.Sum256([]byte(err.Error()))
		}
		switch {
		case now != last || now == tried: // look again
		case now == used: // what could not be used has been taken back
			tried = now
			f.recovered()
		default:
			tried = now
			if f.replace(p, err) {
				used = now
			}
		}
		last = now
	}
}

// Close has nothing to end.
func (*Files) Close() error { return nil }

// replace puts a new pair in the place of the one in use, unless that would be
// worse, and reports whether it did. err is why the pair could not be read.
func (f *Files) replace(p pair, err error) bool {
	var cert *tls.Certificate
	if err == nil {
		cert, err = p.load()
	}
	if err == nil && f.covers(f.current.Load()) == nil {
		err = f.covers(cert)
	}
	if err != nil {
		f.mu.Lock()
		f.failed = f.failed.again(err)
		f.mu.Unlock()
		f.metrics.changes.WithLabelValues(f.name(), outcomeFailed).Inc()
		f.options.Logger.Error("certificate not replaced, the one before is in use", "err", err)
		return false
	}
	f.current.Store(cert)
	f.recovered()
	f.metrics.changes.WithLabelValues(f.name(), outcomeReplaced).Inc()
	f.options.Logger.Info("certificate replaced", "host", f.name(), "not_after", cert.Leaf.NotAfter)
	return true
}

// recovered forgets why the files could not be used: they hold what is in use.
func (f *Files) recovered() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.covers(f.current.Load()); err != nil {
		f.failed = f.failed.again(err)
		return
	}
	f.failed = failure{}
}

// covers reports whether clients that connect to the host accept the name.
func (f *Files) covers(cert *tls.Certificate) error {
	if f.options.Host == "" {
		return nil
	}
	if err := cert.Leaf.VerifyHostname(f.options.Host); err != nil {
		return fmt.Errorf("certificate %s: %w: use one for the host of public_url", f.options.Certificate, err)
	}
	return nil
}

// pair is the content of the two files.
type pair struct {
	certFile, keyFile string
	certPEM, keyPEM   []byte
}

func readPair(certFile, keyFile string) (pair, error) {
	p := pair{certFile: certFile, keyFile: keyFile}
	var err error
	if p.certPEM, err = os.ReadFile(certFile); err != nil {
		return p, fmt.Errorf("read the certificate: %w", err)
	}
	if p.keyPEM, err = os.ReadFile(keyFile); err != nil {
		return p, fmt.Errorf("read the private key: %w", err)
	}
	return p, nil
}

func (p pair) digest() [sha256.Size]byte {
	cert, key := sha256.Sum256(p.certPEM), sha256.Sum256(p.keyPEM)
	return sha256.Sum256(append(cert[:], key[:]...))
}

// load checks that the two fit together and are valid now.
func (p pair) load() (*tls.Certificate, error) {
	if block, _ := pem.Decode(p.certPEM); block == nil {
		return nil, fmt.Errorf("certificate %s: no PEM block found: the file must hold the certificate and its chain in PEM form", p.certFile)
	}
	if block, _ := pem.Decode(p.keyPEM); block == nil {
		return nil, fmt.Errorf("private key %s: no PEM block found: the file must hold the key in PEM form", p.keyFile)
	}
	if encrypted(p.keyPEM) {
		return nil, fmt.Errorf("private key %s: is encrypted: store it without a passphrase, readable by the relay only", p.keyFile)
	}
	cert, err := tls.X509KeyPair(p.certPEM, p.keyPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with private key %s: %w: give the key that the certificate was issued for", p.certFile, p.keyFile, err)
	}
	if err := checkPeriod(&cert, time.Now()); err != nil {
		return nil, fmt.Errorf("certificate %s: %w", p.certFile, err)
	}
	return &cert, nil
}

// encrypted reports whether a key in PEM form needs a passphrase.
func encrypted(keyPEM []byte) bool {
	for block, rest := pem.Decode(keyPEM); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return true
		}
	}
	return false
}

// checkPeriod reports a certificate that clients would refuse at now.
func checkPeriod(cert *tls.Certificate, now time.Time) error {
	leaf := cert.Leaf
	switch {
	case leaf == nil:
		return errors.New("holds no certificate")
	case now.After(leaf.NotAfter):
		return fmt.Errorf("expired on %s: renew it", stamp(leaf.NotAfter))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("not valid before %s: use the current one, or set this machine's clock", stamp(leaf.NotBefore))
	}
	return nil
}
