package certificates

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// issued is a self-signed certificate with its key.
type issued struct {
	certPEM, keyPEM []byte
	serial          int64
}

func issue(t testing.TB, serial int64, host string, notBefore, notAfter time.Time) issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: notBefore, NotAfter: notAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return issued{
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		keyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), serial: serial,
	}
}

// good is one that is valid for another hour.
func good(t testing.TB, serial int64) issued {
	return issue(t, serial, "localhost", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
}

func write(t testing.TB, file string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// in writes the two files into a directory.
func (i issued) in(t testing.TB, dir string) (cert, key string) {
	t.Helper()
	return write(t, filepath.Join(dir, "tls.crt"), i.certPEM), write(t, filepath.Join(dir, "tls.key"), i.keyPEM)
}

// keepFiles opens and runs a Files until the test ends.
func keepFiles(t *testing.T, cert, key string) *Files {
	t.Helper()
	f, err := OpenFiles(FilesOptions{
		Certificate: cert, Key: key, Host: "localhost", look: 10 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(testLog{t}, nil)), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := f.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return f
}

func (f *Files) serial() int64 { return f.current.Load().Leaf.SerialNumber.Int64() }

func TestFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := keepFiles(t, first(good(t, 1).in(t, dir)), filepath.Join(dir, "tls.key"))
	<-f.Usable()
	if s := f.Status()[0]; s.Alarm(time.Now()) != "" || s.Host != "localhost" {
		t.Errorf("status: %+v, %s", s, s.Alarm(time.Now()))
	}
	good(t, 2).in(t, dir)
	eventually(t, "the second one is in use", func() bool { return f.serial() == 2 })
	if n := testutil.ToFloat64(f.metrics.changes.WithLabelValues("localhost", outcomeReplaced)); n != 1 {
		t.Errorf("%v replacements counted", n)
	}
	config := f.TLSConfig()
	if cert, err := config.GetCertificate(&tls.ClientHelloInfo{}); err != nil || cert.Leaf.SerialNumber.Int64() != 2 {
		t.Errorf("presented: %v", err)
	}
}

func first(a, _ string) string { return a }

// A ConfigMap or secret is a directory of links to a directory that is a link,
// which is turned round.
func TestFilesBehindAConfigMap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	point := func(version string, i issued) {
		t.Helper()
		at := filepath.Join(dir, version)
		if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		i.in(t, at)
		next := filepath.Join(dir, "..next")
		if err := os.Symlink(version, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	point("..1", good(t, 1))
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	f := keepFiles(t, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	point("..2", good(t, 2))
	eventually(t, "the second one is in use", func() bool { return f.serial() == 2 })
	if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
		t.Fatal(err)
	}
	point("..3", good(t, 3))
	eventually(t, "the third one is in use", func() bool { return f.serial() == 3 })
}

// What is not better than the one in use leaves that in use and is told, until
// the files are good again.
func TestBrokenFilesKeepTheOneBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := good(t, 1)
	cert, key := old.in(t, dir)
	f := keepFiles(t, cert, key)
	now := time.Now()
	for _, tt := range []struct {
		name, want string
		spoil      func()
	}{
		{"another's key", "give the key that the certificate was issued for", func() { write(t, key, good(t, 2).keyPEM) }},
		{"half a file", "no PEM block found", func() { write(t, cert, old.certPEM[:100]) }},
		{"expired", "expired on ", func() { issue(t, 3, "localhost", now.Add(-2*time.Hour), now.Add(-time.Hour)).in(t, dir) }},
		{"early", "not valid before ", func() { issue(t, 4, "localhost", now.Add(time.Hour), now.Add(2*time.Hour)).in(t, dir) }},
		{"another host", "is valid for elsewhere.example, not localhost", func() { issue(t, 5, "elsewhere.example", now.Add(-time.Hour), now.Add(time.Hour)).in(t, dir) }},
		{"gone", "read the certificate: open ", func() {
			if err := os.Remove(cert); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		tt.spoil()
		eventually(t, tt.name, func() bool { return strings.Contains(f.Status()[0].Err, tt.want) })
		if alarm := f.Status()[0].Alarm(time.Now()); !strings.Contains(alarm, "could not be replaced") {
			t.Errorf("%s: alarm %q", tt.name, alarm)
		}
		// The complaint stays as long as the files do.
		for range 3 {
			<-time.After(3 * f.options.look)
			if s := f.Status()[0]; !strings.Contains(s.Err, tt.want) || f.serial() != 1 {
				t.Fatalf("%s: a little later certificate %d is in use, with %+v", tt.name, f.serial(), s)
			}
		}
	}
	old.in(t, dir)
	eventually(t, "the complaint ends", func() bool { return f.Status()[0].Err == "" })
	good(t, 6).in(t, dir)
	eventually(t, "the next good one is in use", func() bool { return f.serial() == 6 })
}

func TestFilesForAnotherHostAreTold(t *testing.T) {
	t.Parallel()
	i := issue(t, 1, "elsewhere.example", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	cert, key := i.in(t, t.TempDir())
	f := keepFiles(t, cert, key)
	if alarm := f.Status()[0].Alarm(time.Now()); !strings.Contains(alarm, "use one for the host of public_url") {
		t.Errorf("alarm: %q", alarm)
	}
	dir := filepath.Dir(cert)
	good(t, 2).in(t, dir)
	eventually(t, "the complaint ends", func() bool { return f.serial() == 2 && f.Status()[0].Err == "" })
}

func TestCheckFilesExplainsWhatIsWrong(t *testing.T) {
	t.Parallel()
	now := time.Now()
	dir := t.TempDir()
	file := func(name string, content []byte) string { return write(t, filepath.Join(dir, name), content) }
	one := good(t, 1)
	cert, key := one.in(t, dir)
	expired := issue(t, 2, "localhost", now.Add(-2*time.Hour), now.Add(-time.Hour))
	early := issue(t, 3, "localhost", now.Add(time.Hour), now.Add(2*time.Hour))
	empty := file("empty.pem", nil)
	broken := file("broken.pem", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	tests := []struct{ name, cert, key, want string }{
		{"no certificate", filepath.Join(dir, "none"), key, "read the certificate: open " + filepath.Join(dir, "none")},
		{"no key", cert, filepath.Join(dir, "none"), "read the private key: open "},
		{"a directory", dir, key, "read the certificate: "},
		{"empty certificate", empty, key, "certificate " + empty + ": no PEM block found"},
		{"empty key", cert, empty, "private key " + empty + ": no PEM block found"},
		{"broken certificate", broken, key, "certificate " + broken},
		{"encrypted key", cert, file("encrypted.pem", []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")), "is encrypted: store it without a passphrase"},
		{"key encrypted the old way", cert, file("old.pem", []byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n")), "is encrypted: store it without a passphrase"},
		{"another's key", cert, file("other.pem", good(t, 4).keyPEM), "give the key that the certificate was issued for"},
		{"the two exchanged", key, cert, "certificate " + key},
		{"expired", file("expired.pem", expired.certPEM), file("expired-key.pem", expired.keyPEM), "expired on " + now.Add(-time.Hour).UTC().Format("2006-01-02T15:04")},
		{"not yet valid", file("early.pem", early.certPEM), file("early-key.pem", early.keyPEM), "not valid before " + now.Add(time.Hour).UTC().Format("2006-01-02T15:04")},
	}
	for _, tt := range tests {
		if err := CheckFiles(tt.cert, tt.key); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one that says %q", tt.name, err, tt.want)
		}
	}
	if err := CheckFiles(cert, key); err != nil {
		t.Errorf("a good pair: %v", err)
	}
}

func TestAlarm(t *testing.T) {
	t.Parallel()
	now := time.Now()
	day := 24 * time.Hour
	valid := func(since, left time.Duration) Status {
		return Status{Host: "x.example", NotBefore: now.Add(-since), NotAfter: now.Add(left)}
	}
	failing := func(s Status) Status {
		s.Err = "the authority is down"
		return s
	}
	for _, tt := range []struct {
		name   string
		status Status
		want   string
	}{
		{"none yet", Status{Host: "x.example"}, "there is no certificate for x.example yet"},
		{"none yet, and why", failing(Status{Host: "x.example"}), "yet: the authority is down"},
		{"fresh", valid(0, 90*day), ""},
		{"about to be renewed", valid(60*day, 30*day), ""},
		{"two weeks left of three months", valid(76*day, 14*day), "expires on "},
		{"a day left of six", valid(5*day, day), "expires on "},
		{"two days left of six", valid(4*day, 2*day), ""},
		{"expired", valid(91*day, -day), "expired on "},
		{"expired this moment", valid(90*day, 0), "expired on "},
		{"early", valid(-day, 2*day), "is not valid before "},
		{"failing", failing(valid(60*day, 30*day)), "could not be replaced: the authority is down"},
		{"failing and about to expire", failing(valid(80*day, 10*day)), "has not been renewed: the authority is down"},
	} {
		if got := tt.status.Alarm(now); (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: alarm %q, want one that says %q", tt.name, got, tt.want)
		}
	}
}

func TestAlarmSince(t *testing.T) {
	t.Parallel()
	now := time.Now()
	expiring := Status{NotBefore: now.Add(-80 * 24 * time.Hour), NotAfter: now.Add(10 * 24 * time.Hour)}
	if got, want := expiring.Since(), now.Add(-4*24*time.Hour); !got.Equal(want) {
		t.Errorf("expiring since %s, want %s", got, want)
	}
	first := failure{}.again(errors.New("one"))
	if second := first.again(errors.New("two")); second.at != first.at || second.err != "two" {
		t.Errorf("%+v after %+v", second, first)
	}
	if got := (Status{}).Since(); !got.IsZero() {
		t.Errorf("nothing tried since %s", got)
	}
}

// An alarm is logged once, again when it changes, and each day while it lasts.
func TestAlarmsAreLogged(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	ctx, cancel := context.WithCancel(t.Context())
	tick, done := make(chan time.Time), make(chan struct{})
	status := Status{Host: "x.example"}
	go func() {
		defer close(done)
		reportAlarms(ctx, tick, func() []Status { return []Status{status} }, slog.New(slog.NewTextHandler(&out, nil)))
	}()
	start := time.Now()
	at := func(d time.Duration) { tick <- start.Add(d) }
	at(0)
	at(time.Minute)
	at(23 * time.Hour)
	at(25 * time.Hour)
	at(26 * time.Hour) // received when all of the above is through
	cancel()
	<-done
	if n := strings.Count(out.String(), "certificate alarm"); n != 2 {
		t.Errorf("logged %d times, want 2:\n%s", n, out.String())
	}
}
