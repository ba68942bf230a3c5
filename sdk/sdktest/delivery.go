package sdktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/pimrelay/pimrelay/sdk"
)

var deliveryCases = []Case{
	{"delivery", "delivers one event, once", delivery},
	{"batch", "delivers a batch as large as it announces", batch},
	{"thousand-events", "delivers a thousand events in calls as large as it announces", thousandEvents},
	{"order", "keeps the order of a batch, if it promises that", order},
	{"outcomes", "gives one outcome for each event when the destination rejects some", outcomes},
	{"idempotency-key", "passes the same idempotency key on each attempt", idempotencyKey},
	{"tiny-event", "takes an event of one byte", tinyEvent},
	{"empty-data", "takes events without data, and one without a body", emptyData},
	{"large-event", "takes an event of 8 MiB, or rejects it", largeEvent},
	{"unicode", "passes on ids, types, headers and bodies in any script", unicodeEvents},
	{"unknown-type", "takes a type of event that nobody knows today", unknownType},
	{"event-memory", "changes no event, and keeps nothing of it after Deliver", eventMemory},
}

func delivery(ctx context.Context, t *trial) error {
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	return t.mustDeliver(ctx, i, newEvents(1)...)
}

const (
	// largestBatch and largestBytes bound the batches that the suite makes for
	// a forwarder that sets no limit, or a very high one.
	largestBatch = 1000
	largestBytes = 16 << 20
)

// full makes a batch that is as large as the limits allow.
func full(limits sdk.BatchLimits) []sdk.Event {
	n := largestBatch
	if limits.Events > 0 {
		n = min(n, limits.Events)
	}
	events := newEvents(n)
	if limits.Bytes == 0 || limits.Bytes > largestBytes {
		return events
	}
	for i := range events {
		pad(&events[i], limits.Bytes/n)
	}
	return split(events, limits)[0]
}

func batch(ctx context.Context, t *trial) error {
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	if i.description.Limits.Events == 1 {
		return leftOut("it takes one event a call")
	}
	events := full(i.description.Limits)
	size := 0
	for n := range events {
		size += len(events[n].Payload)
	}
	t.note = fmt.Sprintf("%d events, %.1f MiB", len(events), float64(size)/(1<<20))
	return t.mustDeliver(ctx, i, events...)
}

func thousandEvents(ctx context.Context, t *trial) error {
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	events := newEvents(1000)
	calls := len(split(events, i.description.Limits))
	t.note = fmt.Sprintf("%d calls", calls)
	if calls == 1 {
		t.note = "1 call"
	}
	return t.mustDeliver(ctx, i, events...)
}

func order(ctx context.Context, t *trial) error {
	if err := t.behave(Accept); err != nil {
		return err
	}
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	switch {
	case i.description.Limits.Events == 1:
		return leftOut("it takes one event a call")
	case !i.description.KeepsOrder:
		return leftOut("it does not promise an order")
	}
	events := split(newEvents(largestBatch), i.description.Limits)[0]
	if err := t.mustDeliver(ctx, i, events...); err != nil {
		return err
	}
	arrivals, err := t.Destination.Arrived()
	if err != nil {
		return err
	}
	place := make(map[string]int)
	for n := range events {
		place[events[n].IdempotencyKey()] = n
	}
	last := -1
	for _, a := range arrivals {
		n, ours := place[a.Key]
		switch {
		case !ours:
		case n < last:
			return fmt.Errorf("event %d of the batch has arrived after event %d", n+1, last+1)
		default:
			last = n
		}
	}
	return nil
}

// outcomes has the destination reject each third event. A destination that
// refuses a call as a whole makes the forwarder report the others, too, as not
// delivered: a lane then delivers them in smaller calls.
func outcomes(ctx context.Context, t *trial) error {
	if err := t.behave(RejectMarked); err != nil {
		return err
	}
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	events := newEvents(30)
	for n := range events {
		if n%3 == 1 {
			events[n] = newEvent(events[n].ID+mark, productUpdated, nil)
		}
	}
	results, err := t.deliverAll(ctx, i, events)
	if err != nil {
		return err
	}
	var good, whole []sdk.Event
	for n, o := range results {
		marked := Marked(events[n].ID)
		switch {
		case marked && o.Result == sdk.ResultDelivered:
			return fmt.Errorf("event %d of %d is delivered, and the destination has rejected it", n+1, len(events))
		case o.Result == sdk.ResultDelivered:
			good = append(good, events[n])
		case !marked && o.Result == sdk.ResultRejected && i.description.Limits.Events == 1:
			return fmt.Errorf("event %d of %d is rejected, and the destination has rejected others only: %s", n+1, len(events), oneLine(o.Reason))
		case !marked:
			whole = append(whole, events[n])
		}
	}
	for n := range whole {
		t.note = "a rejected event makes it report its whole call, which a lane bisects"
		if err := t.mustDeliver(ctx, i, whole[n]); err != nil {
			return err
		}
	}
	return t.mustHaveArrived(good, exactlyOnce)
}

