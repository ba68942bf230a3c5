package admin

import "time"

// DeadLetter is an event that a forwarder will not get any more, unless a person
// asks for it.
type DeadLetter struct {
	Number int64 `json:"number"`
	// Forwarder is empty for a delivery that could not be read: it belongs
	// to its source.
	Forwarder string    `json:"forwarder,omitempty"`
	Source    string    `json:"source"`
	ID        string    `json:"id,omitempty"`
	Type      string    `json:"type,omitempty"`
	Reason    string    `json:"reason"`
	Answer    string    `json:"answer,omitempty"`
	Attempts  int       `json:"attempts"`
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
}

// DeadLetterDetail is a dead letter with its event.
type DeadLetterDetail struct {
	DeadLetter
	Received time.Time `json:"received,omitzero"`
	Entity   string    `json:"entity,omitempty"`
	// Body is the delivery as the platform sent it.
	Body string `json:"body"`
}

// DeadLetterQuery chooses dead letters: those that fit everything that is set.
type DeadLetterQuery struct {
	Forwarder string `json:"forwarder,omitempty"`
	Source    string `json:"source,omitempty"`
	Type      string `json:"type,omitempty"`
	// Unreadable is true for deliveries that could not be read.
	Unreadable bool `json:"unreadable,omitempty"`
	// Reason is a part of the reason.
	Reason string `json:"reason,omitempty"`
	// Since and Until bound the time of the last attempt.
	Since   time.Time `json:"since,omitzero"`
	Until   time.Time `json:"until,omitzero"`
	Numbers []int64   `json:"numbers,omitempty"`
	// After and Limit are for listing: the dead letters behind this one, the
	// newest first, and how many at the most.
	After int64 `json:"after,omitempty"`
	Limit int   `json:"limit,omitempty"`
}

// ReplayQuery chooses stored events for a forwarder: those that fit everything
// that is set.
type ReplayQuery struct {
	Forwarder string `json:"forwarder"`
	// From and To bound the time at which the events were received.
	From   time.Time `json:"from,omitzero"`
	To     time.Time `json:"to,omitzero"`
	Types  []string  `json:"types,omitempty"`
	Entity string    `json:"entity,omitempty"`
	IDs    []string  `json:"ids,omitempty"`
}

// Count is how many things something was done to.
type Count struct {
	Count int `json:"count"`
}

// ForwarderPaused is the answer to pausing or resuming a forwarder.
type ForwarderPaused struct {
	Forwarder string `json:"forwarder"`
	Paused    bool   `json:"paused"`
}
