package journal

import (
	"fmt"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// Config is the section `journal` of the configuration file.
type Config struct {
	Retention Retention `koanf:"retention"`
	Dedupe    Dedupe    `koanf:"dedupe"`
	// ForgetAfter is how long a forwarder that is no longer in the
	// configuration keeps its backlog.
	ForgetAfter time.Duration `koanf:"forget_after"`
}

// Retention says how long events are kept after every forwarder has settled
// them, so that they can be replayed.
type Retention struct {
	Age time.Duration `koanf:"age"`
	// Size bounds the whole journal. Events that are not settled are kept
	// beyond Age, and when they alone reach Size nothing more is accepted.
	Size sdk.Size `koanf:"size"`
}

// Dedupe says how long the journal remembers the ids of events.
type Dedupe struct {
	Age time.Duration `koanf:"age"`
	// IDs bounds how many are remembered.
	IDs int `koanf:"ids"`
}

// Defaults is the section of an empty file.
func Defaults() Config {
	return Config{
		Retention:   Retention{Age: 7 * 24 * time.Hour, Size: 10 << 30},
		Dedupe:      Dedupe{Age: 11 * 24 * time.Hour, IDs: 5_000_000},
		ForgetAfter: 7 * 24 * time.Hour,
	}
}

// idBytes is about what a remembered id takes on disk, its index included.
const idBytes = 80

// Validate names everything that is wrong, by field.
func (c *Config) Validate() sdk.Faults {
	var f sdk.Faults
	if c.Retention.Age < 0 {
		f.Add("retention.age", fmt.Sprintf("must not be below 0s (got %s)", c.Retention.Age))
	}
	if c.Retention.Size < 64<<20 {
		f.Add("retention.size", fmt.Sprintf("must be at least 64MiB (got %s)", c.Retention.Size))
	}
	if c.Dedupe.Age < time.Hour {
		f.Add("dedupe.age", fmt.Sprintf("must be at least 1h, because a sender repeats a delivery for that long (got %s)", c.Dedupe.Age))
	}
	switch needs := sdk.Size(c.Dedupe.IDs) * idBytes; {
	case c.Dedupe.IDs < 1000:
		f.Add("dedupe.ids", fmt.Sprintf("must be at least 1000 (got %d)", c.Dedupe.IDs))
	case needs > c.Retention.Size/2 && c.Retention.Size >= 64<<20:
		f.Add("dedupe.ids", fmt.Sprintf("take about %d MiB, more than half of retention.size: raise that, or remember at most %d", needs>>20, c.Retention.Size/2/idBytes))
	}
	if c.ForgetAfter < 0 {
		f.Add("forget_after", fmt.Sprintf("must not be below 0s (got %s)", c.ForgetAfter))
	}
	return f
}
