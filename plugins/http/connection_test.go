package http

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

func TestDeliverTalksHTTP2OverTLS(t *testing.T) {
	t.Parallel()
	var protocol atomic.Value
	server := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		protocol.Store(r.Proto)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()

	stranger := configured(t, server.URL, nil)
	got := one(t, stranger, rawEvent("1"))
	if got.Result != sdk.ResultRetry || !strings.Contains(got.Reason, "certificate signed by unknown authority") {
		t.Errorf("without the root: %v, %q; want a retry for the certificate", got.Result, got.Reason)
	}

	roots := filepath.Join(t.TempDir(), "roots.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(roots, block, 0o600); err != nil {
		t.Fatal(err)
	}
	f := configured(t, server.URL, map[string]any{"trusted_roots": roots})
	wantDelivered(t, one(t, f, rawEvent("1")))
	if protocol.Load() != "HTTP/2.0" {
		t.Errorf("talked %v, want HTTP/2.0", protocol.Load())
	}
}

func TestDeliverStopsAtDeadline(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var calls atomic.Int32
	server := httptest.NewServer(nethttp.HandlerFunc(func(nethttp.ResponseWriter, *nethttp.Request) {
		calls.Add(1)
		<-release
	}))
	defer server.Close()
	defer close(release)
	f := configured(t, server.URL, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	got := f.Deliver(ctx, []sdk.Event{rawEvent("1"), rawEvent("2")})
	want := []sdk.Outcome{
		{Result: sdk.ResultRetry, Reason: "no answer within the lane's timeout"},
		{Result: sdk.ResultRetry, Reason: "not sent: context deadline exceeded"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("unexpected outcomes (-want +got):\n%s", diff)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("the destination was called %d times, want once", n)
	}
}

func TestDeliverStopsWhenCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a server notices a lost client only then
		cancel()
		<-r.Context().Done()
	}))
	defer server.Close()
	f := configured(t, server.URL, nil)
	got := f.Deliver(ctx, []sdk.Event{rawEvent("1")})
	want := []sdk.Outcome{{Result: sdk.ResultRetry, Reason: "stopped before the answer came"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("unexpected outcomes (-want +got):\n%s", diff)
	}
}

// rawServer answers each connection with serve and closes it.
func rawServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				if _, err := conn.Read(make([]byte, 4096)); err == nil {
					serve(conn)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return "http://" + listener.Addr().String()
}

func TestDeliverRetriesBrokenConnections(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	write := func(text string) func(net.Conn) {
		return func(conn net.Conn) { _, _ = io.WriteString(conn, text) }
	}
	for name, test := range map[string]struct {
		url, reason string
	}{
		"refused": {"http://" + closed.Addr().String(), "connection refused"},
		"reset": {rawServer(t, func(conn net.Conn) {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}), "connection reset by peer"},
		"closed":       {rawServer(t, write("")), "EOF"},
		"no HTTP":      {rawServer(t, write("hunter2\x1b[2J\r\n\r\n")), `malformed HTTP response "[redacted]`},
		"endless head": {rawServer(t, write("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 2*headerLimit)+"\r\n\r\n")), "exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := configured(t, test.url+"/path?token=hunter2", nil)
			got := one(t, f, rawEvent("1"))
			if got.Result != sdk.ResultRetry || !strings.Contains(got.Reason, test.reason) {
				t.Errorf("got %v, %q; want a retry because of %q", got.Result, got.Reason, test.reason)
			}
			if strings.Contains(got.Reason, "hunter2") || strings.Contains(got.Reason, "/path") || len(got.Reason) > reasonLimit {
				t.Errorf("the reason shows too much: %q", got.Reason)
			}
		})
	}
}

// A destination that confirms an event and then breaks off has confirmed it.
func TestDeliverTrustsTheStatusOfABrokenAnswer(t *testing.T) {
	t.Parallel()
	head := "Content-Length: 1000\r\n\r\nsome"
	for status, want := range map[string]sdk.Outcome{
		"200 OK":                    sdk.Delivered(),
		"400 Bad Request":           {Result: sdk.ResultRejected, Reason: "answered 400 Bad Request", Answer: "some"},
		"500 Internal Server Error": {Result: sdk.ResultRetry, Reason: "answered 500 Internal Server Error", Answer: "some"},
	} {
		url := rawServer(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 "+status+"\r\n"+head) })
		if diff := cmp.Diff(want, one(t, configured(t, url, nil), rawEvent("1"))); diff != "" {
			t.Errorf("%s: unexpected outcome (-want +got):\n%s", status, diff)
		}
	}
}

func TestDeliverWaitsNotForAHangingBody(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(nethttp.StatusOK)
		_ = nethttp.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	f := configured(t, server.URL, nil)
	f.answerWait = 10 * time.Millisecond
	wantDelivered(t, one(t, f, rawEvent("1"))) // the test would hang here
}

func TestDeliverReusesConnections(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"delivered": 200, "rejected": 400, "retried": 500} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var connections atomic.Int32
			server := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
				w.WriteHeader(status)
				_, _ = w.Write(make([]byte, drainLimit/2))
			}))
			server.Config.ConnState = func(_ net.Conn, state nethttp.ConnState) {
				if state == nethttp.StateNew {
					connections.Add(1)
				}
			}
			server.Start()
			defer server.Close()
			f := configured(t, server.URL, nil)
			for range 20 {
				one(t, f, rawEvent("1"))
			}
			if n := connections.Load(); n != 1 {
				t.Errorf("20 requests took %d connections, want 1", n)
			}
		})
	}
}

func TestDeliverReadsLittleOfAHugeAnswer(t *testing.T) {
	t.Parallel()
	var written atomic.Int64
	stopped := make(chan struct{})
	server := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		defer close(stopped)
		w.WriteHeader(nethttp.StatusBadRequest)
		chunk := bytes.Repeat([]byte("é\x00"), 8192)
		for {
			n, err := w.Write(chunk)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	}))
	defer server.Close()
	f := configured(t, server.URL, nil)
	got := one(t, f, rawEvent("1"))
	<-stopped
	if got.Result != sdk.ResultRejected || len(got.Answer) > answerLimit || !strings.HasPrefix(got.Answer, "é é é ") {
		t.Errorf("got %v with an answer of %d bytes, %.20q", got.Result, len(got.Answer), got.Answer)
	}
	t.Logf("the destination could write %d bytes", written.Load())
}
