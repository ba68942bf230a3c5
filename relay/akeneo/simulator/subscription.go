package simulator

import (
	"encoding/json"
	"slices"
	"time"
)

// Statuses of subscribers and subscriptions.
const (
	statusActive    = "active"
	statusSuspended = "suspended"
	statusDeleted   = "deleted"
)

// Limits of the platform.
const (
	maxSubscribers   = 20 // per PIM
	maxSubscriptions = 20 // per subscriber
)

// redacted stands for every secret and header value in an answer.
const redacted = "***redacted***"

// subscriber is one of the PIM's subscribers.
type subscriber struct {
	id               string
	subject          string // the PIM's URL as the client wrote it
	status           string
	name             string
	contact          contact
	created, updated time.Time
}

// contact is where news about subscriptions go.
type contact struct {
	email         string
	channels      []string // nil is the default, email
	webhookURL    string
	webhookSecret string
}

// subscription is a subscription and the state of its delivery.
type subscription struct {
	id               string
	subscriber       *subscriber
	status           string
	reason           string // why it is suspended
	created, updated time.Time
	declared         *settings
	effects          []effect // settings that are or will be in effect, oldest first
	outbox           outbox
}

// settings are what a client declares. They are immutable: a PATCH makes new
// ones.
type settings struct {
	events             []string
	url                string
	primary, secondary string // secondary may be empty
	headers            map[string]string
	filter             *string // nil when unset
	identified         bool    // send_product_identifier
	options            json.RawMessage
}

// effect puts settings into effect at a moment of platform time.
type effect struct {
	from time.Time
	settings
}

func (s *settings) wants(eventType string) bool { return slices.Contains(s.events, eventType) }

// declare sets what the client wants, to take effect later.
func (s *subscription) declare(set settings, now time.Time, delay time.Duration) {
	s.declared = &set
	s.updated = now
	s.effects = append(s.effects, effect{now.Add(delay), set})
}

// settingsAt gives the settings in effect, or nil when there are none yet.
func (s *subscription) settingsAt(now time.Time) *settings {
	for len(s.effects) > 1 && !s.effects[1].from.After(now) {
		s.effects = s.effects[1:]
	}
	if len(s.effects) == 0 || s.effects[0].from.After(now) {
		return nil
	}
	return &s.effects[0].settings
}

// subscriberView is a subscriber as the API shows it; the secret is left out.
type subscriberView struct {
	ID      string      `json:"id"`
	Name    string      `json:"name"`
	Subject string      `json:"subject"`
	Status  string      `json:"status"`
	Contact contactView `json:"contact"`
	Created string      `json:"created_at"`
	Updated string      `json:"updated_at"`
}

type contactView struct {
	Email      string   `json:"technical_email"`
	Channels   []string `json:"notification_channels,omitempty"`
	WebhookURL string   `json:"notification_webhook_url,omitempty"`
}

func (s *subscriber) view() subscriberView {
	return subscriberView{
		ID: s.id, Name: s.name, Subject: s.subject, Status: s.status,
		Contact: contactView{Email: s.contact.email, Channels: s.contact.channels, WebhookURL: s.contact.webhookURL},
		Created: stamp(s.created), Updated: stamp(s.updated),
	}
}

// subscriptionView is a subscription as the API shows it, without its secrets.
type subscriptionView struct {
	ID           string          `json:"id"`
	Config       configView      `json:"config"`
	Events       []string        `json:"events"`
	Type         string          `json:"type"`
	Source       string          `json:"source"`
	Subject      string          `json:"subject"`
	Status       string          `json:"status"`
	SubscriberID string          `json:"subscriber_id"`
	Filter       *string         `json:"filter,omitempty"`
	Identified   bool            `json:"send_product_identifier"`
	Options      json.RawMessage `json:"options,omitempty"`
	Created      string          `json:"created_at"`
	Updated      string          `json:"updated_at"`
}

type configView struct {
	URL     string            `json:"url"`
	Secret  secretView        `json:"secret"`
	Headers map[string]string `json:"headers,omitempty"`
}

type secretView struct {
	Primary   string `json:"primary"`
	Secondary string `json:"secondary,omitempty"`
}

func (s *subscription) view() subscriptionView {
	set := s.declared
	config := configView{URL: set.url, Secret: secretView{Primary: redacted}}
	if set.secondary != "" {
		config.Secret.Secondary = redacted
	}
	if len(set.headers) > 0 {
		config.Headers = make(map[string]string, len(set.headers))
		for name := range set.headers {
			config.Headers[name] = redacted
		}
	}
	return subscriptionView{
		ID: s.id, Config: config, Events: set.events, Type: "https", Source: "pim",
		Subject: s.subscriber.subject, Status: s.status, SubscriberID: s.subscriber.id,
		Filter: set.filter, Identified: set.identified, Options: set.options,
		Created: stamp(s.created), Updated: stamp(s.updated),
	}
}
