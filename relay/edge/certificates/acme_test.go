package certificates

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pimrelay/pimrelay/relay/edge/certificates/acmetest"
)

// door is a listener that presents what an ACME keeps, and one for HTTP-01.
type door struct {
	tls, http net.Listener
}

func newDoor(t *testing.T) *door {
	return &door{tls: listen(t), http: listen(t)}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (d *door) tlsAddr() *net.TCPAddr  { return d.tls.Addr().(*net.TCPAddr) }
func (d *door) httpAddr() *net.TCPAddr { return d.http.Addr().(*net.TCPAddr) }

// authority is one that looks for the challenges' answers at this door.
func (d *door) authority(t *testing.T, o acmetest.Options) *acmetest.Server {
	t.Helper()
	o.TLSPort, o.HTTPPort = d.tlsAddr().Port, d.httpAddr().Port
	return acmetest.Start(t, o)
}

// options are for a door and an authority.
func (d *door) options(t *testing.T, ca *acmetest.Server, hosts ...string) ACMEOptions {
	return ACMEOptions{
		Hosts: hosts, Directory: ca.Directory, TrustedRoots: ca.Roots, Email: "ops@example.com", Dir: filepath.Join(t.TempDir(), "certificates"),
		Door: d.tlsAddr(), Logger: slog.New(slog.NewTextHandler(testLog{t}, nil)), Registerer: prometheus.NewRegistry(),
		round: 5 * time.Second, renewCheck: 200 * time.Millisecond,
	}
}

// testLog is the test's log, until the test ends.
type testLog struct{ t *testing.T }

func (w testLog) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", bytes.TrimSpace(p))
	}
	return len(p), nil
}

// keep opens an ACME and lets it run until the test ends, or stop is called.
func (d *door) keep(t *testing.T, o ACMEOptions) (a *ACME, stop func()) {
	t.Helper()
	a, err := OpenACME(o)
	if err != nil {
		t.Fatal(err)
	}
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	others := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	servers := []*http.Server{{Handler: handler, TLSConfig: a.TLSConfig(), ErrorLog: quiet}, {Handler: a.Challenges(others), ErrorLog: quiet}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = servers[0].ServeTLS(keepOpen{d.tls}, "", "") })
	wg.Go(func() { _ = servers[1].Serve(keepOpen{d.http}) })
	wg.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		d.interrupt(t)
		for _, s := range servers {
			s.Close()
		}
		wg.Wait()
		if err := a.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		d.goOn(t)
	})
	t.Cleanup(stop)
	return a, stop
}

// keepOpen is a listener that outlives the server on it.
type keepOpen struct{ net.Listener }

func (keepOpen) Close() error { return nil }

// interrupt makes pending accepts end, goOn allows new ones.
func (d *door) interrupt(t *testing.T) { d.deadline(t, time.Unix(1, 0)) }
func (d *door) goOn(t *testing.T)      { d.deadline(t, time.Time{}) }

func (d *door) deadline(t *testing.T, at time.Time) {
	for _, l := range []net.Listener{d.tls, d.http} {
		if err := l.(*net.TCPListener).SetDeadline(at); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
}

// patient is how long a test waits for what takes a second on an idle machine.
const patient = 90 * time.Second

func awaitUsable(t *testing.T, a *ACME) {
	t.Helper()
	select {
	case <-a.Usable():
	case <-time.After(patient):
		t.Fatalf("no certificate: %+v", a.Status())
	}
}

// eventually waits for what goroutines and the network bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patient)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out: %s", what)
		}
	}
}

// presented is the certificate that a verifying client gets to see.
func (d *door) presented(ca *acmetest.Server, host string) (*x509.Certificate, error) {
	c, err := tls.Dial("tcp", d.tls.Addr().String(), &tls.Config{RootCAs: ca.Issued, ServerName: host, NextProtos: []string{"h2"}})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0], nil
}

func (d *door) mustPresent(t *testing.T, ca *acmetest.Server, host string) *x509.Certificate {
	t.Helper()
	cert, err := d.presented(ca, host)
	if err != nil {
		t.Fatalf("%s: %v", host, err)
	}
	return cert
}

