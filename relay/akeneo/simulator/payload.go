package simulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Documented bounds of payloads.
const (
	minSecret      = 16 // characters
	maxSecret      = 256
	maxFilter      = 500
	maxHeaders     = 5
	maxHeaderName  = 128
	maxHeaderValue = 256
)

// optional is a member of a payload that may be absent. JSON null is remembered
// as such, and is not the same as absent.
type optional[T any] struct {
	set, null bool
	value     T
}

// UnmarshalJSON is called for null too, and not for an absent member.
func (o *optional[T]) UnmarshalJSON(raw []byte) error {
	o.set, o.null = true, string(raw) == "null"
	return json.Unmarshal(raw, &o.value)
}

// faults collects what is wrong with a payload.
type faults []string

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// refusePayload makes an error of faults, if there are any.
func (s *Simulator) refusePayload(f faults) error {
	if len(f) == 0 {
		return nil
	}
	return &refusal{s.opts.Readings.ValidationStatus, f}
}

// subscriberPayload is the body of a POST or PATCH of a subscriber.
type subscriberPayload struct {
	Name    optional[string]         `json:"name"`
	Contact optional[contactPayload] `json:"contact"`
}

type contactPayload struct {
	Email         optional[string]   `json:"technical_email"`
	Channels      optional[[]string] `json:"notification_channels"`
	WebhookURL    optional[string]   `json:"notification_webhook_url"`
	WebhookSecret optional[string]   `json:"notification_webhook_secret"`
}

// apply overlays the payload on a subscriber and judges the result.
func (p subscriberPayload) apply(to *subscriber) faults {
	if p.Name.set {
		to.name = p.Name.value
	}
	contact, given := &to.contact, p.Contact.value
	if given.Email.set {
		contact.email = given.Email.value
	}
	if given.Channels.set {
		contact.channels = given.Channels.value
	}
	if given.WebhookURL.set {
		contact.webhookURL = given.WebhookURL.value
	}
	if given.WebhookSecret.set {
		contact.webhookSecret = given.WebhookSecret.value
	}
	if len(contact.channels) == 0 {
		contact.channels = nil
	}
	return to.check()
}

func (s *subscriber) check() faults {
	var f faults
	if s.name == "" {
		f.add("name must be a string that is not empty")
	}
	if address, err := mail.ParseAddress(s.contact.email); err != nil || address.Address != s.contact.email {
		f.add("contact.technical_email must be an e-mail address")
	}
	for _, channel := range s.contact.channels {
		if channel != "email" && channel != "webhook" {
			f.add("contact.notification_channels knows email and webhook (got %q)", channel)
		}
	}
	wanted := slices.Contains(s.contact.channels, "webhook")
	if s.contact.webhookURL != "" || wanted {
		if u, err := url.Parse(s.contact.webhookURL); err != nil || u.Scheme != "https" || u.Host == "" {
			f.add("contact.notification_webhook_url must be an https URL")
		}
	}
	if s.contact.webhookSecret != "" || wanted {
		f.checkSecret("contact.notification_webhook_secret", s.contact.webhookSecret)
	}
	return f
}

func (f *faults) checkSecret(field, secret string) {
	if n := utf8.RuneCountInString(secret); n < minSecret || n > maxSecret {
		f.add("%s must have %d to %d characters (got %d)", field, minSecret, maxSecret, n)
	}
}

// subscriptionPayload is the body of a POST or PATCH of a subscription.
type subscriptionPayload struct {
	Source     optional[string]          `json:"source"`
	Subject    optional[string]          `json:"subject"`
	Type       optional[string]          `json:"type"`
	Events     optional[[]string]        `json:"events"`
	Config     optional[configPayload]   `json:"config"`
	Filter     optional[string]          `json:"filter"`
	Identified optional[bool]            `json:"send_product_identifier"`
	Options    optional[json.RawMessage] `json:"options"`
}

type configPayload struct {
	URL     optional[string]            `json:"url"`
	Secret  optional[secretPayload]     `json:"secret"`
	Headers optional[map[string]string] `json:"headers"`
}

type secretPayload struct {
	Primary   optional[string] `json:"primary"`
	Secondary optional[string] `json:"secondary"`
}

// rules is what a subscription's payload is judged by.
type rules struct {
	create      bool                     // source and type are required
	mergeConfig bool                     // overlay config, rather than replace it
	plainHTTP   bool                     // allow http destinations
	isPIM       func(pimURL string) bool // the caller's PIM
}

