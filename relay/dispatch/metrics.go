package dispatch

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pimrelay/pimrelay/sdk"
)

// Metrics are the metrics of all lanes together, by forwarder.
type Metrics struct {
	outcomes, leftOut, deadLetters *prometheus.CounterVec
	deliverSeconds                 *prometheus.HistogramVec
	breaker                        *prometheus.GaugeVec
}

// NewMetrics registers the metrics with r.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_dispatch_outcomes_total", Help: "Deliveries of single events by outcome."}, []string{"forwarder", "outcome"}),
		leftOut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_dispatch_unmatched_total", Help: "Events that the forwarder does not get: match: it leaves them out; missing: match asks for a field that they lack; author: skip_authors."}, []string{"forwarder", "reason"}),
		deadLetters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_dispatch_dead_letters_total", Help: "Events that became dead letters."}, []string{"forwarder"}),
		deliverSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pimrelay_dispatch_deliver_seconds", Help: "Time of one call of a forwarder.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 13)}, []string{"forwarder"}),
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "pimrelay_dispatch_breaker_state", Help: "State of the forwarder's breaker: 0 closed, 1 half open, 2 open."}, []string{"forwarder"}),
	}
	r.MustRegister(m.outcomes, m.leftOut, m.deadLetters, m.deliverSeconds, m.breaker)
	return m
}

// laneMetrics are the metrics of one lane.
type laneMetrics struct {
	outcomes       [sdk.ResultRejected + 1]prometheus.Counter
	leftOut        map[reason]prometheus.Counter
	deadLetters    prometheus.Counter
	deliverSeconds prometheus.Observer
	breaker        prometheus.Gauge
}

func (m *Metrics) lane(forwarder string) *laneMetrics {
	l := &laneMetrics{
		leftOut:        make(map[reason]prometheus.Counter),
		deadLetters:    m.deadLetters.WithLabelValues(forwarder),
		deliverSeconds: m.deliverSeconds.WithLabelValues(forwarder),
		breaker:        m.breaker.WithLabelValues(forwarder),
	}
	for r := range l.outcomes {
		l.outcomes[r] = m.outcomes.WithLabelValues(forwarder, sdk.Result(r).String())
	}
	for _, r := range []reason{noMatch, fieldMissing, authorSkip} {
		l.leftOut[r] = m.leftOut.WithLabelValues(forwarder, string(r))
	}
	return l
}

// outcome counts a result; one that the contract does not know counts as none.
func (m *laneMetrics) outcome(r sdk.Result) {
	if int(r) >= len(m.outcomes) {
		r = 0
	}
	m.outcomes[r].Inc()
}
