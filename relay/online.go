package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pimrelay/pimrelay/relay/admin"
	"github.com/pimrelay/pimrelay/relay/edge/certificates"
)

// Finding is what one look outside has found.
type Finding struct {
	// Verdict is "ok", "warn" or "fail".
	Verdict string
	// Topic is "dns", "acme", "door" or "reach".
	Topic string
	// Detail says what was found, and what to do about it.
	Detail string
}

// OnlineOptions are what CheckOnline works with.
type OnlineOptions struct {
	// Staging is a directory that issues certificates for trying out. Empty
	// stands for that of Let's Encrypt, if it is the configured authority; of
	// others only the directory itself is asked for.
	Staging string
	// Patience bounds the whole. Default 2 minutes.
	Patience time.Duration
	// Report gets each finding at once.
	Report func(Finding)
}

// online is one run of CheckOnline.
type online struct {
	OnlineOptions
	config *Config
	failed int
	nonce  string
	issued bool // an authority has reached the door from outside
}

// CheckOnline looks at what a subscription needs outside of this machine, before
// anything is subscribed: that the host names resolve, that the certificate
// authority issues, and that public_url leads here. It opens the door for that
// while no relay does, and then answers no delivery otherwise than 429. The error
// says how many findings are failures.
func CheckOnline(ctx context.Context, config *Config, o OnlineOptions) error {
	if o.Patience == 0 {
		o.Patience = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, o.Patience)
	defer cancel()
	c := &online{OnlineOptions: o, config: config, nonce: rand.Text()}
	if config.Listen.PublicURL == "" {
		c.find("warn", "reach", "there is no public_url: nobody knows where deliveries would come from")
		return nil
	}
	for _, host := range config.Listen.hosts() {
		c.resolve(ctx, host)
	}
	if err := c.throughTheDoor(ctx); err != nil {
		c.find("fail", "door", err.Error())
	}
	if c.failed > 0 {
		return fmt.Errorf("%d of the online checks failed", c.failed)
	}
	return nil
}

func (c *online) find(verdict, topic, detail string) {
	if verdict == "fail" {
		c.failed++
	}
	c.Report(Finding{verdict, topic, detail})
}

func (c *online) resolve(ctx context.Context, host string) {
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		c.find("fail", "dns", fmt.Sprintf("%s: %v: make a record that leads to this machine", host, err))
		return
	}
	c.find("ok", "dns", fmt.Sprintf("%s is at %s", host, strings.Join(addresses, ", ")))
}

// throughTheDoor opens the door, if nobody else has, and comes in through it.
func (c *online) throughTheDoor(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.config.Listen.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		if _, err := admin.NewClient(c.config.DataDir).Status(ctx); err != nil {
			return fmt.Errorf("listen.address is in use, and no relay runs on data_dir: stop what listens on %s", c.config.Listen.Address)
		}
		c.find("ok", "door", "the relay is running and keeps its certificate itself: see pimrelay status")
		c.nonce = ""
		c.reach(ctx)
		return nil
	}
	if err != nil {
		return fmt.Errorf("open listen.address: %w", err)
	}
	dir, err := os.MkdirTemp("", "pimrelay-check-")
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer os.RemoveAll(dir)
	keeper, err := c.keeper(listener.Addr(), dir)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	close, err := c.serve(ctx, listener, keeper)
	if err != nil {
		return err
	}
	defer close()
	if acme, ok := keeper.(*certificates.ACME); ok {
		c.issue(ctx, acme)
	}
	c.reach(ctx)
	return nil
}

// keeper is what presents a certificate: one from files, or one that an
// authority issues for trying out; nil if a proxy terminates TLS.
func (c *online) keeper(door net.Addr, dir string) (certificates.Keeper, error) {
	log, registry := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	l := c.config.Listen
	switch l.TLS.Mode {
	case tlsFiles:
		return nilOr(certificates.OpenFiles(certificates.FilesOptions{Certificate: l.TLS.Certificate, Key: l.TLS.Key, Host: l.host(), Logger: log, Registerer: registry}))
	case tlsACME:
		options, err := acmeOptions(l, door)
		if err != nil {
			return nil, err
		}
		if c.Staging == "" && (l.TLS.Directory == "" || l.TLS.Directory == certificates.LetsEncrypt) {
			c.Staging = certificates.LetsEncryptStaging
		}
		if c.Staging != "" {
			options.Directory, options.KeyID, options.MACKey = c.Staging, "", ""
		}
		options.Dir, options.Logger, options.Registerer = filepath.Join(dir, "certificates"), log, registry
		return nilOr(certificates.OpenACME(options))
	}
	return nil, nil
}

