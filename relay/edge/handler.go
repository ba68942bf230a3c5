package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"
)

// Why a delivery is answered 429 by the door itself.
var (
	errDraining = errors.New("draining for good")
	errBusy     = errors.New("too many requests at one time")
)

// verdict is what becomes of one request.
type verdict struct {
	answer   Answer
	source   string // empty if the request belongs to none
	delivery bool   // signed, and for a source
	hangUp   bool   // do not wait for the rest of the body
}

// serve answers every request that net/http can read. The door never redirects,
// so it has no http.ServeMux.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	began := arrival(r)
	v := s.decide(w, r, began)
	h := w.Header()
	h.Set("Content-Length", "0")
	if v.answer == wrongMethod {
		h.Set("Allow", "GET, HEAD, POST")
	}
	if v.hangUp && r.ProtoMajor == 1 || s.connections.leaving() {
		// With HTTP/2 this ends the whole connection, once the requests on
		// it are answered; for one that is hung up on, net/http resets the
		// one stream.
		h.Set("Connection", "close")
	}
	w.WriteHeader(v.answer.status())
	s.metrics.answered(v, time.Since(began))
}

// decide finds the answer. The checks stand in the order of what they cost, and
// nothing of a body is read before the request has passed those that need none.
func (s *Server) decide(w http.ResponseWriter, r *http.Request, began time.Time) (v verdict) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, v.source)
			v.answer, v.hangUp = Unavailable, true
		}
	}()
	looking := r.Method == http.MethodGet || r.Method == http.MethodHead
	if !looking && r.Method != http.MethodPost {
		return verdict{answer: wrongMethod, hangUp: true}
	}
	path := cleanPath(r.URL.Path)
	source, known := s.routes.Load().source(path)
	v.source = source
	if known && looking {
		v.answer = Accepted
		return v
	}
	if !s.options.Signed(r.Header) {
		s.metrics.unsigned.Inc()
		v.answer, v.hangUp = Unsigned, true
		return v
	}
	// From here on net/http reads the body, if we do not, before it answers.
	// An error means that the connection is gone, and reading tells.
	_ = http.NewResponseController(w).SetReadDeadline(began.Add(s.options.AcceptTimeout))
	if !known {
		s.unknownPath(path)
		return v // Unavailable: 401 and 404 would cost the subscription dear
	}
	v.delivery = true
	if r.ContentLength > s.options.MaxBody {
		v.answer, v.hangUp = tooLarge, true
		return v
	}
	v.answer, v.hangUp = s.deliver(w, r, path, source, began)
	return v
}

// deliver reads the body and asks the Acceptor. hangUp tells that the rest of
// the body cannot or need not be read.
func (s *Server) deliver(w http.ResponseWriter, r *http.Request, path, source string, began time.Time) (a Answer, hangUp bool) {
	b, err := readBody(w, r, s.options.MaxBody, s.bodies)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return tooLarge, true
	case errors.Is(err, errNoRoom):
		s.refused(source, err)
		return Unavailable, false
	case err != nil:
		s.refused(source, fmt.Errorf("read the body: %w", err))
		return Unavailable, true
	}
	d := &Delivery{Source: source, Path: path, Header: r.Header, Body: b.bytes, Received: began.UTC()}
	a, err = s.accept(r.Context(), d, b)
	if err != nil {
		s.refused(source, err)
	}
	return a, false
}

// accept runs the Acceptor in a goroutine of its own, so that the platform gets
// its answer in time even if the Acceptor hangs; that costs about 2 µs. The
// goroutine owns b; Shutdown waits for it.
func (s *Server) accept(ctx context.Context, d *Delivery, b *body) (Answer, error) {
	if s.draining.Load() {
		b.release()
		return Unavailable, errDraining
	}
	select {
	case s.accepts <- struct{}{}:
	default:
		b.release()
		return Unavailable, errBusy
	}
	// The request's context ends when the client goes away, Accept's not.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), d.Received.Add(s.options.AcceptTimeout))
	answered := make(chan Answer, 1)
	go func() {
		a := Unavailable
		defer func() {
			if p := recover(); p != nil {
				s.panicked(p, d.Source)
				a = Unavailable
			}
			b.release()
			<-s.accepts
			answered <- a
			cancel()
		}()
		a = s.options.Acceptor.Accept(ctx, d)
	}()

	select {
	case a := <-answered:
		return a, nil
	case <-ctx.Done():
	}
	return s.overtime(answered, d.Source), nil
}

// overtime waits a little longer for an Accept whose time is up.
func (s *Server) overtime(answered <-chan Answer, source string) Answer {
	late := time.NewTimer(overtime)
	defer late.Stop()
	select {
	case a := <-answered:
		return a
	case <-late.C:
		s.overdueLogged.Do(func() {
			s.logger.Error("acceptor does not return, delivery answered 429", "source", source)
		})
		return Unavailable
	}
}

// refused tells why the door itself answered 429 to a delivery.
func (s *Server) refused(source string, err error) {
	s.refusedLogged.Do(func() { s.logger.Warn("delivery refused", "source", source, "err", err) })
}

// unknownPath raises the alarm about a signed request for no source: most
// likely a subscription whose URL is wrong, whose events nobody gets.
func (s *Server) unknownPath(path string) {
	s.metrics.unknown.Inc()
	s.unknownLogged.Do(func() {
		s.logger.Warn("signed request on a path of no source, check the subscription's url", "path", shorten(path))
	})
}

// panicked keeps a panic from closing the connection, which the platform would
// count as a failure. http.ErrAbortHandler is no exception.
func (s *Server) panicked(p any, source string) {
	s.metrics.panics.Inc()
	stack := debug.Stack()
	s.panicLogged.Do(func() {
		s.logger.Error("panic while answering a request", "source", source, "err", fmt.Sprint(p), "stack", string(stack))
	})
}
