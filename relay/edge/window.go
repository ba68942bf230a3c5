package edge

import "time"

// windowMinutes is how far back a window looks: the platform judges the last
// hour.
const windowMinutes = 60

// failing is a way in which a delivery fails in the platform's eyes.
type failing uint8

const (
	failedUnsigned    failing = iota // 401
	failedTooLarge                   // 413
	failedLate                       // answered after the platform's patience
	failedGone                       // the client went away before the answer
	failedUndelivered                // 429, and for more than an hour nothing else
	failedHandshake                  // no TLS connection came about
	failings
)

var failingNames = [failings]string{
	"without signature headers", "too large", "answered too late", "cut off before the answer", "undelivered for over an hour after a 429", "failed TLS handshakes",
}

// tally is what became of deliveries.
type tally struct {
	succeeded uint64
	failed    [failings]uint64
}

func (t *tally) add(o tally) {
	t.succeeded += o.succeeded
	for i, n := range o.failed {
		t.failed[i] += n
	}
}

// failures is how many failed, in whatever way.
func (t *tally) failures() (n uint64) {
	for _, f := range t.failed {
		n += f
	}
	return n
}

// rate is the part that succeeded; 1 if there was nothing.
func (t *tally) rate() float64 {
	all := t.succeeded + t.failures()
	if all == 0 {
		return 1
	}
	return float64(t.succeeded) / float64(all)
}

// window is the tally of the last hour, to the minute. The zero value is empty.
type window struct {
	minutes [windowMinutes]tally
	latest  int64 // the minute since 1970 that was counted last
}

// at returns the tally of the minute of now, having forgotten what is too old. A
// clock that goes back counts on in the latest minute.
func (w *window) at(now time.Time) *tally {
	minute := max(now.Unix()/60, w.latest)
	if minute-w.latest >= windowMinutes {
		w.minutes = [windowMinutes]tally{}
	} else {
		for m := w.latest + 1; m <= minute; m++ {
			w.minutes[m%windowMinutes] = tally{}
		}
	}
	w.latest = minute
	return &w.minutes[minute%windowMinutes]
}

// sum is the tally of the hour before now.
func (w *window) sum(now time.Time) (all tally) {
	w.at(now)
	for _, t := range w.minutes {
		all.add(t)
	}
	return all
}
