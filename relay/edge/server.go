package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// The platform gives up on a delivery 5 s after it began. platformPatience is
// that limit; overtime is what an Acceptor may take beyond its deadline before
// the door answers for it. Both deadlines end before the platform's patience.
const (
	platformPatience = 5 * time.Second
	overtime         = 400 * time.Millisecond
)

// Defaults of Options.
const (
	defaultMaxBody           = 10 << 20
	defaultMaxBodiesInFlight = 64 << 20
	defaultMaxConcurrent     = 1024
	defaultMaxHeaderBytes    = 64 << 10
	defaultAcceptTimeout     = 4 * time.Second
	defaultReadHeaderTimeout = 10 * time.Second
	// Load balancers keep idle connections for up to 600 s; a server that
	// closes them first loses the request that is just being sent on one.
	defaultIdleTimeout = 620 * time.Second
	defaultLameDuck    = 500 * time.Millisecond
)

// Delivery is one request that claims to be the platform's. It belongs to the
// Acceptor, which may keep it and everything in it.
type Delivery struct {
	// Source is the source that the URL belongs to.
	Source string
	// Path is the decoded path of the URL in its clean form: rooted, without
	// dot segments, doubled or trailing slashes. It is the source's path or
	// lies below it.
	Path string
	// Header holds the request's headers as net/http gives them.
	Header http.Header
	// Body is the request's body, byte for byte. Only these bytes are
	// signed.
	Body []byte
	// Received is when the request's first byte came, in UTC.
	Received time.Time
}

// Acceptor decides what a delivery is answered. Accept is called by many
// goroutines at once.
//
// The context ends at the time by which the delivery must be answered, counted
// from the request's first byte (4 s by default). It does not end when the
// client goes away: an event that is halfway to the disk may as well get there,
// and the platform's retry is then a duplicate. An Accept that has not returned
// 400 ms after its context ended is left behind: the platform is answered 429,
// and whatever Accept returns later is not used. What it holds (its body, its
// place among the concurrent requests) stays taken until it returns, so a
// hanging Acceptor ends in 429 for everybody, never in exhausted memory.
//
// A panic in Accept is logged and answered 429.
type Acceptor interface {
	Accept(ctx context.Context, d *Delivery) Answer
}

// Options configure a Server. Zero values of limits and times mean the default.
type Options struct {
	// Acceptor decides about deliveries. Required.
	Acceptor Acceptor
	// Signed reports whether a request carries the platform's signature
	// headers, right or wrong. It is called concurrently. Required.
	Signed func(http.Header) bool
	// Same is a value that all attempts to deliver one event have in common,
	// and those of other events have not, taken from the headers of a request
	// that is Signed; empty if there is none. Nil: a 429 is never held against
	// a source. It is called concurrently.
	Same func(http.Header) string
	// Access says who may deliver; see also SetAccess.
	Access Access
	// Logger and Registerer are required.
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	// TLS makes the door speak HTTPS with HTTP/1.1 and HTTP/2; the two are
	// added to its NextProtos. Nil means plain HTTP/1.1, for a proxy that
	// terminates TLS.
	TLS *tls.Config

	// MaxBody is the largest body in bytes. Default 10 MiB, the largest
	// message that the platform's other destinations take.
	MaxBody int64
	// MaxBodiesInFlight bounds the bytes of all bodies held at one time;
	// what does not fit is answered 429. Above MaxBody. Default 64 MiB.
	MaxBodiesInFlight int64
	// MaxConcurrentRequests bounds how many Accepts run at one time; more
	// are answered 429. Default 1024.
	MaxConcurrentRequests int
	// MaxHeaderBytes bounds a request's headers; more are answered 431 by
	// net/http. Default 64 KiB.
	MaxHeaderBytes int
	// ConnectionsPerAddress bounds the open connections of one address; more
	// are closed unread. 0: no bound. It is never applied to trusted proxies,
	// and the platform itself delivers from one address.
	ConnectionsPerAddress int

	// AcceptTimeout is the time from a request's first byte to the end of
	// Accept's context, reading the body included. Default 4 s, at most
	// 4.5 s: the platform gives up after 5 s.
	AcceptTimeout time.Duration
	// ReadHeaderTimeout is how long a new connection may take to send its
	// first request's headers, and an old one from a request's first bytes
	// to the end of its headers. Default 10 s.
	ReadHeaderTimeout time.Duration
	// IdleTimeout closes connections without requests. It must be longer
	// than the client's own. Default 620 s.
	IdleTimeout time.Duration
	// LameDuck is how long Shutdown goes on answering on the connections
	// that are open, each answer closing its connection, before it closes
	// those that are still idle: a request that crosses with the closing of
	// its connection is a failed delivery. Default 500 ms.
	LameDuck time.Duration
}

