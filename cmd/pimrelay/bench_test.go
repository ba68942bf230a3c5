package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/plugins"
	"github.com/pimrelay/pimrelay/relay"
)

// testBench is a short bench whose servers are the test binary.
func testBench(t *testing.T) *bench {
	t.Helper()
	return &bench{
		duration: 300 * time.Millisecond, connections: 8, size: 1 << 10, sinks: 2, parent: filepath.Join(t.TempDir(), "d"),
		environ: append(benchEnviron(), runAs+"=1"), out: io.Discard, progress: io.Discard,
	}
}

// Every row is there and can be true; what the figures are is another machine's
// business.
func TestBench(t *testing.T) {
	t.Parallel()
	b := testBench(t)
	var out bytes.Buffer
	b.out = &out
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		"durable ingest", "ceiling", "ratio", "200 at 1000/s: p50", "200 at 1000/s: p99", "200 at 1000/s: p99.9",
		"end to end", "refused", "CPU per 10,000 events", "memory at rest", "start to first 200",
	} {
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(row) + `  +\S`).Match(out.Bytes()) {
			t.Errorf("no row %q in:\n%s", row, &out)
		}
	}
	if left, err := os.ReadDir(b.parent); err != nil || len(left) > 0 {
		t.Errorf("left in --dir: %v, %v", left, err)
	}
	checkResult(t, &b.result)
}

func checkResult(t *testing.T, r *benchResult) {
	t.Helper()
	for name, part := range map[string]benchThroughput{"ingest": r.Ingest, "ceiling": r.Ceiling, "end to end": r.EndToEnd} {
		if part.Events < 1 || part.Refused != 0 || part.Seconds < 0.2 || part.PerSecond <= 0 || part.P50Seconds <= 0 || part.P99Seconds < part.P50Seconds {
			t.Errorf("%s: %+v", name, part)
		}
		if known := part.CPUSecondsPer10000 != nil; known != (runtime.GOOS == "linux") {
			t.Errorf("%s: CPU known: %v", name, known)
		}
	}
	if q := r.Ratio; q.Lowest <= 0 || q.Lowest > q.Overall || q.Overall > q.Highest {
		t.Errorf("ratio: %+v", q)
	}
	if l := r.Latency; l.Events < 1 || l.Events > 300 || l.P50Seconds <= 0 || l.P99Seconds < l.P50Seconds || l.P999Seconds < l.P99Seconds || l.HighestSeconds < l.P999Seconds {
		t.Errorf("latency: %+v", l)
	}
	// Besides what was counted, the first event and the rounds of warming up.
	if n := r.Memory.AfterEvents; n < r.Ingest.Events+r.Latency.Events+1 || n != r.Start.RetainedEvents {
		t.Errorf("%d events in the journal after %d and %d", n, r.Ingest.Events, r.Latency.Events)
	}
	if s := r.Start; s.EmptySeconds <= 0 || s.RetainedSeconds <= 0 {
		t.Errorf("start: %+v", s)
	}
	var out bytes.Buffer
	var again benchResult
	if err := r.printJSON(&out); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*r, again); diff != "" {
		t.Errorf("as JSON and back: -want +got:\n%s", diff)
	}
}

func TestBenchRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"--dir " + dir, exitFailure, "is not empty"},
		{"--dir " + filepath.Join(dir, "mine", "below"), exitFailure, "not a directory"},
		{"--dir " + filepath.Join(t.TempDir(), strings.Repeat("long", 30)), exitFailure, "choose a shorter path"},
		{"--duration 1ms", exitConfiguration, "--duration must be from 100ms"},
		{"--connections 0 --sinks 99", exitConfiguration, "--connections must be from 1 to 1000 (got 0)\n--sinks must be"},
		{"--size 1KB --rate -1", exitConfiguration, "--rate must be from 0"},
		{"--size 100B", exitConfiguration, "--size must be from 512B"},
		{"--size 100", exitConfiguration, "with its unit"},
		{"ceiling", exitConfiguration, "--file is missing"},
	} {
		code, out, errOut := pimrelay(t, append([]string{"bench"}, strings.Fields(tt.args)...)...)
		if code != tt.code || !strings.Contains(errOut, tt.want) {
			t.Errorf("bench %s: exit code %d, want %d with %q:\n%s%s", tt.args, code, tt.code, tt.want, out, errOut)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("a directory that was refused was changed: %v, %v", entries, err)
	}
}

// notice calls once when something that contains text is written.
type notice struct {
	text string
	call func()
}

func (n *notice) Write(p []byte) (int, error) {
	if n.call != nil && strings.Contains(string(p), n.text) {
		n.call()
		n.call = nil
	}
	return len(p), nil
}

// An interrupted bench says so, and leaves no file behind.
func TestBenchInterrupted(t *testing.T) {
	t.Parallel()
	for i, at := range []string{"start:", "ingest 1/5", "ingest 5/5", "latency:", "events accepted in"} {
		t.Run(strconv.Itoa(i), func(t *testing.T) { // a short name: it becomes part of the directory's
			t.Parallel()
			b := testBench(t)
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			b.progress = &notice{text: at, call: interrupt}
			if err := b.run(ctx); err == nil || !strings.Contains(err.Error(), "interrupted") {
				t.Errorf("interrupted at %q: error %v", at, err)
			}
			if left, err := os.ReadDir(b.parent); err != nil || len(left) > 0 {
				t.Errorf("left in --dir: %v, %v", left, err)
			}
		})
	}
}

