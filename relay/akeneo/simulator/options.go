package simulator

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultActivationDelay is how long the platform takes, in platform time, to
// put a created or changed subscription into effect: "several minutes".
const DefaultActivationDelay = 3 * time.Minute

// maxSpeed keeps platform time within what a time.Duration holds for a day.
const maxSpeed = 100_000

// Connection is the PIM's one connection: what a client needs for a token.
type Connection struct {
	ClientID, ClientSecret, Username, Password string
}

// Options says how a Simulator behaves. The zero value is a platform in real
// time with the demo connection, adaptive pace and no activation delay.
type Options struct {
	// Connection defaults, field by field, to demo-client, demo-secret,
	// demo-user and demo-password.
	Connection Connection
	// PIMURL is the URL clients must name in X-PIM-URL. Empty accepts the
	// address at which the request itself arrived.
	PIMURL string
	// Speed is how many seconds of platform time pass in one second, at most
	// 100,000; 0 is 1.
	Speed float64
	// ActivationDelay is the platform time between the creation or change of
	// a subscription and its effect; 0 is at once.
	ActivationDelay time.Duration

	// Roots are the authorities that may have signed a destination's
	// certificate; nil means the system's. To add to the system's, start from
	// [x509.SystemCertPool].
	Roots *x509.CertPool
	// InsecureDestinations allows destinations with plain HTTP and skips the
	// verification of certificates.
	InsecureDestinations bool

	// Pace is a fixed number of events per second and subscription, of the
	// wall clock; +Inf does not pace at all. 0 adapts between 1 and 100.
	Pace float64
	// Concurrency is how many requests may be open per subscription; 0 is 100.
	Concurrency int
	// Rate is a number of events per second, of the wall clock, that are fired
	// as long as Run runs, every type in turn; 0 fires none.
	Rate float64

	// KeepBodies keeps every acknowledged event for Acknowledged, for ever.
	KeepBodies bool
	// Readings selects the lenient reading where the platform's behaviour is
	// not documented.
	Readings Readings
	// Logger gets one line per suspension and per dropped event; nil discards.
	Logger *slog.Logger

	// transport replaces the one made from Roots in tests of this package.
	transport http.RoundTripper
}

// Readings are choices between readings of what the platform's documentation
// leaves open. The zero value of each is the reading that is harsher to the
// destination or the client.
type Readings struct {
	// Any2xx accepts 200 to 299 as acknowledgement, not 200 alone.
	Any2xx bool
	// ThrottleKeepsRetries lets a 429 spend no retry while its event is not
	// older than one hour; it is tried again after a minute.
	ThrottleKeepsRetries bool
	// MinSample is the number of attempts in the rolling hour from which on
	// the success rate is judged; 0 is 10.
	MinSample int
	// PatchMerges merges the config of a PATCH into the one there is.
	PatchMerges bool
	// ValidationStatus is the status for a refused payload; 0 is 400, the
	// other one seen in clients is 422.
	ValidationStatus int
	// NullLists writes an empty list as null.
	NullLists bool
}

// withDefaults fills in what is zero and refuses what cannot work.
func (o Options) withDefaults() (Options, error) {
	c := &o.Connection
	c.ClientID = cmp.Or(c.ClientID, "demo-client")
	c.ClientSecret = cmp.Or(c.ClientSecret, "demo-secret")
	c.Username = cmp.Or(c.Username, "demo-user")
	c.Password = cmp.Or(c.Password, "demo-password")
	o.Speed = cmp.Or(o.Speed, 1)
	o.Concurrency = cmp.Or(o.Concurrency, 100)
	o.Readings.MinSample = cmp.Or(o.Readings.MinSample, 10)
	o.Readings.ValidationStatus = cmp.Or(o.Readings.ValidationStatus, http.StatusBadRequest)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, o.check()
}

// check is withDefaults' half that refuses.
func (o Options) check() error {
	status := o.Readings.ValidationStatus
	switch {
	case !(o.Speed > 0 && o.Speed <= maxSpeed):
		return fmt.Errorf("speed must be above 0 and at most %d (got %v)", maxSpeed, o.Speed)
	case !(o.Pace >= 0):
		return fmt.Errorf("pace must be 0, for adaptive, or above (got %v)", o.Pace)
	case !(o.Rate >= 0) || math.IsInf(o.Rate, 0):
		return fmt.Errorf("rate must be a number of events per second, 0 or above (got %v)", o.Rate)
	case o.Concurrency < 0:
		return fmt.Errorf("concurrency must be above 0 (got %d)", o.Concurrency)
	case o.ActivationDelay < 0:
		return fmt.Errorf("activation delay must be 0 or above (got %v)", o.ActivationDelay)
	case o.Readings.MinSample < 0:
		return fmt.Errorf("minimum sample must be above 0 (got %d)", o.Readings.MinSample)
	case status != http.StatusBadRequest && status != http.StatusUnprocessableEntity:
		return fmt.Errorf("validation status must be 400 or 422 (got %d)", status)
	case strings.Contains(o.Connection.ClientID, ":"):
		return fmt.Errorf("client id must not contain a colon, which ends it in Basic authentication (got %q)", o.Connection.ClientID)
	}
	if o.PIMURL != "" {
		if u, err := url.Parse(o.PIMURL); err != nil || u.Host == "" {
			return fmt.Errorf("PIM URL must be absolute, like https://pim.example.com (got %q)", o.PIMURL)
		}
	}
	return nil
}