// withDefaults fills in what was left out.
func (o Options) withDefaults() Options {
	orDefault(&o.MaxBody, defaultMaxBody)
	orDefault(&o.MaxBodiesInFlight, defaultMaxBodiesInFlight)
	orDefault(&o.MaxConcurrentRequests, defaultMaxConcurrent)
	orDefault(&o.MaxHeaderBytes, defaultMaxHeaderBytes)
	orDefault(&o.AcceptTimeout, defaultAcceptTimeout)
	orDefault(&o.ReadHeaderTimeout, defaultReadHeaderTimeout)
	orDefault(&o.IdleTimeout, defaultIdleTimeout)
	orDefault(&o.LameDuck, defaultLameDuck)
	return o
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// check reports everything that is wrong together.
func (o Options) check() error {
	var errs []error
	require := func(ok bool, problem string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(problem, args...))
		}
	}
	require(o.Acceptor != nil, "no acceptor: set Options.Acceptor")
	require(o.Signed != nil, "no test for signature headers: set Options.Signed")
	require(o.Logger != nil, "no logger: set Options.Logger")
	require(o.Registerer != nil, "no metrics registerer: set Options.Registerer")
	require(o.MaxBody > 0, "largest body: must be above 0 (got %d)", o.MaxBody)
	require(o.MaxBodiesInFlight > o.MaxBody, "bodies in flight: must be above the largest body of %d bytes (got %d)", o.MaxBody, o.MaxBodiesInFlight)
	require(o.MaxConcurrentRequests > 0, "concurrent requests: must be above 0 (got %d)", o.MaxConcurrentRequests)
	require(o.ConnectionsPerAddress >= 0, "connections per address: must not be below 0 (got %d)", o.ConnectionsPerAddress)
	require(o.MaxHeaderBytes > 0, "header bytes: must be above 0 (got %d)", o.MaxHeaderBytes)
	latest := platformPatience - overtime - 100*time.Millisecond
	require(o.AcceptTimeout > 0 && o.AcceptTimeout <= latest, "accept timeout: must be above 0 and at most %v, because the platform gives up after %v (got %v)", latest, platformPatience, o.AcceptTimeout)
	require(o.ReadHeaderTimeout > 0, "read header timeout: must be above 0 (got %v)", o.ReadHeaderTimeout)
	require(o.IdleTimeout > 0, "idle timeout: must be above 0 (got %v)", o.IdleTimeout)
	require(o.LameDuck > 0, "lame duck: must be above 0 (got %v)", o.LameDuck)
	return errors.Join(errs...)
}

// Server is the door. Its methods may be called concurrently.
type Server struct {
	options  Options // never changed after New
	logger   *slog.Logger
	metrics  *metrics
	http     *http.Server
	routes   atomic.Pointer[routeTable]
	draining atomic.Bool
	bodies   *budget
	accepts  chan struct{} // one element for each Accept that runs
	access   atomic.Pointer[access]
	guard    *guard
	troubles troubles

	unknownLogged, refusedLogged, overdueLogged, panicLogged     *rate.Sometimes
	unverifiedLogged, keptOutLogged, headerLogged, crowdedLogged *rate.Sometimes

	connections connections

	shutdown    sync.Once
	stopped     chan struct{} // closed when shutdown is done
	shutdownErr error         // set before stopped is closed
}

// New returns a Server that knows no route yet: until SetRoutes, every signed
// request is answered 429.
func New(o Options) (*Server, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("options of the door: %w", err)
	}
	bodies, guard := &budget{limit: o.MaxBodiesInFlight}, newGuard(o.Logger)
	m, err := newMetrics(o.Registerer, bodies, guard)
	if err != nil {
		return nil, err
	}
	s := &Server{
		options:       o,
		logger:        o.Logger,
		metrics:       m,
		bodies:        bodies,
		accepts:       make(chan struct{}, o.MaxConcurrentRequests),
		guard:         guard,
		unknownLogged: newSeldom(), refusedLogged: newSeldom(), overdueLogged: newSeldom(), panicLogged: newSeldom(),
		unverifiedLogged: newSeldom(), keptOutLogged: newSeldom(), headerLogged: newSeldom(), crowdedLogged: newSeldom(),
		stopped: make(chan struct{}),
	}
	s.SetAccess(o.Access)
	s.routes.Store(&routeTable{})
	s.http = s.newHTTPServer()
	return s, nil
}

