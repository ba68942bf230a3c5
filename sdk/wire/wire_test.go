package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pimrelay/pimrelay/sdk"
	pb "github.com/pimrelay/pimrelay/sdk/wire/forwarderv1"
)

// full is an event in which every field has a value.
func full() sdk.Event {
	return sdk.Event{
		ID: "id-é", Type: "t", EventSource: "pim", Subject: "s", Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), DataContentType: "application/json", DataSchema: "ds",
		Source: "catalog", Received: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC), Entity: "product:1", Headers: map[string]string{"A": "b"},
		Body: []byte("body"), Payload: []byte("payload"), ContentType: "text/plain", Key: "k", Fields: map[string]string{"f": "v"}, Attempt: 3, Replayed: true,
	}
}

// An event is the same on the other side, whatever field it has.
func TestEventsAreCarriedWhole(t *testing.T) {
	t.Parallel()
	all := full()
	v := reflect.ValueOf(all)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Fatalf("the test lacks a value for %s", v.Type().Field(i).Name)
		}
	}
	untouched := full()
	untouched.Payload = untouched.Body
	empty := full()
	empty.Payload = nil
	nothing := sdk.Event{}
	for name, e := range map[string]sdk.Event{"all fields": all, "payload is body": untouched, "empty payload": empty, "nothing": nothing} {
		encoded, err := proto.Marshal(toEvent(&e))
		if err != nil {
			t.Fatal(err)
		}
		var message pb.Event
		if err := proto.Unmarshal(encoded, &message); err != nil {
			t.Fatal(err)
		}
		got := fromEvent(&message)
		if diff := cmp.Diff(e, got, cmp.Comparer(bytes.Equal)); diff != "" {
			t.Errorf("%s (-sent +received):\n%s", name, diff)
		}
		if len(encoded) > sizeOf(toEvent(&e)) {
			t.Errorf("%s: %d bytes, estimated as %d at most", name, len(encoded), sizeOf(toEvent(&e)))
		}
		if name == "payload is body" && &got.Payload[0] != &got.Body[0] {
			t.Error("the body was carried twice")
		}
	}
	bad := sdk.Event{ID: "\xff", Headers: map[string]string{"\xfe": "\xfd"}, Fields: map[string]string{"f": "\xfc"}}
	if _, err := proto.Marshal(toEvent(&bad)); err != nil {
		t.Errorf("text that is no UTF-8 stops an event: %v", err)
	}
}

func TestOutcomesAreCarriedWhole(t *testing.T) {
	t.Parallel()
	for _, o := range []sdk.Outcome{
		sdk.Delivered(), sdk.Retry(time.Second, errors.New("later")), sdk.Throttled(time.Minute, "less"), sdk.Rejected("never"),
		{Result: sdk.ResultRejected, Reason: "r", Answer: "a"},
	} {
		if diff := cmp.Diff(o, fromOutcome(toOutcome(o))); diff != "" {
			t.Errorf("(-sent +received):\n%s", diff)
		}
	}
	hostile := fromOutcome(&pb.Outcome{Result: 99, After: &durationpb.Duration{Seconds: -5}, Answer: strings.Repeat("é", 4000)})
	if hostile.Result != 0 || hostile.After != 0 || len(hostile.Answer) > maxText || hostile.Reason == "" {
		t.Errorf("%+v", hostile)
	}
	if never := fromOutcome(&pb.Outcome{After: &durationpb.Duration{Seconds: math.MaxInt64}}); never.After != 0 {
		t.Errorf("%+v", never)
	}
}

