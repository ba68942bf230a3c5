package journal

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	appended, duplicates, commitErrors prometheus.Counter
	commitSeconds, groupSize           prometheus.Histogram
	shed, expired                      *prometheus.CounterVec
	liveBytes, freeBytes               prometheus.Gauge
	oldestSeconds, horizonSeconds      prometheus.Gauge
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
		shed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_journal_shed_total", Help: "Events that became dead letters because a backlog was over its limit or its forwarder gone."}, []string{"forwarder"}),
		expired: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_journal_expired_dead_letters_total", Help: "Dead letters that were deleted at their limit."}, []string{"forwarder"}),
		liveBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pimrelay_journal_live_bytes", Help: "Bytes of the journal's file that are in use."}),
		freeBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pimrelay_journal_free_bytes", Help: "Bytes of the journal's file that are free for use."}),
		oldestSeconds: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pimrelay_journal_oldest_event_seconds", Help: "Age of the oldest event that is kept, 0 for none."}),
		horizonSeconds: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pimrelay_journal_dedupe_horizon_seconds", Help: "Age of the oldest id that is remembered, 0 for none."}),
	}
	if r != nil {
		r.MustRegister(m.appended, m.duplicates, m.commitErrors, m.commitSeconds, m.groupSize,
			m.shed, m.expired, m.liveBytes, m.freeBytes, m.oldestSeconds, m.horizonSeconds)
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
