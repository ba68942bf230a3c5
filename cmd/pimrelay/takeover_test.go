//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pimrelay/pimrelay/relay/admin"
)

const takeoverConfig = `
data_dir: {dir}/data
listen: {address: "{address}", tls: {mode: "off"}}
sources:
  catalog: {secrets: {primary: a-secret-of-more-than-16}}
forwarders:
  archive: {plugin: file, config: {path: "{dir}/events.jsonl"}}
telemetry: {address: ""}
log: {format: json}
`

func writeTakeoverConfig(t *testing.T, address string) (file, dir string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "pimrelay.yaml")
	text := strings.NewReplacer("{dir}", dir, "{address}", address).Replace(takeoverConfig)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, dir
}

// traffic delivers events from some connections, one after the other on each, until
// it is stopped.
type traffic struct {
	t       *testing.T
	address string
	stop    func()

	mu       sync.Mutex
	accepted int // guarded by mu, as below
	awaited  int // more is closed at this number of accepted ones
	more     chan struct{}
	failures []string      // what was not answered 200
	last     time.Time     // of the last answer
	gap      time.Duration // the longest time without one
}

func startTraffic(t *testing.T, address string) *traffic {
	l := &traffic{t: t, address: address, last: time.Now()}
	ctx, cancel := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	for worker := range 4 {
		workers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				l.note(l.deliver(fmt.Sprintf("%d-%d", worker, n)))
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

func (l *traffic) deliver(id string) error {
	req, err := request(l.address, id)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
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
	if l.gap > longestGap {
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
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := admin.NewClient(filepath.Join(dir, "data")).Status(ctx)
		if err == nil && status.Ready && status.PID != before {
			return status.PID
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no relay but %d: %+v, %v", before, status, err)
		}
	}
}

// delivered waits until the relay on dir has forwarded everything.
func delivered(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := admin.NewClient(filepath.Join(dir, "data")).Status(ctx)
		if err == nil && status.Forwarders[0].Backlog == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("still not delivered: %+v, %v", status.Forwarders, err)
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
	file, dir := writeTakeoverConfig(t, address)
	first := startChild(t, "run", "-c", file)
	first.logged("the door is open")
	successors := first.drain() // they share its standard error
	l := startTraffic(t, address)
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
	file, dir := writeTakeoverConfig(t, "127.0.0.1:1") // not used
	startActivated := func() *child {
		return startCommand(t, func(cmd *exec.Cmd) {
			// The process learns of the socket by its own id.
			cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"`, os.Args[0], "run", "-c", file}
			cmd.ExtraFiles = []*os.File{socket}
		})
	}
	c := startActivated()
	c.logged("the door is open")
	l := startTraffic(t, address)
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
