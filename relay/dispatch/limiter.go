package dispatch

import (
	"time"

	"golang.org/x/time/rate"
)

// limiter spends the tokens of a lane's rate, one for each event of a delivery.
// It is used by one goroutine, so that tokens go to events in their order.
type limiter struct {
	rate *rate.Limiter // nil: no limit
	// held are tokens that are on their way, or have come and are not
	// spent: they are usable from the time at.
	held *rate.Reservation
	n    int
	at   time.Time
}

func newLimiter(r *Rate) limiter {
	if r == nil {
		return limiter{}
	}
	return limiter{rate: rate.NewLimiter(rate.Limit(r.PerSecond), r.burst())}
}

// take spends a token for each of up to want events, and returns how many have
// one. If it returns 0, some will have at the time ready.
func (l *limiter) take(now time.Time, want int) (n int) {
	if l.rate == nil {
		return want
	}
	if l.n == 0 {
		want = min(want, l.rate.Burst())
		l.held, l.n = l.rate.ReserveN(now, want), want
		l.at = now.Add(l.held.DelayFrom(now))
	}
	if now.Before(l.at) {
		return 0
	}
	n = min(want, l.n)
	l.n -= n
	return n
}

// takeAll is take for events that must go together.
func (l *limiter) takeAll(now time.Time, want int) bool {
	if l.n != 0 && l.n != want {
		l.release(now)
	}
	return l.take(now, want) == want
}

// ready is when the tokens come that a delivery waits for, or zero.
func (l *limiter) ready() time.Time {
	if l.n == 0 {
		return time.Time{}
	}
	return l.at
}

// release gives back the tokens that a delivery waited for.
func (l *limiter) release(now time.Time) {
	if l.n > 0 {
		l.held.CancelAt(now)
		l.n = 0
	}
}

// pace holds a lane back after its destination has asked for less, or has been
// away: nothing for a while, then one call at a time, and one more with each
// call that succeeds.
type pace struct {
	calls int       // at once, at most
	most  int       // what calls grows to
	until time.Time // nothing is started before
	since time.Time // when the destination asked first for the present pause
	row   int       // times in a row that it asked
}

func newPace(calls int) pace { return pace{calls: calls, most: calls} }

// slow pauses for the wait, counted from now. Calls that were running when the
// destination asked for less hear the same again, which is not counted twice;
// it reports whether this is the first in a row.
func (p *pace) slow(now, began time.Time, wait func(row int) time.Duration) bool {
	if p.row == 0 || began.After(p.since) {
		p.row++
		p.since = now
	}
	if until := now.Add(wait(p.row)); until.After(p.until) {
		p.until = until
	}
	p.calls = 1
	return p.row == 1 && p.since.Equal(now)
}

// recovering makes the lane begin again with one call at a time.
func (p *pace) recovering() { p.calls = 1 }

// succeeded lets one call more run at once.
func (p *pace) succeeded() {
	p.row = 0
	p.calls = min(p.calls+1, p.most)
}
