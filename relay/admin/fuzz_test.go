package admin

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// FuzzServer checks for any request that it is answered, with JSON where a
// question is asked.
func FuzzServer(f *testing.F) {
	f.Add("POST", "/dead-letters/search", `{"forwarder":"shop","limit":10}`)
	f.Add("POST", "/replay", `{"forwarder":"shop","from":"2026-01-02T03:04:05Z"}`)
	f.Add("POST", "/dead-letters/retry", `{"unknown":1}`)
	f.Add("POST", "/dead-letters/discard", strings.Repeat("[", 1000))
	f.Add("POST", "/forwarders/shop/pause", "")
	f.Add("POST", "/forwarders/%00/resume", "")
	f.Add("GET", "/dead-letters/9223372036854775807", "")
	f.Add("GET", "/status", "")
	f.Add("POST", "//reload/..", "")
	f.Fuzz(func(t *testing.T, method, target, body string) {
		r, err := http.NewRequest(method, "http://admin", strings.NewReader(body))
		if err != nil {
			return
		}
		if r.URL, err = r.URL.Parse(target); err != nil {
			return
		}
		r.RequestURI = target
		server := Server{Daemon: &daemon{}, Logger: slog.New(slog.DiscardHandler)}
		w := httptest.NewRecorder()
		server.Handler().ServeHTTP(w, r)
		if !slices.Contains([]int{200, 301, 307, 400, 404, 405, 422}, w.Code) {
			t.Errorf("%s %q %q: answered %d", method, target, body, w.Code)
		}
		if w.Header().Get("Content-Type") == "application/json" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %q %q: answered %q", method, target, body, w.Body)
		}
	})
}