// newHTTPServer sets net/http up so that every well-formed request reaches the
// door's own handler, and none can hold a connection for ever.
func (s *Server) newHTTPServer() *http.Server {
	o := s.options
	srv := &http.Server{
		Handler:                      http.HandlerFunc(s.serve),
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            o.ReadHeaderTimeout,
		// serve sets each delivery a read deadline of its own, which ends
		// earlier than this one.
		ReadTimeout:    o.ReadHeaderTimeout + o.AcceptTimeout,
		WriteTimeout:   o.AcceptTimeout + platformPatience,
		IdleTimeout:    o.IdleTimeout,
		MaxHeaderBytes: o.MaxHeaderBytes,
		ConnContext:    withConn,
		ConnState: func(c net.Conn, state http.ConnState) {
			connChanged(c, state)
			s.connections.changed(c, state)
			if state == http.StateClosed && brokenHandshake(c) {
				s.metrics.handshakes.Inc()
				s.guard.handshakeFailed(hostAddr(c.RemoteAddr().String()), time.Now())
			}
		},
		ErrorLog: newHTTPLog(s.logger),
	}
	if o.TLS != nil {
		srv.TLSConfig = o.TLS.Clone() // net/http adds to it
	}
	return srv
}

// SetRoutes replaces all routes at once: a request sees either the old routes
// or the new ones. If it returns an error, which names everything that is
// wrong, the old routes stay.
func (s *Server) SetRoutes(routes []Route) error {
	table, err := newRouteTable(routes)
	if err != nil {
		return err
	}
	s.routes.Store(table)
	return nil
}

// Serve answers requests on l until Shutdown is called, ctx is done or l
// breaks, and closes l. After Shutdown it waits until that is through and
// returns what Shutdown returned. When ctx is done it shuts down by itself,
// giving open requests the time that the platform would wait for them. Several
// Serves may run on different listeners; they end together.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	forget := context.AfterFunc(ctx, func() {
		patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), platformPatience+time.Second)
		defer cancel()
		_ = s.Shutdown(patient) // kept in shutdownErr
	})
	defer forget()

	watched := &watchedListener{Listener: l, logger: s.logger, seldom: newSeldom(), admit: s.admit}
	s.connections.listen(watched)
	var err error
	if s.options.TLS != nil {
		err = s.http.ServeTLS(watched, "", "")
	} else {
		err = s.http.Serve(watched)
	}
	if errors.Is(err, http.ErrServerClosed) || s.connections.leaving() {
		<-s.stopped
		return s.shutdownErr
	}
	return fmt.Errorf("accept connections on %s: %w", l.Addr(), err)
}

// Drain makes the door answer 429 to every delivery whose Accept has not begun,
// for good. It stays open: the platform keeps what is answered 429.
func (s *Server) Drain() { s.draining.Store(true) }

// Shutdown closes the listeners, goes on answering on open connections for the
// time of LameDuck or until there are none, answers the requests that have
// begun, and returns when no Accept runs any more, so that what the Acceptor uses may be
// closed. It may take 5 s longer than the requests: that is how long a
// connection that has not sent anything is given. When ctx ends first it closes
// all connections and returns an error. Calls after the first return what the
// first returned, once it is through.
func (s *Server) Shutdown(ctx context.Context) error {
	s.shutdown.Do(func() {
		s.shutdownErr = s.stop(ctx)
		close(s.stopped)
	})
	return s.shutdownErr
}

func (s *Server) stop(ctx context.Context) error {
	var errs []error
	s.connections.leave(ctx, s.options.LameDuck)
	if err := s.http.Shutdown(ctx); err != nil {
		errs = append(errs, fmt.Errorf("answer open requests: %w", err), s.http.Close())
	}
	// An Accept may run on although its request has been answered. Whoever
	// holds all places knows that none does, and that none begins.
	for held := range cap(s.accepts) {
		select {
		case s.accepts <- struct{}{}: // free, even if ctx is over
			continue
		default:
		}
		select {
		case s.accepts <- struct{}{}:
		case <-ctx.Done():
			running := len(s.accepts) - held
			errs = append(errs, fmt.Errorf("wait for %d deliveries still being accepted: %w", running, ctx.Err()))
			return errors.Join(errs...)
		}
	}
	return errors.Join(errs...)
}
