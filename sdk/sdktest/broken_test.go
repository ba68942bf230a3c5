package sdktest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/sdktest"
)

// broken is a poster with parts replaced.
type broken struct {
	*poster
	configure func(context.Context, json.RawMessage) error
	describe  func() sdk.Description
	deliver   func(context.Context, []sdk.Event) []sdk.Outcome
	health    func(context.Context) error
	close     func(context.Context) error
}

func (b *broken) Configure(ctx context.Context, config json.RawMessage) error {
	if b.configure != nil {
		return b.configure(ctx, config)
	}
	return b.poster.Configure(ctx, config)
}

func (b *broken) Describe() sdk.Description {
	if b.describe != nil {
		return b.describe()
	}
	return b.poster.Describe()
}

func (b *broken) Deliver(ctx context.Context, events []sdk.Event) []sdk.Outcome {
	if b.deliver != nil {
		return b.deliver(ctx, events)
	}
	return b.poster.Deliver(ctx, events)
}

func (b *broken) Health(ctx context.Context) error {
	if b.health != nil {
		return b.health(ctx)
	}
	return b.poster.Health(ctx)
}

func (b *broken) Close(ctx context.Context) error {
	if b.close != nil {
		return b.close(ctx)
	}
	return b.poster.Close(ctx)
}

