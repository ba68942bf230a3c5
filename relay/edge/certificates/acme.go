package certificates

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"github.com/prometheus/client_golang/prometheus"
)

// Directories of Let's Encrypt: the default one, and the one to try things out.
const (
	LetsEncrypt        = certmagic.LetsEncryptProductionCA
	LetsEncryptStaging = certmagic.LetsEncryptStagingCA
)

const (
	// roundTime is how long obtaining is left to certmagic, which waits longer
	// and longer between its attempts and in some cases gives up; then it
	// begins anew. With it, a host whose validation fails stays below the five
	// failures an hour that Let's Encrypt allows.
	roundTime = 15 * time.Minute
	// renewCheck is how often it is looked which certificate is to be renewed.
	// certmagic makes the waits between failed attempts longer by itself.
	renewCheck = time.Minute
	// patience is how long Close waits for what is being obtained to let go.
	patience = 5 * time.Second
)

// ACMEOptions configure an ACME. Hosts, Dir, Logger and Registerer are required.
type ACMEOptions struct {
	// Hosts are the DNS names that need a certificate, one each. The first is
	// presented to clients that name none of them.
	Hosts []string
	// Directory is the URL of the certificate authority's directory; empty for
	// Let's Encrypt.
	Directory string
	// TrustedRoots are the roots for the calls to it; nil for the system's.
	TrustedRoots *x509.CertPool
	// Email is given to the authority for its notices; may be empty.
	Email string
	// KeyID and MACKey bind the account to one that exists outside of ACME;
	// empty for none. MACKey is base64url, as the authority shows it.
	KeyID, MACKey string
	// Profile is one of the authority's certificate profiles; empty for its
	// default.
	Profile string
	// Dir keeps certificates, keys and the account. It must outlive the
	// process: an authority limits how many it issues.
	Dir string
	// Door is the address that TLS-ALPN-01 challenges arrive at; the authority
	// connects to port 443 of the host. Nil turns them off.
	Door *net.TCPAddr
	// HTTP is the address at which Challenges answers HTTP-01; the authority
	// connects to port 80 of the host. Nil turns them off.
	HTTP *net.TCPAddr

	Logger     *slog.Logger
	Registerer prometheus.Registerer

	round, renewCheck time.Duration // zero stands for the constants
}

// ACME obtains a certificate for each host from a certificate authority, and
// renews it: when the authority's renewal information says so, at the latest when
// a third of its life is left.
type ACME struct {
	options ACMEOptions
	storage *storage
	cache   *certmagic.Cache
	config  *certmagic.Config
	issuer  *certmagic.ACMEIssuer
	metrics *metrics
	usable  chan struct{}

	mu     sync.Mutex
	failed map[string]failure // guarded by mu; by host
}

// OpenACME loads what Dir has, so that a process that starts again presents its
// certificates from the first connection on. It calls nobody.
func OpenACME(o ACMEOptions) (*ACME, error) {
	if len(o.Hosts) == 0 {
		return nil, errors.New("certificates: no host: give the names that need one")
	}
	if o.Door == nil && o.HTTP == nil {
		return nil, errors.New("certificates: no challenge: give the address of the door or that of an HTTP listener")
	}
	if o.Directory == "" {
		o.Directory = LetsEncrypt
	}
	if o.round == 0 {
		o.round = roundTime
	}
	if o.renewCheck == 0 {
		o.renewCheck = renewCheck
	}
	// Whether it can be written is better known now than after the first
	// certificate has been issued.
	if err := errors.Join(os.MkdirAll(o.Dir, 0o700), writable(o.Dir)); err != nil {
		return nil, fmt.Errorf("directory for certificates: %w", err)
	}
	a := &ACME{options: o, storage: newStorage(o.Dir), usable: make(chan struct{}), failed: make(map[string]failure)}
	var err error
	if a.metrics, err = newMetrics(o.Registerer, a.Status, o.Hosts); err != nil {
		return nil, err
	}
	log := zapLogger(o.Logger)
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return a.config, nil },
		RenewCheckInterval: o.renewCheck, Logger: log,
	})
	a.config = certmagic.New(a.cache, certmagic.Config{
		OnEvent: a.event, Storage: a.storage, Logger: log,
		DefaultServerName: o.Hosts[0], FallbackServerName: o.Hosts[0],
		// A start must not wait for somebody's OCSP server; a certificate that
		// is revoked is replaced because the renewal information says so.
		OCSP: certmagic.OCSPConfig{DisableStapling: true},
	})
	a.issuer = certmagic.NewACMEIssuer(a.config, a.template())
	a.config.Issuers = []certmagic.Issuer{a.issuer}
	for _, host := range o.Hosts {
		if _, err := a.config.CacheManagedCertificate(context.Background(), host); err != nil && !errors.Is(err, fs.ErrNotExist) {
			o.Logger.Warn("stored certificate cannot be used", "host", host, "err", err)
		}
	}
	return a, nil
}