func TestObtains(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*ACMEOptions, *door){
		"alpn": func(*ACMEOptions, *door) {},
		"http": func(o *ACMEOptions, d *door) { o.Door, o.HTTP = nil, d.httpAddr() },
		"both": func(o *ACMEOptions, d *door) { o.HTTP = d.httpAddr() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoor(t)
			ca := d.authority(t, acmetest.Options{})
			hosts := []string{"a." + name + ".example", "b." + name + ".example"}
			o := d.options(t, ca, hosts...)
			change(&o, d)
			a, _ := d.keep(t, o)
			awaitUsable(t, a)
			eventually(t, "the second host has its certificate, too", func() bool { return !a.Status()[1].NotAfter.IsZero() })
			for _, host := range hosts {
				if got := d.mustPresent(t, ca, host).DNSNames; !cmp.Equal(got, []string{host}) {
					t.Errorf("%s: presented the certificate for %v", host, got)
				}
			}
			for _, s := range a.Status() {
				if s.Alarm(time.Now()) != "" {
					t.Errorf("alarm: %s", s.Alarm(time.Now()))
				}
			}
			if n := testutil.ToFloat64(a.metrics.changes.WithLabelValues(hosts[0], outcomeReplaced)); n != 1 {
				t.Errorf("%v certificates counted", n)
			}
			if n, err := testutil.GatherAndCount(o.Registerer.(prometheus.Gatherer), "pimrelay_edge_certificate_not_after_seconds"); n != 2 || err != nil {
				t.Errorf("%d not-after metrics, %v", n, err)
			}
			if info, err := os.Stat(o.Dir); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("storage: %v, %v", info.Mode(), err)
			}
		})
	}
}

