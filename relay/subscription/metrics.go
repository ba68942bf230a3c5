package subscription

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are shared by all sources, and by the Keepers of one registry.
type metrics struct {
	rounds *prometheus.CounterVec // by source and outcome
	states *prometheus.GaugeVec   // by source and status
}

// newMetrics registers the metrics, or takes those that another Keeper has
// registered already.
func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		rounds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_subscription_rounds_total",
			Help: "Attempts to make subscriber and subscriptions as declared, by outcome: ensured or failed.",
		}, []string{"source", "outcome"}),
		states: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "pimrelay_subscription_declared_subscriptions",
			Help: "Declared subscriptions by their status at the platform: active, suspended, revoked, other or unknown.",
		}, []string{"source", "status"}),
	}
	if registerer == nil {
		return m, nil
	}
	var err error
	if m.rounds, err = register(registerer, m.rounds); err != nil {
		return nil, err
	}
	m.states, err = register(registerer, m.states)
	return m, err
}

func register[C prometheus.Collector](registerer prometheus.Registerer, c C) (C, error) {
	err := registerer.Register(c)
	var taken prometheus.AlreadyRegisteredError
	if errors.As(err, &taken) {
		if existing, ok := taken.ExistingCollector.(C); ok {
			return existing, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("register the metrics of subscriptions: %w", err)
	}
	return c, nil
}

// count sets how many declared subscriptions of a source have each status.
func (m *metrics) count(source string, counts map[string]float64) {
	for _, status := range []string{"active", "suspended", "revoked", "other", "unknown"} {
		m.states.WithLabelValues(source, status).Set(counts[status])
	}
}

// forget takes back what count has set, for a source that is kept no more.
func (m *metrics) forget(source string) {
	m.states.DeletePartialMatch(prometheus.Labels{"source": source})
}
