package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// watchedConn notes when a request's first byte came: the platform's clock runs
// from there, but a handler starts only when all headers have arrived. When in
// doubt it is late, never early, because a delivery whose time seems to be over
// is answered 429. So it misses a first byte that arrives before the answer to
// the request before it is quite finished, and takes the next bytes for it.
type watchedConn struct {
	net.Conn
	opened time.Time
	// Times since opened in nanoseconds; 0 is none. first is the first byte
	// read since the connection last was between two requests; request is
	// the first byte of the latest request whose headers are complete.
	first, request atomic.Int64

	closed sync.Once
	leave  func() // called at the end; may be nil
}

// Close is that of the connection.
func (c *watchedConn) Close() error {
	c.closed.Do(func() {
		if c.leave != nil {
			c.leave()
		}
	})
	return c.Conn.Close()
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.first.Load() == 0 {
		c.first.Store(c.now())
	}
	return n, err
}

// SetReadDeadline forgets the first byte when the deadline is lifted before the
// first request. net/http does that after a TLS handshake, whose bytes are no
// part of the request: a client may open a connection long before it uses it.
func (c *watchedConn) SetReadDeadline(t time.Time) error {
	if t.IsZero() && c.request.Load() == 0 {
		c.first.Store(0)
	}
	return c.Conn.SetReadDeadline(t)
}

// CloseWrite lets net/http end a connection on which a client is still sending
// so that the client can read the answer first.
func (c *watchedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// now is the time since opened, never 0.
func (c *watchedConn) now() int64 { return max(1, int64(time.Since(c.opened))) }

// changed follows the connection's state. With HTTP/2 the requests of a
// connection overlap, and what it notes is not used.
func (c *watchedConn) changed(state http.ConnState) {
	switch state {
	case http.StateActive: // the headers of a request are complete
		first := c.first.Load()
		if first == 0 { // they came in the same read as what was before them
			first = c.now()
		}
		c.request.Store(first)
	case http.StateIdle:
		c.first.Store(0)
	}
}

// watched returns the watchedConn below c, or nil.
func watched(c net.Conn) *watchedConn {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok { // *tls.Conn
		c = over.NetConn()
	}
	w, _ := c.(*watchedConn)
	return w
}

// brokenHandshake reports whether a connection that has closed has sent
// something and never come to speak TLS.
func brokenHandshake(c net.Conn) bool {
	t, ok := c.(*tls.Conn)
	if !ok || t.ConnectionState().HandshakeComplete {
		return false
	}
	w := watched(c)
	return w != nil && w.first.Load() != 0
}

// connKey is the context key of a request's *watchedConn.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, watched(c))
}

func connChanged(c net.Conn, state http.ConnState) {
	if w := watched(c); w != nil {
		w.changed(state)
	}
}

// arrival is when the request's first byte came; with HTTP/2, when its headers
// were complete.
func arrival(r *http.Request) time.Time {
	if r.ProtoMajor == 1 {
		if c, _ := r.Context().Value(connKey{}).(*watchedConn); c != nil {
			return c.opened.Add(time.Duration(c.request.Load()))
		}
	}
	return time.Now()
}

// watchedListener wraps what it accepts in a watchedConn, and says loudly when
// it cannot accept: net/http goes on trying, for instance while the process has
// no file descriptor left, and nobody would know why deliveries fail.
type watchedListener struct {
	net.Listener
	logger *slog.Logger
	seldom *rate.Sometimes
	closed sync.Once
	// admit decides about a connection; leave is called when it has closed.
	// A nil admit admits all.
	admit func(net.Conn) (leave func(), ok bool)
}

// Close may be called again: the door closes its listeners first, and net/http
// closes those that it still knows.
func (l *watchedListener) Close() (err error) {
	l.closed.Do(func() { err = l.Listener.Close() })
	return err
}

func (l *watchedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				l.seldom.Do(func() { l.logger.Error("connection not accepted", "err", err) })
			}
			return nil, err
		}
		w := &watchedConn{Conn: c, opened: time.Now()}
		if l.admit == nil {
			return w, nil
		}
		leave, ok := l.admit(c)
		if ok {
			w.leave = leave
			return w, nil
		}
		_ = c.Close() // unread: nobody is told anything
	}
}