// A client that names no host, or another one, gets the first host's certificate.
func TestPresentsToEveryClient(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	ca := d.authority(t, acmetest.Options{})
	a, _ := d.keep(t, d.options(t, ca, "everybody.example"))
	awaitUsable(t, a)
	for name, config := range map[string]*tls.Config{
		"no name": {InsecureSkipVerify: true}, "another name": {InsecureSkipVerify: true, ServerName: "elsewhere.example"},
		"upper case": {RootCAs: ca.Issued, ServerName: "EVERYBODY.example"},
		"TLS 1.2":    {RootCAs: ca.Issued, ServerName: "everybody.example", MaxVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
	} {
		c, err := tls.Dial("tcp", d.tls.Addr().String(), config)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := c.ConnectionState().PeerCertificates[0].DNSNames; !cmp.Equal(got, []string{"everybody.example"}) {
			t.Errorf("%s: presented the certificate for %v", name, got)
		}
		c.Close()
	}
	old := &tls.Config{RootCAs: ca.Issued, ServerName: "everybody.example", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if c, err := tls.Dial("tcp", d.tls.Addr().String(), old); err == nil {
		c.Close()
		t.Error("TLS 1.1 is served")
	}
}

// The HTTP listener answers challenges; everything else is the other handler's,
// and nothing redirects.
func TestChallengesLeaveTheRestToOthers(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	ca := d.authority(t, acmetest.Options{})
	o := d.options(t, ca, "rest.example")
	o.HTTP = d.httpAddr()
	d.keep(t, o)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/", "/hooks/catalog", "//", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/unknown", "/.well-known/acme-challenge/../x"} {
		resp, err := client.Get("http://" + d.http.Addr().String() + path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: answered %d", path, resp.StatusCode)
		}
	}
}

// A certificate that lives for seconds is replaced in time, several times, and no
// client ever meets a stale one.
func TestRenewsShortLivedCertificates(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	ca := d.authority(t, acmetest.Options{Validity: 30 * time.Second, Profile: "shortlived"})
	o := d.options(t, ca, "short.example")
	o.Profile = "shortlived"
	a, _ := d.keep(t, o)
	awaitUsable(t, a)
	serials := make(map[string]bool)
	eventually(t, "two renewals", func() bool {
		serials[d.mustPresent(t, ca, "short.example").SerialNumber.String()] = true
		return len(serials) == 3
	})
	eventually(t, "they are counted", func() bool {
		return testutil.ToFloat64(a.metrics.changes.WithLabelValues("short.example", outcomeReplaced)) >= 3
	})
}

// A start presents what is stored from the first connection on and asks nobody.
func TestRestartUsesWhatIsStored(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	ca := d.authority(t, acmetest.Options{})
	o := d.options(t, ca, "stored.example")
	a, stop := d.keep(t, o)
	awaitUsable(t, a)
	serial := d.mustPresent(t, ca, "stored.example").SerialNumber
	stop()
	if locks, err := filepath.Glob(filepath.Join(o.Dir, "locks", "*")); len(locks) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", locks, err)
	}

	ca.SetDown(true)
	o.Registerer = prometheus.NewRegistry()
	a, err := OpenACME(o) // before anything runs
	if err != nil {
		t.Fatal(err)
	}
	if s := a.Status()[0]; s.NotAfter.IsZero() {
		t.Errorf("nothing loaded: %+v", s)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	o.Registerer = prometheus.NewRegistry()
	a, _ = d.keep(t, o)
	if got := d.mustPresent(t, ca, "stored.example").SerialNumber; got.Cmp(serial) != 0 {
		t.Error("another certificate is presented")
	}
	awaitUsable(t, a)
	if n := ca.Orders(); n != 1 {
		t.Errorf("%d certificates ordered, want 1", n)
	}
}

// An authority that recalls certificates says so in its renewal information.
func TestRenewsWhenTheAuthoritySaysSo(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	ca := d.authority(t, acmetest.Options{Validity: 90 * 24 * time.Hour})
	o := d.options(t, ca, "recalled.example")
	a, stop := d.keep(t, o)
	awaitUsable(t, a)
	leaf := d.mustPresent(t, ca, "recalled.example")
	stop()
	ca.RenewNow(t, leaf)
	askAgain(t, o.Dir)
	// At once, and not when the cache looks for the first time.
	o.Registerer, o.renewCheck = prometheus.NewRegistry(), time.Hour
	d.keep(t, o)
	eventually(t, "another certificate is presented", func() bool {
		return d.mustPresent(t, ca, "recalled.example").SerialNumber.Cmp(leaf.SerialNumber) != 0
	})
}

// askAgain takes out of the stored metadata that the renewal information need not
// be asked for in the next hours.
func askAgain(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "certificates", "*", "*", "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("metadata: %v, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	info, ok := all["issuer_data"].(map[string]any)["renewal_info"].(map[string]any)
	if !ok || info["_retryAfter"] == nil {
		t.Fatalf("no renewal information in %s", data)
	}
	info["_retryAfter"] = time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	if data, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The authority is down when the relay starts: the door is open without a
// certificate, says so, and has one soon after the authority is back.
func TestAuthorityDownAtStart(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	ca := d.authority(t, acmetest.Options{})
	ca.SetDown(true)
	a, _ := d.keep(t, d.options(t, ca, "down.example"))
	eventually(t, "the failure is told", func() bool {
		return strings.Contains(a.Status()[0].Alarm(time.Now()), "there is no certificate for down.example yet: ")
	})
	select {
	case <-a.Usable():
		t.Fatal("usable without a certificate")
	default:
	}
	if _, err := d.presented(ca, "down.example"); err == nil {
		t.Error("something is presented")
	}
	ca.SetDown(false)
	awaitUsable(t, a)
	eventually(t, "the failure is forgotten", func() bool { return a.Status()[0].Alarm(time.Now()) == "" })
	if n := testutil.ToFloat64(a.metrics.changes.WithLabelValues("down.example", outcomeFailed)); n < 1 {
		t.Errorf("%v failures counted", n)
	}
}

// The authority's own certificate is not trusted: it is told what is missing.
func TestUntrustedAuthority(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	ca := d.authority(t, acmetest.Options{})
	o := d.options(t, ca, "untrusted.example")
	o.TrustedRoots = nil
	a, _ := d.keep(t, o)
	eventually(t, "the failure is told", func() bool {
		return strings.Contains(a.Status()[0].Alarm(time.Now()), "certificate signed by unknown authority")
	})
}

func TestACMEOptionsAreChecked(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	notADirectory := write(t, filepath.Join(t.TempDir(), "file"), nil)
	for want, o := range map[string]ACMEOptions{
		"directory for certificates": {Hosts: []string{"x.example"}, Door: &net.TCPAddr{}, Dir: notADirectory, Logger: log, Registerer: prometheus.NewRegistry()},
		"no host":                    {Door: &net.TCPAddr{}, Dir: t.TempDir(), Logger: log, Registerer: prometheus.NewRegistry()},
		"no challenge":               {Hosts: []string{"x.example"}, Dir: t.TempDir(), Logger: log, Registerer: prometheus.NewRegistry()},
	} {
		if _, err := OpenACME(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
