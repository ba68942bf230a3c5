package edge

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the door counts. The label source is a name from the
// configuration, or empty for a request that belongs to no source.
type metrics struct {
	answers    *prometheus.CounterVec
	refused    *prometheus.CounterVec
	seconds    prometheus.Histogram
	handshakes prometheus.Counter
	crowded    prometheus.Counter
	panics     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, bodies *budget, guard *guard) (*metrics, error) {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_edge_answers_total",
			Help: "Requests answered, by source and status code.",
		}, []string{"source", "code"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                            "pimrelay_edge_answer_seconds",
			Help:                            "Time from the first byte of a source's delivery to its answer. The platform gives up after 5 s.",
			Buckets:                         []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 4, 5},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_edge_refused_total",
			Help: "Requests that were not accepted, by source and reason. Watch signature_missing, signature_wrong and unknown_path: they precede a suspension.",
		}, []string{"source", "reason"}),
		handshakes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pimrelay_edge_broken_handshakes_total",
			Help: "Connections on which the client sent something and no TLS came about, mostly of port scanners.",
		}),
		crowded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pimrelay_edge_crowded_connections_total",
			Help: "Connections closed unread because their address had as many as it may have.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pimrelay_edge_panics_total",
			Help: "Panics while a request was being answered. Each is a defect.",
		}),
	}
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pimrelay_edge_bodies_in_flight_bytes",
		Help: "Bytes held for the bodies of requests being answered.",
	}, func() float64 { return float64(bodies.used.Load()) })

	var errs []error
	for _, c := range []prometheus.Collector{m.answers, m.refused, m.seconds, m.handshakes, m.crowded, m.panics, inFlight, guard} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register the metrics of the door: %w", err)
	}
	return m, nil
}

// answered counts one request.
func (m *metrics) answered(v verdict, took time.Duration) {
	m.answers.WithLabelValues(v.source, v.answer.code()).Inc()
	if v.reason != "" {
		m.refused.WithLabelValues(v.source, string(v.reason)).Inc()
	}
	if v.delivery {
		m.seconds.Observe(took.Seconds())
	}
}
