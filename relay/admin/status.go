package admin

import "time"

// Status is the daemon at one moment, as `pimrelay status` shows it and
// GET /status answers it.
type Status struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	PID     int       `json:"pid"`
	// Ready says whether the door can answer; Reason why it cannot.
	Ready   bool    `json:"ready"`
	Reason  string  `json:"reason,omitempty"`
	Door    Door    `json:"door"`
	Journal Journal `json:"journal"`
	// Telemetry is the address of probes and metrics; empty if off.
	Telemetry  string      `json:"telemetry,omitempty"`
	Sources    []Source    `json:"sources"`
	Forwarders []Forwarder `json:"forwarders"`
	Warnings   []Warning   `json:"warnings"`
}

// Door is where deliveries come in.
type Door struct {
	Address   string `json:"address"`
	PublicURL string `json:"public_url,omitempty"`
	TLS       string `json:"tls"`
	// Certificates are those that the door presents; none behind a proxy.
	Certificates []Certificate `json:"certificates,omitempty"`
}

// Certificate is one that the door presents for a host; NotAfter, its end, is
// zero if there is none yet.
type Certificate struct {
	Host     string    `json:"host"`
	NotAfter time.Time `json:"not_after,omitzero"`
}

// Journal is the durable log.
type Journal struct {
	// Head is the number of the event stored last.
	Head int64 `json:"head"`
	// Duplicates counts what was delivered again and dropped since the
	// daemon started.
	Duplicates int64 `json:"duplicates"`
	DiskBytes  int64 `json:"disk_bytes"`
}

// Source is where events come from.
type Source struct {
	Name string `json:"name"`
	Path string `json:"path"`
	// Manual is true if the operator subscribed by hand.
	Manual        bool           `json:"manual"`
	Subscriber    string         `json:"subscriber,omitempty"`
	Subscriptions []Subscription `json:"subscriptions"`
	LastError     string         `json:"last_error,omitempty"`
}

// Subscription is a subscription as the platform reported it last.
type Subscription struct {
	Key       string   `json:"key"`
	ID        string   `json:"id,omitempty"`
	URL       string   `json:"url"`
	Status    string   `json:"status"`
	Events    []string `json:"events"`
	LastError string   `json:"last_error,omitempty"`
}

// Forwarder is where events go.
type Forwarder struct {
	Name   string `json:"name"`
	Plugin string `json:"plugin"`
	// Backlog counts the events not settled yet, Retrying those of them
	// whose last attempt failed, DeadLetters what was given up.
	Backlog     int64 `json:"backlog"`
	Retrying    int64 `json:"retrying"`
	DeadLetters int64 `json:"dead_letters"`
	// Parked counts those that wait behind an earlier one with the same
	// key, InFlight the deliveries that run.
	Parked   int64 `json:"parked"`
	InFlight int   `json:"in_flight"`
	// Breaker is "closed", "open" or "half-open"; BreakerReason is what
	// opened it, NextProbe when the destination is tried next.
	Breaker       string    `json:"breaker"`
	BreakerReason string    `json:"breaker_reason,omitempty"`
	NextProbe     time.Time `json:"next_probe,omitzero"`
	Paused        bool      `json:"paused"`
	// Delivered counts since the daemon started.
	Delivered     int64     `json:"delivered"`
	LastDelivered time.Time `json:"last_delivered,omitzero"`
	// Failing is true if the last delivery failed.
	Failing     bool      `json:"failing"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	// Process is the forwarder's own process; nil if it has none.
	Process *Process `json:"process,omitempty"`
}

// Process is a process, or a service, in which a forwarder runs.
type Process struct {
	// Up says that it takes deliveries, Since when that is as it is, Reason
	// why it does not, or has failed last.
	Up     bool      `json:"up"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
	// Failures counts those in a row; NextStart is when it is started again.
	Failures  int       `json:"failures"`
	NextStart time.Time `json:"next_start,omitzero"`
	PID       int       `json:"pid,omitempty"`
	// Name and Version are what it says of itself.
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
}

// Warning is something that a person should look at.
type Warning struct {
	Key     string    `json:"key"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// Reloaded is the answer to POST /reload.
type Reloaded struct {
	// Changes are the sources and forwarders that were changed; none if the
	// file says what it said before.
	Changes []string `json:"changes"`
}

// failure is the answer to what could not be done.
type failure struct {
	Error string `json:"error"`
}
