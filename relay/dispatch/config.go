package dispatch

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// Config is the lane's part of a forwarder's section of the configuration file.
type Config struct {
	// Match is a CEL expression that says which events the forwarder gets;
	// empty means all.
	Match string `koanf:"match"`
	// SkipAuthors are identifiers of authors whose events are left out.
	SkipAuthors []string `koanf:"skip_authors"`
	// Transform is a CEL expression whose value is sent instead of the
	// event: text as text/plain, everything else as JSON.
	Transform string `koanf:"transform"`
	// Fields are CEL expressions with text values, by names that the
	// forwarder's own configuration may refer to.
	Fields map[string]string `koanf:"fields"`
	// Rate is nil for no limit.
	Rate *Rate `koanf:"rate"`
	// MaxInFlight is the number of deliveries that run at once.
	MaxInFlight int `koanf:"max_in_flight"`
	// OrderBy is a CEL expression; events for which it has the same value
	// are delivered in order, one at a time. Empty means no order.
	OrderBy string `koanf:"order_by"`
	// Batch bounds what one delivery holds, for forwarders that take
	// several events at once.
	Batch Batch `koanf:"batch"`
	// Timeout ends a delivery.
	Timeout time.Duration `koanf:"timeout"`
	Retry   Retry         `koanf:"retry"`
	Breaker Breaker       `koanf:"breaker"`
	// Backlog bounds what waits for the forwarder, DeadLetters what it
	// has been spared.
	Backlog     Backlog     `koanf:"backlog"`
	DeadLetters DeadLetters `koanf:"dead_letters"`
	// StartFrom says where a forwarder begins that the journal has not
	// seen yet: "now", "beginning", or a time.
	StartFrom string `koanf:"start_from"`
	// RenamedFrom is the forwarder's former name, whose place it takes over.
	RenamedFrom string `koanf:"renamed_from"`
}

// Rate bounds the events that a destination gets.
type Rate struct {
	PerSecond float64 `koanf:"per_second"`
	// Burst is how many may come at once after a silence; 0 stands for one
	// second's worth. No batch is larger.
	Burst int `koanf:"burst"`
}

// burst is Burst, or what stands in for it.
func (r *Rate) burst() int {
	if r.Burst > 0 {
		return r.Burst
	}
	return max(1, int(math.Ceil(r.PerSecond)))
}

// Batch bounds a delivery.
type Batch struct {
	MaxEvents int      `koanf:"max_events"`
	MaxBytes  sdk.Size `koanf:"max_bytes"`
	// MaxWait is how long an event waits for others to fill the batch.
	MaxWait time.Duration `koanf:"max_wait"`
}

// Retry says when a failed delivery is tried again.
type Retry struct {
	// Initial is the longest wait before the second attempt; it doubles
	// with each further attempt, up to Max.
	Initial time.Duration `koanf:"initial"`
	Max     time.Duration `koanf:"max"`
	// GiveUpAfter is how long after its first failure an event becomes a
	// dead letter. Time in which the lane stood still does not count.
	GiveUpAfter time.Duration `koanf:"give_up_after"`
	// MaxRetryAfter bounds what a destination may ask for.
	MaxRetryAfter time.Duration `koanf:"max_retry_after"`
}

// Breaker says when a lane stops trying, and when it looks again.
type Breaker struct {
	// Failures is how many deliveries in a row must fail; those of a single
	// event are not enough, because that may be the event's fault.
	Failures int `koanf:"failures"`
	// Ratio is the part of the deliveries of the last minute that must
	// fail, once there are MinRequests.
	Ratio       float64 `koanf:"ratio"`
	MinRequests int     `koanf:"min_requests"`
	// OpenFor is the wait before the first probe; it doubles with each
	// probe that fails, up to MaxOpenFor.
	OpenFor    time.Duration `koanf:"open_for"`
	MaxOpenFor time.Duration `koanf:"max_open_for"`
}

// Backlog bounds the events that wait for a forwarder.
type Backlog struct {
	// MaxAge and MaxSize are 0 for no limit of age, and for half of the
	// journal.
	MaxAge  time.Duration `koanf:"max_age"`
	MaxSize sdk.Size      `koanf:"max_size"`
	// Overflow is "dead_letter" to make dead letters of the oldest, or
	// "refuse" to accept no further events.
	Overflow string `koanf:"overflow"`
}

// DeadLetters bounds the dead letters of a forwarder; the oldest go first.
type DeadLetters struct {
	MaxAge  time.Duration `koanf:"max_age"`
	MaxSize sdk.Size      `koanf:"max_size"`
}

