//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pimrelay/pimrelay/relay/admin"
	"github.com/pimrelay/pimrelay/relay/edge/certificates/acmetest"
)

const takeoverConfig = `
data_dir: {dir}/data
listen: {address: "{address}", {tls}}
sources:
  catalog: {secrets: {primary: a-secret-of-more-than-16}}
forwarders:
  archive: {plugin: file, config: {path: "{dir}/events.jsonl"}}
telemetry: {address: ""}
log: {format: json}
`

func writeTakeoverConfig(t *testing.T, address, tls string) (file, dir string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "pimrelay.yaml")
	text := strings.NewReplacer("{tls}", tls, "{dir}", dir, "{address}", address).Replace(takeoverConfig)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, dir
}

const noTLS = `tls: {mode: "off"}`

// traffic delivers events from some connections, one after the other on each, until
// it is stopped.
type traffic struct {
	t       *testing.T
	url     string
	longest time.Duration // that nobody may answer
	stop    func()

	mu       sync.Mutex
	accepted int // guarded by mu, as below
	awaited  int // more is closed at this number of accepted ones
	more     chan struct{}
	failures []string      // what was not answered 200
	last     time.Time     // of the last answer
	gap      time.Duration // the longest time without one
}

// startTraffic has four senders, which share the clients.
func startTraffic(t *testing.T, url string, clients ...*http.Client) *traffic {
	l := &traffic{t: t, url: url, longest: longestGap, last: time.Now()}
	ctx, cancel := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	for worker := range 4 {
		workers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				l.note(l.deliver(clients[worker%len(clients)], fmt.Sprintf("%d-%d", worker, n)))
			}
		})
	}
	l.stop = sync.OnceFunc(func() {
		cancel()
		workers.Wait()
	})
	t.Cleanup(l.stop)
	return l
}

func (l *traffic) deliver(client *http.Client, id string) error {
	req, err := request(l.url, id)
	if err != nil {
		return err
	}
	req.GetBody = nil // what is refused while it is sent cannot be sent again
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}

func (l *traffic) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failures = append(l.failures, err.Error())
		return
	}
	now := time.Now()
	if l.accepted++; l.accepted == l.awaited {
		close(l.more)
	}
	l.gap = max(l.gap, now.Sub(l.last))
	l.last = now
}

// flow waits until some more deliveries have been accepted.
func (l *traffic) flow() {
	l.t.Helper()
	l.mu.Lock()
	l.awaited, l.more = l.accepted+200, make(chan struct{})
	more := l.more
	l.mu.Unlock()
	select {
	case <-more:
	case <-time.After(time.Minute):
		l.t.Fatal("no more deliveries are accepted")
	}
}

// check stops the load and holds it against what has arrived.
func (l *traffic) check(dir string) {
	l.t.Helper()
	l.stop()
	if len(l.failures) > 0 {
		l.t.Errorf("%d of %d deliveries failed: %.300s", len(l.failures), l.accepted+len(l.failures), l.failures)
	}
	if l.gap > l.longest {
		l.t.Errorf("nobody answered for %s", l.gap)
	}
	data, err := os.ReadFile(filepath.Join(dir, "events.jsonl"))
	if err != nil {
		l.t.Fatal(err)
	}
	if got := bytes.Count(data, []byte("\n")); got < l.accepted {
		l.t.Errorf("%d events were accepted, the file has %d", l.accepted, got)
	}
	l.t.Logf("%d deliveries, nobody answered for %s at the longest", l.accepted, l.gap)
}

// running waits for the relay on dir that is not the one before.
func running(t *testing.T, dir string, before int) int {
	t.Helper()
	return awaitStatus(t, dir, "a successor", func(s admin.Status) bool { return s.Ready && s.PID != before }).PID
}

// delivered waits until the relay on dir has forwarded everything.
func delivered(t *testing.T, dir string) {
	t.Helper()
	awaitStatus(t, dir, "an empty backlog", func(s admin.Status) bool { return s.Forwarders[0].Backlog == 0 })
}

// awaitStatus waits until the relay on dir is as wanted.
func awaitStatus(t *testing.T, dir, what string, ok func(admin.Status) bool) admin.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := admin.NewClient(filepath.Join(dir, "data")).Status(ctx)
		if err == nil && ok(status) {
			return status
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("still not %s: %+v, %v", what, status, err)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// Three times under load, a successor takes over the socket. No delivery fails.
func TestTakeover(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	file, dir := writeTakeoverConfig(t, address, noTLS)
	first := startChild(t, "run", "-c", file)
	first.logged("the door is open")
	takeOverThrice(t, first, dir, startTraffic(t, "http://"+address, http.DefaultClient))
}

// The same over HTTPS, with a certificate that the first process has obtained and
// the others find, over HTTP/1.1 and HTTP/2.
func TestTakeoverOverTLS(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	ca := acmetest.Start(t, acmetest.Options{TLSPort: number})
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, ca.RootsPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	file, dir := writeTakeoverConfig(t, address,
		fmt.Sprintf("public_url: https://localhost:%s, tls: {mode: acme, directory: %q, trusted_roots: %q}", port, ca.Directory, roots))
	first := startChild(t, "run", "-c", file)
	first.logged("the door is open")
	awaitStatus(t, dir, "a certificate", func(s admin.Status) bool { return len(s.Warnings) == 0 })
	if _, out, _ := pimrelay(t, "status", "-c", file); !strings.Contains(out, "certificate for localhost: until ") {
		t.Errorf("status does not show the certificate:\n%s", out)
	}
	var clients []*http.Client
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Issued}, Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(version == "HTTP/1.1")
		transport.Protocols.SetHTTP2(version == "HTTP/2.0")
		t.Cleanup(transport.CloseIdleConnections)
		clients = append(clients, &http.Client{Transport: transport})
	}
	l := startTraffic(t, "https://localhost:"+port, clients...)
	l.longest = 4 * longestGap // all clients shake hands anew with each successor; the platform waits 5 s
	takeOverThrice(t, first, dir, l)
	if n := ca.Orders(); n != 1 {
		t.Errorf("%d certificates ordered, want 1", n)
	}
}

func takeOverThrice(t *testing.T, first *child, dir string, l *traffic) {
	t.Helper()
	successors := first.drain() // they share its standard error
	pid := first.Process.Pid
	for range 3 {
		l.flow()
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		pid = running(t, dir, pid)
	}
	l.flow()
	l.stop()
	delivered(t, dir)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-successors // all have ended: the pipe is closed
	first.end(time.Minute)
	l.check(dir)
}

// Three restarts under load, with the socket held by somebody else, as systemd
// does: connections wait in it meanwhile. No delivery fails.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	address := listener.Addr().String()
	file, dir := writeTakeoverConfig(t, "127.0.0.1:1", noTLS) // the address is not used
	startActivated := func() *child {
		return startCommand(t, func(cmd *exec.Cmd) {
			// The process learns of the socket by its own id.
			cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"`, os.Args[0], "run", "-c", file}
			cmd.ExtraFiles = []*os.File{socket}
		})
	}
	c := startActivated()
	c.logged("the door is open")
	l := startTraffic(t, "http://"+address, http.DefaultClient)
	for range 3 {
		l.flow()
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if state := c.end(time.Minute); !state.Success() {
			t.Fatalf("ended with %v", state)
		}
		c = startActivated()
		c.logged("the door is open")
	}
	l.flow()
	l.stop()
	delivered(t, dir)
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.end(time.Minute)
	l.check(dir)
}
