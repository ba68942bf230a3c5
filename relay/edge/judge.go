package edge

import (
	"net/http"
	"net/netip"
	"time"
)

// reason is why a request was not accepted, as a metric's label.
type reason string

const (
	becauseUnsigned  reason = "signature_missing"
	becauseSignature reason = "signature_wrong"
	becausePath      reason = "unknown_path"
	becauseAddress   reason = "address"
	becauseHeader    reason = "header"
	becauseMethod    reason = "method"
	becauseTooLarge  reason = "too_large"
	becauseNoRoom    reason = "bodies_in_flight"
	becauseBusy      reason = "concurrent_requests"
	becauseBody      reason = "body_broken"
	becauseDraining  reason = "draining"
	becauseAcceptor  reason = "not_stored"
	becausePanic     reason = "panic"
)

// The keys of the door's concerns that belong to no source.
const (
	concernPath    = "listen.unknown_path"
	concernAddress = "listen.allow_from"
	concernHeader  = "listen.require_headers"
)

func concernSignature(source string) string { return "sources." + source + ".signature" }

// judge tells the guard how the platform will count the answer, if it was the
// platform's request: one for a source, with a signature or without. Strangers
// that ask for anything else do not matter.
func (s *Server) judge(r *http.Request, v verdict, took time.Duration) {
	if v.source == "" || r.Method != http.MethodPost || v.reason == becauseAddress {
		return
	}
	now := time.Now()
	switch {
	case took > platformPatience:
		s.guard.failed(v.source, failedLate, now)
	case r.Context().Err() != nil: // only a client that goes away ends it
		s.guard.failed(v.source, failedGone, now)
	case v.answer == Accepted:
		s.guard.succeeded(v.source, s.same(r.Header), hostAddr(r.RemoteAddr), now)
	case v.answer == Unsigned:
		if access := s.access.Load(); access.allows(access.client(r)) {
			s.guard.failed(v.source, failedUnsigned, now)
		}
	case v.answer == tooLarge:
		s.guard.failed(v.source, failedTooLarge, now)
	default:
		s.guard.answered429(v.source, s.same(r.Header), now)
	}
}

// same is what the attempts to deliver one event have in common.
func (s *Server) same(h http.Header) string {
	if s.options.Same == nil {
		return ""
	}
	return s.options.Same(h)
}

// verified notes whether the signatures of a subscription, which has a path of
// its own, can be verified.
func (s *Server) verified(v verdict) {
	what := trouble{concernSignature(v.source), "at " + shorten(v.path)}
	switch v.answer {
	case Accepted:
		s.troubles.over(what)
	case Unverified:
		s.troubles.note(what, "signed deliveries that no secret of ours fits: the secret at the platform and the one here differ", time.Now())
		s.unverifiedLogged.Do(func() {
			s.logger.Warn("signature does not fit any secret", "source", v.source, "path", shorten(v.path))
		})
	}
}

// unknownPath raises the alarm about a signed request for no source: most
// likely a subscription whose URL is wrong, whose events nobody gets.
func (s *Server) unknownPath(path string) {
	s.troubles.note(trouble{concernPath, "at " + shorten(path)}, "signed deliveries on a path of no source: check the subscription's url", time.Now())
	s.unknownLogged.Do(func() {
		s.logger.Warn("signed request on a path of no source, check the subscription's url", "path", shorten(path))
	})
}

// keptOut raises the alarm about a signed request from an address that is not
// allowed: the platform may have moved.
func (s *Server) keptOut(client netip.Addr, v verdict) {
	from := "an unknown address"
	if client.IsValid() {
		from = client.String()
	}
	s.troubles.note(trouble{concernAddress, "from " + from}, "signed deliveries from an address that is not allowed: if the platform has moved, add it to listen.allow_from", time.Now())
	s.keptOutLogged.Do(func() {
		s.logger.Warn("signed request from an address that is not allowed", "source", v.source, "from", from)
	})
}

// headerMissing raises the alarm about a signed request without a header that
// the subscriptions are to send.
func (s *Server) headerMissing(name string, v verdict) {
	s.troubles.note(trouble{concernHeader, "header " + name}, "signed deliveries without a required header, or with another value: compare the subscription's headers with listen.require_headers", time.Now())
	s.headerLogged.Do(func() {
		s.logger.Warn("signed request without a required header", "source", v.source, "header", name)
	})
}
