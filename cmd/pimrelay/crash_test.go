package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pimrelay/pimrelay/relay/admin"
)

const (
	crashKills   = 24
	crashSenders = 6
	crashBody    = 1 << 10

	// crashWritten is how many settlements make the journal write a
	// forwarder's place; it is written after a second in any case.
	crashWritten = 1000
	crashInHTTP  = 8   // deliveries in flight to the HTTP sink
	crashInFile  = 100 // events of the one delivery in flight to the file
)

const crashConfig = `
data_dir: {dir}/data
listen: {address: "127.0.0.1:0", tls: {mode: "off"}}
sources:
  bench: {path: {path}, secrets: {primary: {secret}}}
forwarders:
  http: {plugin: http, max_in_flight: 8, retry: {initial: 10ms, max: 100ms}, config: {url: "{sink}", pass_signatures: true}}
  file: {plugin: file, max_in_flight: 1, batch: {max_events: 100}, config: {path: {dir}/events.jsonl}}
telemetry: {address: ""}
log: {level: info, format: json}
`

// A relay under load that is killed again and again loses nothing that it has
// acknowledged, and repeats no more than it says.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	sink := newCrashSink()
	server := httptest.NewServer(sink)
	defer server.Close()
	r := newCrashRelay(t, server.URL)
	load := startCrashLoad(ctx, &r.address)
	defer load.abandon()

	for kill := range crashKills {
		r.start()
		alive := 500 * time.Millisecond
		switch {
		case kill%6 == 0: // while it starts, the first time while it makes its journal
			alive = 50 * time.Millisecond
		case kill%4 == 0: // late enough to have written its places because a second has passed
			alive = 1500 * time.Millisecond
			fallthrough
		default:
			r.open(ctx)
		}
		<-time.After(rand.N(alive)) // the random moment
		r.kill()
		sink.nextLife()
	}
	r.start()
	r.open(ctx)
	load.flows(ctx, t)
	load.finish()
	status := r.drained(ctx)
	r.end()

	lines := readCrashFile(t, filepath.Join(r.dir, "events.jsonl"), r.sizes)
	sink.check(t, load, status)
	lines.check(t, load)
	if load.count() < 10*crashKills || load.again.Load() < crashKills || len(sink.rejected) == 0 {
		t.Errorf("too little happened to prove anything: %d events, %d tried again, %d rejected", load.count(), load.again.Load(), len(sink.rejected))
	}
	t.Logf("%d kills, %d events acknowledged, %d tried again; at most repeated after a kill: %d to the HTTP sink, %d to the file; %d dead letters",
		crashKills, load.count(), load.again.Load(), slices.Max(sink.repeated[:]), slices.Max(lines.repeated[:]), len(sink.rejected))
}

// crashRelay is a relay that is killed and started again.
type crashRelay struct {
	t       *testing.T
	dir     string
	address atomic.Pointer[string] // of the door that opened last
	process *benchProcess
	sizes   []int64 // of the file sink at each kill
}

func newCrashRelay(t *testing.T, sink string) *crashRelay {
	r := &crashRelay{t: t, dir: t.TempDir()}
	text := strings.NewReplacer("{dir}", r.dir, "{path}", benchPath, "{secret}", benchSecret, "{sink}", sink).Replace(crashConfig)
	if err := os.WriteFile(filepath.Join(r.dir, "pimrelay.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.process != nil { // the test ended early
			r.process.kill()
		}
	})
	return r
}