// defects are forwarders that do one thing wrong, and the cases that must find
// it, each with a part of what it must say. Over gRPC more or fewer may find
// it, where that is said.
var defects = map[string]struct {
	breakIt func(*broken)
	finds   map[string]string
	// timeout, if not zero, is shorter than usual: a case waits for it.
	timeout time.Duration
	// overGRPC, if not nil, stands in the place of finds behind a connection.
	overGRPC map[string]string
}{
	"too few outcomes for a large batch": {
		breakIt: func(b *broken) {
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				outcomes := b.poster.Deliver(ctx, events)
				return outcomes[:min(len(outcomes), 100)]
			}
		},
		finds:    map[string]string{"batch": "200 events gave 100 outcomes", "order": "outcomes", "thousand-events": "outcomes"},
		overGRPC: map[string]string{"batch": "the plugin gave 100 outcomes for 200 events", "order": "outcomes", "thousand-events": "outcomes"},
	},
	"ignores the end of a call": {
		breakIt: func(b *broken) {
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				return b.poster.Deliver(context.WithoutCancel(ctx), events)
			}
		},
		finds:    map[string]string{"deadline": "Deliver has not returned after", "cancellation": "Deliver has not returned after"},
		overGRPC: map[string]string{"deadline": "did not answer in time", "cancellation": "after a call was cancelled: close"},
	},
	"returns late": {
		breakIt: func(b *broken) {
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				outcomes := b.poster.Deliver(ctx, events)
				if ctx.Err() != nil {
					<-time.After(600 * time.Millisecond)
				}
				return outcomes
			}
		},
		finds:    map[string]string{"deadline": "its context", "cancellation": "its context", "expired-call": "Deliver has"},
		overGRPC: map[string]string{"deadline": "did not answer in time", "expired-call": "did not answer in time"},
	},
	"panics at a byte": {
		breakIt: func(b *broken) {
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				if len(events[0].Payload) == 1 {
					panic("no object")
				}
				return b.poster.Deliver(ctx, events)
			}
		},
		finds:    map[string]string{"tiny-event": "Deliver panicked: no object (broken_test.go:"},
		overGRPC: map[string]string{"tiny-event": "is a panic: no object"},
	},
	"panics without configuration": {
		breakIt: func(b *broken) {
			b.configure = func(ctx context.Context, config json.RawMessage) error {
				_ = config[0]
				return b.poster.Configure(ctx, config)
			}
		},
		finds:    map[string]string{"empty-configuration": "panicked: runtime error: index out of range"},
		overGRPC: map[string]string{"empty-configuration": "panicked: runtime error: index out of range"},
	},
	"panics in Close": {
		breakIt: func(b *broken) {
			b.close = func(context.Context) error { panic("closed twice") }
		},
		finds: everyCase("closed twice", "faulty-configurations", "empty-configuration"),
	},
	"changes the order": {
		breakIt: func(b *broken) {
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				backwards := slices.Clone(events)
				slices.Reverse(backwards)
				outcomes := b.poster.Deliver(ctx, backwards)
				slices.Reverse(outcomes)
				return outcomes
			}
		},
		finds: map[string]string{"order": "event 199 of the batch has arrived after event 200"},
	},
	"mixes the outcomes up": {
		breakIt: func(b *broken) {
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				outcomes := b.poster.Deliver(ctx, events)
				slices.SortFunc(outcomes, func(a, b sdk.Outcome) int { return int(a.Result) - int(b.Result) })
				return outcomes
			}
		},
		finds: map[string]string{"outcomes": "is delivered, and the destination has rejected it", "lossy-destination": "have not arrived"},
	},
	"accepts unknown keys": {
		breakIt: func(b *broken) {
			b.configure = func(ctx context.Context, config json.RawMessage) error {
				var keys map[string]any
				if json.Unmarshal(config, &keys) == nil {
					delete(keys, "sdktest_unknown")
					config, _ = json.Marshal(keys)
				}
				return b.poster.Configure(ctx, config)
			}
		},
		finds: map[string]string{"unknown-key": "an unknown key: it is accepted"},
	},
	"accepts wrong types": {
		breakIt: func(b *broken) {
			b.configure = func(ctx context.Context, config json.RawMessage) error {
				var keys map[string]any
				if json.Unmarshal(config, &keys) == nil {
					if _, ok := keys["tries"].(float64); !ok {
						delete(keys, "tries")
					}
					config, _ = json.Marshal(keys)
				}
				return b.poster.Configure(ctx, config)
			}
		},
		finds: map[string]string{"wrong-types": "tries of the wrong type (array): it is accepted"},
	},
	"names no field": {
		breakIt: func(b *broken) {
			b.configure = func(ctx context.Context, config json.RawMessage) error {
				if b.poster.Configure(ctx, config) != nil {
					return sdk.Faults{{Problem: "the configuration is wrong"}}
				}
				return nil
			}
		},
		finds: map[string]string{"unknown-key": `no fault names "sdktest_unknown"`, "wrong-types": "no fault names", "faulty-configurations": `no url: no fault names "url"`},
	},
	"shows a secret in a fault": {
		breakIt: func(b *broken) {
			b.configure = func(ctx context.Context, config json.RawMessage) error {
				err := b.poster.Configure(ctx, config)
				if faults, ok := err.(sdk.Faults); ok {
					faults.Add("", "cannot be used: "+string(config))
					return faults
				}
				return err
			}
		},
		finds: map[string]string{"secrets": "a fault shows the value of token", "wrong-types": "the refusal shows a secret", "faulty-configurations": "the refusal shows a secret"},
	},
	"shows a secret in a reason": {
		breakIt: func(b *broken) {
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				outcomes := b.poster.Deliver(ctx, events)
				for i := range outcomes {
					if outcomes[i].Result == sdk.ResultRetry {
						outcomes[i].Reason = "with token " + string(b.config.Token) + ": " + outcomes[i].Reason
					}
				}
				return outcomes
			}
		},
		finds: map[string]string{"secrets": "an outcome shows the value of token"},
	},
	"has a schema that its configuration does not fit": {
		breakIt: func(b *broken) {
			b.describe = func() sdk.Description {
				d := b.poster.Describe()
				d.ConfigSchema = json.RawMessage(strings.Replace(string(d.ConfigSchema), `"token"`, `"password"`, 1))
				return d
			}
		},
		finds: map[string]string{"description": `"token" is no key of it`},
	},
	"loses the last event of a large batch": {
		breakIt: func(b *broken) {
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				if len(events) < 150 {
					return b.poster.Deliver(ctx, events)
				}
				return append(b.poster.Deliver(ctx, events[1:]), sdk.Delivered())
			}
		},
		finds: map[string]string{"batch": "1 of 200 events were reported as delivered and have not arrived", "order": "have not arrived", "thousand-events": "5 of 1000"},
	},
	"says delivered whatever comes": {
		breakIt: func(b *broken) {
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				b.poster.Deliver(ctx, events)
				return sdk.Each(len(events), sdk.Delivered())
			}
		},
		finds: map[string]string{
			"outcomes": "the destination has rejected it", "deadline": "the outcome is delivered", "cancellation": "the outcome is delivered", "expired-call": "have not arrived",
			"destination-rejects": "the outcome is delivered", "destination-throttles": "the outcome is delivered", "destination-fails": "the outcome is delivered",
			"destination-resets": "the outcome is delivered", "destination-gone": "the outcome is delivered", "lost-reply": "the outcome is delivered", "lossy-destination": "have not arrived",
		},
		// The relay's end of the connection knows better when a call was cut off.
		overGRPC: map[string]string{
			"outcomes": "the destination has rejected it", "deadline": "the outcome is delivered", "expired-call": "have not arrived",
			"destination-rejects": "the outcome is delivered", "destination-throttles": "the outcome is delivered", "destination-fails": "the outcome is delivered",
			"destination-resets": "the outcome is delivered", "destination-gone": "the outcome is delivered", "lost-reply": "the outcome is delivered", "lossy-destination": "have not arrived",
		},
	},
	"delivers after it has said so": {
		breakIt: func(b *broken) {
			var mu sync.Mutex
			var kept []sdk.Event
			b.deliver = func(_ context.Context, events []sdk.Event) []sdk.Outcome {
				mu.Lock()
				kept = append(kept, events...)
				mu.Unlock()
				return sdk.Each(len(events), sdk.Delivered())
			}
			b.close = func(ctx context.Context) error {
				b.poster.Deliver(ctx, kept)
				return b.poster.Close(ctx)
			}
		},
		finds: everyCase("", "configuration", "description", "empty-configuration", "unknown-key", "wrong-types", "faulty-configurations", "secrets", "drain", "health"),
	},
	"keeps the events' memory": {
		breakIt: func(b *broken) {
			var mu sync.Mutex
			var kept []sdk.Event
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				outcomes := b.poster.Deliver(ctx, events)
				if outcomes[0].Result == sdk.ResultDelivered {
					mu.Lock()
					kept = append(kept, events[0])
					mu.Unlock()
				}
				return outcomes
			}
			b.close = func(ctx context.Context) error {
				b.poster.Deliver(ctx, kept[:min(len(kept), 1)])
				return b.poster.Close(ctx)
			}
		},
		finds:    map[string]string{"event-memory": "from memory that is the relay's again"},
		overGRPC: map[string]string{}, // the events are its own there
	},
	"changes the events": {
		breakIt: func(b *broken) {
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				outcomes := b.poster.Deliver(ctx, events)
				clear(events[0].Payload)
				return outcomes
			}
		},
		finds:    map[string]string{"event-memory": "Deliver has changed the events"},
		overGRPC: map[string]string{}, // the events are its own there
	},
	"uses another key for each attempt": {
		breakIt: func(b *broken) {
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				events = slices.Clone(events)
				for i := range events {
					if events[i].Attempt > 1 {
						events[i].ID = fmt.Sprintf("%s-%d", events[i].ID, events[i].Attempt)
					}
				}
				return b.poster.Deliver(ctx, events)
			}
		},
		finds: map[string]string{
			"idempotency-key": "sees the event's idempotency key 1 times", "lost-reply": "another idempotency key", "lossy-destination": "have not arrived",
		},
	},
	"takes one call at a time and tells nobody": {
		breakIt: func(b *broken) {
			var busy = make(chan struct{}, 1)
			b.deliver = func(ctx context.Context, events []sdk.Event) []sdk.Outcome {
				select {
				case busy <- struct{}{}:
				default:
					panic("called again")
				}
				defer func() { <-busy }()
				return b.poster.Deliver(ctx, events)
			}
		},
		finds: map[string]string{"concurrent-calls": "called again", "drain": "called again"},
	},
	"is healthy whatever happens": {
		breakIt: func(b *broken) { b.health = func(context.Context) error { return nil } },
		finds:   map[string]string{"health": "Health says nothing"},
	},
	"fails in Close": {
		breakIt: func(b *broken) {
			b.close = func(ctx context.Context) error { return fmt.Errorf("the buffer is not empty") }
		},
		finds: everyCase("close: the buffer is not empty", "faulty-configurations", "empty-configuration"),
	},
	"hangs in Configure": {
		timeout: 5 * time.Second,
		breakIt: func(b *broken) {
			b.configure = func(ctx context.Context, config json.RawMessage) error {
				if strings.Contains(string(config), "sdktest_unknown") {
					<-ctx.Done()
					select {}
				}
				return b.poster.Configure(ctx, config)
			}
		},
		finds:    map[string]string{"unknown-key": "Configure has not returned after", "secrets": "Configure has not returned after"},
		overGRPC: map[string]string{"unknown-key": "Configure has given no answer", "secrets": "Configure has given no answer"},
	},
}