// serve answers at the door and at http_address until close is called.
func (c *online) serve(ctx context.Context, listener net.Listener, keeper certificates.Keeper) (close func(), err error) {
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	servers := []*http.Server{{Handler: http.HandlerFunc(c.answer), ReadTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}}
	close = func() {
		cancel()
		for _, s := range servers {
			_ = s.Close() // what is open is ours
		}
		running.Wait()
		if keeper != nil {
			_ = keeper.Close()
		}
	}
	if keeper != nil {
		if servers[0].TLSConfig, err = withSubstitute(keeper.TLSConfig()); err != nil {
			close()
			return nil, errors.Join(err, listener.Close())
		}
	}
	if acme, ok := keeper.(*certificates.ACME); ok && c.config.Listen.TLS.HTTPAddress != "" {
		challenges, err := net.Listen("tcp", c.config.Listen.TLS.HTTPAddress)
		if err != nil {
			close()
			return nil, errors.Join(fmt.Errorf("open listen.tls.http_address: %w", err), listener.Close())
		}
		servers = append(servers, &http.Server{Handler: acme.Challenges(http.HandlerFunc(notHere)), ReadTimeout: 10 * time.Second})
		running.Go(func() { _ = servers[1].Serve(challenges) })
	}
	running.Go(func() {
		if keeper == nil {
			_ = servers[0].Serve(listener)
			return
		}
		_ = servers[0].ServeTLS(listener, "", "")
	})
	if acme, ok := keeper.(*certificates.ACME); ok && c.Staging != "" {
		running.Go(func() { _ = acme.Run(ctx) })
	}
	return close, nil
}

// withSubstitute presents a certificate made on the spot where there is none, so
// that it can be seen whether clients come here at all.
func withSubstitute(config *tls.Config) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	draft := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, draft, draft, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	get := config.GetCertificate
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := get(hello)
		if err != nil && !slices.Contains(hello.SupportedProtos, "acme-tls/1") {
			return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
		}
		return cert, err
	}
	return config, nil
}

// nonceHeader proves that an answer comes from this process.
const nonceHeader = "X-Pimrelay-Check"

// answer never accepts a delivery: it would be lost.
func (c *online) answer(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		notHere(w, r)
		return
	}
	w.Header().Set(nonceHeader, c.nonce)
}

// issue waits until the authority has issued a certificate for each host, or
// said why not.
func (c *online) issue(ctx context.Context, acme *certificates.ACME) {
	if c.Staging == "" {
		directory := c.config.Listen.TLS.Directory
		if err := acme.Ask(ctx); err != nil {
			c.find("fail", "acme", fmt.Sprintf("%s does not answer as an ACME directory: %v", directory, err))
			return
		}
		c.find("warn", "acme", fmt.Sprintf("%s answers; no certificate was tried, because no directory for trying out is known: name one with --staging-directory", directory))
		return
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	waiting := acme.Status()
	for {
		var next []certificates.Status
		for _, s := range acme.Status() {
			if !slices.ContainsFunc(waiting, func(w certificates.Status) bool { return w.Host == s.Host }) {
				continue
			}
			switch {
			case !s.NotAfter.IsZero():
				c.issued = true
				c.find("ok", "acme", fmt.Sprintf("%s has issued a certificate for %s", c.Staging, s.Host))
			case s.Err != "":
				c.find("fail", "acme", s.Err)
			default:
				next = append(next, s)
			}
		}
		if waiting = next; len(waiting) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			for _, s := range waiting {
				c.find("fail", "acme", fmt.Sprintf("%s has not issued a certificate for %s in time", c.Staging, s.Host))
			}
			return
		}
	}
}

// reach asks for the path of each source at public_url, as the platform will.
func (c *online) reach(ctx context.Context) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy, transport.DisableKeepAlives = nil, true
	if c.config.Listen.TLS.Mode == tlsACME && c.nonce != "" {
		// A certificate for trying out is trusted by nobody; the nonce tells
		// who answers.
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, name := range sorted(c.config.Sources) {
		url := strings.TrimRight(c.config.Listen.PublicURL, "/") + c.config.Sources[name].Path
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			c.find("fail", "reach", err.Error())
			continue
		}
		resp, err := client.Do(req)
		if err != nil {
			c.notReached(url, err)
			continue
		}
		resp.Body.Close()
		c.reached(url, resp)
	}
}

func (c *online) notReached(url string, err error) {
	if c.issued {
		c.find("warn", "reach", fmt.Sprintf("%s: %v: this machine cannot reach its own public address; the certificate authority could", url, err))
		return
	}
	c.find("fail", "reach", fmt.Sprintf("%s: %v: let port, firewall and proxy lead to listen.address", url, err))
}

func (c *online) reached(url string, resp *http.Response) {
	switch {
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode >= 300 && resp.StatusCode < 400:
		c.find("fail", "reach", fmt.Sprintf("%s is answered %s by something else: the platform would suspend the subscription at once", url, resp.Status))
	case resp.StatusCode != http.StatusOK || resp.Header.Get(nonceHeader) != c.nonce:
		c.find("fail", "reach", fmt.Sprintf("%s is answered %s by something else: let it lead to listen.address", url, resp.Status))
	default:
		c.find("ok", "reach", url+" leads here")
	}
}