// SetDefaults sets what a forwarder has that says nothing else.
func (c *Config) SetDefaults() {
	*c = Config{
		SkipAuthors: []string{},
		Fields:      map[string]string{},
		MaxInFlight: 8,
		Batch:       Batch{MaxEvents: 100, MaxBytes: 1 << 20, MaxWait: 200 * time.Millisecond},
		Timeout:     10 * time.Second,
		Retry:       Retry{Initial: time.Second, Max: 5 * time.Minute, GiveUpAfter: 24 * time.Hour, MaxRetryAfter: time.Hour},
		Breaker:     Breaker{Failures: 5, Ratio: 0.5, MinRequests: 20, OpenFor: 30 * time.Second, MaxOpenFor: 10 * time.Minute},
		Backlog:     Backlog{Overflow: "dead_letter"},
		DeadLetters: DeadLetters{MaxAge: 720 * time.Hour, MaxSize: 1 << 30},
		StartFrom:   "now",
	}
}

// Validate names everything that is wrong, by field.
func (c *Config) Validate() sdk.Faults {
	_, f := c.compile()
	if slices.Contains(c.SkipAuthors, "") {
		f.Add("skip_authors", "must not hold an empty identifier")
	}
	if c.MaxInFlight < 1 || c.MaxInFlight > 1000 {
		f.Add("max_in_flight", "must be from 1 to 1000")
	}
	if c.Timeout < 10*time.Millisecond || c.Timeout > 10*time.Minute {
		f.Add("timeout", "must be from 10ms to 10m")
	}
	if c.Rate != nil {
		f = append(f, c.Rate.validate().Within("rate")...)
	}
	f = append(f, c.Batch.validate().Within("batch")...)
	f = append(f, c.Retry.validate().Within("retry")...)
	f = append(f, c.Breaker.validate().Within("breaker")...)
	f = append(f, c.Backlog.validate().Within("backlog")...)
	f = append(f, c.DeadLetters.validate().Within("dead_letters")...)
	c.validateStart(&f)
	return f
}

func (r *Rate) validate() sdk.Faults {
	var f sdk.Faults
	if !(r.PerSecond > 0) || r.PerSecond > 1e6 {
		f.Add("per_second", fmt.Sprintf("must be above 0 and at most 1000000 (got %v): leave rate out for no limit, and pause the forwarder to stop it", r.PerSecond))
	}
	if r.Burst < 0 || r.Burst > 1e6 {
		f.Add("burst", fmt.Sprintf("must be from 1 to 1000000, or 0 for one second's worth (got %d)", r.Burst))
	}
	return f
}

func (b *Batch) validate() sdk.Faults {
	var f sdk.Faults
	if b.MaxEvents < 1 || b.MaxEvents > 1000 {
		f.Add("max_events", "must be from 1 to 1000")
	}
	if b.MaxBytes < 1<<10 || b.MaxBytes > 64<<20 {
		f.Add("max_bytes", "must be from 1KiB to 64MiB")
	}
	if b.MaxWait < 0 || b.MaxWait > time.Minute {
		f.Add("max_wait", "must be from 0s to 1m")
	}
	return f
}

func (r *Retry) validate() sdk.Faults {
	var f sdk.Faults
	if r.Initial < 10*time.Millisecond {
		f.Add("initial", "must be at least 10ms")
	}
	if r.Max < r.Initial {
		f.Add("max", "must not be below retry.initial")
	}
	if r.GiveUpAfter < r.Initial {
		f.Add("give_up_after", "must not be below retry.initial")
	}
	if r.MaxRetryAfter <= 0 {
		f.Add("max_retry_after", "must be above 0s")
	}
	return f
}

func (b *Breaker) validate() sdk.Faults {
	var f sdk.Faults
	if b.Failures < 2 || b.Failures > 1000 {
		f.Add("failures", "must be from 2 to 1000")
	}
	if !(b.Ratio > 0 && b.Ratio <= 1) {
		f.Add("ratio", fmt.Sprintf("must be above 0 and at most 1 (got %v)", b.Ratio))
	}
	if b.MinRequests < 2 || b.MinRequests > 1e6 {
		f.Add("min_requests", "must be from 2 to 1000000")
	}
	if b.OpenFor < 100*time.Millisecond {
		f.Add("open_for", "must be at least 100ms")
	}
	if b.MaxOpenFor < b.OpenFor {
		f.Add("max_open_for", "must not be below breaker.open_for")
	}
	return f
}

func (b *Backlog) validate() sdk.Faults {
	var f sdk.Faults
	if b.MaxAge < 0 {
		f.Add("max_age", "must be above 0s, or 0s for no limit")
	}
	if b.MaxSize < 0 {
		f.Add("max_size", "must be above 0B, or 0B for half of the journal")
	}
	if b.Overflow != "dead_letter" && b.Overflow != "refuse" {
		f.Add("overflow", `must be "dead_letter" or "refuse"`)
	}
	return f
}

func (d *DeadLetters) validate() sdk.Faults {
	var f sdk.Faults
	if d.MaxAge <= 0 {
		f.Add("max_age", "must be above 0s")
	}
	if d.MaxSize <= 0 {
		f.Add("max_size", "must be above 0B")
	}
	return f
}