// everyCase are all cases but some.
func everyCase(finds string, but ...string) map[string]string {
	all := make(map[string]string)
	for _, c := range sdktest.Cases() {
		if !slices.Contains(but, c.Name) {
			all[c.Name] = finds
		}
	}
	return all
}

// Each defect is found by the cases that are about it, and by no other. Most of
// the time that this takes is waiting, hence more at once than there are cores.
func TestDefectsAreFound(t *testing.T) {
	t.Parallel()
	places := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for name, defect := range defects {
		newForwarder := func(log *slog.Logger) sdk.Forwarder {
			b := &broken{poster: newPoster(log).(*poster)}
			defect.breakIt(b)
			return b
		}
		find := func(name string, maker sdktest.Maker, finds map[string]string) {
			s := subject(t, newForwarder)
			s.New, s.Timeout = maker, time.Minute
			if defect.timeout > 0 {
				s.Timeout = defect.timeout
			}
			wg.Go(func() {
				places <- struct{}{}
				defer func() { <-places }()
				mustFind(t, name, s, finds)
			})
		}
		find(name, sdktest.InProcess(newForwarder), defect.finds)
		if defect.overGRPC != nil {
			find(name+", over gRPC", sdktest.OverGRPC(newForwarder), defect.overGRPC)
		}
	}
	wg.Wait()
}

func mustFind(t *testing.T, name string, s sdktest.Subject, finds map[string]string) {
	t.Helper()
	got := run(t, s, sdktest.Failed, func(name string) bool {
		_, finds := finds[name]
		return finds || everyCaseRuns
	})
	if diff := cmp.Diff(slices.Sorted(maps.Keys(finds)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("%s: cases that fail (-want +got):\n%s%v", name, diff, got)
	}
	for c, part := range finds {
		if detail, ok := got[c]; ok && !strings.Contains(detail, part) {
			t.Errorf("%s: %s says %q, want %q", name, c, detail, part)
		}
	}
}
