package sdktest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// prefix begins the id of each event that the suite makes, mark ends those of
// the events that a destination rejects which rejects single ones.
const (
	prefix = "sdktest-"
	mark   = "-reject"
)

// Marked reports whether a destination that behaves as RejectMarked refuses the
// event with that key.
func Marked(key string) bool { return strings.HasSuffix(key, mark) }

const productUpdated = "com.akeneo.pim.v1.product.updated"

// newEvents makes n events as the platform sends them.
func newEvents(n int) []sdk.Event {
	series := strings.ToLower(rand.Text()[:10])
	all := make([]sdk.Event, n)
	for i := range all {
		all[i] = newEvent(fmt.Sprintf("%s%s-%04d", prefix, series, i), productUpdated, map[string]any{"product": map[string]any{"uuid": "9b5f0d8e-6c5c-4b7e-9a55-1f3f6d1c7d11"}})
	}
	return all
}

func newEvent(id, kind string, data any) sdk.Event {
	now := time.Now().UTC().Truncate(time.Millisecond)
	attributes := map[string]any{
		"specversion": "1.0", "id": id, "source": "pim", "type": kind, "subject": "0192f7a1-0a4f-7c3e-8d0b-5d8a5a0c8a11",
		"time": now.Format(time.RFC3339Nano), "datacontenttype": "application/json",
	}
	if data != nil {
		attributes["data"] = data
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(attributes) // strings and maps have a JSON form
	e := sdk.Event{
		ID: id, Type: kind, EventSource: "pim", Subject: "0192f7a1-0a4f-7c3e-8d0b-5d8a5a0c8a11", Time: now, DataContentType: "application/json",
		Source: "catalog", Received: now, Entity: "product:9b5f0d8e-6c5c-4b7e-9a55-1f3f6d1c7d11",
		Headers: map[string]string{
			"Content-Type": "application/cloudevents+json; charset=utf-8", "X-Correlation-Id": "sdktest",
			"X-Akeneo-Signature-Primary": "00112233", "X-Akeneo-Signature-Algorithm": "HmacSHA256",
		},
		ContentType: "application/cloudevents+json", Attempt: 1,
	}
	withBody(&e, bytes.TrimSpace(body.Bytes()))
	return e
}

// withBody gives the event another body, which is its payload, too.
func withBody(e *sdk.Event, body []byte) { e.Body, e.Payload = body, body }

// pad makes the event's body a JSON object of exactly size bytes, if it is
// smaller.
func pad(e *sdk.Event, size int) {
	const frame = `,"padding":""}`
	missing := size - len(e.Body) + 1 - len(frame)
	if missing < 0 {
		return
	}
	body := slices.Concat(e.Body[:len(e.Body)-1], []byte(`,"padding":"`), bytes.Repeat([]byte("p"), missing), []byte(`"}`))
	withBody(e, body)
}

// split cuts events into calls within the limits, as a lane does: an event that
// is above them by itself goes alone.
func split(events []sdk.Event, limits sdk.BatchLimits) (calls [][]sdk.Event) {
	for len(events) > 0 {
		n, size := 0, 0
		for n < len(events) && (n == 0 || (limits.Events == 0 || n < limits.Events) && (limits.Bytes == 0 || size+len(events[n].Payload) <= limits.Bytes)) {
			size += len(events[n].Payload)
			n++
		}
		calls = append(calls, events[:n])
		events = events[n:]
	}
	return calls
}

// deliverAll delivers events one call after the other.
func (t *trial) deliverAll(ctx context.Context, i *instance, events []sdk.Event) ([]sdk.Outcome, error) {
	var all []sdk.Outcome
	for _, part := range split(events, i.description.Limits) {
		outcomes, err := t.deliver(ctx, i, part)
		if err != nil {
			return nil, err
		}
		all = append(all, outcomes...)
	}
	return all, nil
}

// mustDeliver delivers events to a destination that takes them, and looks
// whether they have arrived.
func (t *trial) mustDeliver(ctx context.Context, i *instance, events ...sdk.Event) error {
	if err := t.mustSay(ctx, i, events...); err != nil {
		return err
	}
	return t.mustHaveArrived(events, exactlyOnce)
}

// mustSay delivers events and wants all of them to be reported as delivered.
func (t *trial) mustSay(ctx context.Context, i *instance, events ...sdk.Event) error {
	outcomes, err := t.deliverAll(ctx, i, events)
	if err != nil {
		return err
	}
	for n, o := range outcomes {
		if o.Result != sdk.ResultDelivered {
			return fmt.Errorf("event %d of %d is %s although the destination takes events: %s", n+1, len(events), o.Result, oneLine(o.Reason))
		}
	}
	return nil
}

// occurrences say how often an event may have arrived.
type occurrences bool

const (
	exactlyOnce occurrences = true
	atLeastOnce occurrences = false
)

// mustHaveArrived looks for events at the destination, if it can.
func (t *trial) mustHaveArrived(events []sdk.Event, often occurrences) error {
	if t.Destination == nil {
		return nil
	}
	arrivals, err := t.Destination.Arrived()
	if err != nil {
		return fmt.Errorf("look into the destination: %w", err)
	}
	counts := make(map[string]int)
	for _, a := range arrivals {
		counts[a.Key]++
	}
	var missing, twice []string
	for n := range events {
		key := events[n].IdempotencyKey()
		if counts[key] == 0 && slices.ContainsFunc(arrivals, func(a Arrival) bool { return a.Key == "" && bytes.Equal(a.Payload, events[n].Payload) }) {
			continue
		}
		switch {
		case counts[key] == 0:
			missing = append(missing, key)
		case counts[key] > 1 && often == exactlyOnce:
			twice = append(twice, key)
		}
	}
	switch {
	case len(missing) > 0 && counts[""] > 0:
		return fmt.Errorf("%d of %d events were reported as delivered and not found at the destination, where %d things carry no idempotency key: the key of the first is %s", len(missing), len(events), counts[""], missing[0])
	case len(missing) > 0:
		return fmt.Errorf("%d of %d events were reported as delivered and have not arrived, the first is %s", len(missing), len(events), missing[0])
	case len(twice) > 0:
		return fmt.Errorf("%d of %d events have arrived more than once, the first is %s", len(twice), len(events), twice[0])
	}
	return nil
}
