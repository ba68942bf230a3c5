package subscription

import (
	"slices"
	"time"

	"github.com/pimrelay/pimrelay/relay/akeneo"
)

// SourceStatus is how the subscriptions of one source stand, as far as is known.
type SourceStatus struct {
	Source       string
	SubscriberID string
	// Ensured is whether subscriber and subscriptions have been found or
	// made as declared.
	Ensured bool
	// Err says why not, or is empty. Since is when Ensured or Err changed.
	Err   string
	Since time.Time
	// Subscriptions are the declared ones, by key.
	Subscriptions []SubscriptionStatus
	// Undeclared are the ids of subscriptions below the source's URL that
	// the configuration does not declare. The relay leaves them alone, and
	// they go on delivering.
	Undeclared []string
}

// SubscriptionStatus is how one declared subscription stands.
type SubscriptionStatus struct {
	Key string
	// ID is empty if the subscription has not been found or made yet.
	ID  string
	URL string
	// Status is what the platform says, in lower case, usually one of
	// akeneo's constants; empty if it is not known.
	Status string
	// Events are the types that the subscription is declared for.
	Events []string
	// Err says what is wrong, or is empty. Since is when Status or Err
	// changed.
	Err   string
	Since time.Time
}

// clone copies what the owner goes on changing.
func (s SourceStatus) clone() SourceStatus {
	s.Subscriptions = slices.Clone(s.Subscriptions)
	s.Undeclared = slices.Clone(s.Undeclared)
	return s
}

// label is the status as a metric's label, from a fixed set.
func (s SubscriptionStatus) label() string {
	switch s.Status {
	case "":
		return "unknown"
	case akeneo.StatusActive, akeneo.StatusSuspended, akeneo.StatusRevoked:
		return s.Status
	}
	return "other"
}
