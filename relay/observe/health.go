package observe

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Warning is something that a person should look at.
type Warning struct {
	// Key names the thing, and stays the same while the message changes.
	Key     string    `json:"key"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// Health is whether the door can answer, and what else deserves a look. Its
// methods may be called concurrently.
type Health struct {
	count atomic.Int64 // len(warnings), so that Clear costs nothing where all is well
	also  atomic.Pointer[func() []Warning]

	mu       sync.Mutex
	ready    bool               // guarded by mu, as all below
	reason   string             // why not
	warnings map[string]Warning // by key
}

// NewHealth is not ready yet. The number of warnings is a metric.
func NewHealth(r prometheus.Registerer) *Health {
	h := &Health{reason: "starting", warnings: make(map[string]Warning)}
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pimrelay_observe_warnings", Help: "Things that a person should look at: see /readyz.",
	}, func() float64 {
		n := h.count.Load()
		if also := h.also.Load(); also != nil {
			n += int64(len((*also)()))
		}
		return float64(n)
	}))
	return h
}

// Also makes the metric count further warnings, those of the moment, which
// Warnings does not have. It is called concurrently.
func (h *Health) Also(warnings func() []Warning) { h.also.Store(&warnings) }

// SetReady says whether the door can answer, and if not, why.
func (h *Health) SetReady(ready bool, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready, h.reason = ready, reason
}

// Ready is what SetReady said last.
func (h *Health) Ready() (ready bool, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ready, h.reason
}

// Warn shows a warning until Clear is called with its key. Warning again changes
// the message and not the time since when.
func (h *Health) Warn(key, message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w, ok := h.warnings[key]
	if !ok {
		w = Warning{Key: key, Since: time.Now().UTC()}
	}
	w.Message = message
	h.warnings[key] = w
	h.count.Store(int64(len(h.warnings)))
}

// Clear takes a warning back. It is cheap where there is none.
func (h *Health) Clear(key string) {
	if h.count.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.warnings, key)
	h.count.Store(int64(len(h.warnings)))
}

// Warnings are all warnings, by key. It is never nil.
func (h *Health) Warnings() []Warning {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Warning, 0, len(h.warnings))
	for _, w := range h.warnings {
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b Warning) int { return strings.Compare(a.Key, b.Key) })
	return all
}
