package sdk

import "time"

// Result says what became of one event in one call of Deliver.
type Result uint8

// The results. The zero value is no result: the lane treats it as a Retry, so
// that nothing counts as delivered by omission.
const (
	_ Result = iota
	// ResultDelivered: the destination has confirmed the event.
	ResultDelivered
	// ResultRetry: the attempt failed in a way that may pass: transport,
	// time-out, a destination's own fault. Counts against the lane's breaker.
	ResultRetry
	// ResultThrottled: the destination asks for less. Slows the lane,
	// spends no attempt, and does not count against the breaker.
	ResultThrottled
	// ResultRejected: this event will never be accepted. It becomes a dead
	// letter and does not count against the breaker.
	ResultRejected
)

// String is the result's name in metrics, logs and the admin API.
func (r Result) String() string {
	switch r {
	case ResultDelivered:
		return "delivered"
	case ResultRetry:
		return "retry"
	case ResultThrottled:
		return "throttled"
	case ResultRejected:
		return "rejected"
	}
	return "unknown"
}

// Outcome is a Result and what a person or the lane needs to know about it.
type Outcome struct {
	Result Result
	// After is the least time to wait before the next attempt, as the
	// destination asked for it (Retry-After); zero leaves it to the lane.
	// It has a meaning for Retry and Throttled only.
	After time.Duration
	// Reason says in one line, without secrets, why the event was not
	// delivered.
	Reason string
	// Answer is what the destination answered, as far as it helps a person;
	// the relay keeps at most 2 KiB of it.
	Answer string
}

// Delivered reports that the destination has confirmed the event.
func Delivered() Outcome { return Outcome{Result: ResultDelivered} }

// Retry reports a failure that may pass. after is the least time to wait, or
// zero.
func Retry(after time.Duration, cause error) Outcome {
	return Outcome{Result: ResultRetry, After: after, Reason: cause.Error()}
}

// Throttled reports that the destination asks for less. after is the least
// time to wait, or zero.
func Throttled(after time.Duration, reason string) Outcome {
	return Outcome{Result: ResultThrottled, After: after, Reason: reason}
}

// Rejected reports that the destination will never accept the event.
func Rejected(reason string) Outcome { return Outcome{Result: ResultRejected, Reason: reason} }

// Each returns n times the same outcome, for a destination that answers for a
// whole batch at once.
func Each(n int, o Outcome) []Outcome {
	all := make([]Outcome, n)
	for i := range all {
		all[i] = o
	}
	return all
}
