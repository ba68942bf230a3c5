package relay

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/pimrelay/pimrelay/relay/admin"
	"github.com/pimrelay/pimrelay/relay/akeneo"
	"github.com/pimrelay/pimrelay/relay/edge/certificates"
	"github.com/pimrelay/pimrelay/relay/observe"
)

// openCertificates makes what keeps the door's certificates, unless a proxy
// terminates TLS. door is where the door listens.
func (r *Relay) openCertificates(door net.Addr) (err error) {
	l := r.config().Listen
	switch l.TLS.Mode {
	case tlsFiles:
		r.certificates, err = nilOr(certificates.OpenFiles(certificates.FilesOptions{
			Certificate: l.TLS.Certificate, Key: l.TLS.Key, Host: l.host(), Logger: r.Logger, Registerer: r.registry,
		}))
	case tlsACME:
		var options certificates.ACMEOptions
		if options, err = acmeOptions(l, door); err != nil {
			return err
		}
		options.Dir = filepath.Join(r.config().DataDir, "certificates")
		options.Logger, options.Registerer = r.Logger, r.registry
		r.certificates, err = nilOr(certificates.OpenACME(options))
	}
	return err
}

// nilOr keeps a nil pointer from becoming a Keeper.
func nilOr[T certificates.Keeper](k T, err error) (certificates.Keeper, error) {
	if err != nil {
		return nil, err
	}
	return k, nil
}

// acmeOptions are what the configuration says, without a directory and
// observers.
func acmeOptions(l Listen, door net.Addr) (o certificates.ACMEOptions, err error) {
	o = certificates.ACMEOptions{
		Hosts: l.hosts(), Directory: l.TLS.Directory, Email: l.TLS.Email, Profile: l.TLS.Profile,
		KeyID: l.TLS.ExternalAccount.KeyID, MACKey: string(l.TLS.ExternalAccount.MACKey),
	}
	if o.TrustedRoots, err = acmeRoots(l); err != nil {
		return o, err
	}
	if l.TLS.uses(challengeALPN) {
		if o.Door, err = tcpAddress(door.String()); err != nil {
			return o, fmt.Errorf("listen.address: %w", err)
		}
	}
	if l.TLS.uses(challengeHTTP) {
		if o.HTTP, err = tcpAddress(l.TLS.HTTPAddress); err != nil {
			return o, fmt.Errorf("listen.tls.http_address: %w", err)
		}
	}
	return o, nil
}

func acmeRoots(l Listen) (*x509.CertPool, error) {
	if l.TLS.TrustedRoots == "" {
		return nil, nil
	}
	roots, err := readRoots(l.TLS.TrustedRoots)
	if err != nil {
		return nil, fmt.Errorf("listen.tls.trusted_roots: %w", err)
	}
	return roots, nil
}

// keepCertificates is the part of the daemon that does so, with the listener for
// challenges if there is one.
func (r *Relay) keepCertificates() ([]part, error) {
	if r.certificates == nil {
		return nil, nil
	}
	parts := []part{{"certificates", r.certificates.Run}}
	acme, ok := r.certificates.(*certificates.ACME)
	if !ok || r.config().Listen.TLS.HTTPAddress == "" {
		return parts, nil
	}
	var err error
	r.challenges, err = net.Listen("tcp", r.config().Listen.TLS.HTTPAddress)
	if err != nil && r.Takeover {
		// The predecessor has gone: a door without that listener is better
		// than none, as long as its certificate lives.
		r.health.Warn("listen.tls.http_address", "listen.tls.http_address cannot be opened, HTTP-01 challenges are not answered: "+err.Error())
		r.Logger.Error("listen.tls.http_address not opened, HTTP-01 challenges are not answered", "err", err)
		return parts, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open listen.tls.http_address: %w", err)
	}
	return append(parts, r.serve("challenges", r.challenges, acme.Challenges(http.HandlerFunc(notHere)), 10*time.Second)), nil
}

// notHere answers what is no challenge as the door answers it on a path of no
// source.
func notHere(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Content-Length", "0")
	if akeneo.Signed(req.Header) {
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	w.WriteHeader(http.StatusUnauthorized)
}

// closeCertificates is for the end.
func (r *Relay) closeCertificates() error {
	if r.challenges != nil {
		_ = r.challenges.Close() // by its server, if that has run
	}
	if r.certificates == nil {
		return nil
	}
	return r.certificates.Close()
}

// awaitCertificate returns when the platform would accept the certificate that
// the door presents: nobody is to be told to deliver before. It returns an error
// only when ctx is done.
func (r *Relay) awaitCertificate(ctx context.Context) error {
	if r.certificates == nil {
		return nil
	}
	select {
	case <-r.certificates.Usable():
		return nil
	default:
		r.Logger.Info("waiting for the certificate before subscribing")
	}
	select {
	case <-r.certificates.Usable():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// certificateWarnings are the alarms of the moment.
func (r *Relay) certificateWarnings() (all []observe.Warning) {
	if r.certificates == nil {
		return nil
	}
	now := time.Now()
	for _, s := range r.certificates.Status() {
		alarm := s.Alarm(now)
		if alarm == "" {
			continue
		}
		since := s.Since()
		if since.IsZero() {
			since = r.started
		}
		all = append(all, observe.Warning{Key: "listen.tls." + s.Host, Message: alarm, Since: since.UTC()})
	}
	return all
}

func (r *Relay) certificateStatus() (all []admin.Certificate) {
	if r.certificates == nil {
		return nil
	}
	for _, s := range r.certificates.Status() {
		all = append(all, admin.Certificate{Host: s.Host, NotAfter: s.NotAfter})
	}
	return all
}

// doorWarnings are the concerns of the door.
func (r *Relay) doorWarnings() (all []observe.Warning) {
	for _, c := range r.door.Concerns() {
		all = append(all, observe.Warning{Key: c.Key, Message: c.Message, Since: c.Since.UTC()})
	}
	return all
}
