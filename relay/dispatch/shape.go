package dispatch

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// item is an event in a lane's hands.
type item struct {
	journal.Entry
	// key is what order_by says of the event; empty for no order.
	key string
	// leftOut says why the forwarder does not get the event; empty if it
	// does.
	leftOut reason
	// fault says why the event can never be delivered.
	fault error
	// since is when the event began to wait for others to fill its batch.
	since time.Time
	// due is when the attempt was due, if this lane has asked for it.
	due time.Time
}

// reason says why an event is left out; it is a metric's label.
type reason string

const (
	noMatch      reason = "match"
	fieldMissing reason = "missing"
	authorSkip   reason = "author"
)

// retried reports whether the event has waited for this attempt.
func (i *item) retried() bool { return i.Attempts > 0 || !i.First.IsZero() }

// shaper is what the expressions of a lane make of an event. It may be used
// concurrently.
type shaper struct {
	skip                      map[string]bool
	match, orderBy, transform *expression // nil where there is none
	fields                    map[string]*expression
}

// keyLength bounds the value of order_by, in bytes: the journal keeps it with
// each event that waits.
const keyLength = 1 << 10

// compile compiles the expressions and names everything that is wrong with
// them, by field.
func (c *Config) compile() (*shaper, sdk.Faults) {
	var f sdk.Faults
	compiled := func(name, text string, k kind) *expression {
		if text == "" {
			return nil
		}
		e, err := compileExpression(name, text, k)
		if err != nil {
			f.Add(name, err.Error())
		}
		return e
	}
	s := &shaper{
		match:     compiled("match", c.Match, truthKind),
		transform: compiled("transform", c.Transform, anyKind),
		orderBy:   compiled("order_by", c.OrderBy, textKind),
		skip:      make(map[string]bool), fields: make(map[string]*expression),
	}
	for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
		if c.Fields[name] == "" {
			f.Add("fields."+name, "must be an expression")
			continue
		}
		s.fields[name] = compiled("fields."+name, c.Fields[name], textKind)
	}
	for _, author := range c.SkipAuthors {
		s.skip[author] = true
	}
	return s, f
}

// prepare makes of an entry what is forwarded. Match is asked before every
// attempt, so that a lane whose match has changed stops trying what it no
// longer wants. Payload and Fields are what the expressions make; the key of an
// event that has waited in the journal is the one it has waited with.
func (s *shaper) prepare(e journal.Entry) *item {
	i := &item{Entry: e, key: e.Key}
	if e.Damaged != nil {
		i.fault = e.Damaged
		return i
	}
	v := &view{event: &i.Event}
	i.leftOut, i.fault = s.wants(v)
	if i.leftOut != "" || i.fault != nil {
		return i
	}
	if i.key == "" && s.orderBy != nil {
		if i.key, i.fault = s.orderKey(v); i.fault != nil {
			return i
		}
	}
	i.Event.Key = i.key
	i.fault = s.fill(v)
	return i
}

// wants says whether the forwarder gets the event, and if not, why.
func (s *shaper) wants(v *view) (reason, error) {
	if s.match != nil {
		matched, err := s.match.truth(v)
		switch {
		case errors.Is(err, errMissing):
			return fieldMissing, nil
		case err != nil:
			return "", err
		case !matched:
			return noMatch, nil
		}
	}
	if len(s.skip) > 0 {
		if author, err := v.author(); err == nil {
			if identifier, ok := author.(map[string]any)["identifier"].(string); ok && s.skip[identifier] {
				return authorSkip, nil
			}
		}
	}
	return "", nil
}

// orderKey is the value of order_by; an event that lacks a field is unordered.
func (s *shaper) orderKey(v *view) (string, error) {
	key, err := s.orderBy.text(v)
	switch {
	case errors.Is(err, errMissing):
		return "", nil
	case err == nil && len(key) > keyLength:
		return "", fmt.Errorf("order_by: the value is longer than %d bytes", keyLength)
	}
	return key, err
}

// fill sets the event's payload and fields.
func (s *shaper) fill(v *view) error {
	if s.transform != nil {
		out, err := s.transform.eval(v)
		if err != nil {
			return err
		}
		if v.event.Payload, v.event.ContentType, err = payload(out); err != nil {
			return fmt.Errorf("transform: %w", err)
		}
	}
	if len(s.fields) == 0 {
		return nil
	}
	fields := make(map[string]string, len(s.fields))
	for name, e := range s.fields {
		value, err := e.text(v)
		if err != nil {
			return err
		}
		fields[name] = value
	}
	v.event.Fields = fields
	return nil
}
