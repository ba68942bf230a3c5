package journal

import (
	"math"
	"math/bits"
)

// WindowEvents is how far a lane may work past its watermark.
const WindowEvents = 10_000

// windowBits is the capacity of a window: a power of two above WindowEvents.
const windowBits = 1 << 14

// window is the part of a cursor above its watermark: which of those events
// are settled. The zero value begins at 0.
type window struct {
	watermark int64 // everything up to it is settled
	top       int64 // the highest settled number, or the watermark
	marks     [windowBits / 64]uint64
}

func (w *window) bit(seq int64) (word *uint64, mask uint64) {
	i := uint64(seq) % windowBits
	return &w.marks[i/64], 1 << (i % 64)
}

func (w *window) isSettled(seq int64) bool {
	if seq <= w.watermark {
		return true
	}
	if seq > w.top {
		return false
	}
	word, mask := w.bit(seq)
	return *word&mask != 0
}

// settle marks seq, which must be within WindowEvents of the watermark, and
// moves the watermark over what is settled.
func (w *window) settle(seq int64) {
	if seq <= w.watermark {
		return
	}
	word, mask := w.bit(seq)
	*word |= mask
	w.top = max(w.top, seq)
	for w.watermark < w.top {
		word, mask := w.bit(w.watermark + 1)
		if *word&mask == 0 {
			return
		}
		*word &^= mask
		w.watermark++
	}
}

// jump moves the watermark to seq over numbers that do not exist. Nothing
// between may be unsettled.
func (w *window) jump(seq int64) {
	*w = window{watermark: seq, top: seq}
}

// encode is what is settled above the watermark, as the database keeps it.
func (w *window) encode() []byte {
	out := make([]byte, (w.top-w.watermark+7)/8)
	for seq := w.watermark + 1; seq <= w.top; seq++ {
		if word, mask := w.bit(seq); *word&mask != 0 {
			i := seq - w.watermark - 1
			out[i/8] |= 1 << (i % 8)
		}
	}
	return out
}

func decodeWindow(watermark int64, settled []byte) window {
	w := window{watermark: watermark, top: watermark}
	for i := int64(0); i < int64(len(settled))*8 && i < WindowEvents; i++ {
		if settled[i/8]&(1<<(i%8)) != 0 {
			w.settle(watermark + 1 + i)
		}
	}
	return w
}

// settledAbove counts what is settled above the watermark.
func (w *window) settledAbove() int64 {
	n := 0
	for _, word := range w.marks {
		n += bits.OnesCount64(word)
	}
	return int64(n)
}

// hand is what a lane has in its hands that it was given for the first time, by
// number, with the sizes. All of it is within WindowEvents of the watermark.
type hand struct {
	sizes [windowBits]uint32 // 0: not in hand
	bytes int64
}

func (h *hand) take(seq, size int64) {
	h.sizes[uint64(seq)%windowBits] = uint32(min(max(size, 1), math.MaxUint32))
	h.bytes += h.size(seq)
}

// size is 0 for an event that is not in hand.
func (h *hand) size(seq int64) int64 { return int64(h.sizes[uint64(seq)%windowBits]) }

func (h *hand) drop(seq int64) {
	h.bytes -= h.size(seq)
	h.sizes[uint64(seq)%windowBits] = 0
}
