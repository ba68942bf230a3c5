package journal

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	appended, duplicates, commitErrors prometheus.Counter
	commitSeconds, groupSize           prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		appended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pimrelay_journal_appended_total", Help: "Events stored."}),
		duplicates: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pimrelay_journal_duplicates_total", Help: "Events that were stored already and dropped."}),
		commitErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pimrelay_journal_commit_errors_total", Help: "Transactions that could not be committed."}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pimrelay_journal_commit_seconds", Help: "Time of a transaction, its fsync included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		groupSize: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pimrelay_journal_group_requests", Help: "Requests that shared a transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10)}),
	}
	if r != nil {
		r.MustRegister(m.appended, m.duplicates, m.commitErrors, m.commitSeconds, m.groupSize)
	}
	return m
}

// committed counts a group and returns the number of duplicates in it.
func (m *metrics) committed(group []*request, took time.Duration) (duplicates int64) {
	m.commitSeconds.Observe(took.Seconds())
	m.groupSize.Observe(float64(len(group)))
	for _, r := range group {
		switch {
		case r.seq != 0:
			m.appended.Inc()
		case r.duplicate:
			duplicates++
		}
	}
	m.duplicates.Add(float64(duplicates))
	return duplicates
}
