package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// pipes is a listener whose connections are in memory, so that a whole server
// can run on the fake clock of a synctest bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// pipeDoor starts a door on the fake clock of the bubble that t belongs to, and
// returns what opens a connection to it.
func pipeDoor(t *testing.T, change func(*Options)) (d *door, dial func() net.Conn) {
	t.Helper()
	d = newDoor(t, change)
	l := newPipes()
	d.serveOn(t, l)
	return d, func() net.Conn {
		c := l.dial()
		t.Cleanup(func() { c.Close() })
		return c
	}
}

// send writes a piece of a request.
func send(t *testing.T, c io.Writer, piece string) {
	t.Helper()
	if _, err := io.WriteString(c, piece); err != nil {
		t.Fatalf("send %q: %v", piece, err)
	}
}

// status reads one answer.
func status(t *testing.T, c io.Reader) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	return resp
}

// headers of a delivery whose body has n bytes, without the empty line.
func headers(n int) string {
	return fmt.Sprintf("POST /hooks/catalog HTTP/1.1\r\nHost: x\r\n%s: 00\r\nContent-Length: %d\r\n", signatureHeader, n)
}

// deadlines is an Acceptor that tells how much time it was given.
func deadlines(given chan<- time.Duration) accept {
	return func(ctx context.Context, _ *Delivery) Answer {
		deadline, _ := ctx.Deadline()
		given <- time.Until(deadline)
		return Accepted
	}
}

// session sends three deliveries on one connection and checks how much time
// each leaves to Accept.
func session(t *testing.T, c net.Conn, given <-chan time.Duration) {
	t.Helper()
	wants := func(want time.Duration) {
		t.Helper()
		if got := <-given; got != want {
			t.Errorf("Accept was given %v, want %v", got, want)
		}
		status(t, c)
	}
	time.Sleep(7 * time.Second) // opened in advance: not the request's time
	send(t, c, headers(2)[:10])
	time.Sleep(time.Second)
	send(t, c, headers(2)[10:]+"\r\n")
	time.Sleep(time.Second)
	send(t, c, "{}")
	wants(2 * time.Second)

	time.Sleep(10 * time.Minute) // idle, but less than the idle timeout
	send(t, c, headers(2)+"\r\n{}")
	wants(4 * time.Second)

	synctest.Wait() // the answer is quite finished
	send(t, c, "P")
	time.Sleep(3 * time.Second)
	send(t, c, headers(2)[1:]+"\r\n{}")
	wants(time.Second)
}

func TestDeadlineCountsFromTheFirstByte(t *testing.T) {
	t.Run("plain", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			given := make(chan time.Duration, 1)
			_, dial := pipeDoor(t, func(o *Options) { o.Acceptor = deadlines(given) })
			session(t, dial(), given)
		})
	})
	t.Run("TLS", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			given := make(chan time.Duration, 1)
			config, roots := validTLS(t)
			_, dial := pipeDoor(t, func(o *Options) { o.Acceptor, o.TLS = deadlines(given), config })
			c := tls.Client(dial(), &tls.Config{RootCAs: roots, ServerName: "localhost"})
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			session(t, c, given)
		})
	})
}

func TestSlowHeaders(t *testing.T) {
	t.Run("take longer than a delivery may", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, dial := pipeDoor(t, nil)
			c := dial()
			send(t, c, headers(2)[:10])
			time.Sleep(6 * time.Second)
			send(t, c, headers(2)[10:]+"\r\n")
			wantRefusedAndClosed(t, c)
		})
	})
	t.Run("never end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, dial := pipeDoor(t, nil)
			c := dial()
			began := time.Now()
			send(t, c, headers(2))
			if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
				t.Errorf("got %q, %v; want the connection closed without an answer", b, err)
			}
			if took := time.Since(began); took != 10*time.Second {
				t.Errorf("closed after %v, want 10s", took)
			}
		})
	})
}

func TestSlowBodies(t *testing.T) {
	for _, tt := range []struct{ name, sent string }{
		{"never comes", headers(2) + "\r\n"},
		{"never ends", headers(20000) + "\r\n" + strings.Repeat("x", 19999)},
		{"of an unknown path", strings.Replace(headers(2), "/hooks/catalog", "/nowhere", 1) + "\r\n{"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, dial := pipeDoor(t, nil)
				c := dial()
				began := time.Now()
				send(t, c, tt.sent)
				wantRefusedAndClosed(t, c)
				if took := time.Since(began).Round(time.Millisecond); took != 4*time.Second {
					t.Errorf("answered after %v, want 4s", took)
				}
				if held := d.bodies.used.Load(); held != 0 {
					t.Errorf("%d bytes stay reserved", held)
				}
			})
		})
	}
	t.Run("of an unsigned request", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, dial := pipeDoor(t, nil)
			c := dial()
			began := time.Now()
			send(t, c, "POST /hooks/catalog HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
			if resp := status(t, c); resp.StatusCode != http.StatusUnauthorized || time.Since(began) != 0 {
				t.Errorf("answered %d after %v, want 401 at once", resp.StatusCode, time.Since(began))
			}
		})
	})
}

func TestIdleConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, dial := pipeDoor(t, nil)
		c := dial()
		send(t, c, headers(2)+"\r\n{}")
		status(t, c)
		began := time.Now()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read: %v, want EOF", err)
		}
		if took := time.Since(began); took != 620*time.Second {
			t.Errorf("closed after %v, want 620s", took)
		}
	})
}

