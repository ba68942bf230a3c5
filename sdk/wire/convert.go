package wire

import (
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pimrelay/pimrelay/sdk"
	pb "github.com/pimrelay/pimrelay/sdk/wire/forwarderv1"
)

// toEvent is an event on its way to the plugin. It shares the event's bytes.
func toEvent(e *sdk.Event) *pb.Event {
	out := &pb.Event{
		Id: text(e.ID), Type: text(e.Type), EventSource: text(e.EventSource), Subject: text(e.Subject), Time: toTime(e.Time),
		DataContentType: text(e.DataContentType), DataSchema: text(e.DataSchema),
		Source: text(e.Source), Received: toTime(e.Received), Entity: text(e.Entity), Headers: texts(e.Headers),
		Body: e.Body, ContentType: text(e.ContentType), Key: text(e.Key), Fields: texts(e.Fields),
		Attempt: int32(min(e.Attempt, 1<<31-1)), Replayed: e.Replayed, IdempotencyKey: text(e.IdempotencyKey()),
	}
	if !same(e.Payload, e.Body) {
		out.Payload = e.Payload
		if out.Payload == nil {
			out.Payload = []byte{} // empty, not absent
		}
	}
	return out
}

// fromEvent is an event as the plugin's forwarder gets it. It shares the
// message's bytes.
func fromEvent(e *pb.Event) sdk.Event {
	out := sdk.Event{
		ID: e.GetId(), Type: e.GetType(), EventSource: e.GetEventSource(), Subject: e.GetSubject(), Time: fromTime(e.GetTime()),
		DataContentType: e.GetDataContentType(), DataSchema: e.GetDataSchema(),
		Source: e.GetSource(), Received: fromTime(e.GetReceived()), Entity: e.GetEntity(), Headers: e.GetHeaders(),
		Body: e.GetBody(), Payload: e.GetPayload(), ContentType: e.GetContentType(), Key: e.GetKey(), Fields: e.GetFields(),
		Attempt: int(e.GetAttempt()), Replayed: e.GetReplayed(),
	}
	if e.Payload == nil {
		out.Payload = out.Body
	}
	return out
}

// same reports whether two slices are one.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func toTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func fromTime(t *timestamppb.Timestamp) time.Time {
	if t == nil || !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}

// text is s as a message can hold it: protobuf refuses strings that are no
// UTF-8, and one such attribute must not stop an event.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func texts(m map[string]string) map[string]string {
	for key, value := range m {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			clean := make(map[string]string, len(m))
			for key, value := range m {
				clean[text(key)] = text(value)
			}
			return clean
		}
	}
	return m
}

var toResult = map[sdk.Result]pb.Result{
	sdk.ResultDelivered: pb.Result_RESULT_DELIVERED, sdk.ResultRetry: pb.Result_RESULT_RETRY,
	sdk.ResultThrottled: pb.Result_RESULT_THROTTLED, sdk.ResultRejected: pb.Result_RESULT_REJECTED,
}

var fromResult = map[pb.Result]sdk.Result{
	pb.Result_RESULT_DELIVERED: sdk.ResultDelivered, pb.Result_RESULT_RETRY: sdk.ResultRetry,
	pb.Result_RESULT_THROTTLED: sdk.ResultThrottled, pb.Result_RESULT_REJECTED: sdk.ResultRejected,
}

func toOutcome(o sdk.Outcome) *pb.Outcome {
	out := &pb.Outcome{Result: toResult[o.Result], Reason: short(o.Reason), Answer: short(o.Answer)}
	if o.After > 0 {
		out.After = durationpb.New(o.After)
	}
	return out
}

// fromOutcome takes an outcome from a plugin, which is not trusted. A result
// that nobody knows is none, which a lane takes for a Retry.
func fromOutcome(o *pb.Outcome) sdk.Outcome {
	out := sdk.Outcome{Result: fromResult[o.GetResult()], Reason: short(o.GetReason()), Answer: short(o.GetAnswer())}
	if after := o.GetAfter(); after.IsValid() {
		out.After = max(after.AsDuration(), 0)
	}
	if out.Result == 0 && out.Reason == "" {
		out.Reason = "the plugin gave no result for the event"
	}
	return out
}

// short is the beginning of s, of at most maxText bytes, as UTF-8.
func short(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "")
}

func toFaults(faults sdk.Faults) []*pb.Fault {
	out := make([]*pb.Fault, len(faults))
	for i, f := range faults {
		out[i] = &pb.Fault{Field: text(f.Field), Problem: short(f.Problem)}
	}
	return out
}

func fromFaults(faults []*pb.Fault) (out sdk.Faults) {
	for _, f := range faults {
		out.Add(short(f.GetField()), short(f.GetProblem()))
	}
	return out
}

// Description is what a plugin says of itself: a forwarder's description, and
// what the relay must know of its process.
type Description struct {
	sdk.Description
	// Batches says that the plugin takes several events a call, within
	// Limits. Otherwise Limits is one event.
	Batches bool
	Limits  sdk.BatchLimits
	// MaxMessage is the largest message that the plugin's server takes, in
	// bytes.
	MaxMessage int
	// Health says that the plugin can tell whether its destination can be
	// reached.
	Health bool
}

func toDescription(f sdk.Forwarder, configured bool) *pb.DescribeResponse {
	caps := &pb.Capabilities{MaxMessageBytes: MaxMessage}
	_, caps.Health = f.(sdk.HealthChecker)
	out := &pb.DescribeResponse{Capabilities: caps}
	if d, ok := f.(sdk.Describer); ok {
		d := d.Describe()
		out.Name, out.Version, out.ConfigSchema = text(d.Name), text(d.Version), d.ConfigSchema
		caps.KeepsOrder = d.KeepsOrder
	}
	if batcher, ok := f.(sdk.BatchLimiter); ok {
		caps.Batch = &pb.BatchLimits{}
		if configured {
			limits := batcher.BatchLimits()
			caps.Batch.MaxEvents, caps.Batch.MaxBytes = int32(min(limits.Events, 1<<31-1)), int64(limits.Bytes)
		}
	}
	return out
}

func fromDescription(d *pb.DescribeResponse) Description {
	caps := d.GetCapabilities()
	out := Description{
		Description: sdk.Description{Name: short(d.GetName()), Version: short(d.GetVersion()), ConfigSchema: d.GetConfigSchema(), KeepsOrder: caps.GetKeepsOrder()},
		MaxMessage:  int(caps.GetMaxMessageBytes()), Health: caps.GetHealth(), Limits: sdk.BatchLimits{Events: 1},
	}
	if out.MaxMessage <= 0 {
		out.MaxMessage = defaultMaxMessage
	}
	out.MaxMessage = min(out.MaxMessage, MaxMessage)
	if batch := caps.GetBatch(); batch != nil {
		out.Batches = true
		out.Limits = sdk.BatchLimits{Events: int(max(batch.GetMaxEvents(), 0)), Bytes: int(max(batch.GetMaxBytes(), 0))}
	}
	return out
}
