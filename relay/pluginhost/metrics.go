package pluginhost

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the metrics of all plugins together, by forwarder.
type Metrics struct {
	up            *prometheus.GaugeVec
	starts, exits *prometheus.CounterVec
	memory        *prometheus.GaugeVec
}

// NewMetrics registers the metrics with r, which may be nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "pimrelay_pluginhost_up", Help: "1 while the forwarder's process takes deliveries, otherwise 0."}, []string{"forwarder"}),
		starts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_pluginhost_starts_total", Help: "Times that the forwarder's process was started and configured, or its service connected to."}, []string{"forwarder"}),
		exits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_pluginhost_failures_total", Help: "Times that the process failed, by cause: start: it could not be started or configured; exit: it ended; hang: it did not answer; memory: it had more than max_memory; stopping, connection: the service is being stopped, or has gone."}, []string{"forwarder", "cause"}),
		memory: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "pimrelay_pluginhost_resident_bytes", Help: "Resident memory of the forwarder's process (Linux)."}, []string{"forwarder"}),
	}
	if r != nil {
		r.MustRegister(m.up, m.starts, m.exits, m.memory)
	}
	return m
}

// forget removes the gauges of a plugin that has ended.
func (m *Metrics) forget(forwarder string) {
	m.up.DeleteLabelValues(forwarder)
	m.memory.DeleteLabelValues(forwarder)
}
