package sdk

import (
	"context"
	"encoding/json"
)

// Forwarder brings events to one destination.
//
// The relay calls Configure once, before everything else; then Deliver any
// number of times, concurrently up to the lane's max_in_flight; and at the end
// Close once, when no Deliver is running any more. A forwarder that was closed
// is not used again.
type Forwarder interface {
	// Configure reads the forwarder's part of the configuration file, the
	// JSON form of `config`, and checks it. It returns [Faults] that name
	// each field that is wrong. It must not dial: a destination that is
	// away is no error of the configuration.
	Configure(ctx context.Context, config json.RawMessage) error

	// Deliver brings events to the destination and returns one outcome for
	// each, in the order of events. Missing outcomes count as a Retry.
	// It returns when ctx is done, which happens at the lane's timeout:
	// what has not been confirmed by then is a Retry, and the event is
	// delivered again, so a destination may see it twice.
	// A panic counts as a Retry of all the events of the call.
	Deliver(ctx context.Context, events []Event) []Outcome

	// Close releases what the forwarder holds. It makes durable what
	// Deliver reported as delivered, if that is not so already, and returns
	// when ctx is done.
	Close(ctx context.Context) error
}

// BatchLimiter is implemented by a forwarder whose destination takes several
// events in one operation. A forwarder without it gets one event a call.
type BatchLimiter interface {
	// BatchLimits is called after Configure and returns the same value each
	// time.
	BatchLimits() BatchLimits
}

// BatchLimits are the largest batch that a forwarder takes in one call. The
// lane's own batch settings stay within them. Zero means no limit.
type BatchLimits struct {
	Events int
	Bytes  int // sum of the payloads' lengths
}

// HealthChecker is implemented by a forwarder that can tell, without
// delivering anything, whether its destination can be reached. The answer is for
// people, such as those who run `pimrelay check --online`; nothing is decided by
// it.
type HealthChecker interface {
	// Health is called after Configure, also while Deliver runs, and
	// returns when ctx is done. The error says in one line, without
	// secrets, why the destination cannot be reached.
	Health(ctx context.Context) error
}

// Describer is implemented by a forwarder that tells what it is. A forwarder
// without it is known by the name of its program only.
type Describer interface {
	// Describe may be called at any time, before Configure too, and
	// returns the same value each time.
	Describe() Description
}

// Description is what a forwarder says of itself. All of it may be empty.
type Description struct {
	// Name and Version are for people: "google-chat", "1.2.0".
	Name, Version string
	// ConfigSchema is a JSON Schema (draft 2020-12) of the configuration;
	// [ConfigSchema] makes one from a struct. Properties with
	// "writeOnly": true are secrets.
	ConfigSchema json.RawMessage
	// KeepsOrder says that the events of one Deliver reach the destination
	// in their order.
	KeepsOrder bool
}
