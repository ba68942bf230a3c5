package observe

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Telemetry serves /livez, /readyz and /metrics, and nothing else.
type Telemetry struct {
	Health *Health
	// Warnings, if set, is asked for further warnings at each probe.
	Warnings func() []Warning
	Gatherer prometheus.Gatherer
	Logger   *slog.Logger
}

// readiness is the body of /readyz.
type readiness struct {
	Ready    bool      `json:"ready"`
	Reason   string    `json:"reason,omitempty"`
	Warnings []Warning `json:"warnings"`
}

// Handler answers the probes. An answer takes at most half a minute.
func (t *Telemetry) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", t.serveReady)
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.Gatherer, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 30 * time.Second,
		ErrorLog: slog.NewLogLogger(t.Logger.Handler(), slog.LevelError), ErrorHandling: promhttp.ContinueOnError,
	}))
	return mux
}

func (t *Telemetry) serveReady(w http.ResponseWriter, _ *http.Request) {
	body := readiness{Warnings: t.Health.Warnings()}
	body.Ready, body.Reason = t.Health.Ready()
	if t.Warnings != nil {
		body.Warnings = append(body.Warnings, t.Warnings()...)
	}
	w.Header().Set("Content-Type", "application/json")
	if !body.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if err := json.NewEncoder(w).Encode(body); err != nil {
		t.Logger.Debug("probe not answered", "err", err)
	}
}
