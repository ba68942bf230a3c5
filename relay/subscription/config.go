package subscription

import (
	"fmt"
	"maps"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pimrelay/pimrelay/relay/akeneo"
	"github.com/pimrelay/pimrelay/sdk"
)

// The platform's limits, in characters.
const (
	minSecret = 16
	maxSecret = 256
	maxFilter = 500
	maxName   = 255 // ours; the platform documents none
)

// reservedKey is the last part of the URL that the platform's notifications
// about subscriptions go to.
const reservedKey = "notifications"

// Subscriber is the `subscriber` section of a source.
type Subscriber struct {
	// Name is how the relay finds its subscriber again.
	Name string `koanf:"name"`
	// TechnicalEmail gets the platform's mails about suspensions.
	TechnicalEmail string `koanf:"technical_email"`
}

// Validate checks the section. Fields are relative to it.
func (s Subscriber) Validate() sdk.Faults {
	var faults sdk.Faults
	switch {
	case s.Name == "":
		faults.Add("name", "must be set")
	case utf8.RuneCountInString(s.Name) > maxName || strings.ContainsFunc(s.Name, unicode.IsControl):
		faults.Add("name", fmt.Sprintf("must have at most %d characters and none of them a control character", maxName))
	}
	address, err := mail.ParseAddress(s.TechnicalEmail)
	if err != nil || address.Address != s.TechnicalEmail {
		faults.Add("technical_email", "must be an e-mail address such as ops@example.com: the platform writes to it when it suspends a subscription")
	}
	return faults
}

// Subscription is one subscription in the `subscriptions` section of a source.
type Subscription struct {
	// Events are event types and patterns, as akeneo.Expand has them.
	Events []string `koanf:"events"`
	// Filter is a filter expression of the platform; empty for none.
	Filter string `koanf:"filter"`
	// SendProductIdentifier adds the product's identifier to its events.
	SendProductIdentifier bool `koanf:"send_product_identifier"`
}

// Validate checks the subscription. Fields are relative to it.
func (s Subscription) Validate() sdk.Faults {
	var faults sdk.Faults
	if _, err := akeneo.Expand(s.Events); err != nil {
		faults.Add("events", err.Error())
	}
	if n := utf8.RuneCountInString(s.Filter); n > maxFilter {
		faults.Add("filter", fmt.Sprintf("must have at most %d characters (has %d)", maxFilter, n))
	}
	if strings.ContainsFunc(s.Filter, unicode.IsControl) {
		faults.Add("filter", "must be one line")
	}
	return faults
}

// Subscriptions is the `subscriptions` section of a source. A subscription's key
// is the last part of its URL.
type Subscriptions map[string]Subscription

// keySyntax is what a key may be.
var keySyntax = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// Validate checks the section. Fields are relative to it.
func (s Subscriptions) Validate() sdk.Faults {
	var faults sdk.Faults
	if len(s) == 0 {
		faults.Add("", "must declare at least one subscription")
	}
	if len(s) > akeneo.MaxSubscriptions {
		faults.Add("", fmt.Sprintf("must declare at most %d subscriptions, which is the platform's limit (got %d)",
			akeneo.MaxSubscriptions, len(s)))
	}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		switch {
		case key == reservedKey:
			faults.Add(key, "must have another key: this one is reserved for the platform's notifications")
		case !keySyntax.MatchString(key):
			faults.Add(key, "must have a key of at most 63 lower-case letters, digits, hyphens and underscores that begins with a letter")
		}
		faults = append(faults, s[key].Validate().Within(key)...)
	}
	return faults
}

// Secrets is the `secrets` section of a source: the keys under which the
// platform signs. Without a primary secret, one is generated.
type Secrets struct {
	Primary sdk.Secret `koanf:"primary"`
	// Secondary is a second key, for a rotation; the platform then signs
	// with both.
	Secondary sdk.Secret `koanf:"secondary"`
}

// Validate checks the section. Fields are relative to it.
func (s Secrets) Validate() sdk.Faults {
	var faults sdk.Faults
	for _, field := range []struct {
		name  string
		value string
	}{{"primary", string(s.Primary)}, {"secondary", string(s.Secondary)}} {
		n := utf8.RuneCountInString(field.value)
		switch {
		case field.value == "":
		case n < minSecret || n > maxSecret:
			faults.Add(field.name, fmt.Sprintf("must have %d to %d characters (has %d)", minSecret, maxSecret, n))
		case !utf8.ValidString(field.value) || strings.ContainsFunc(field.value, unicode.IsControl):
			faults.Add(field.name, "must be UTF-8 without line breaks and other control characters")
		}
	}
	if s.Secondary != "" && s.Primary == "" {
		faults.Add("secondary", "must not be set without primary")
	}
	if s.Secondary != "" && s.Secondary == s.Primary {
		faults.Add("secondary", "must differ from primary")
	}
	return faults
}