// The terminal or the reader of the output may go: neither servers nor files are
// left behind.
func TestBenchLeftAlone(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*exec.Cmd, io.Closer) error{
		"terminal": func(bench *exec.Cmd, _ io.Closer) error { return bench.Process.Signal(syscall.SIGHUP) },
		"reader":   func(_ *exec.Cmd, output io.Closer) error { return output.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "d")
			bench := exec.CommandContext(t.Context(), os.Args[0], "bench", "--duration", "500ms", "--dir", dir)
			bench.Env = append(benchEnviron(), runAs+"=1")
			output, err := bench.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := bench.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(output).ReadString('\n') // the relay runs
			if err != nil || !strings.HasPrefix(line, "start:") {
				t.Errorf("began with %q, %v", line, err)
			}
			if err := leave(bench, output); err != nil {
				t.Error(err)
			}
			if err := bench.Wait(); err == nil {
				t.Error("ended as if everything had been measured")
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left in --dir: %v, %v", left, err)
			}
		})
	}
}

// A server that cannot start is reported with what it said.
func TestBenchServerFails(t *testing.T) {
	t.Parallel()
	b := testBench(t)
	b.environ = append(b.environ, "PIMRELAY_LOG__LEVEL=shout")
	if err := b.run(t.Context()); err == nil || !strings.Contains(err.Error(), "log.level") {
		t.Errorf("error %v", err)
	}
}

func TestBenchDelivery(t *testing.T) {
	t.Parallel()
	layout := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := make(map[string]bool)
	for _, size := range []int{smallestBenchBody, 777, 1 << 10, 20 << 10, largestBenchBody} {
		d := newBenchDelivery("127.0.0.1:1", size)
		for range 3 {
			d.next()
			head, body, _ := bytes.Cut(d.request, []byte("\r\n\r\n"))
			var event struct {
				SpecVersion, ID, Type string
				Data                  struct{ Author struct{ Identifier string } }
			}
			if err := json.Unmarshal(body, &event); err != nil || len(body) != size || event.Data.Author.Identifier != "bench" {
				t.Fatalf("%d bytes: %v\n%s", size, err, body)
			}
			if !layout.MatchString(event.ID) || seen[event.ID] {
				t.Errorf("id %q", event.ID)
			}
			seen[event.ID] = true
			mac := hmac.New(sha256.New, []byte(benchSecret))
			mac.Write(body)
			if want := benchSignature + ": " + hex.EncodeToString(mac.Sum(nil)) + "\r\n"; !bytes.Contains(head, []byte(want)) {
				t.Errorf("no %q in:\n%s", want, head)
			}
		}
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h histogram
	if got := h.quantile(0.99); got != 0 {
		t.Errorf("of none: %s", got)
	}
	for i := 1; i <= 100_000; i++ {
		h.observe(time.Duration(i) * 100 * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0.0001: time.Millisecond, 0.5: 5 * time.Second, 0.99: 9900 * time.Millisecond, 0.999: 9990 * time.Millisecond, 1: 10 * time.Second} {
		if got := h.quantile(q); got < want || got > want+want/32 {
			t.Errorf("quantile %v is %s, want at least %s and at most 1/32 more", q, got, want)
		}
	}
	var sum histogram
	for _, d := range []time.Duration{-1, 0, 1, 63, 64, time.Hour, 1000 * time.Hour} {
		var one histogram
		one.observe(d)
		sum.add(&one)
	}
	if sum.total != 7 || sum.quantile(0.5) != 63 || sum.most != 1000*time.Hour {
		t.Errorf("total %d, median %d, most %s", sum.total, sum.quantile(0.5), sum.most)
	}
}

// A delivery that is late because the answer before it was late counts from
// when it was due; a timer that fires late does not count.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := pace{next: begin.Add(time.Second), step: time.Second, end: begin.Add(3500 * time.Millisecond)}
		expect := func(want time.Duration, wantOK bool) {
			t.Helper()
			if got, ok := p.wait(t.Context()); ok != wantOK || ok && got.Sub(begin) != want {
				t.Errorf("due at %s, %v, want %s, %v", got.Sub(begin), ok, want, wantOK)
			}
		}
		expect(time.Second, true)
		time.Sleep(1500 * time.Millisecond) // the answer comes at 2.5 s
		expect(2*time.Second, true)
		expect(3*time.Second, true)
		expect(0, false)
	})
}

// BenchmarkIngest is one event from the load generator over loopback into the
// journal of a relay in this process, with 64 connections.
func BenchmarkIngest(b *testing.B) {
	const connections = 64
	load, err := dialLoad(b.Context(), startRelayHere(b), connections, 1<<10)
	if err != nil {
		b.Fatal(err)
	}
	defer load.close()
	var next atomic.Int64
	b.SetBytes(1 << 10)
	b.ReportAllocs()
	b.SetParallelism(max(connections/runtime.GOMAXPROCS(0), 1))
	b.RunParallel(func(pb *testing.PB) {
		w := load.workers[(next.Add(1)-1)%connections]
		for pb.Next() {
			w.delivery.next()
			if status, err := w.conn.post(w.delivery.request); err != nil || status != http.StatusOK {
				b.Errorf("answered %d: %v", status, err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// startRelayHere runs a relay in this process, with one forwarder that nothing
// matches, and returns its address.
func startRelayHere(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	path := filepath.Join(dir, "pimrelay.yaml")
	var text bytes.Buffer
	if err := benchConfig.Execute(&text, map[string]any{"Dir": dir, "Path": benchPath, "Secret": benchSecret}); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	cfg, err := relay.Load(path, nil, plugins.Builtin)
	if err != nil {
		b.Fatal(err)
	}
	daemon := relay.New(cfg, relay.Options{Version: "bench", Logger: slog.New(slog.DiscardHandler), Builtin: plugins.Builtin})
	ended := make(chan error, 1)
	stop := inBackground(func(ctx context.Context) { ended <- daemon.Run(ctx) })
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	<-daemon.Opened()
	return daemon.Status().Door.Address
}
