package simulator

import (
	"encoding/json"
	"errors"
	"net/http"
)

// serveFire is POST /simulator/events: a Firing in, a Fired out.
func (s *Simulator) serveFire(w http.ResponseWriter, r *http.Request) {
	var f Firing
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&f); err != nil {
		writeRefusal(w, refuse(http.StatusBadRequest,
			`the body must be JSON like {"type": "com.akeneo.pim.v1.product.updated", "count": 1, "rate": 0, "data": {}}: %v`, err))
		return
	}
	fired, err := s.Fire(f)
	switch {
	case errors.Is(err, ErrStopped):
		writeRefusal(w, refuse(http.StatusServiceUnavailable, "%v", err))
	case err != nil:
		writeRefusal(w, refuse(http.StatusBadRequest, "%v", err))
	default:
		writeJSON(w, http.StatusAccepted, fired)
	}
}

// serveReport is GET /simulator/report.
func (s *Simulator) serveReport(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.Report())
}