// wantRefusedAndClosed wants 429 and the end of the connection.
func wantRefusedAndClosed(t *testing.T, c net.Conn) {
	t.Helper()
	resp := status(t, c)
	if resp.StatusCode != http.StatusTooManyRequests || !resp.Close {
		t.Errorf("answered %d, close %v; want 429 and a closed connection", resp.StatusCode, resp.Close)
	}
}

func TestAcceptorMayUseItsWholeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, dial := pipeDoor(t, func(o *Options) {
			o.Acceptor = accept(func(ctx context.Context, _ *Delivery) Answer {
				<-ctx.Done()
				return Accepted // within the overtime
			})
		})
		c := dial()
		send(t, c, headers(2)+"\r\n{}")
		if resp := status(t, c); resp.StatusCode != http.StatusOK {
			t.Errorf("answered %d, want the acceptor's 200", resp.StatusCode)
		}
	})
}

func TestAcceptorThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		d, dial := pipeDoor(t, func(o *Options) {
			o.MaxConcurrentRequests = 2
			o.Acceptor = accept(func(context.Context, *Delivery) Answer {
				<-release
				return Accepted
			})
		})
		exchange := func(c net.Conn, want int, within time.Duration) {
			t.Helper()
			began := time.Now()
			send(t, c, headers(2)+"\r\n{}")
			if resp := status(t, c); resp.StatusCode != want || time.Since(began) > within {
				t.Errorf("answered %d after %v, want %d within %v", resp.StatusCode, time.Since(began), want, within)
			}
		}
		exchange(dial(), http.StatusTooManyRequests, 4900*time.Millisecond)
		exchange(dial(), http.StatusTooManyRequests, 4900*time.Millisecond)
		if d.bodies.used.Load() == 0 {
			t.Error("the bodies of acceptors that hang are no longer counted")
		}
		c := dial()
		exchange(c, http.StatusTooManyRequests, 0) // both places are taken
		close(release)
		synctest.Wait()
		if held := d.bodies.used.Load(); held != 0 {
			t.Errorf("%d bytes stay reserved", held)
		}
		exchange(c, http.StatusOK, 0) // the connection was kept
		for _, reason := range []string{"acceptor does not return", "too many requests at one time"} {
			if !strings.Contains(d.log.String(), reason) {
				t.Errorf("the log does not say %q:\n%s", reason, d.log)
			}
		}
	})
}

func TestClientThatGoesAwayDoesNotStopAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		d, dial := pipeDoor(t, func(o *Options) {
			o.Acceptor = accept(func(ctx context.Context, _ *Delivery) Answer {
				close(started)
				<-goOn
				ended <- ctx.Err()
				return Accepted
			})
		})
		c := dial()
		send(t, c, headers(2)+"\r\n{}")
		<-started
		c.Close()
		synctest.Wait()
		close(goOn)
		if err := <-ended; err != nil {
			t.Errorf("the context ended with the connection: %v", err)
		}
		synctest.Wait()
		if got := testutil.ToFloat64(d.metrics.answers.WithLabelValues("catalog", "200")); got != 1 {
			t.Errorf("%v answers of 200 counted, want 1", got)
		}
	})
}

// A stranger who announces large bodies and sends nothing holds next to nothing.
func TestAnnouncedBodiesAreNotReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, dial := pipeDoor(t, nil)
		for range 20 {
			send(t, dial(), headers(defaultMaxBody)+"\r\n")
		}
		synctest.Wait()
		if held, want := d.bodies.used.Load(), int64(20*firstBuffer); held != want {
			t.Errorf("%d bytes reserved for bodies that did not come, want %d", held, want)
		}
		c := dial()
		send(t, c, headers(2)+"\r\n{}")
		if resp := status(t, c); resp.StatusCode != http.StatusOK {
			t.Errorf("another delivery is answered %d, want 200", resp.StatusCode)
		}
	})
}

func TestShutdownGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		d := newDoor(t, func(o *Options) {
			o.Acceptor = accept(func(context.Context, *Delivery) Answer {
				<-release
				return Accepted
			})
		})
		l := newPipes()
		go func() { d.served <- d.Serve(t.Context(), l) }()
		c := l.dial()
		defer c.Close()
		send(t, c, headers(2)+"\r\n{}")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := d.Shutdown(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 deliveries still being accepted") {
			t.Errorf("shut down: %v, want the deadline and what is still running", err)
		}
		if served := <-d.served; !errors.Is(served, context.DeadlineExceeded) {
			t.Errorf("serve: %v, want what Shutdown returned", served)
		}
		if again := d.Shutdown(t.Context()); again == nil || again.Error() != err.Error() {
			t.Errorf("second shutdown: %v, want the first one's error", again)
		}
		close(release)
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entered := make(chan struct{})
		d := newDoor(t, func(o *Options) {
			o.Acceptor = accept(func(context.Context, *Delivery) Answer {
				close(entered)
				time.Sleep(time.Second) // of the fake clock: the work to be finished
				return Accepted
			})
		})
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		go func() { d.served <- d.Serve(ctx, l) }()
		c := l.dial()
		defer c.Close()
		send(t, c, headers(2)+"\r\n{}")
		<-entered
		cancel()
		if resp := status(t, c); resp.StatusCode != http.StatusOK {
			t.Errorf("the open request is answered %d, want 200", resp.StatusCode)
		}
		if err := <-d.served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}
