package dispatch

import (
	"context"
	"fmt"
	"slices"
	"time"

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
//
// A plugin that ends with every event tells nothing of any of them: its
// destination may be away, or somebody may be killing it. So an event is only
// given up when another one has come through since it was suspected, or when it
// has been tried for as long as any other event that fails.
type suspect struct {
	items  []*item
	ends   int       // times that the plugin has ended with this batch alone in its hands
	since  time.Time // when it was suspected
	proofs int64     // calls that had come back by then
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

// question delivers a suspect, when nothing else is being delivered.
func (r *running) question() {
	if len(r.inFlight) > 0 || r.now.Before(r.pace.until) || !r.breaker.closed() && !r.breaker.wantsProbe(r.now) {
		return
	}
	s, witness := r.nextSuspect()
	if !r.limiter.takeAll(r.now, len(s.items)) {
		return
	}
	done, ok := r.breaker.allow(r.now)
	if !ok {
		return
	}
	if witness {
		r.ready.take(1)
	} else {
		r.suspects = r.suspects[1:]
	}
	r.start(&call{items: s.items, done: done, probe: !r.breaker.closed(), suspect: &s})
}

// nextSuspect is the first suspect, or, if all are only short of a proof, an
// event that nobody suspects and that may give it.
func (r *running) nextSuspect() (s suspect, witness bool) {
	unproven := !slices.ContainsFunc(r.suspects, func(s suspect) bool { return s.ends < strikes })
	if unproven && len(r.ready.parts) == 0 && len(r.ready.items) > 0 && len(r.suspects) < mostSuspects {
		return suspect{items: r.ready.items[:1:1], since: r.now, proofs: r.proofs}, true
	}
	return r.suspects[0], false
}

// mostSuspects bounds the events that a plugin that ends with everything makes
// suspects of.
const mostSuspects = 8

// lose takes the events that were lost out of the call: they have not been
// tried, and are delivered again when the plugin is back. It says nothing about
// the destination.
func (r *running) lose(c *call) {
	items := c.items[min(len(c.outcomes), len(c.items)):]
	c.items = c.items[:len(c.items)-len(items)]
	s := suspect{items: items, since: r.now, proofs: r.proofs}
	if c.suspect != nil {
		s.ends, s.since, s.proofs = c.suspect.ends, c.suspect.since, c.suspect.proofs
	}
	switch {
	case len(items) == 0 || c.cut: // due again when the cursor is opened again
	case !c.inHand && c.suspect == nil:
		r.ready.putBack(items)
	case !c.inHand:
		r.suspects = append([]suspect{s}, r.suspects...)
	case c.suspect == nil:
		r.suspects = append(r.suspects, s)
	default:
		s.ends++
		r.condemn(s, c.lost)
	}
}

// condemn decides what becomes of a batch with which alone in its hands the
// plugin has ended.
func (r *running) condemn(s suspect, cause error) {
	switch {
	case s.ends < strikes:
		r.suspects = append([]suspect{s}, r.suspects...)
	case len(s.items) > 1:
		r.Logger.Warn("the plugin keeps ending with this batch in its hands, its halves are tried", "err", cause, "events", len(s.items))
		half := len(s.items) / 2
		r.suspects = append([]suspect{s.part(s.items[:half:half]), s.part(s.items[half:])}, r.suspects...)
	case r.proofs == s.proofs && r.now.Sub(s.since) < r.config.Retry.GiveUpAfter:
		r.suspects = append(r.suspects, s) // the others first
	default:
		i := s.items[0]
		r.bury(i, i.Attempts+s.ends, fmt.Sprintf("the plugin has ended %d times with this event alone in its hands: %v", s.ends, cause), "")
		r.free(i)
	}
}

// part is a half of a batch that is guilty. It is halved again at its first end;
// a single event gets its full number.
func (s suspect) part(items []*item) suspect {
	s.items, s.ends = items, strikes-1
	if len(items) == 1 {
		s.ends = 0
	}
	return s
}
