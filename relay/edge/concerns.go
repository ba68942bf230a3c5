package edge

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Concern is something about the door that a person should look at.
type Concern struct {
	// Key names the thing, and stays the same while the message changes.
	Key     string
	Message string
	Since   time.Time
}

// concernFor is how long after it was seen last a trouble is a concern, unless
// it is seen to be over.
const concernFor = time.Hour

// mostTroubles bounds how many are remembered: strangers can cause some.
const mostTroubles = 256

// trouble is one kind of it, at one place.
type trouble struct {
	// key is a Concern's; what concerns several places has the same.
	key string
	// place is where it was seen, such as a path.
	place string
}

// troubles are what was seen lately. The zero value is empty.
type troubles struct {
	count atomic.Int64 // len(seen), so that over costs nothing where all is well

	mu   sync.Mutex
	seen map[trouble]*sighting // guarded by mu
}

type sighting struct {
	message     string
	first, last time.Time
	times       int
}

// note remembers a trouble. Beyond mostTroubles, those at further places are
// not remembered.
func (t *troubles) note(what trouble, message string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen = make(map[trouble]*sighting)
	}
	s := t.seen[what]
	if s == nil {
		if len(t.seen) >= mostTroubles {
			t.forget(now)
		}
		if len(t.seen) >= mostTroubles {
			return
		}
		s = &sighting{first: now}
		t.seen[what] = s
		t.count.Store(int64(len(t.seen)))
	}
	s.message, s.last = message, now
	s.times++
}

// over forgets a trouble: it is seen to have ended.
func (t *troubles) over(what trouble) {
	if t.count.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.seen, what)
	t.count.Store(int64(len(t.seen)))
}

// forget drops what has not been seen for a while. The caller holds mu.
func (t *troubles) forget(now time.Time) {
	maps.DeleteFunc(t.seen, func(_ trouble, s *sighting) bool { return now.Sub(s.last) > concernFor })
	t.count.Store(int64(len(t.seen)))
}

// concerns are one for each key, with the place that was seen last.
func (t *troubles) concerns(now time.Time) (all []Concern) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(now)
	type sum struct {
		latest, first *sighting
		place         string
		times         int
	}
	byKey := make(map[string]*sum)
	for what, s := range t.seen {
		k := byKey[what.key]
		if k == nil {
			k = &sum{latest: s, first: s, place: what.place}
			byKey[what.key] = k
		}
		k.times += s.times
		if s.last.After(k.latest.last) {
			k.latest, k.place = s, what.place
		}
		if s.first.Before(k.first.first) {
			k.first = s
		}
	}
	for key, k := range byKey {
		message := fmt.Sprintf("%s (%s, %d times, last at %s)", k.latest.message, k.place, k.times, k.latest.last.UTC().Format(time.RFC3339))
		all = append(all, Concern{Key: key, Message: message, Since: k.first.first})
	}
	return all
}

// Concerns are what a person should look at, by key: signed deliveries that
// cannot be verified, that come for no source or from an address that is not
// allowed, and sources whose rate of success nears the one at which the platform
// suspends their subscriptions.
func (s *Server) Concerns() []Concern {
	now := time.Now()
	all := append(s.troubles.concerns(now), s.guard.concerns(now)...)
	slices.SortFunc(all, func(a, b Concern) int { return cmp.Compare(a.Key, b.Key) })
	return all
}
