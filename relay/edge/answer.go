package edge

import "net/http"

// Answer is what the platform is told about a delivery. The set is closed: a
// status that would suspend a subscription at once (404, any 3xx) has no
// Answer, so no Acceptor can cause it. The zero value, and any value that is
// not listed here, is Unavailable: nothing is promised by omission.
type Answer uint8

const (
	// Unavailable is 429: nothing is promised. The platform slows down and
	// delivers the event again; if it was stored after all, that delivery is
	// a duplicate. A 429 does not count against the subscription until the
	// event has been undelivered for more than an hour.
	Unavailable Answer = iota
	// Accepted is 200: the event is durable, or needs not be.
	Accepted
	// Unsigned is 401: the request does not come from the platform. It
	// counts against the subscription if it does, so it is only for
	// requests without any signature.
	Unsigned
	// Unverified is 429, too: the request carries signature headers, and they
	// fit nothing that the Acceptor knows. Either somebody else made them up,
	// or the platform uses another secret, which is an alarm.
	Unverified

	// The answers below are the door's own.

	wrongMethod // 405
	tooLarge    // 413
)

// status is the HTTP status of the answer.
func (a Answer) status() int {
	switch a {
	case Accepted:
		return http.StatusOK
	case Unsigned:
		return http.StatusUnauthorized
	case wrongMethod:
		return http.StatusMethodNotAllowed
	case tooLarge:
		return http.StatusRequestEntityTooLarge
	default:
		return http.StatusTooManyRequests
	}
}

// code is the status as a metric's label.
func (a Answer) code() string {
	switch a {
	case Accepted:
		return "200"
	case Unsigned:
		return "401"
	case wrongMethod:
		return "405"
	case tooLarge:
		return "413"
	default:
		return "429"
	}
}
