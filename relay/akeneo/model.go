package akeneo

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// The states of subscribers and subscriptions that are documented. Others may
// appear.
const (
	StatusActive    = "active"
	StatusSuspended = "suspended"
	StatusRevoked   = "revoked"
	StatusDeleted   = "deleted"
)

// The platform's limits for one PIM and for one subscriber.
const (
	MaxSubscribers   = 20
	MaxSubscriptions = 20
)

// TypeHTTPS is the type of a subscription whose events are posted to a URL.
const TypeHTTPS = "https"

// Subscriber is a subscriber as the platform reports it.
type Subscriber struct {
	ID string
	// Name is what the owner called it; the platform does not promise that
	// it is unique.
	Name string
	// Subject is the PIM's URL, with or without a slash at its end; it may
	// be missing.
	Subject string
	// Status is in lower case.
	Status string
	// TechnicalEmail gets the platform's status mails.
	TechnicalEmail string
	// CreatedAt is zero if the platform does not say it.
	CreatedAt time.Time
}

// SubscriberSpec is what a subscriber is to be. An empty field in an update
// leaves it as it is.
type SubscriberSpec struct {
	Name           string
	TechnicalEmail string
}

// Subscription is a subscription as the platform reports it. Secrets are no
// part of it: the platform answers with a placeholder in their place.
type Subscription struct {
	ID           string
	SubscriberID string
	// Type is TypeHTTPS or that of another destination, in lower case.
	Type string
	// Status is in lower case. The synonyms "enabled" and "disabled", which
	// the platform has used too, become StatusActive and StatusSuspended.
	Status string
	// URL is where the events are posted; empty for other destinations.
	URL                   string
	Events                []string
	Filter                string
	SendProductIdentifier bool
	// CreatedAt is zero if the platform does not say it.
	CreatedAt time.Time
}

// Destination is where and how signed events are posted.
type Destination struct {
	URL string
	// Primary is required. Secondary is empty if there is none.
	Primary, Secondary sdk.Secret
}

// SubscriptionSpec is what a new subscription is to be.
type SubscriptionSpec struct {
	Destination           Destination
	Events                []string // exact names
	Filter                string   // empty for none
	SendProductIdentifier bool
}

// SubscriptionChange is what to change of a subscription. What is nil stays as
// it is. How the platform merges a destination into the one that it has is not
// known, so it is always given whole.
type SubscriptionChange struct {
	Destination           *Destination
	Events                []string
	Filter                *string
	SendProductIdentifier *bool
}

// stamp is a time that is read tolerantly: what is no RFC 3339 is zero.
type stamp struct{ time.Time }

// UnmarshalJSON never fails.
func (s *stamp) UnmarshalJSON(text []byte) error {
	t, err := time.Parse(time.RFC3339, strings.Trim(string(text), `"`))
	if err == nil {
		s.Time = t.UTC()
	}
	return nil
}

// stamps are the spellings of the time of creation: sources differ.
type stamps struct {
	Snake stamp `json:"created_at"`
	Camel stamp `json:"createdAt"`
}

func (s stamps) created() time.Time {
	if s.Snake.IsZero() {
		return s.Camel.Time
	}
	return s.Snake.Time
}

// UnmarshalJSON reads what the platform answers, tolerantly.
func (s *Subscriber) UnmarshalJSON(text []byte) error {
	var wire struct {
		ID      string          `json:"id"`
		Name    string          `json:"name"`
		Subject string          `json:"subject"`
		Status  string          `json:"status"`
		Contact json.RawMessage `json:"contact"`
		stamps
	}
	if err := json.Unmarshal(text, &wire); err != nil {
		return err
	}
	var contact struct {
		TechnicalEmail string `json:"technical_email"`
	}
	readIfPossible(wire.Contact, &contact)
	*s = Subscriber{
		ID: wire.ID, Name: wire.Name, Subject: wire.Subject, Status: status(wire.Status),
		TechnicalEmail: contact.TechnicalEmail, CreatedAt: wire.created(),
	}
	return nil
}

// UnmarshalJSON reads what the platform answers, tolerantly.
func (s *Subscription) UnmarshalJSON(text []byte) error {
	var wire struct {
		ID                    string          `json:"id"`
		SubscriberID          string          `json:"subscriber_id"`
		Type                  string          `json:"type"`
		Status                string          `json:"status"`
		Config                json.RawMessage `json:"config"`
		Events                []string        `json:"events"`
		Filter                string          `json:"filter"`
		SendProductIdentifier bool            `json:"send_product_identifier"`
		stamps
	}
	if err := json.Unmarshal(text, &wire); err != nil {
		return err
	}
	var config struct {
		URL string `json:"url"`
	}
	readIfPossible(wire.Config, &config)
	*s = Subscription{
		ID: wire.ID, SubscriberID: wire.SubscriberID, Type: strings.ToLower(wire.Type), Status: status(wire.Status),
		URL: config.URL, Events: wire.Events, Filter: wire.Filter,
		SendProductIdentifier: wire.SendProductIdentifier, CreatedAt: wire.created(),
	}
	return nil
}

// readIfPossible reads a part whose shape depends on things that are not known
// in advance, such as the type of a destination, and leaves into as it is where
// it does not fit.
func readIfPossible[T any](text json.RawMessage, into *T) {
	var part T
	if len(text) > 0 && json.Unmarshal(text, &part) == nil {
		*into = part
	}
}

func status(text string) string {
	switch text = strings.ToLower(text); text {
	case "enabled":
		return StatusActive
	case "disabled":
		return StatusSuspended
	}
	return text
}

// wireSubscriber is the body of a create or an update.
type wireSubscriber struct {
	Name    string       `json:"name,omitempty"`
	Contact *wireContact `json:"contact,omitempty"`
}

type wireContact struct {
	TechnicalEmail string `json:"technical_email"`
}

func (s SubscriberSpec) wire() wireSubscriber {
	wire := wireSubscriber{Name: s.Name}
	if s.TechnicalEmail != "" {
		wire.Contact = &wireContact{TechnicalEmail: s.TechnicalEmail}
	}
	return wire
}

// wireSubscription is the body of a create or an update.
type wireSubscription struct {
	Source                string           `json:"source,omitempty"`
	Subject               string           `json:"subject,omitempty"`
	Type                  string           `json:"type,omitempty"`
	Events                []string         `json:"events,omitempty"`
	Config                *wireDestination `json:"config,omitempty"`
	Filter                *string          `json:"filter,omitempty"`
	SendProductIdentifier *bool            `json:"send_product_identifier,omitempty"`
}

// wireDestination has the secrets as plain strings: an sdk.Secret encodes as a
// placeholder, which must never reach the platform. An unset secondary secret
// is left out, since a null is not accepted.
type wireDestination struct {
	URL    string `json:"url"`
	Secret struct {
		Primary   string `json:"primary"`
		Secondary string `json:"secondary,omitempty"`
	} `json:"secret"`
}

func (d Destination) wire() *wireDestination {
	wire := &wireDestination{URL: d.URL}
	wire.Secret.Primary, wire.Secret.Secondary = string(d.Primary), string(d.Secondary)
	return wire
}

func (c SubscriptionChange) wire() wireSubscription {
	wire := wireSubscription{Events: c.Events, Filter: c.Filter, SendProductIdentifier: c.SendProductIdentifier}
	if c.Destination != nil {
		wire.Config = c.Destination.wire()
	}
	return wire
}
