package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pimrelay/pimrelay/sdk"
	pb "github.com/pimrelay/pimrelay/sdk/wire/forwarderv1"
)

// replyGrace is how much longer a call of Deliver waits for its answer than the
// delivery may take, so that what has been delivered at the end of its time is
// known.
const replyGrace = 500 * time.Millisecond

// Client is a forwarder in a plugin's process. Its methods may be called
// concurrently.
type Client struct {
	rpc        pb.ForwarderClient
	instance   string
	maxMessage int // set by Configure
}

// NewClient talks to the plugin behind conn, which must have been made with
// [DialOptions]. The instance distinguishes it from other clients of the same
// process.
func NewClient(conn grpc.ClientConnInterface, instance string) *Client {
	return &Client{rpc: pb.NewForwarderClient(conn), instance: instance, maxMessage: defaultMaxMessage}
}

// Describe asks the plugin what it is. Limits have no meaning yet.
func (c *Client) Describe(ctx context.Context) (Description, error) {
	answer, err := c.rpc.Describe(ctx, &pb.DescribeRequest{})
	if err != nil {
		return Description{}, fmt.Errorf("describe: %w", plain(err))
	}
	return fromDescription(answer), nil
}

// Configure makes the forwarder of that name and returns its final
// description. The error is [sdk.Faults] if the configuration is wrong.
func (c *Client) Configure(ctx context.Context, name string, config json.RawMessage) (Description, error) {
	answer, err := c.rpc.Configure(ctx, &pb.ConfigureRequest{Instance: c.instance, Config: config, Forwarder: text(name)})
	if err != nil {
		return Description{}, fmt.Errorf("configure: %w", plain(err))
	}
	if faults := fromFaults(answer.GetFaults()); len(faults) > 0 {
		return Description{}, faults
	}
	described, err := c.rpc.Describe(ctx, &pb.DescribeRequest{Instance: c.instance})
	if err != nil {
		return Description{}, fmt.Errorf("describe: %w", plain(err))
	}
	d := fromDescription(described)
	c.maxMessage = d.MaxMessage
	return d, nil
}

// Present reports an error if the plugin does not answer, or does not know the
// forwarder that Configure has made.
func (c *Client) Present(ctx context.Context) error {
	if _, err := c.rpc.Describe(ctx, &pb.DescribeRequest{Instance: c.instance}); err != nil {
		return plain(err)
	}
	return nil
}

// LostError says that a call did not come to its end because the plugin, not
// its destination, failed.
type LostError struct {
	// InHand says that the plugin had the events, or may have had them.
	InHand bool
	Cause  error
}

// Error is the cause.
func (e *LostError) Error() string { return e.Cause.Error() }

// Unwrap is the cause.
func (e *LostError) Unwrap() error { return e.Cause }

// Deliver delivers until ctx is done, and is back within half a second from
// then. It splits what does not fit into one message. The error is a
// [*LostError]; outcomes are those of the events before it.
func (c *Client) Deliver(ctx context.Context, events []sdk.Event) ([]sdk.Outcome, error) {
	outcomes := make([]sdk.Outcome, 0, len(events))
	for len(events) > 0 {
		request := &pb.DeliverRequest{Instance: c.instance}
		n := c.fill(request, events)
		if n == 0 {
			outcomes = append(outcomes, sdk.Rejected(fmt.Sprintf("the event is larger than the %d bytes that the plugin takes in one message", c.maxMessage)))
			events = events[1:]
			continue
		}
		part, err := c.call(ctx, request)
		if err != nil {
			return outcomes, err
		}
		outcomes = append(outcomes, part...)
		events = events[n:]
	}
	return outcomes, nil
}

// envelope is what a request takes beside its events, at most; eventEnvelope
// what an event takes beside its texts and bytes, and entryEnvelope an entry of
// a map.
const (
	envelope      = 1 << 10
	eventEnvelope = 256
	entryEnvelope = 16
)

// fill adds as many of the events as fit into one message.
func (c *Client) fill(request *pb.DeliverRequest, events []sdk.Event) int {
	size := envelope
	for n := range events {
		e := toEvent(&events[n])
		if size += sizeOf(e); size > c.maxMessage {
			return n
		}
		request.Events = append(request.Events, e)
	}
	return len(events)
}