func (r *crashRelay) start() {
	r.t.Helper()
	process, err := launch(append(benchEnviron(), runAs+"=1"), "run", "-c", filepath.Join(r.dir, "pimrelay.yaml"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.process = process
}

// open waits for the door. Its port is another one each time: one that is closed
// for a while might be taken by another process.
func (r *crashRelay) open(ctx context.Context) {
	r.t.Helper()
	address, err := r.process.opened(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	r.address.Store(&address)
}

func (r *crashRelay) kill() {
	r.t.Helper()
	select {
	case <-r.process.exited:
		r.t.Fatal(r.process.failure())
	default:
	}
	r.process.kill()
	size := int64(0)
	if info, err := os.Stat(filepath.Join(r.dir, "events.jsonl")); err == nil {
		size = info.Size()
	}
	r.sizes = append(r.sizes, size)
}

// drained waits until both forwarders have no event left.
func (r *crashRelay) drained(ctx context.Context) admin.Status {
	r.t.Helper()
	client := admin.NewClient(filepath.Join(r.dir, "data"))
	var status admin.Status
	err := newProgress(io.Discard).while(ctx, func() (bool, error) {
		var err error
		status, err = client.Status(ctx)
		for _, f := range status.Forwarders {
			if f.Backlog > 0 {
				return false, err
			}
		}
		return err == nil, err
	}, func() string { return "" })
	if err != nil {
		r.t.Fatalf("waiting for %+v: %v", status.Forwarders, err)
	}
	return status
}

// end stops the relay in order.
func (r *crashRelay) end() {
	r.t.Helper()
	if err := r.process.stop(); err != nil {
		r.t.Fatal(err)
	}
}

// crashLoad delivers as the platform does, from several connections: an event
// that is not answered 200 is delivered again under the same id.
type crashLoad struct {
	address *atomic.Pointer[string]
	acked   [crashSenders][]string // ids by sender, in its order; read after finish
	again   atomic.Int64           // posts that were tried again
	answers chan struct{}          // receives after a 200, if somebody waits

	running sync.WaitGroup
	calm    context.CancelFunc // lets each sender get the 200 for what it has in hand
	cut     context.CancelFunc // ends them at once
}

func startCrashLoad(ctx context.Context, address *atomic.Pointer[string]) *crashLoad {
	l := &crashLoad{address: address, answers: make(chan struct{}, 1)}
	ctx, l.cut = context.WithCancel(ctx)
	sending, calm := context.WithCancel(ctx)
	l.calm = calm
	for i := range crashSenders {
		l.running.Go(func() { l.acked[i] = l.send(ctx, sending) })
	}
	return l
}

func (l *crashLoad) send(ctx, sending context.Context) (acked []string) {
	var conn *benchConn
	defer func() {
		if conn != nil {
			_ = conn.Close() // nothing is under way on it
		}
	}()
	delivery := newBenchDelivery("relay", crashBody)
	for sending.Err() == nil {
		delivery.next()
		for !l.post(ctx, &conn, delivery.request) {
			if ctx.Err() != nil {
				return acked
			}
			l.again.Add(1)
			pause(ctx, 5*time.Millisecond)
		}
		acked = append(acked, string(delivery.id))
		select {
		case l.answers <- struct{}{}:
		default:
		}
		pause(sending, 200*time.Microsecond) // what all sinks can follow
	}
	return acked
}

// post reports whether the event was answered 200.
func (l *crashLoad) post(ctx context.Context, conn **benchConn, request []byte) bool {
	if *conn == nil {
		address := l.address.Load()
		if address == nil {
			return false // the first door has not opened
		}
		var err error
		if *conn, err = dialBench(ctx, *address); err != nil {
			*conn = nil
			return false
		}
	}
	status, err := 0, (*conn).SetDeadline(time.Now().Add(benchAnswer))
	if err == nil {
		status, err = (*conn).post(request)
	}
	if err != nil || (*conn).closing {
		_ = (*conn).Close() // the next post dials again
		*conn = nil
	}
	return err == nil && status == http.StatusOK
}

// pause waits a while, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// flows returns when a further event has been answered 200.
func (l *crashLoad) flows(ctx context.Context, t *testing.T) {
	t.Helper()
	for range 2 { // the first may be an old one
		select {
		case <-l.answers:
		case <-ctx.Done():
			t.Fatal("no event is answered 200")
		}
	}
}

// finish ends the load when each sender has the 200 for its last event.
func (l *crashLoad) finish() {
	l.calm()
	l.running.Wait()
}

// abandon ends the load at once.
func (l *crashLoad) abandon() {
	l.cut()
	l.running.Wait()
}

func (l *crashLoad) count() (n int) {
	for _, ids := range l.acked {
		n += len(ids)
	}
	return n
}

// eventID is the id of a delivery's body.
func eventID(body []byte) string {
	from := strings.Index(benchFront, idLayout)
	if len(body) != crashBody {
		return ""
	}
	return string(body[from : from+len(idLayout)])
}

// crashSink is an HTTP sink that is slow now and then, and fails now and then:
// before an event is done, or after that, so that only the reply is lost. One
// event in 256 it never takes.
type crashSink struct {
	mu       sync.Mutex
	life     int // of the relay
	received map[string]bool
	lost     map[string]int // replies lost, whose event will come again
	rejected map[string]bool
	altered  int
	repeated [crashKills + 1]int // events that came again for another reason, by life
}

func newCrashSink() *crashSink {
	return &crashSink{received: make(map[string]bool), lost: make(map[string]int), rejected: make(map[string]bool)}
}

func (s *crashSink) nextLife() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life++
}

func (s *crashSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the relay was killed while it sent
	}
	if rand.N(300) == 0 {
		select {
		case <-time.After(300 * time.Millisecond):
		case <-r.Context().Done():
			return // killed while the event was in flight, and it is not done
		}
	}
	mac := hmac.New(sha256.New, []byte(benchSecret))
	mac.Write(body)
	w.WriteHeader(s.take(eventID(body), r.Header.Get(benchSignature) == hex.EncodeToString(mac.Sum(nil))))
}

// take decides about an event and returns the status for it.
func (s *crashSink) take(id string, intact bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	fate := rand.N(100)
	switch {
	case !intact:
		s.altered++
	case strings.HasSuffix(id, "00"):
		s.rejected[id] = true
		return http.StatusBadRequest
	case fate == 0:
		return http.StatusServiceUnavailable
	case s.lost[id] > 0:
		s.lost[id]--
	case s.received[id]:
		s.repeated[s.life]++
	}
	s.received[id] = true
	if fate == 1 {
		s.lost[id]++
		return http.StatusBadGateway
	}
	return http.StatusOK
}

// check compares what arrived with what was acknowledged.
func (s *crashSink) check(t *testing.T, load *crashLoad, status admin.Status) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	missing := 0
	for _, ids := range load.acked {
		for _, id := range ids {
			if !s.received[id] && !s.rejected[id] {
				missing++
			}
		}
	}
	if missing > 0 || s.altered > 0 {
		t.Errorf("HTTP sink: %d of %d acknowledged events are lost, %d altered", missing, load.count(), s.altered)
	}
	want := map[string]int64{"http": int64(len(s.rejected)), "file": 0}
	for _, f := range status.Forwarders {
		if f.DeadLetters != want[f.Name] {
			t.Errorf("forwarder %s has %d dead letters, want %d", f.Name, f.DeadLetters, want[f.Name])
		}
	}
	checkRepeated(t, "HTTP sink", s.repeated[:], crashInHTTP)
}