// What a plugin reports and what the connection reports come together here, and
// only the plugin's own end is not an outcome.
func TestOutcomesOfACall(t *testing.T) {
	t.Parallel()
	one := &pb.DeliverResponse{Outcomes: []*pb.Outcome{{Result: pb.Result_RESULT_DELIVERED}}}
	for name, test := range map[string]struct {
		n          int
		answer     *pb.DeliverResponse
		err        error
		sent, over bool
		want       []sdk.Result
		lost       bool
		inHand     bool
	}{
		"answer":           {1, one, nil, true, false, []sdk.Result{sdk.ResultDelivered}, false, false},
		"too few":          {3, one, nil, true, false, []sdk.Result{sdk.ResultDelivered, 0, 0}, false, false},
		"too many":         {0, one, nil, true, false, []sdk.Result{}, false, false},
		"no answer at all": {1, nil, nil, true, false, []sdk.Result{0}, false, false},
		"internal":         {2, nil, status.Error(codes.Internal, "bug"), true, false, []sdk.Result{sdk.ResultRetry, sdk.ResultRetry}, false, false},
		"unimplemented":    {1, nil, status.Error(codes.Unimplemented, "no Deliver"), true, false, []sdk.Result{sdk.ResultRetry}, false, false},
		"too large":        {1, nil, status.Error(codes.ResourceExhausted, "large"), true, false, []sdk.Result{sdk.ResultRetry}, false, false},
		"cut off":          {1, nil, status.Error(codes.Canceled, "cancelled"), true, true, []sdk.Result{sdk.ResultRetry}, false, false},
		"closed":           {1, nil, status.Error(codes.Canceled, "closing"), true, false, nil, true, true},
		"broken":           {1, nil, status.Error(codes.Unavailable, "EOF"), true, false, nil, true, true},
		"not connected":    {1, nil, status.Error(codes.Unavailable, "refused"), false, false, nil, true, false},
		"not looked at":    {1, nil, status.Error(codes.Aborted, "draining"), true, false, nil, true, false},
		"too late":         {1, nil, status.Error(codes.DeadlineExceeded, "late"), true, true, nil, true, true},
	} {
		got, err := outcomes(test.n, test.answer, test.err, test.sent, test.over)
		var lost *LostError
		if errors.As(err, &lost) != test.lost || test.lost && lost.InHand != test.inHand {
			t.Errorf("%s: %v", name, err)
		}
		var results []sdk.Result
		if got != nil {
			results = []sdk.Result{}
		}
		for _, o := range got {
			results = append(results, o.Result)
			if o.Result != sdk.ResultDelivered && o.Reason == "" {
				t.Errorf("%s: no reason", name)
			}
		}
		if diff := cmp.Diff(test.want, results); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// FuzzDeliverResponse takes whatever a plugin may send for an answer.
func FuzzDeliverResponse(f *testing.F) {
	for _, r := range []*pb.DeliverResponse{{}, {Outcomes: []*pb.Outcome{toOutcome(sdk.Delivered()), toOutcome(sdk.Retry(time.Hour, errors.New("x")))}}, {Outcomes: []*pb.Outcome{{Result: -1, After: &durationpb.Duration{Seconds: math.MinInt64, Nanos: -1}}}}} {
		seed, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed, 2)
	}
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		var answer pb.DeliverResponse
		if proto.Unmarshal(data, &answer) != nil || n < 0 || n > 1000 {
			return
		}
		got, err := outcomes(n, &answer, nil, true, false)
		if err != nil || len(got) != n {
			t.Fatalf("%d outcomes for %d events, %v", len(got), n, err)
		}
		for _, o := range got {
			if o.Result > sdk.ResultRejected || o.After < 0 || len(o.Reason) > maxText || len(o.Answer) > maxText {
				t.Errorf("%+v", o)
			}
		}
	})
}

// FuzzEvent takes whatever a relay, or somebody in its place, may send.
func FuzzEvent(f *testing.F) {
	all := full()
	seed, err := proto.Marshal(toEvent(&all))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var message pb.Event
		if proto.Unmarshal(data, &message) != nil {
			return
		}
		e := fromEvent(&message)
		again := fromEvent(toEvent(&e))
		if diff := cmp.Diff(e, again, cmp.Comparer(bytes.Equal), cmp.Comparer(time.Time.Equal)); diff != "" && message.GetAttempt() >= 0 {
			t.Errorf("(-once +twice):\n%s", diff)
		}
	})
}

