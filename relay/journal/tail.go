package journal

import (
	"sync"

	"github.com/pimrelay/pimrelay/sdk"
)

const (
	tailEvents = 2048
	tailBytes  = 4 << 20
)

// tailEvent is an event with what its row says of sizes.
type tailEvent struct {
	*sdk.Event
	total, size int64
}

// tail keeps the events committed last in memory, so that lanes that keep up
// never read the database.
type tail struct {
	mu     sync.RWMutex
	events []tailEvent // guarded by mu; events[i] has number first+i
	first  int64       // guarded by mu
	bytes  int         // guarded by mu
}

func (t *tail) reset(head int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events, t.first, t.bytes = nil, head+1, 0
}

func (t *tail) add(group []*request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range group {
		if r.seq != 0 {
			t.events = append(t.events, tailEvent{r.event, r.row.total, r.row.size()})
			t.bytes += len(r.event.Body)
		}
	}
	drop := 0
	for len(t.events)-drop > tailEvents || t.bytes > tailBytes {
		t.bytes -= len(t.events[drop].Body)
		t.events[drop] = tailEvent{}
		drop++
	}
	t.events = t.events[drop:]
	t.first += int64(drop)
}

// after returns up to limit events that follow seq, and false if the first of
// them is no longer in memory.
func (t *tail) after(seq int64, limit int) ([]Entry, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	from := seq + 1 - t.first
	if from < 0 || from >= int64(len(t.events)) {
		return nil, false
	}
	part := t.events[from:]
	if len(part) > limit {
		part = part[:limit]
	}
	entries := make([]Entry, len(part))
	for i, e := range part {
		entries[i] = Entry{Seq: seq + 1 + int64(i), Event: *e.Event, total: e.total, size: e.size}
	}
	return entries, true
}
