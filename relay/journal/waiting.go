package journal

import (
	"container/heap"
	"slices"
	"time"
)

// table is where an event is kept that is settled for the window and not done.
type table uint8

const (
	noTable      table = 0
	retriesTable table = 1 << iota
	parkedTable
	requeuedTable
)

// item is an event that waits outside the window, or that was handed out from
// there.
type item struct {
	from     table // where its row is
	seq      int64
	size     int64
	key      string
	attempts int
	first    time.Time
	due      time.Time
	outage   time.Duration
	replayed bool
	reason   string
	index    int // in the heap of retries
}

// waiting are the events of a cursor that wait outside its window. The rows of
// requeued events stay on disk until they are handed out.
type waiting struct {
	retries retryHeap
	parked  map[string][]*item // by key, in order
	nParked int
	// How many requeued events are not settled, those that were handed
	// out included, and the last one handed out.
	requeued     int64
	requeuedRead int64
	// out are the events handed out from here and not settled since.
	out   map[int64]*item
	bytes int64 // of all of the above
}

func newWaiting() waiting {
	return waiting{parked: make(map[string][]*item), out: make(map[int64]*item)}
}

// add puts an item where it waits.
func (w *waiting) add(i *item) {
	w.bytes += i.size
	w.put(i)
}

func (w *waiting) put(i *item) {
	switch i.from {
	case retriesTable:
		heap.Push(&w.retries, i)
	case parkedTable:
		w.parked[i.key] = insertInOrder(w.parked[i.key], i)
		w.nParked++
	case requeuedTable:
		w.requeuedRead = min(w.requeuedRead, i.seq-1)
	}
}

// settle takes an item away that had been handed out, and returns it or nil.
func (w *waiting) settle(seq int64) *item {
	i, ok := w.out[seq]
	if !ok {
		return nil
	}
	delete(w.out, seq)
	w.bytes -= i.size
	if i.from == requeuedTable {
		w.requeued--
	}
	return i
}

// takeBack makes an item wait again that had been handed out.
func (w *waiting) takeBack(i *item) {
	delete(w.out, i.seq)
	w.put(i)
}

// takeDue hands out a retry that is due at now, or nil.
func (w *waiting) takeDue(now time.Time) *item {
	if len(w.retries) == 0 || w.retries[0].due.After(now) {
		return nil
	}
	i := heap.Pop(&w.retries).(*item)
	w.out[i.seq] = i
	return i
}

// take hands out an item that waits for a retry or is parked.
func (w *waiting) take(i *item) {
	switch i.from {
	case retriesTable:
		heap.Remove(&w.retries, i.index)
	case parkedTable:
		left := slices.DeleteFunc(w.parked[i.key], func(other *item) bool { return other == i })
		w.parked[i.key] = left
		if len(left) == 0 {
			delete(w.parked, i.key)
		}
		w.nParked--
	}
	w.out[i.seq] = i
}

// takeParked hands out up to limit parked events of the key, in order.
func (w *waiting) takeParked(key string, limit int) []*item {
	all := w.parked[key]
	taken := all[:min(limit, len(all))]
	if len(taken) == len(all) {
		delete(w.parked, key)
	} else {
		w.parked[key] = all[len(taken):]
	}
	w.nParked -= len(taken)
	for _, i := range taken {
		w.out[i.seq] = i
	}
	return taken
}

// insertInOrder keeps the items of a key in the order of their numbers. An item
// nearly always belongs at the end, or at the beginning when it is put back.
func insertInOrder(items []*item, i *item) []*item {
	at := len(items)
	for at > 0 && items[at-1].seq > i.seq {
		at--
	}
	items = append(items, nil)
	copy(items[at+1:], items[at:])
	items[at] = i
	return items
}

// retryHeap has the retry that is due first at its top; of equals, the older
// event.
type retryHeap []*item

func (h retryHeap) Len() int { return len(h) }
func (h retryHeap) Less(i, k int) bool {
	if h[i].due.Equal(h[k].due) {
		return h[i].seq < h[k].seq
	}
	return h[i].due.Before(h[k].due)
}
func (h retryHeap) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].index, h[k].index = i, k
}
func (h *retryHeap) Push(x any) {
	i := x.(*item)
	i.index = len(*h)
	*h = append(*h, i)
}
func (h *retryHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
