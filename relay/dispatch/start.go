package dispatch

import (
	"fmt"
	"time"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// Start is where the forwarder begins if the journal has not seen it yet. The
// configuration is valid.
func (c *Config) Start() journal.Start {
	start := journal.Start{Beginning: c.StartFrom == "beginning", RenamedFrom: c.RenamedFrom}
	if since, err := time.Parse(time.RFC3339, c.StartFrom); err == nil {
		start.Since = since
	}
	return start
}

func (c *Config) validateStart(f *sdk.Faults) {
	if c.StartFrom == "now" || c.StartFrom == "beginning" {
		return
	}
	if _, err := time.Parse(time.RFC3339, c.StartFrom); err != nil {
		f.Add("start_from", fmt.Sprintf(`must be "now", "beginning" or a time such as "2026-01-31T15:00:00Z" (got %q)`, c.StartFrom))
	}
}

// Wants reports whether the lane delivers such an event. An event for which
// that cannot be said is wanted.
func (l *Lane) Wants(e *sdk.Event) bool {
	leftOut, _ := l.shaper.wants(&view{event: e})
	return leftOut == ""
}
