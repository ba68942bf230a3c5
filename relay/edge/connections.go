package edge

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// connections are the open ones, and the listeners they come from. The zero
// value is ready for use.
type connections struct {
	left atomic.Bool // set under mu

	mu        sync.Mutex
	listeners []net.Listener // guarded by mu, as below
	open      int
	silent    map[net.Conn]bool  // those that have not sent a request yet
	none      chan struct{}      // closed when left and none is open
	from      map[netip.Addr]int // how many are open, where they are counted
}

// listen notes a listener. One that comes after leave is closed at once.
func (c *connections) listen(l net.Listener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners = append(c.listeners, l)
	if c.left.Load() {
		_ = l.Close() // nobody will accept from it
	}
}

func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.silent, conn)
	switch state {
	case http.StateNew:
		c.open++
		if c.silent == nil {
			c.silent = make(map[net.Conn]bool)
		}
		c.silent[conn] = true
	case http.StateClosed, http.StateHijacked:
		c.open--
		c.check()
	}
}

// check closes none when it is time. The caller holds mu.
func (c *connections) check() {
	if c.left.Load() && c.open == 0 {
		select {
		case <-c.none:
		default:
			close(c.none)
		}
	}
}

func (c *connections) leaving() bool { return c.left.Load() }

// leave closes the listeners and waits until the open connections have closed,
// at most so long, and not beyond ctx. Then it closes those that have not sent
// anything: net/http would wait 5 s for each of them. It is called once.
func (c *connections) leave(ctx context.Context, atMost time.Duration) {
	c.mu.Lock()
	c.none = make(chan struct{})
	c.left.Store(true)
	for _, l := range c.listeners {
		_ = l.Close() // no more connections is all that matters
	}
	c.check()
	c.mu.Unlock()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-c.none:
	case <-timer.C:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.silent {
		_ = conn.Close() // it was about to be given up
	}
}

// admit counts a connection of its address, unless that has as many as it may
// have. leave is to be called when the connection has closed.
func (s *Server) admit(conn net.Conn) (leave func(), ok bool) {
	most := s.options.ConnectionsPerAddress
	if most == 0 {
		return nil, true
	}
	addr := hostAddr(conn.RemoteAddr().String())
	if !addr.IsValid() || s.access.Load().proxy(addr) {
		return nil, true
	}
	if !s.connections.enter(addr, most) {
		s.metrics.crowded.Inc()
		s.crowdedLogged.Do(func() {
			s.logger.Warn("connection closed, its address has as many as it may have", "from", addr.String())
		})
		return nil, false
	}
	return func() { s.connections.exit(addr) }, true
}

func (c *connections) enter(addr netip.Addr, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from[addr] >= most {
		return false
	}
	if c.from == nil {
		c.from = make(map[netip.Addr]int)
	}
	c.from[addr]++
	return true
}

func (c *connections) exit(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from[addr]--; c.from[addr] == 0 {
		delete(c.from, addr)
	}
}
