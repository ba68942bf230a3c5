package dispatch

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

func TestStart(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]journal.Start{
		"now":                       {},
		"beginning":                 {Beginning: true},
		"2026-01-31T15:00:00+01:00": {Since: time.Date(2026, 1, 31, 14, 0, 0, 0, time.UTC)},
	} {
		c := Config{StartFrom: text}
		var f sdk.Faults
		if c.validateStart(&f); f != nil {
			t.Errorf("%s: %v", text, f)
		}
		if diff := cmp.Diff(want, c.Start()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	renamed := Config{StartFrom: "now", RenamedFrom: "old"}
	if got := renamed.Start(); got != (journal.Start{RenamedFrom: "old"}) {
		t.Errorf("renamed: %+v", got)
	}
}

func TestWants(t *testing.T) {
	t.Parallel()
	c := Config{Match: `event.data.product.uuid == "6a9f"`, SkipAuthors: []string{"loop"}}
	s, faults := c.compile()
	if faults != nil {
		t.Fatal(faults)
	}
	l := &Lane{shaper: s}
	own := product()
	own.Body = []byte(`{"data":{"product":{"uuid":"6a9f"},"author":{"identifier":"loop"}}}`)
	other := product()
	other.Body = []byte(`{"data":{"product":{"uuid":"other"}}}`)
	for name, tt := range map[string]struct {
		event *sdk.Event
		want  bool
	}{"matches": {product(), true}, "does not match": {other, false}, "of a skipped author": {own, false}} {
		if got := l.Wants(tt.event); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
