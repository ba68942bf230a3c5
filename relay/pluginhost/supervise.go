package pluginhost

import (
	"context"
	"errors"
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
	// failures are those in a row without a long life in between; the waits
	// grow with those in a row without a delivery.
	failures, idle := 0, 0
	for ctx.Err() == nil {
		began := time.Now()
		e, err := p.launch(ctx)
		failed := failure{"start", p.secrets.Load().err(err)}
		if err == nil {
			p.setUp(e, began)
		}
		p.started(failed.err)
		if err == nil {
			up := time.Now()
			failed = p.watch(ctx, e)
			failed.err = p.secrets.Load().err(failed.err)
			p.retire(ctx, e, failed)
			if e.served.Load() {
				idle = 0
			}
			if time.Since(up) > p.Pace.MaxAgain {
				failures, idle = 0, 0
			}
		}
		if ctx.Err() != nil {
			return
		}
		failures++
		idle++
		wait := p.Pace.wait(idle)
		p.setDown(failed, failures, time.Now().Add(wait))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// retire puts away a plugin that has failed, or that ctx ends. What has failed
// has nothing to finish, unless that is what it is doing, or all that it may.
func (p *Plugin) retire(ctx context.Context, e *endpoint, failed failure) {
	reason := failed.err
	if reason == nil {
		reason = errors.New("it is being closed")
	}
	p.suspend(e, reason)
	if failed.cause == "memory" || failed.cause == "stopping" {
		p.finish(ctx, e, failed.cause == "memory")
	}
	p.mu.Lock()
	e.failure = reason
	p.settle(e)
	p.mu.Unlock()
	e.dispose(failed.err != nil)
}

// finishWithin is how long a process that must be ended may take to finish what
// it has in hand, and stoppedWithin one that somebody else is ending.
const (
	finishWithin  = 5 * time.Second
	stoppedWithin = 25 * time.Second
)

// finish lets a plugin that works finish what it has in hand: one that must be
// ended, or one that somebody else is ending.
func (p *Plugin) finish(ctx context.Context, e *endpoint, ours bool) {
	if !ours {
		ctx, cancel := context.WithTimeout(ctx, stoppedWithin)
		defer cancel()
		e.idle(ctx)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, finishWithin)
	defer cancel()
	if err := e.finish(ctx); err != nil {
		p.Logger.Warn("plugin did not finish what it had in hand", "err", p.secrets.Load().err(err))
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
	p.Metrics.memory.WithLabelValues(p.Name).Set(0)
	p.Metrics.exits.WithLabelValues(p.Name, failed.cause).Inc()
	_, faulty := failed.err.(sdk.Faults)
	message := "plugin failed, it is started again"
	if faulty {
		message = "plugin refuses its configuration, its forwarder stands still"
	}
	p.Logger.Error(message, "err", failed.err, "cause", failed.cause, "failures", failures, "next", time.Until(next).Round(time.Millisecond))
}

// suspend lets no more calls through to a plugin that seems to have gone, until
// watch has found out, which closes the returned channel.
func (p *Plugin) suspend(e *endpoint, cause error) (settled <-chan struct{}) {
	p.mu.Lock()
	if e.settled == nil {
		e.settled = make(chan struct{})
	}
	settled = e.settled
	if e.failure != nil {
		p.settle(e) // it is known already
	}
	if p.current.CompareAndSwap(e, nil) {
		p.status.Up, p.status.Reason, p.status.Since = false, p.secrets.Load().text(cause.Error()), time.Now()
		p.Metrics.up.WithLabelValues(p.Name).Set(0)
	}
	p.mu.Unlock()
	p.tell()
	select {
	case e.lost <- struct{}{}:
	default:
	}
	return settled
}

// settle tells whoever waits that it is known how the plugin is. The caller holds
// mu.
func (p *Plugin) settle(e *endpoint) {
	if e.settled != nil {
		close(e.settled)
		e.settled = nil
	}
}

// resume ends a suspension without reason.
func (p *Plugin) resume(e *endpoint) {
	p.mu.Lock()
	if p.current.CompareAndSwap(nil, e) {
		p.status.Up, p.status.Since = true, time.Now()
		p.Metrics.up.WithLabelValues(p.Name).Set(1)
	}
	p.settle(e)
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
			if p.current.Load() == e {
				// Another plugin of the same name, of a reload, may have
				// set or removed it.
				p.Metrics.up.WithLabelValues(p.Name).Set(1)
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
	if errors.Is(err, errStopping) {
		return failure{"stopping", err}
	}
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
