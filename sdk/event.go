package sdk

import "time"

// Event is one event of the Akeneo Event Platform on its way to a forwarder.
// The relay owns everything an Event refers to: a forwarder reads it, changes
// nothing, and keeps no reference after Deliver has returned.
type Event struct {
	// ID is the CloudEvents id, the same on every delivery attempt, and
	// the key by which the relay drops duplicates within a source.
	ID string
	// Type is the CloudEvents type, for example
	// "com.akeneo.pim.v1.product.updated". Types not known today may appear
	// at any time.
	Type string
	// EventSource is the CloudEvents source attribute. The platform sends
	// "pim" or "akeneo-event-platform"; do not decide anything by it.
	EventSource string
	// Subject is the CloudEvents subject: the platform's subscription id.
	Subject string
	// Time is the CloudEvents time, when the platform published the event,
	// in UTC; zero if the event has none.
	Time time.Time
	// DataContentType and DataSchema are the CloudEvents attributes of
	// these names; empty if the event has none.
	DataContentType string
	DataSchema      string

	// Source is the relay's own name of the source that received the event,
	// a key of `sources` in the configuration file.
	Source string
	// Received is when the relay accepted the event, in UTC.
	Received time.Time
	// Entity names what the event is about, "product:<uuid>" or
	// "category:<code>"; empty for a type the relay does not know.
	Entity string
	// Headers are the HTTP headers of the delivery that mean something
	// behind the relay: the platform's signatures, X-Correlation-ID and
	// Content-Type. Names are in the canonical form of net/http.
	Headers map[string]string

	// Body is the delivery exactly as the platform sent and signed it.
	Body []byte
	// Payload is what to forward: the lane's transformation of the event,
	// or Body where there is none.
	Payload []byte
	// ContentType describes Payload.
	ContentType string
	// Key is the lane's order_by value. Events with the same Key are
	// delivered in order and one at a time; empty means unordered.
	Key string
	// Fields are the lane's `fields`, evaluated for this event.
	Fields map[string]string
	// Attempt counts the calls of Deliver with this event on this lane,
	// beginning with 1. It may repeat after a crash of the relay.
	Attempt int
	// Replayed is true if a person asked for this delivery although the
	// event had been settled before.
	Replayed bool
}

// IdempotencyKey is the value by which a destination can tell that it has
// seen the event before. Every forwarder passes it on in its destination's own
// way: a header, a message id, a record key.
func (e *Event) IdempotencyKey() string { return e.ID }
