package pluginhost

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pimrelay/pimrelay/sdk"
)

// failure is how a plugin that ran has failed.
type failure struct {
	cause string // a label of the metric
	err   error
}

// supervise starts the plugin, again and again with growing waits, until ctx
// ends.
func (p *Plugin) supervise(ctx context.Context) {
	defer p.Metrics.forget(p.Name)
	p.Metrics.up.WithLabelValues(p.Name).Set(0)
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		e, err := p.launch(ctx)
		failed := failure{"start", err}
		up := time.Now()
		if err == nil {
			p.setUp(e, began)
		}
		p.started(err)
		if err == nil {
			failed = p.watch(ctx, e)
			if failed.cause == "memory" {
				p.finish(ctx, e, failed.err)
			}
			p.current.Store(nil)
			e.verdict <- failed.err
			// What else has failed has nothing to finish.
			e.end(failed.err != nil)
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil && time.Since(up) > p.Pace.MaxAgain {
			failures = 0
		}
		failures++
		wait := p.Pace.wait(failures)
		p.setDown(failed, failures, time.Now().Add(wait))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// finishWithin is how long a process that must be ended may take to finish what
// it has in hand.
const finishWithin = 5 * time.Second

// finish lets a process that must be ended, but works, finish what it has in
// hand.
func (p *Plugin) finish(ctx context.Context, e *endpoint, cause error) {
	p.suspend(e, cause)
	ctx, cancel := context.WithTimeout(ctx, finishWithin)
	defer cancel()
	if err := e.finish(ctx); err != nil {
		p.Logger.Warn("plugin did not finish what it had in hand", "err", err)
	}
}

// wait is the wait after that many failures in a row: exponential, and for
// about half of it random, so that plugins that failed together do not all come
// back together.
func (p Pace) wait(failures int) time.Duration {
	longest := p.Again
	for i := 1; i < failures && longest < p.MaxAgain; i++ {
		longest *= 2
	}
	longest = min(longest, p.MaxAgain)
	return longest/2 + rand.N(longest/2+1)
}

// started tells whoever waits in Started, the first time.
func (p *Plugin) started(err error) {
	select {
	case <-p.first:
	default:
		p.mu.Lock()
		p.firstErr = err
		p.mu.Unlock()
		close(p.first)
	}
}

func (p *Plugin) setUp(e *endpoint, began time.Time) {
	p.mu.Lock()
	reason := p.status.Reason
	if reason == notYet {
		reason = ""
	}
	p.status = Status{Up: true, Since: time.Now(), Failures: p.status.Failures, Reason: reason, PID: e.pid, Description: e.description}
	p.mu.Unlock()
	p.current.Store(e)
	p.tell()
	p.Metrics.up.WithLabelValues(p.Name).Set(1)
	p.Metrics.starts.WithLabelValues(p.Name).Inc()
	p.Logger.Info("plugin started", "process", e.pid, "name", e.description.Name, "version", e.description.Version, "took", time.Since(began).Round(time.Millisecond))
}

func (p *Plugin) setDown(failed failure, failures int, next time.Time) {
	p.mu.Lock()
	since := time.Now()
	if !p.status.Up && p.status.Failures > 0 {
		since = p.status.Since
	}
	p.status = Status{Reason: failed.err.Error(), Since: since, Failures: failures, NextStart: next, Description: p.status.Description}
	p.mu.Unlock()
	p.tell()
	p.Metrics.up.WithLabelValues(p.Name).Set(0)
	p.Metrics.exits.WithLabelValues(p.Name, failed.cause).Inc()
	_, faulty := failed.err.(sdk.Faults)
	message := "plugin failed, it is started again"
	if faulty {
		message = "plugin refuses its configuration, its forwarder stands still"
	}
	p.Logger.Error(message, "err", failed.err, "cause", failed.cause, "failures", failures, "next", time.Until(next).Round(time.Millisecond))
}

// suspend lets no more calls through to a plugin that seems to have gone, until
// watch has found out.
func (p *Plugin) suspend(e *endpoint, cause error) {
	p.mu.Lock()
	if p.current.CompareAndSwap(e, nil) {
		p.status.Up, p.status.Reason, p.status.Since = false, cause.Error(), time.Now()
	}
	p.mu.Unlock()
	p.tell()
	select {
	case e.lost <- struct{}{}:
	default:
	}
}

// verdict waits for what watch finds out about a plugin that has gone, and
// returns that, or what the call itself knows.
func (p *Plugin) verdict(e *endpoint, cause error) error {
	select {
	case err := <-e.verdict:
		e.verdict <- err // for the next one
		if err != nil {
			return err
		}
	case <-time.After(2 * exitGrace):
	}
	return cause
}

// resume ends a suspension without reason.
func (p *Plugin) resume(e *endpoint) {
	p.mu.Lock()
	if p.current.CompareAndSwap(nil, e) {
		p.status.Up, p.status.Since = true, time.Now()
	}
	p.mu.Unlock()
	p.tell()
}

// tell wakes the lane.
func (p *Plugin) tell() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// watch watches a plugin that runs until it fails, or ctx ends: then there is
// no failure.
func (p *Plugin) watch(ctx context.Context, e *endpoint) failure {
	look := time.NewTicker(p.Pace.Look)
	defer look.Stop()
	questions, cancel := context.WithCancel(ctx)
	answers := make(chan error, 1)
	began, asking, asked := time.Now(), false, time.Now()
	defer func() {
		cancel()
		if asking {
			<-answers
		}
	}()
	ask := func() {
		if asking {
			return
		}
		asking, asked = true, time.Now()
		go func() { answers <- e.alive(questions, p.Pace.Patience) }()
	}
	for {
		select {
		case <-ctx.Done():
			return failure{}
		case <-e.exited:
			return failure{"exit", fmt.Errorf("it ended with %s", e.state())}
		case <-e.lost:
			ask()
		case err := <-answers:
			asking = false
			if p.closing.Load() {
				continue // it forgets us
			}
			if err != nil && ctx.Err() == nil {
				return p.silent(e, err)
			}
			p.resume(e)
		case now := <-look.C:
			if f := p.measure(e); f.err != nil {
				return f
			}
			if now.Sub(asked) >= p.Pace.Ask {
				ask()
			}
			if now.Sub(began) > p.Pace.MaxAgain {
				p.recovered()
			}
		}
	}
}

// recovered forgets the failures of a plugin that has lived for long.
func (p *Plugin) recovered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Failures = 0
}

// silent is the failure of a plugin that has not answered.
func (p *Plugin) silent(e *endpoint, err error) failure {
	if e.exited == nil {
		return failure{"connection", fmt.Errorf("the service has gone: %w", err)}
	}
	select {
	case <-e.exited: // that is why
		return failure{"exit", fmt.Errorf("it ended with %s", e.state())}
	case <-time.After(exitGrace):
	}
	if status.Code(err) == codes.DeadlineExceeded {
		return failure{"hang", fmt.Errorf("it did not answer within %s", p.Pace.Patience)}
	}
	return failure{"hang", fmt.Errorf("it does not answer as it should: %w", err)}
}

// measure looks at the process's memory.
func (p *Plugin) measure(e *endpoint) failure {
	if e.pid == 0 || !measuresMemory {
		return failure{}
	}
	bytes, err := resident(e.pid)
	if err != nil {
		return failure{} // the process has just ended
	}
	p.Metrics.memory.WithLabelValues(p.Name).Set(float64(bytes))
	if limit := p.process.Limits.MaxMemory; limit > 0 && bytes > int64(limit) {
		return failure{"memory", fmt.Errorf("it had %d MiB of memory, process.max_memory is %s", bytes>>20, limit)}
	}
	return failure{}
}
