// Package edge is the door: the HTTP(S) server that the Event Platform
// delivers to, and the only place that decides which status is answered.
//
// The platform is unforgiving. A single 404 or any 3xx suspends a subscription
// at once, any other failure counts towards a suspension, and a delivery that
// is not answered within 5 s has failed. So a well-formed request is answered
// 200, 401, 405, 413 or 429 and nothing else, whatever its path looks like,
// however full the relay is, and even if the relay panics. Only what is not
// HTTP at all is answered by net/http itself (400, 417, 431, 501, 505).
//
// The package finds the source that a URL belongs to, decides who may deliver,
// bounds what a stranger can make the relay hold, reads the body, and asks an
// [Acceptor] for the answer. It counts as the platform counts, and tells of what
// will lead to a suspension before it does ([Server.Concerns]). It does not know
// what a signature is, what an event is, or where events are kept: that is the
// Acceptor's business; nor where a certificate comes from: see package
// certificates. It imports no other package of this module.
package edge
