package sdktest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// Case is one thing that a forwarder must do right.
type Case struct {
	// Name is short and has no spaces, About says in one sentence what the
	// forwarder must do.
	Name, About string
	run         func(context.Context, *trial) error
}

// Status is what came of a case.
type Status string

// The statuses.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	LeftOut Status = "left out"
)

// Result is what came of running one case.
type Result struct {
	Case   string
	Status Status
	// Detail says why it failed or was left out, or what is worth knowing of
	// one that passed.
	Detail string
	Took   time.Duration
}

// Cases are all the cases, in the order in which an author meets them.
func Cases() []Case {
	return slices.Concat(configurationCases, deliveryCases, callCases, destinationCases)
}

// leftOut is the error of a case that cannot be run, and says why.
type leftOut string

func (l leftOut) Error() string { return string(l) }

// Run runs the case. It returns within the subject's Timeout and a few seconds
// in which the forwarders that it made are closed, whatever the forwarder does;
// calls that never return are left behind.
func (c Case) Run(ctx context.Context, s Subject) Result {
	began := time.Now()
	limit := cmp.Or(s.Timeout, DefaultTimeout)
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := &trial{Subject: s}
	err := t.behave(Accept)
	if err == nil || s.Destination == nil {
		err = c.run(bounded, t)
	}
	// What was made is closed even if ctx has ended, in a bounded time.
	closing, done := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer done()
	if ended := t.finish(closing); err == nil {
		err = ended
	}
	result := Result{Case: c.Name, Status: Passed, Detail: t.note, Took: time.Since(began)}
	var reason leftOut
	switch {
	case ctx.Err() != nil:
		result.Status, result.Detail = Failed, "stopped before its end"
	case errors.As(err, &reason):
		result.Status, result.Detail = LeftOut, reason.Error()
	case err != nil:
		result.Status, result.Detail = Failed, err.Error()
	}
	return result
}
