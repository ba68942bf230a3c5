package certificates

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what is counted of certificates. The label host is a name from the
// configuration.
type metrics struct {
	changes *prometheus.CounterVec
}

// What becomes of an attempt to replace a certificate.
const (
	outcomeReplaced = "replaced"
	outcomeFailed   = "failed"
)

var notAfterDesc = prometheus.NewDesc("pimrelay_edge_certificate_not_after_seconds",
	"When the certificate in use ends, in seconds since 1970; absent without one.", []string{"host"}, nil)

// statusCollector shows the end of each certificate.
type statusCollector func() []Status

func (statusCollector) Describe(ch chan<- *prometheus.Desc) { ch <- notAfterDesc }

func (c statusCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c() {
		if !s.NotAfter.IsZero() {
			ch <- prometheus.MustNewConstMetric(notAfterDesc, prometheus.GaugeValue, float64(s.NotAfter.Unix()), s.Host)
		}
	}
}

func newMetrics(r prometheus.Registerer, status func() []Status, hosts []string) (*metrics, error) {
	m := &metrics{changes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pimrelay_edge_certificate_changes_total",
		Help: "Attempts to get another certificate, by outcome: replaced or failed.",
	}, []string{"host", "outcome"})}
	if err := errors.Join(r.Register(m.changes), r.Register(statusCollector(status))); err != nil {
		return nil, fmt.Errorf("register the metrics of the certificates: %w", err)
	}
	for _, host := range hosts {
		m.changes.WithLabelValues(host, outcomeReplaced)
		m.changes.WithLabelValues(host, outcomeFailed)
	}
	return m, nil
}

// reportAlarms logs what Status has to complain of at each tick, until ctx ends:
// once when it changes, and again each day while it lasts.
func reportAlarms(ctx context.Context, tick <-chan time.Time, status func() []Status, log *slog.Logger) {
	type said struct {
		alarm string
		at    time.Time
	}
	last := make(map[string]said)
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick:
			for _, s := range status() {
				alarm := s.Alarm(now)
				if before := last[s.Host]; alarm == "" || alarm == before.alarm && now.Sub(before.at) < 24*time.Hour {
					continue
				}
				last[s.Host] = said{alarm, now}
				log.Error("certificate alarm", "host", s.Host, "err", alarm)
			}
		}
	}
}