func writable(dir string) error {
	probe, err := os.CreateTemp(dir, ".writable-")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// template is what the issuer is made of.
func (a *ACME) template() certmagic.ACMEIssuer {
	o := a.options
	t := certmagic.ACMEIssuer{
		CA: o.Directory, Email: o.Email, Agreed: true, TrustedRoots: o.TrustedRoots, Profile: o.Profile, Logger: a.config.Logger,
		DisableTLSALPNChallenge: o.Door == nil, DisableHTTPChallenge: o.HTTP == nil,
	}
	// certmagic listens for the challenges itself where nobody else does; it
	// must find us there.
	if o.Door != nil {
		t.AltTLSALPNPort, t.ListenHost = o.Door.Port, listenHost(o.Door)
	}
	if o.HTTP != nil {
		t.AltHTTPPort = o.HTTP.Port
		if o.Door == nil {
			t.ListenHost = listenHost(o.HTTP)
		}
	}
	if o.KeyID != "" {
		t.ExternalAccount = &acme.EAB{KeyID: o.KeyID, MACKey: o.MACKey}
	}
	return t
}

func listenHost(a *net.TCPAddr) string {
	if a.IP.IsUnspecified() {
		return ""
	}
	return a.IP.String()
}

// TLSConfig answers TLS-ALPN-01 challenges, too.
func (a *ACME) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: a.config.GetCertificate,
		NextProtos: []string{"h2", "http/1.1", acmez.ACMETLS1Protocol},
	}
}

// Challenges answers HTTP-01 challenges, and leaves everything else to others.
func (a *ACME) Challenges(others http.Handler) http.Handler {
	return a.issuer.HTTPChallengeHandler(others)
}

// Usable is closed when the first host has a certificate that clients accept.
func (a *ACME) Usable() <-chan struct{} { return a.usable }

// Status is how the certificate of each host stands.
func (a *ACME) Status() []Status {
	all := make([]Status, len(a.options.Hosts))
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, host := range a.options.Hosts {
		all[i] = of(host, a.leaf(host))
		all[i].Err, all[i].Failed = a.failed[host].err, a.failed[host].at
	}
	return all
}

// leaf is the host's certificate in use, the youngest if there are several.
func (a *ACME) leaf(host string) (leaf *x509.Certificate) {
	for _, cert := range a.cache.AllMatchingCertificates(host) {
		if cert.Leaf != nil && (leaf == nil || cert.Leaf.NotAfter.After(leaf.NotAfter)) {
			leaf = cert.Leaf
		}
	}
	return leaf
}

// Run obtains what is missing, again and again until it is there, and renews
// what is there. Close waits for what it has begun.
func (a *ACME) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	alarms := time.NewTicker(time.Minute)
	defer alarms.Stop()
	wg.Go(func() { reportAlarms(ctx, alarms.C, a.Status, a.options.Logger) })
	wg.Go(func() { a.awaitUsable(ctx) })
	// What was loaded may have ended long ago: the cache's own first look
	// comes minutes later.
	if err := a.cache.RenewManagedCertificates(ctx); err != nil {
		a.options.Logger.Warn("certificates not looked through", "err", err)
	}
	for ctx.Err() == nil && a.obtain(ctx) {
	}
	<-ctx.Done()
	return nil
}

// obtain lets certmagic obtain what is missing for one round. It reports whether
// something still is.
func (a *ACME) obtain(ctx context.Context) bool {
	missing := a.missing()
	if len(missing) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, a.options.round)
	defer cancel()
	if err := a.config.ManageAsync(ctx, missing); err != nil {
		a.options.Logger.Warn("certificates not asked for", "err", err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for len(a.missing()) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return true
		}
	}
	return false
}

func (a *ACME) missing() (hosts []string) {
	for _, host := range a.options.Hosts {
		if a.leaf(host) == nil {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// awaitUsable closes usable in its time.
func (a *ACME) awaitUsable(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if leaf := a.leaf(a.options.Hosts[0]); of("", leaf).valid(time.Now()) {
			close(a.usable)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Close stops the renewals, and waits a moment for those that are being ended.
func (a *ACME) Close() error {
	a.cache.Stop()
	a.storage.close(patience)
	return nil
}

// event is told what certmagic does.
func (a *ACME) event(ctx context.Context, name string, data map[string]any) error {
	host, _ := data["identifier"].(string)
	switch name {
	case "cert_obtained":
		a.mu.Lock()
		delete(a.failed, host)
		a.mu.Unlock()
		a.metrics.changes.WithLabelValues(host, outcomeReplaced).Inc()
		a.options.Logger.Info("certificate obtained", "host", host, "renewal", data["renewal"])
	case "cert_failed":
		err, _ := data["error"].(error)
		if err == nil || errors.Is(err, context.Canceled) {
			return nil // the round or the daemon ends
		}
		if a.forgetAccount(ctx, err) {
			err = fmt.Errorf("%w (the certificate authority no longer accepts the account, the next attempt registers another one)", err)
		}
		a.mu.Lock()
		a.failed[host] = a.failed[host].again(err)
		a.mu.Unlock()
		a.metrics.changes.WithLabelValues(host, outcomeFailed).Inc()
		a.options.Logger.Error("certificate not obtained, it is tried again", "host", host, "renewal", data["renewal"], "err", err)
	}
	return nil
}
