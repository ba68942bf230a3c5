package sdktest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/wire"
)

const (
	// closeTime bounds the closing of a case's forwarders.
	closeTime = 5 * time.Second
	// returnGrace is how long after the end of its context a call is still
	// waited for.
	returnGrace = time.Second
)

// trial is one case being run.
type trial struct {
	Subject
	made []*instance
	note string // for the result, if the case passes
}

// instance is a forwarder that a case has made.
type instance struct {
	sdk.Forwarder
	open        bool // configured and not closed
	description wire.Description
}

// behave changes the destination's behaviour.
func (t *trial) behave(b Behaviour) error {
	if t.Destination == nil {
		return leftOut("needs a destination that the suite can look into")
	}
	err := t.Destination.Behave(b)
	if errors.Is(err, errors.ErrUnsupported) {
		return leftOut(fmt.Sprintf("the suite cannot make this destination %s", b))
	}
	if err != nil {
		return fmt.Errorf("the suite's own destination: %w", err)
	}
	return nil
}

// fresh makes a forwarder.
func (t *trial) fresh(ctx context.Context) (*instance, error) {
	f, err := t.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("make a forwarder: %w", err)
	}
	i := &instance{Forwarder: f}
	t.made = append(t.made, i)
	return i, nil
}

// configure makes a forwarder and configures it. The second error is the
// forwarder's answer.
func (t *trial) configure(ctx context.Context, config json.RawMessage) (i *instance, refusal, err error) {
	i, err = t.fresh(ctx)
	if err != nil {
		return nil, nil, err
	}
	refusal, err = call(ctx, "Configure", func() error { return i.Configure(ctx, slices.Clone(config)) })
	switch {
	case err != nil:
		return nil, nil, err
	case refusal != nil && unanswered(i.Forwarder, refusal):
		return nil, nil, fmt.Errorf("Configure has given no answer: %s", oneLine(refusal.Error()))
	case refusal != nil:
		return nil, refusal, nil
	}
	i.open = true
	i.description, err = call(ctx, "Describe", func() wire.Description { return describe(i.Forwarder) })
	return i, nil, err
}

// unanswered reports whether the error of Configure is one of the connection:
// whatever the forwarder itself says comes as faults.
func unanswered(f sdk.Forwarder, refusal error) bool {
	_, remote := f.(Remote)
	return remote && !errors.As(refusal, new(sdk.Faults))
}

// start makes a forwarder with the subject's configuration.
func (t *trial) start(ctx context.Context) (*instance, error) {
	i, refusal, err := t.configure(ctx, t.Config)
	if refusal != nil {
		return nil, fmt.Errorf("the configuration is refused: %s", oneLine(refusal.Error()))
	}
	return i, err
}

// describe is what a configured forwarder says of itself.
func describe(f sdk.Forwarder) wire.Description {
	if remote, ok := f.(Remote); ok {
		return remote.Description()
	}
	d := wire.Description{Limits: sdk.BatchLimits{Events: 1}}
	if describer, ok := f.(sdk.Describer); ok {
		d.Description = describer.Describe()
	}
	if batcher, ok := f.(sdk.BatchLimiter); ok {
		d.Batches, d.Limits = true, batcher.BatchLimits()
	}
	_, d.Health = f.(sdk.HealthChecker)
	return d
}

// deliver makes one call of Deliver and checks what holds for every call.
func (t *trial) deliver(ctx context.Context, i *instance, events []sdk.Event) ([]sdk.Outcome, error) {
	outcomes, err := call(ctx, "Deliver", func() []sdk.Outcome { return i.Deliver(ctx, events) })
	if err != nil {
		return nil, err
	}
	if len(outcomes) != len(events) {
		return nil, fmt.Errorf("%d events gave %d outcomes", len(events), len(outcomes))
	}
	for n, o := range outcomes {
		if problem := wrong(o); problem != "" {
			return nil, fmt.Errorf("outcome %d of %d %s", n+1, len(events), problem)
		}
	}
	return outcomes, nil
}

// panicked begins the reason of the events with which a forwarder behind a
// connection has panicked.
const panicked = "the forwarder panicked: "

// wrong says what is wrong with an outcome in itself.
func wrong(o sdk.Outcome) string {
	switch {
	case strings.HasPrefix(o.Reason, panicked):
		return "is a panic: " + oneLine(strings.TrimPrefix(o.Reason, panicked))
	case o.Result < sdk.ResultDelivered || o.Result > sdk.ResultRejected:
		if o.Reason != "" {
			return "has no result: " + oneLine(o.Reason)
		}
		return "has no result"
	case o.Result != sdk.ResultDelivered && strings.TrimSpace(o.Reason) == "":
		return fmt.Sprintf("is %s and gives no reason", o.Result)
	case strings.ContainsFunc(o.Reason, unicode.IsControl):
		return fmt.Sprintf("has a reason of more than one line: %q", o.Reason)
	case o.After < 0:
		return fmt.Sprintf("asks to wait for %s", o.After)
	}
	return ""
}

// shut closes a forwarder.
func (t *trial) shut(ctx context.Context, i *instance) error {
	i.open = false
	problem, err := call(ctx, "Close", func() error { return i.Close(ctx) })
	if err == nil && problem != nil {
		err = fmt.Errorf("close: %w", problem)
	}
	return err
}

// finish closes what the case has left open. The destination is well before, so
// that nothing hangs on it.
func (t *trial) finish(ctx context.Context) error {
	var all []error
	if t.Destination != nil {
		all = append(all, t.behave(Accept))
	}
	for _, i := range t.made {
		if i.open {
			all = append(all, t.shut(ctx, i))
		}
		if d, ok := i.Forwarder.(interface{ Discard() }); ok {
			_, err := call(ctx, "Discard", func() struct{} { d.Discard(); return struct{}{} })
			all = append(all, err)
		}
	}
	return first(all)
}

// call does work, a call of the forwarder, and returns soon after ctx is done
// even if that does not. A panic is an error.
func call[T any](ctx context.Context, what string, work func() T) (T, error) {
	type answer struct {
		value T
		err   error
	}
	began, done := time.Now(), make(chan answer, 1)
	go func() {
		var a answer
		defer func() {
			if p := recover(); p != nil {
				a.err = fmt.Errorf("%s panicked: %v (%s)", what, p, origin())
			}
			done <- a
		}()
		a.value = work()
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
	}
	select {
	case a := <-done:
		return a.value, a.err
	case <-time.After(returnGrace):
		var none T
		return none, fmt.Errorf("%s has not returned after %s, although its context ended %s ago", what, time.Since(began).Round(100*time.Millisecond), returnGrace)
	}
}

// origin is where a panic that is being recovered came from.
func origin() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, "runtime.") || !more {
			return fmt.Sprintf("%s:%d", filepath.Base(frame.File), frame.Line)
		}
	}
}

func oneLine(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(lines, "; ")
}