// checkRepeated holds the events that were delivered again after each kill
// against the promise: at most what was settled since the forwarder's place was
// last written, and what was in flight. While that write is on its way the lane
// goes on, until the next one is due.
func checkRepeated(t *testing.T, sink string, repeated []int, inFlight int) {
	t.Helper()
	if repeated[0] > 0 {
		t.Errorf("%s: %d events came again before the first kill", sink, repeated[0])
	}
	for life, n := range repeated {
		if n > 2*crashWritten+inFlight {
			t.Errorf("%s: %d events came again after kill %d", sink, n, life)
		}
	}
}

// crashLines is what the file sink holds.
type crashLines struct {
	first    map[string]int // the number of the line at which an id first stands
	repeated [crashKills + 1]int
}

// readCrashFile reads the file, which had these sizes when the relay was killed.
func readCrashFile(t *testing.T, path string, sizes []int64) *crashLines {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := &crashLines{first: make(map[string]int)}
	life, at, number := 0, int64(0), 0
	for line := range bytes.Lines(content) {
		for life < len(sizes) && at >= sizes[life] {
			life++
		}
		at += int64(len(line))
		id := eventID(bytes.TrimSuffix(line, []byte("\n")))
		if id == "" || !json.Valid(line) {
			t.Fatalf("line %d of the file is torn: %q", number, line)
		}
		if _, known := lines.first[id]; known {
			lines.repeated[life]++
		} else {
			lines.first[id] = number
		}
		number++
	}
	return lines
}

// check compares the file with what was acknowledged, and its order with that of
// each sender: the forwarder has one delivery in flight and none failed.
func (l *crashLines) check(t *testing.T, load *crashLoad) {
	t.Helper()
	missing, disordered := 0, 0
	for _, ids := range load.acked {
		previous := -1
		for _, id := range ids {
			at, ok := l.first[id]
			switch {
			case !ok:
				missing++
			case at < previous:
				disordered++
			default:
				previous = at
			}
		}
	}
	if missing > 0 || disordered > 0 || len(l.first) != load.count() {
		t.Errorf("file: %d of %d acknowledged events are lost, %d stand before an older one, %d ids in all", missing, load.count(), disordered, len(l.first))
	}
	checkRepeated(t, "file", l.repeated[:], crashInFile)
}