// recorder is a forwarder that remembers the calls.
type recorder struct {
	calls  chan []sdk.Event
	answer func(ctx context.Context, events []sdk.Event) []sdk.Outcome
	closed chan struct{}
	// disconnect closes the client's connection.
	disconnect func()
}

func newRecorder() *recorder {
	return &recorder{calls: make(chan []sdk.Event, 100), closed: make(chan struct{}, 10)}
}

func (r *recorder) Configure(_ context.Context, raw json.RawMessage) error {
	if string(raw) == `{"name":"panic"}` {
		panic("no such name")
	}
	var c struct {
		Name string `json:"name"`
	}
	return sdk.DecodeConfig(raw, &c)
}

func (r *recorder) Deliver(ctx context.Context, events []sdk.Event) []sdk.Outcome {
	r.calls <- events
	if r.answer != nil {
		return r.answer(ctx, events)
	}
	return sdk.Each(len(events), sdk.Delivered())
}

func (r *recorder) Close(context.Context) error {
	r.closed <- struct{}{}
	return nil
}

// connect serves the recorder on a socket and returns a client of it.
func connect(t *testing.T, r *recorder) (*Client, *Server) {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(func(*slog.Logger) sdk.Forwarder { return r }, slog.New(slog.DiscardHandler))
	g := grpc.NewServer(append(ServerOptions(), server.Connections())...)
	server.Register(g)
	go func() { _ = g.Serve(listener) }()
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient("unix://"+listener.Addr().String(), append(DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r.disconnect = func() { conn.Close() }
	return NewClient(conn, "one"), server
}

func TestSplitsWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	c, _ := connect(t, r)
	if _, err := c.Configure(t.Context(), "f", json.RawMessage(`{}`)); err != nil {
		t.Fatal(err)
	}
	c.maxMessage = 10_000
	sizes := []int{3000, 3000, 3000, 9500, 100}
	events := make([]sdk.Event, len(sizes))
	for i, size := range sizes {
		events[i] = sdk.Event{ID: string(rune('a' + i)), Body: make([]byte, size)}
		events[i].Payload = events[i].Body
	}
	got, err := c.Deliver(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	for range 3 {
		ids := ""
		select {
		case call := <-r.calls:
			for _, e := range call {
				ids += e.ID
			}
		default:
		}
		calls = append(calls, ids)
	}
	if diff := cmp.Diff([]string{"ab", "c", "e"}, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	for i, o := range got {
		want := sdk.ResultDelivered
		if i == 3 {
			want = sdk.ResultRejected
		}
		if o.Result != want {
			t.Errorf("%d: %+v", i, o)
		}
	}
}

// A delivery that knows at its deadline what it has done can still say so.
func TestAnswerAtTheDeadline(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	r.answer = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
		<-ctx.Done()
		return []sdk.Outcome{sdk.Delivered(), sdk.Retry(0, ctx.Err())}
	}
	c, _ := connect(t, r)
	if _, err := c.Configure(t.Context(), "f", json.RawMessage(`{}`)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	got, err := c.Deliver(ctx, make([]sdk.Event, 2))
	if err != nil || len(got) != 2 || got[0].Result != sdk.ResultDelivered || got[1].Result != sdk.ResultRetry {
		t.Errorf("%+v, %v", got, err)
	}
	cut, stop := context.WithCancel(t.Context())
	go func() {
		<-r.calls
		<-r.calls
		stop()
	}()
	got, err = c.Deliver(cut, make([]sdk.Event, 1))
	if err != nil || got[0].Result != sdk.ResultRetry || !strings.Contains(got[0].Reason, "cut off") {
		t.Errorf("cut off: %+v, %v", got, err)
	}
}

// A drain waits for what is in hand, closes once, and lets nothing new in.
func TestDrain(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	going := make(chan struct{})
	r.answer = func(_ context.Context, events []sdk.Event) []sdk.Outcome {
		<-going
		return sdk.Each(len(events), sdk.Delivered())
	}
	c, _ := connect(t, r)
	if _, err := c.Configure(t.Context(), "f", json.RawMessage(`{}`)); err != nil {
		t.Fatal(err)
	}
	delivered := make(chan []sdk.Outcome, 1)
	go func() {
		got, _ := c.Deliver(context.Background(), make([]sdk.Event, 1))
		delivered <- got
	}()
	<-r.calls
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Drain(short); err == nil {
		t.Error("a drain has not waited")
	}
	select {
	case <-r.closed:
		t.Error("closed while it delivers")
	default:
	}
	var lost *LostError
	if _, err := c.Deliver(t.Context(), make([]sdk.Event, 1)); !errors.As(err, &lost) || lost.InHand {
		t.Errorf("after a drain: %v", err)
	}
	close(going)
	if got := <-delivered; len(got) != 1 || got[0].Result != sdk.ResultDelivered {
		t.Errorf("%+v", got)
	}
}

func TestFaultsAndDescription(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	c, server := connect(t, r)
	_, err := c.Configure(t.Context(), "f", json.RawMessage(`{"nam": 1}`))
	if diff := cmp.Diff(sdk.Faults{{Field: "nam", Problem: `unknown key, did you mean "name"?`}}, err); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	d, err := c.Configure(t.Context(), "f", json.RawMessage(`{}`))
	if err != nil || d.Batches || d.Limits != (sdk.BatchLimits{Events: 1}) || d.Health || d.MaxMessage != MaxMessage {
		t.Errorf("%+v, %v", d, err)
	}
	if err := c.Health(t.Context()); err == nil {
		t.Error("a forwarder without health tells of it")
	}
	server.DrainAll(t.Context())
	<-r.closed
	if err := c.Present(t.Context()); err == nil {
		t.Error("present after the drain")
	}
	// A plugin that says nothing of itself takes what most libraries take.
	if d := fromDescription(&pb.DescribeResponse{}); d.MaxMessage != defaultMaxMessage || d.Limits.Events != 1 {
		t.Errorf("%+v", d)
	}
	if d := fromDescription(&pb.DescribeResponse{Capabilities: &pb.Capabilities{MaxMessageBytes: 1 << 60, Batch: &pb.BatchLimits{MaxEvents: -1, MaxBytes: -1}}}); d.MaxMessage != MaxMessage || d.Limits != (sdk.BatchLimits{}) {
		t.Errorf("%+v", d)
	}
}

// A panic of the forwarder is a Retry, and the next delivery goes on.
func TestPanicIsARetry(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	r.answer = func(_ context.Context, events []sdk.Event) []sdk.Outcome {
		if events[0].ID == "bad" {
			panic("oh")
		}
		return sdk.Each(len(events), sdk.Delivered())
	}
	c, _ := connect(t, r)
	if _, err := c.Configure(t.Context(), "f", json.RawMessage(`{}`)); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]sdk.Result{"bad": sdk.ResultRetry, "good": sdk.ResultDelivered} {
		got, err := c.Deliver(t.Context(), []sdk.Event{{ID: id}})
		if err != nil || got[0].Result != want {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
}

// A relay that has gone leaves no forwarder behind in a service.
func TestConnectionEndsItsForwarders(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	c, _ := connect(t, r)
	if _, err := c.Configure(t.Context(), "f", json.RawMessage(`{}`)); err != nil {
		t.Fatal(err)
	}
	r.disconnect()
	<-r.closed
}

// A panic while a configuration is read is an answer, and the process goes on.
func TestPanicOfConfigure(t *testing.T) {
	t.Parallel()
	c, _ := connect(t, newRecorder())
	if _, err := c.Configure(t.Context(), "f", json.RawMessage(`{"name":"panic"}`)); err == nil || !strings.Contains(err.Error(), "the plugin panicked: no such name") {
		t.Errorf("%v", err)
	}
	if _, err := c.Configure(t.Context(), "f", json.RawMessage(`{}`)); err != nil {
		t.Error(err)
	}
}
