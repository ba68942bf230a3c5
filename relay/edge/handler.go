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
	answer Answer
	// reason is why, if the answer is none of the Acceptor's.
	reason   reason
	source   string // empty if the request belongs to none
	path     string // clean
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
	took := time.Since(began)
	s.metrics.answered(v, took)
	s.judge(r, v, took)
}

// decide finds the answer. The checks stand in the order of what they cost, and
// nothing of a body is read before the request has passed those that need none.
func (s *Server) decide(w http.ResponseWriter, r *http.Request, began time.Time) (v verdict) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, v.source)
			v.answer, v.reason, v.hangUp = Unavailable, becausePanic, true
		}
	}()
	looking := r.Method == http.MethodGet || r.Method == http.MethodHead
	if !looking && r.Method != http.MethodPost {
		return verdict{answer: wrongMethod, reason: becauseMethod, hangUp: true}
	}
	v.path = cleanPath(r.URL.Path)
	source, known := s.routes.Load().source(v.path)
	v.source = source
	access := s.access.Load()
	allowed := len(access.AllowFrom) == 0 || access.allows(access.client(r))
	if known && looking && allowed {
		v.answer = Accepted
		return v
	}
	if !s.options.Signed(r.Header) {
		v.answer, v.reason, v.hangUp = Unsigned, becauseUnsigned, true
		return v
	}
	// From here on net/http reads the body, if we do not, before it answers.
	// An error means that the connection is gone, and reading tells.
	_ = http.NewResponseController(w).SetReadDeadline(began.Add(s.options.AcceptTimeout))
	switch {
	case !allowed:
		v.reason = becauseAddress
		s.keptOut(access.client(r), v)
		return v // Unavailable: it may be the platform all the same
	case !known:
		v.reason = becausePath
		s.unknownPath(v.path)
		return v // Unavailable: 401 and 404 would cost the subscription dear
	}
	v.delivery = true
	if name := access.missing(r.Header); name != "" {
		v.reason = becauseHeader
		s.headerMissing(name, v)
		return v
	}
	if r.ContentLength > s.options.MaxBody {
		v.answer, v.reason, v.hangUp = tooLarge, becauseTooLarge, true
		return v
	}
	v.answer, v.reason, v.hangUp = s.deliver(w, r, v, began)
	s.verified(v)
	return v
}

// deliver reads the body and asks the Acceptor. hangUp tells that the rest of
// the body cannot or need not be read.
func (s *Server) deliver(w http.ResponseWriter, r *http.Request, v verdict, began time.Time) (a Answer, because reason, hangUp bool) {
	b, err := readBody(w, r, s.options.MaxBody, s.bodies)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return tooLarge, becauseTooLarge, true
	case errors.Is(err, errNoRoom):
		s.refused(v.source, err)
		return Unavailable, becauseNoRoom, false
	case err != nil:
		s.refused(v.source, fmt.Errorf("read the body: %w", err))
		return Unavailable, becauseBody, true
	}
	d := &Delivery{Source: v.source, Path: v.path, Header: r.Header, Body: b.bytes, Received: began.UTC()}
	a, err = s.accept(r.Context(), d, b)
	switch {
	case errors.Is(err, errDraining):
		because = becauseDraining
	case errors.Is(err, errBusy):
		because = becauseBusy
	case a == Unverified:
		because = becauseSignature
	case a == Unsigned:
		because = becauseUnsigned
	case a != Accepted:
		because = becauseAcceptor
	}
	if err != nil {
		s.refused(v.source, err)
	}
	return a, because, false
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

// panicked keeps a panic from closing the connection, which the platform would
// count as a failure. http.ErrAbortHandler is no exception.
func (s *Server) panicked(p any, source string) {
	s.metrics.panics.Inc()
	stack := debug.Stack()
	s.panicLogged.Do(func() {
		s.logger.Error("panic while answering a request", "source", source, "err", fmt.Sprint(p), "stack", string(stack))
	})
}
