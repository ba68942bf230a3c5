package akeneo

import (
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// Why a delivery is not taken for an event of the platform.
var (
	// ErrUnsigned: the request has no signature header at all. The
	// platform did not send it.
	ErrUnsigned = errors.New("the request carries no signature")
	// ErrSignature: there are signature headers, and no secret fits. Either
	// the platform uses a secret that the relay does not know, or somebody
	// in between changed the body.
	ErrSignature = errors.New("the signature fits none of the source's secrets")
)

// UnreadableError reports that a delivery is signed as it should be and is no
// CloudEvent that the relay can read.
type UnreadableError struct {
	// Err says why. It quotes nothing of the body.
	Err error
}

// Error is the reason with what was expected.
func (e *UnreadableError) Error() string { return "the body is no CloudEvent: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *UnreadableError) Unwrap() error { return e.Err }

// keptHeaders are the headers of a delivery that mean something behind the
// relay, in canonical form, with the most bytes that are kept of a value.
// A longer value is left out: half a signature or half a trace context would be
// worse than none.
var keptHeaders = []struct {
	name  string
	limit int
}{
	{headerPrimary, 256},
	{headerSecondary, 256},
	{headerAlgorithm, 64},
	{"X-Correlation-Id", 256},
	{"Content-Type", 256},
	{"Traceparent", 128},
	{"Tracestate", 512},
}

// Receiver takes deliveries for one source. It is safe for concurrent use.
type Receiver struct {
	source string
	keys   atomic.Pointer[[]*signingKey]
}

// NewReceiver returns a receiver for the source of that name, which is a key of
// `sources` in the configuration file, with the secrets that may be in use.
func NewReceiver(source string, secrets []sdk.Secret) *Receiver {
	r := &Receiver{source: source}
	r.SetSecrets(secrets)
	return r
}

// SetSecrets replaces the secrets: all that the platform may still be signing
// with, the likeliest first. Empty ones are left out; with none at all, no
// delivery verifies. A Receive that is running uses either the old ones or the
// new ones.
func (r *Receiver) SetSecrets(secrets []sdk.Secret) {
	keys := signingKeys(secrets)
	r.keys.Store(&keys)
}

// Receive verifies a delivery and reads it. body is the request's body, byte
// for byte; h are its headers with names in the canonical form of net/http; now
// becomes the event's time of receipt.
//
// The error is ErrUnsigned, ErrSignature or an *UnreadableError. With the last,
// the event has Source, Received, Headers, Body, Payload and as ContentType what
// the delivery claims, so that it can be kept, but no id and no type; with the
// others it is empty. Body and Payload alias body, nothing else does.
func (r *Receiver) Receive(h http.Header, body []byte, now time.Time) (sdk.Event, error) {
	if !Signed(h) {
		return sdk.Event{}, ErrUnsigned
	}
	if !verified(h, body, *r.keys.Load()) {
		return sdk.Event{}, ErrSignature
	}
	event, err := Decode(body)
	event.Source = r.source
	event.Received = now.UTC()
	event.Headers = kept(h)
	if err != nil {
		event.Body, event.Payload, event.ContentType = body, body, event.Headers["Content-Type"]
		return event, &UnreadableError{Err: err}
	}
	return event, nil
}

// kept copies the headers that mean something behind the relay.
func kept(h http.Header) map[string]string {
	headers := make(map[string]string, len(keptHeaders))
	for _, header := range keptHeaders {
		if values := h[header.name]; len(values) > 0 && values[0] != "" && len(values[0]) <= header.limit {
			headers[header.name] = values[0]
		}
	}
	return headers
}
