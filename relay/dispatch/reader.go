package dispatch

import (
	"context"
	"time"

	"github.com/pimrelay/pimrelay/relay/journal"
)

const (
	// fetchEvents is how many events a lane takes from the journal at once.
	fetchEvents = 256
	// unparkEvents is how many parked events of a key come back at once.
	unparkEvents = 32
)

// request asks the reader for events. A request without limit and without keys
// asks for nothing.
type request struct {
	now   time.Time
	limit int      // of what is due or new
	keys  []string // whose parked events are wanted
}

// reply is what the reader has for a request.
type reply struct {
	items []*item
	// unparked has an entry for each of the keys. With an error it may be
	// incomplete, as items.
	unparked map[string][]*item
	limit    int // of the request
	err      error
}

// read answers requests until there are no more. It is a goroutine of its own,
// so that neither the database nor the expressions keep a lane from settling
// and starting deliveries. Replies must have room for one.
func (l *Lane) read(ctx context.Context, requests <-chan request, replies chan<- reply) {
	for req := range requests {
		replies <- l.fetch(ctx, req)
	}
}

func (l *Lane) fetch(ctx context.Context, req request) reply {
	r := reply{unparked: make(map[string][]*item, len(req.keys)), limit: req.limit}
	for _, key := range req.keys {
		entries, err := l.Cursor.Unpark(ctx, key, unparkEvents)
		if err != nil {
			r.err = err
		}
		r.unparked[key] = l.prepare(entries)
	}
	if req.limit > 0 && r.err == nil {
		entries, err := l.Cursor.Next(ctx, req.now, req.limit)
		r.items, r.err = l.prepare(entries), err
	}
	return r
}

func (l *Lane) prepare(entries []journal.Entry) []*item {
	items := make([]*item, len(entries))
	for i, e := range entries {
		items[i] = l.shaper.prepare(e)
	}
	return items
}
