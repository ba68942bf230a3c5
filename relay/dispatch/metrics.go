package dispatch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pimrelay/pimrelay/sdk"
)

// Metrics are the metrics of all lanes together, by forwarder.
type Metrics struct {
	outcomes, unmatchedEvents, deadLetters *prometheus.CounterVec
	deliverSeconds                         *prometheus.HistogramVec
}

// NewMetrics registers the metrics with r.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_dispatch_outcomes_total", Help: "Deliveries of single events by outcome."}, []string{"forwarder", "outcome"}),
		unmatchedEvents: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_dispatch_unmatched_total", Help: "Events that the forwarder's match leaves out; missing: because a field is missing."}, []string{"forwarder", "missing"}),
		deadLetters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_dispatch_dead_letters_total", Help: "Events that became dead letters."}, []string{"forwarder"}),
		deliverSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pimrelay_dispatch_deliver_seconds", Help: "Time of one call of a forwarder.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 13)}, []string{"forwarder"}),
	}
	r.MustRegister(m.outcomes, m.unmatchedEvents, m.deadLetters, m.deliverSeconds)
	return m
}

func (m *Metrics) outcome(forwarder string, r sdk.Result) {
	m.outcomes.WithLabelValues(forwarder, r.String()).Inc()
}

func (m *Metrics) unmatched(forwarder string, missing bool) {
	label := "no"
	if missing {
		label = "yes"
	}
	m.unmatchedEvents.WithLabelValues(forwarder, label).Inc()
}

func (m *Metrics) buried(forwarder string) { m.deadLetters.WithLabelValues(forwarder).Inc() }

func (m *Metrics) delivered(forwarder string, took time.Duration) {
	m.deliverSeconds.WithLabelValues(forwarder).Observe(took.Seconds())
}
