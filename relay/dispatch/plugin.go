package dispatch

import (
	"context"
	"fmt"

	"github.com/pimrelay/pimrelay/sdk"
)

// Plugin is a forwarder that runs in a process of its own, and can end and come
// back while its lane runs.
type Plugin interface {
	sdk.Forwarder
	// Attempt is Deliver, but tells of failures that are the plugin's own
	// and not its destination's: then err is not nil, and the outcomes are
	// those of the first events only. inHand says that the plugin had the
	// others when it ended, so that one of them may be the cause.
	Attempt(ctx context.Context, events []sdk.Event) (outcomes []sdk.Outcome, inHand bool, err error)
	// Down is why the plugin takes no calls at the moment, or empty if it
	// does. The lane stands still meanwhile.
	Down() string
	// Changed receives after Down, or what BatchLimits says, has changed.
	Changed() <-chan struct{}
}

// strikes is how often a plugin must end with a batch alone in its hands before
// the batch is halved, and with an event alone before that is given up.
const strikes = 3

// suspect is a batch that a plugin had in hand when it ended or hung. Suspects
// are delivered one at a time and alone, until what ends the plugin is found.
type suspect struct {
	items []*item
	ends  int // times that the plugin has ended with this batch alone in its hands
}

// pluginDown is why the lane's plugin takes no calls, or empty.
func (l *Lane) pluginDown() string {
	if l.plugin == nil {
		return ""
	}
	return l.plugin.Down()
}

// pluginChanged receives when that may have changed.
func (l *Lane) pluginChanged() <-chan struct{} {
	if l.plugin == nil {
		return nil
	}
	return l.plugin.Changed()
}

// question delivers the first suspect, when nothing else is being delivered.
func (r *running) question() {
	s := r.suspects[0]
	if len(r.inFlight) > 0 || r.now.Before(r.pace.until) || r.limiter.take(r.now, len(s.items)) == 0 {
		return
	}
	done, ok := r.breaker.allow(r.now)
	if !ok {
		return
	}
	r.suspects = r.suspects[1:]
	r.start(&call{items: s.items, done: done, probe: !r.breaker.closed(), suspect: &s})
}

// lose takes the events that were lost out of the call: they have not been
// tried, and are delivered again when the plugin is back. It says nothing about
// the destination.
func (r *running) lose(c *call) {
	items := c.items[min(len(c.outcomes), len(c.items)):]
	c.items = c.items[:len(c.items)-len(items)]
	switch {
	case len(items) == 0 || c.cut: // due again when the cursor is opened again
	case !c.inHand && c.suspect == nil:
		r.ready.putBack(items)
	case !c.inHand:
		r.suspects = append([]suspect{{items: items, ends: c.suspect.ends}}, r.suspects...)
	case c.suspect == nil:
		r.suspects = append(r.suspects, suspect{items: items})
	default:
		r.condemn(items, c.suspect.ends+1, c.lost)
	}
}

// condemn decides what becomes of a batch with which alone in its hands the
// plugin has ended that many times.
func (r *running) condemn(items []*item, ends int, cause error) {
	switch {
	case ends < strikes:
		r.suspects = append([]suspect{{items: items, ends: ends}}, r.suspects...)
	case len(items) == 1:
		i := items[0]
		r.bury(i, i.Attempts+ends, fmt.Sprintf("the plugin has ended %d times with this event alone in its hands: %v", ends, cause), "")
		r.free(i)
	default:
		r.Logger.Warn("the plugin keeps ending with this batch in its hands, its halves are tried", "err", cause, "events", len(items))
		half := len(items) / 2
		r.suspects = append([]suspect{halved(items[:half:half]), halved(items[half:])}, r.suspects...)
	}
}

// halved is a half of a batch that is guilty. It is halved again at its first
// end; a single event gets its full number.
func halved(items []*item) suspect {
	if len(items) == 1 {
		return suspect{items: items}
	}
	return suspect{items: items, ends: strikes - 1}
}
