package dispatch

import (
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// Config is one forwarder's section of the configuration file.
type Config struct {
	// Match is a CEL expression that says which events the forwarder gets;
	// empty means all.
	Match string `koanf:"match"`
	// Plugin is the name of a built-in forwarder.
	Plugin string `koanf:"plugin"`
	// Config is the forwarder's own configuration.
	Config map[string]any `koanf:"config"`
	// MaxInFlight is the number of deliveries that run at once.
	MaxInFlight int `koanf:"max_in_flight"`
	// Batch bounds what one delivery holds, for forwarders that take
	// several events at once.
	Batch Batch `koanf:"batch"`
	// Timeout ends a delivery.
	Timeout time.Duration `koanf:"timeout"`
	Retry   Retry         `koanf:"retry"`
	// StartFrom says where a forwarder begins that the journal has not
	// seen yet: "now" or "beginning".
	StartFrom string `koanf:"start_from"`
}

// Batch bounds a delivery.
type Batch struct {
	MaxEvents int      `koanf:"max_events"`
	MaxBytes  sdk.Size `koanf:"max_bytes"`
}

// Retry says when a failed delivery is tried again.
type Retry struct {
	// Initial is the longest wait before the second attempt; it doubles
	// with each further attempt, up to Max.
	Initial time.Duration `koanf:"initial"`
	Max     time.Duration `koanf:"max"`
	// GiveUpAfter is how long after its first failure an event becomes a
	// dead letter.
	GiveUpAfter time.Duration `koanf:"give_up_after"`
	// MaxRetryAfter bounds what a destination may ask for.
	MaxRetryAfter time.Duration `koanf:"max_retry_after"`
}

// SetDefaults sets what a forwarder has that says nothing else.
func (c *Config) SetDefaults() {
	*c = Config{
		MaxInFlight: 8,
		Batch:       Batch{MaxEvents: 100, MaxBytes: 1 << 20},
		Timeout:     10 * time.Second,
		Retry:       Retry{Initial: time.Second, Max: 5 * time.Minute, GiveUpAfter: 24 * time.Hour, MaxRetryAfter: time.Hour},
		StartFrom:   "now",
	}
}

// Validate names everything that is wrong, by field.
func (c *Config) Validate() sdk.Faults {
	var f sdk.Faults
	if c.Match != "" {
		if _, err := compileMatch(c.Match); err != nil {
			f.Add("match", err.Error())
		}
	}
	if c.Plugin == "" {
		f.Add("plugin", "is missing: name a built-in forwarder, such as http or file")
	}
	if c.MaxInFlight < 1 || c.MaxInFlight > 1000 {
		f.Add("max_in_flight", "must be from 1 to 1000")
	}
	if c.Batch.MaxEvents < 1 || c.Batch.MaxEvents > 1000 {
		f.Add("batch.max_events", "must be from 1 to 1000")
	}
	if c.Batch.MaxBytes < 1<<10 || c.Batch.MaxBytes > 64<<20 {
		f.Add("batch.max_bytes", "must be from 1KiB to 64MiB")
	}
	if c.Timeout < 10*time.Millisecond || c.Timeout > 10*time.Minute {
		f.Add("timeout", "must be from 10ms to 10m")
	}
	if c.Retry.Initial < 10*time.Millisecond {
		f.Add("retry.initial", "must be at least 10ms")
	}
	if c.Retry.Max < c.Retry.Initial {
		f.Add("retry.max", "must not be below retry.initial")
	}
	if c.Retry.GiveUpAfter < c.Retry.Initial {
		f.Add("retry.give_up_after", "must not be below retry.initial")
	}
	if c.Retry.MaxRetryAfter <= 0 {
		f.Add("retry.max_retry_after", "must be above 0s")
	}
	if c.StartFrom != "now" && c.StartFrom != "beginning" {
		f.Add("start_from", `must be "now" or "beginning"`)
	}
	return f
}
