package certificates

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// Keeper keeps certificates: an *ACME or a *Files. Its methods are safe for
// concurrent use.
type Keeper interface {
	// TLSConfig presents the certificates of the moment to every client, also
	// to one that names no host or another one, with TLS 1.2 or newer. It is
	// for HTTP/2 and HTTP/1.1.
	TLSConfig() *tls.Config
	// Run keeps the certificates until ctx ends, and returns nil. It is called
	// once, when the door listens.
	Run(ctx context.Context) error
	// Usable is closed as soon as the first host has a certificate that is
	// valid at that moment.
	Usable() <-chan struct{}
	// Status is how each certificate stands.
	Status() []Status
	// Close ends what Run has not, and is called after it.
	Close() error
}

// Status is how one certificate stands.
type Status struct {
	// Host is the DNS name that the certificate is for.
	Host string
	// NotBefore and NotAfter are the validity of the one in use; zero if there
	// is none yet.
	NotBefore, NotAfter time.Time
	// Err is why the last attempt to get another one failed; empty if it did
	// not. Failed is when the first of those that failed in a row did.
	Err    string
	Failed time.Time
}

// of is the status of a host whose certificate is leaf, which may be nil.
func of(host string, leaf *x509.Certificate) Status {
	s := Status{Host: host}
	if leaf != nil {
		s.NotBefore, s.NotAfter = leaf.NotBefore, leaf.NotAfter
	}
	return s
}

// alarmBefore is how long before its end a certificate is an alarm: two weeks,
// or a quarter of its life if that is less. ACME renews at a third of it, so an
// alarm means that renewals have been failing for a while.
func (s Status) alarmBefore() time.Duration {
	return min(14*24*time.Hour, s.NotAfter.Sub(s.NotBefore)/4)
}

// valid reports whether clients accept the certificate at now.
func (s Status) valid(now time.Time) bool {
	return !s.NotAfter.IsZero() && !now.Before(s.NotBefore) && now.Before(s.NotAfter)
}

// Alarm is what a person should do something about at now, or "".
func (s Status) Alarm(now time.Time) string {
	because := ""
	if s.Err != "" {
		because = ": " + s.Err
	}
	switch {
	case s.NotAfter.IsZero():
		return "there is no certificate for " + s.Host + " yet" + because
	case !now.Before(s.NotAfter):
		return fmt.Sprintf("the certificate for %s expired on %s, deliveries fail%s", s.Host, stamp(s.NotAfter), because)
	case now.Before(s.NotBefore):
		return fmt.Sprintf("the certificate for %s is not valid before %s, deliveries fail%s", s.Host, stamp(s.NotBefore), because)
	case s.NotAfter.Sub(now) <= s.alarmBefore():
		return fmt.Sprintf("the certificate for %s expires on %s and has not been renewed%s", s.Host, stamp(s.NotAfter), because)
	case s.Err != "":
		return fmt.Sprintf("the certificate for %s, which is good until %s, could not be replaced%s", s.Host, stamp(s.NotAfter), because)
	}
	return ""
}

// Since is when what Alarm tells began; zero if there has been no certificate yet
// and nobody has tried to get one.
func (s Status) Since() time.Time {
	if !s.Failed.IsZero() || s.NotAfter.IsZero() {
		return s.Failed
	}
	return s.NotAfter.Add(-s.alarmBefore())
}

// failure is why a certificate could not be had, and since when.
type failure struct {
	err string
	at  time.Time
}

// again is the failure after another attempt has failed.
func (f failure) again(err error) failure {
	if f.at.IsZero() {
		f.at = time.Now()
	}
	f.err = err.Error()
	return f
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
