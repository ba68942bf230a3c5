package sdktest

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// largestRequest bounds what an HTTPDestination reads of a request.
	largestRequest = 64 << 20
	// returning is how long it tries to have its port again.
	returning = 5 * time.Second
)

// HTTPDestination is a [Destination] for forwarders that make HTTP requests: a
// server on the loopback interface. It takes the events of POST, PUT and PATCH
// requests to any path, and answers 200 to others.
//
// It tells an event by the header Idempotency-Key, or else by ce-id, or else by
// the id of the CloudEvents in the body: one, a JSON array, or one a line. If
// there is none of these, it looks for ids of the suite's events in the URL and
// the body.
type HTTPDestination struct {
	address string

	mu        sync.Mutex
	behaviour Behaviour     // guarded by mu, as below
	changed   chan struct{} // closed at the next change
	arrivals  []Arrival
	turn      int // requests to a lossy destination

	serving sync.WaitGroup
	server  *http.Server // nil while gone; of Behave's and Close's caller
}

// ListenHTTP makes a destination at a free port, which serves until Close.
func ListenHTTP() (*HTTPDestination, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &HTTPDestination{address: listener.Addr().String(), changed: make(chan struct{})}
	d.serve(listener)
	return d, nil
}

// URL is where the destination takes events.
func (d *HTTPDestination) URL() string { return "http://" + d.address + "/events" }

// Close ends the destination.
func (d *HTTPDestination) Close() error {
	d.become(Gone)
	d.leave()
	return nil
}

// Arrived are the events that it has taken.
func (d *HTTPDestination) Arrived() ([]Arrival, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.arrivals), nil
}

// Behave changes the behaviour. It can behave in every way.
func (d *HTTPDestination) Behave(b Behaviour) error {
	if b != Gone && d.server == nil {
		listener, err := d.comeBack()
		if err != nil {
			return err
		}
		d.serve(listener)
	}
	d.become(b)
	if b == Gone {
		d.leave()
	}
	return nil
}

// become changes the behaviour and ends what waits for that.
func (d *HTTPDestination) become(b Behaviour) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.behaviour = b
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *HTTPDestination) serve(listener net.Listener) {
	server := &http.Server{Handler: http.HandlerFunc(d.handle), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	d.server = server
	d.serving.Go(func() { _ = server.Serve(listener) }) // ends with leave
}

// leave ends the server and its connections.
func (d *HTTPDestination) leave() {
	if d.server != nil {
		_ = d.server.Close() // the listener's error would change nothing
		d.serving.Wait()
		d.server = nil
	}
}

// comeBack listens at the same port again. Another connection may have it for a
// moment, and nothing tells when that has gone.
func (d *HTTPDestination) comeBack() (net.Listener, error) {
	deadline := time.Now().Add(returning)
	for {
		listener, err := net.Listen("tcp", d.address)
		if err == nil || time.Now().After(deadline) {
			return listener, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (d *HTTPDestination) handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largestRequest))
	if err != nil {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	events := recognise(r, body)
	if r.Method != http.MethodPost && r.Method != http.MethodPut && r.Method != http.MethodPatch {
		events = nil
	}
	d.mu.Lock()
	behaviour, changed := d.behaviour, d.changed
	if behaviour == Lossy {
		behaviour = []Behaviour{Accept, ResetBefore, Fail, Accept, ResetAfter}[d.turn%5]
		d.turn++
	}
	if behaviour == RejectMarked {
		behaviour = Accept
		if slices.ContainsFunc(events, func(a Arrival) bool { return Marked(a.Key) }) {
			behaviour = Reject
		}
	}
	if behaviour == Accept || behaviour == ResetAfter || behaviour == Slow {
		d.arrivals = append(d.arrivals, events...)
	}
	d.mu.Unlock()
	respond(w, r, behaviour, changed)
}

// respond answers as the behaviour demands, or not at all.
func respond(w http.ResponseWriter, r *http.Request, b Behaviour, changed <-chan struct{}) {
	switch b {
	case Reject:
		http.Error(w, `{"error":"this event is not wanted"}`, http.StatusUnprocessableEntity)
		return
	case Throttle:
		w.Header().Set("Retry-After", strconv.Itoa(int(ThrottleWait.Seconds())))
		http.Error(w, `{"error":"too many requests"}`, http.StatusTooManyRequests)
		return
	case Fail:
		http.Error(w, `{"error":"out of order"}`, http.StatusServiceUnavailable)
		return
	case Hang:
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case ResetBefore, ResetAfter:
		reset(w)
		return
	case Slow:
		select {
		case <-time.After(SlowAnswer):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, "{}")
}

// reset breaks the connection with a reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