func (s *Simulator) rules(c *call, create bool) rules {
	return rules{
		create:      create,
		mergeConfig: s.opts.Readings.PatchMerges,
		plainHTTP:   s.opts.InsecureDestinations,
		isPIM:       func(u string) bool { return normalised(u) == normalised(c.pimURL) },
	}
}

// settings overlays the payload on the settings there are and judges the
// result.
func (p subscriptionPayload) settings(set settings, r rules) (settings, faults) {
	var f faults
	if (r.create || p.Source.set) && p.Source.value != "pim" {
		f.add(`source must be "pim" (got %q)`, p.Source.value)
	}
	if (r.create || p.Type.set) && p.Type.value != "https" {
		f.add(`type must be "https", the only destination simulated (got %q)`, p.Type.value)
	}
	if p.Subject.set && !r.isPIM(p.Subject.value) {
		f.add("subject must be the URL in X-PIM-URL (got %q)", p.Subject.value)
	}
	if p.Events.set {
		set.events = p.Events.value
	}
	if p.Filter.set {
		set.filter = &p.Filter.value
		if p.Filter.value == "" {
			set.filter = nil
		}
	}
	if p.Identified.set {
		set.identified = p.Identified.value
	}
	if p.Options.set {
		set.options = p.Options.value
	}
	if p.Config.set {
		p.Config.value.overlay(&set, r.mergeConfig, &f)
	}
	set.check(r, &f)
	return set, f
}

// overlay puts the config of a payload over the one there is, or in its place.
func (p configPayload) overlay(set *settings, merge bool, f *faults) {
	if !merge {
		set.url, set.primary, set.secondary, set.headers = "", "", "", nil
	}
	if p.URL.set {
		set.url = p.URL.value
	}
	secret := p.Secret.value
	if secret.Primary.set {
		set.primary = secret.Primary.value
	}
	if secret.Secondary.null {
		f.add("config.secret.secondary must be a string: leave it out when there is none")
	}
	if secret.Secondary.set {
		set.secondary = secret.Secondary.value
	}
	if p.Headers.set {
		headers := maps.Clone(set.headers)
		if headers == nil {
			headers = map[string]string{}
		}
		maps.Copy(headers, p.Headers.value)
		set.headers = headers
	}
}

func (s *settings) check(r rules, f *faults) {
	if len(s.events) == 0 {
		f.add("events must name at least one event type")
	}
	seen := map[string]bool{}
	for _, name := range s.events {
		if samples.byType[name] == nil {
			f.add("events: %q is not a known event type", name)
		}
		if seen[name] {
			f.add("events: %q stands twice", name)
		}
		seen[name] = true
	}
	if s.filter != nil && utf8.RuneCountInString(*s.filter) > maxFilter {
		f.add("filter must have at most %d characters", maxFilter)
	}
	if len(s.options) > 0 && s.options[0] != '{' {
		f.add("options must be an object")
	}
	f.checkDestination(s.url, r.plainHTTP)
	f.checkSecret("config.secret.primary", s.primary)
	if s.secondary != "" {
		f.checkSecret("config.secret.secondary", s.secondary)
	}
	f.checkHeaders(s.headers)
}

func (f *faults) checkDestination(destination string, plainHTTP bool) {
	u, err := url.Parse(destination)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && !(plainHTTP && u.Scheme == "http"):
		f.add("config.url must be an https URL")
	case u.User != nil || u.Fragment != "":
		f.add("config.url must have neither credentials nor a fragment")
	}
}

// reservedHeaders belong to the platform, as does reservedPrefix.
var reservedHeaders = []string{"Content-Type", "User-Agent", "X-Correlation-Id", "Host", "Authorization", "Cookie"}

const reservedPrefix = "X-Akeneo-Signature-"

func (f *faults) checkHeaders(headers map[string]string) {
	if len(headers) > maxHeaders {
		f.add("config.headers may hold at most %d headers (got %d)", maxHeaders, len(headers))
	}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case name == "" || len(name) > maxHeaderName || strings.ContainsFunc(name, notHeaderName):
			f.add("config.headers: a name has 1 to %d letters, digits and hyphens (got %q)", maxHeaderName, name)
		case slices.Contains(reservedHeaders, canonical) || strings.HasPrefix(canonical, reservedPrefix):
			f.add("config.headers: %q is reserved", name)
		}
		if value := headers[name]; len(value) > maxHeaderValue || strings.ContainsFunc(value, notPrintable) {
			f.add("config.headers: the value of %q must be printable ASCII of at most %d characters", name, maxHeaderValue)
		}
	}
}

func notHeaderName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }
