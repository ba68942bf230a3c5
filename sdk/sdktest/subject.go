package sdktest

import (
	"context"
	"encoding/json"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/wire"
)

// Maker makes a fresh forwarder, which the suite then configures. A forwarder
// that holds something which Close alone does not give back, because it holds
// it before Configure or after one that failed, has a method Discard, which the
// suite calls at the end of the case, after Close.
type Maker func(context.Context) (sdk.Forwarder, error)

// Subject is what the suite tests.
type Subject struct {
	// New makes a forwarder; each case makes its own.
	New Maker
	// Config is a configuration with which the forwarder delivers to
	// Destination or, if there is none, to a destination that takes events.
	Config json.RawMessage
	// Faulty are configurations that must be refused, beside those which the
	// suite makes of Config and of the forwarder's JSON Schema.
	Faulty []Faulty
	// Destination is where the events of Config go; nil if the suite cannot
	// look there. Cases that need it are then left out.
	Destination Destination
	// Timeout bounds each case; 0 stands for DefaultTimeout.
	Timeout time.Duration
}

// DefaultTimeout is how long a case may take.
const DefaultTimeout = 30 * time.Second

// Faulty is a configuration that a forwarder must refuse.
type Faulty struct {
	// Name says what is wrong with it.
	Name   string
	Config json.RawMessage
	// Field must be named by one of the faults: "signing.scheme".
	Field string
	// Secrets are texts that no fault may show.
	Secrets []string
}

// Remote is a forwarder at the other end of a connection. An error of its
// Configure that is no sdk.Faults is one of the connection. Its Close may be
// called while Deliver runs, and lets that come to its end.
type Remote interface {
	sdk.Forwarder
	// Description is what it has said of itself after Configure.
	Description() wire.Description
}

// Destination is where the events go. The suite calls Behave only while nothing
// is being delivered, or to end a Hang, and Arrived at any time, also several times
// at once.
type Destination interface {
	// Behave makes the destination behave like that from now on. The error
	// wraps errors.ErrUnsupported if it cannot: the case is left out then.
	Behave(b Behaviour) error
	// Arrived are the events that the destination has taken, in its order. An
	// event that was delivered twice stands there twice.
	Arrived() ([]Arrival, error)
}

// Arrival is one event at the destination.
type Arrival struct {
	// Key is the idempotency key as the destination sees it; empty if it sees
	// none.
	Key string
	// Payload is what has arrived. It tells an event without Key.
	Payload []byte
}

// Behaviour is how a destination treats what comes.
type Behaviour int

// The behaviours.
const (
	// Accept takes every event and confirms it.
	Accept Behaviour = iota
	// Reject refuses every event, for good: HTTP's 422.
	Reject
	// RejectMarked refuses the events whose keys are [Marked], takes others.
	RejectMarked
	// Throttle takes nothing and asks to come back after [ThrottleWait].
	Throttle
	// Fail takes nothing and reports a fault of its own: HTTP's 503.
	Fail
	// Hang takes nothing and does not answer until the behaviour changes.
	Hang
	// ResetBefore breaks the connection before it takes the event,
	// ResetAfter when it has taken it.
	ResetBefore
	ResetAfter
	// Slow takes the event at once and confirms it after [SlowAnswer].
	Slow
	// Gone is not there: connections are refused.
	Gone
	// Lossy accepts, fails, and breaks connections before and after taking the
	// event, by turns.
	Lossy
)

// String is the behaviour as a verb.
func (b Behaviour) String() string {
	return [...]string{"accept events", "reject events", "reject single events", "throttle", "fail", "hang", "break connections",
		"break connections after it has taken an event", "be slow", "go away", "be lossy"}[b]
}

const (
	// ThrottleWait is the wait that a destination asks for that throttles.
	ThrottleWait = 2 * time.Second
	// SlowAnswer is how long a slow destination takes to answer.
	SlowAnswer = 300 * time.Millisecond
)
