package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// part is something that runs as long as the daemon does.
type part struct {
	name string
	// run returns when its context has ended and everything is put away. If
	// it returns before, the daemon ends.
	run func(context.Context) error
}

// runParts starts the parts and, when ctx ends or one of them fails, stops them
// one after the other in their order: each has ended before the next is told
// to.
func runParts(ctx context.Context, log *slog.Logger, parts []part) error {
	ctx, fail := context.WithCancel(ctx)
	defer fail()
	type running struct {
		stop context.CancelFunc
		done chan error
	}
	all := make([]running, len(parts))
	for i, p := range parts {
		// A part outlives ctx until it is its turn to stop.
		own, stop := context.WithCancel(context.WithoutCancel(ctx))
		all[i] = running{stop: stop, done: make(chan error, 1)}
		go func() {
			err := p.run(own)
			if own.Err() == nil && err == nil {
				err = errors.New("ended although nobody told it to")
			}
			all[i].done <- err
			fail()
		}()
	}
	<-ctx.Done()
	var errs []error
	for i, p := range parts {
		log.Debug("stopping", "part", p.name)
		all[i].stop()
		if err := <-all[i].done; err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	return errors.Join(errs...)
}