// sizeOf is what an event takes in a message, at most. Computing it exactly
// would cost a good part of encoding it.
func sizeOf(e *pb.Event) int {
	size := eventEnvelope + len(e.Body) + len(e.Payload)
	for _, text := range []string{e.Id, e.Type, e.EventSource, e.Subject, e.DataContentType, e.DataSchema, e.Source, e.Entity, e.ContentType, e.Key, e.IdempotencyKey} {
		size += len(text)
	}
	for _, m := range []map[string]string{e.Headers, e.Fields} {
		for key, value := range m {
			size += entryEnvelope + len(key) + len(value)
		}
	}
	return size
}

// call makes one call.
func (c *Client) call(ctx context.Context, request *pb.DeliverRequest) ([]sdk.Outcome, error) {
	wait := ctx
	if deadline, ok := ctx.Deadline(); ok {
		request.Timeout = durationpb.New(time.Until(deadline))
		// The call outlives ctx's deadline, but not its cancellation.
		var cancel context.CancelFunc
		wait, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline.Add(replyGrace))
		defer cancel()
		stop := context.AfterFunc(ctx, func() {
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				cancel()
			}
		})
		defer stop()
	}
	var to peer.Peer
	answer, err := c.rpc.Deliver(wait, request, grpc.Peer(&to))
	return outcomes(len(request.GetEvents()), answer, err, to.Addr != nil, ctx.Err() != nil)
}

// outcomes is what a call of Deliver with n events came to: what the plugin
// reports, or what the connection does. sent says that the request may have
// reached the plugin, over that the caller's time is.
func outcomes(n int, answer *pb.DeliverResponse, err error, sent, over bool) ([]sdk.Outcome, error) {
	code := status.Code(err)
	if code == codes.Canceled && !over {
		code = codes.Unavailable // not the caller has cancelled, the connection was closed
	}
	switch code {
	case codes.OK:
		out := make([]sdk.Outcome, 0, n)
		for _, o := range answer.GetOutcomes()[:min(n, len(answer.GetOutcomes()))] {
			out = append(out, fromOutcome(o))
		}
		for len(out) < n {
			out = append(out, sdk.Outcome{Reason: fmt.Sprintf("the plugin gave %d outcomes for %d events", len(answer.GetOutcomes()), n)})
		}
		return out, nil
	case codes.Unavailable: // the connection has broken, or there is none
		return nil, &LostError{InHand: sent, Cause: plain(err)}
	case codes.Aborted: // the plugin has not looked at the request
		return nil, &LostError{Cause: plain(err)}
	case codes.DeadlineExceeded: // also of a delivery, which ends a moment before
		return nil, &LostError{InHand: sent, Cause: errors.New("the plugin did not answer in time")}
	case codes.Canceled:
		return sdk.Each(n, sdk.Retry(0, errors.New("the delivery was cut off"))), nil
	}
	// The plugin is there and has answered something that is no answer.
	return sdk.Each(n, sdk.Retry(0, fmt.Errorf("the plugin answered with an error: %w", plain(err)))), nil
}

// Health asks for the health of the destination.
func (c *Client) Health(ctx context.Context) error {
	answer, err := c.rpc.Health(ctx, &pb.HealthRequest{Instance: c.instance})
	if err != nil {
		return fmt.Errorf("health: %w", plain(err))
	}
	if problem := short(answer.GetProblem()); problem != "" {
		return errors.New(problem)
	}
	return nil
}

// Drain makes the plugin finish what it has in hand and close the forwarder.
func (c *Client) Drain(ctx context.Context) error {
	answer, err := c.rpc.Drain(ctx, &pb.DrainRequest{Instance: c.instance})
	if err != nil {
		return fmt.Errorf("drain: %w", plain(err))
	}
	if problem := short(answer.GetProblem()); problem != "" {
		return errors.New(problem)
	}
	return nil
}

// plain is a gRPC error as people read it.
func plain(err error) error {
	s := status.Convert(err)
	return fmt.Errorf("%s (%s)", short(s.Message()), s.Code())
}