func idempotencyKey(ctx context.Context, t *trial) error {
	if err := t.behave(Accept); err != nil {
		return err
	}
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	event := newEvents(1)
	for range 2 {
		outcomes, err := t.deliver(ctx, i, event)
		if err != nil {
			return err
		}
		if outcomes[0].Result != sdk.ResultDelivered {
			return fmt.Errorf("attempt %d is %s although the destination takes events: %s", event[0].Attempt, outcomes[0].Result, oneLine(outcomes[0].Reason))
		}
		event[0].Attempt++
	}
	if n, err := t.count(event[0].IdempotencyKey()); err != nil || n != 2 {
		return errors.Join(err, fmt.Errorf("2 attempts were delivered, and the destination sees the event's idempotency key %d times", n))
	}
	return nil
}

// count is how often the destination has taken an event with that key.
func (t *trial) count(key string) (int, error) {
	arrivals, err := t.Destination.Arrived()
	if err != nil {
		return 0, fmt.Errorf("look into the destination: %w", err)
	}
	return len(slices.DeleteFunc(arrivals, func(a Arrival) bool { return a.Key != key })), nil
}

// mustSettle delivers the events, which the forwarder or its destination may
// reject, but not keep for ever.
func (t *trial) mustSettle(ctx context.Context, events ...sdk.Event) error {
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	results, err := t.deliverAll(ctx, i, events)
	if err != nil {
		return err
	}
	var delivered []sdk.Event
	for n, o := range results {
		switch o.Result {
		case sdk.ResultDelivered:
			delivered = append(delivered, events[n])
		case sdk.ResultRejected:
			t.note = "rejected: " + oneLine(o.Reason)
		default:
			return fmt.Errorf("event %d of %d is %s, for ever if it comes again: %s", n+1, len(events), o.Result, oneLine(o.Reason))
		}
	}
	return t.mustHaveArrived(delivered, exactlyOnce)
}

func tinyEvent(ctx context.Context, t *trial) error {
	event := newEvents(1)
	withBody(&event[0], []byte("7"))
	return t.mustSettle(ctx, event...)
}

func emptyData(ctx context.Context, t *trial) error {
	events := newEvents(4)
	events[0] = newEvent(events[0].ID, productUpdated, nil)
	events[1] = newEvent(events[1].ID, productUpdated, map[string]any{})
	events[2].Payload = []byte{}
	withBody(&events[3], nil)
	events[3].Headers, events[3].Fields, events[3].ContentType = nil, nil, ""
	return t.mustSettle(ctx, events...)
}

func largeEvent(ctx context.Context, t *trial) error {
	event := newEvents(1)
	pad(&event[0], 8<<20)
	return t.mustSettle(ctx, event...)
}

func unicodeEvents(ctx context.Context, t *trial) error {
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	text := "Größe 日本語 العربية 👩🏽‍🚀 \u2028 e\u0301 \"quoted\" <&>"
	events := newEvents(2)
	for n, suffix := range []string{"-ü-日本-👩🏽‍🚀", "-ascii"} {
		e := newEvent(events[n].ID+suffix, productUpdated+".größe", map[string]any{"label": text, text: "x"})
		e.Entity, e.Key, e.Subject = "category:größe_日本", "größe", "Ω"
		e.Headers["X-Correlation-Id"] = "größe-日本"
		e.Fields = map[string]string{"label": text, "größe": "日本"}
		events[n] = e
	}
	return t.mustDeliver(ctx, i, events...)
}

func unknownType(ctx context.Context, t *trial) error {
	events := newEvents(2)
	events[0] = newEvent(events[0].ID, "com.akeneo.pim.v7.spaceship.launched", map[string]any{"spaceship": []any{nil, 1.5, map[string]any{}}})
	events[1] = newEvent(events[1].ID, "x", "a text")
	for n := range events {
		events[n].Entity = ""
	}
	return t.mustSettle(ctx, events...)
}

// eventMemory writes over the events' memory when Deliver has returned, as the
// relay may, and looks at what arrives.
func eventMemory(ctx context.Context, t *trial) error {
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	const scribble = "~sdktest~"
	for _, part := range split(newEvents(20), i.description.Limits) {
		before := make([]sdk.Event, len(part))
		for n, e := range part {
			part[n].Payload = bytes.Clone(e.Payload) // not Body's memory
			before[n] = e
			before[n].Body, before[n].Payload = bytes.Clone(e.Body), bytes.Clone(e.Payload)
			before[n].Headers, before[n].Fields = maps.Clone(e.Headers), maps.Clone(e.Fields)
		}
		if _, err := t.deliver(ctx, i, part); err != nil {
			return err
		}
		if !reflect.DeepEqual(before, part) {
			return errors.New("Deliver has changed the events, which are the relay's")
		}
		for n := range part {
			for _, memory := range [][]byte{part[n].Body, part[n].Payload} {
				copy(memory, bytes.Repeat([]byte(scribble), len(memory)/len(scribble)))
			}
			clear(part[n].Headers)
		}
		clear(part)
	}
	if err := t.shut(ctx, i); err != nil || t.Destination == nil {
		return err
	}
	arrivals, err := t.Destination.Arrived()
	if err != nil {
		return fmt.Errorf("look into the destination: %w", err)
	}
	if slices.ContainsFunc(arrivals, func(a Arrival) bool { return bytes.Contains(a.Payload, []byte(scribble)) }) {
		return errors.New("an event was sent after Deliver had returned, from memory that is the relay's again: copy what is needed later")
	}
	return nil
}
