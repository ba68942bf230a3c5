package observe

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestLogger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	var level slog.LevelVar
	log := NewLogger(&out, &level, "json")
	log.Debug("hidden")
	level.Set(slog.LevelDebug)
	log.Debug("shown", "source", "catalog")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line["msg"] != "shown" || line["source"] != "catalog" {
		t.Errorf("%v in %q", err, out.String())
	}
	out.Reset()
	NewLogger(&out, slog.LevelInfo, "text").Info("shown")
	if !strings.Contains(out.String(), "level=INFO msg=shown") {
		t.Errorf("text: %q", out.String())
	}
	for name, want := range map[string]slog.Level{"debug": -4, "info": 0, "warn": 4, "error": 8} {
		if got, err := ParseLevel(name); err != nil || got != want {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	if _, err := ParseLevel("INFO"); err == nil || !strings.Contains(err.Error(), `got "INFO"`) {
		t.Errorf("INFO: %v", err)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		h := NewHealth(registry)
		if ready, reason := h.Ready(); ready || reason != "starting" {
			t.Errorf("at first: %v %q", ready, reason)
		}
		began := time.Now().UTC()
		h.Warn("b", "first")
		time.Sleep(time.Minute)
		h.Warn("b", "second")
		h.Warn("a", "other")
		want := []Warning{{"a", "other", began.Add(time.Minute)}, {"b", "second", began}}
		if diff := cmp.Diff(want, h.Warnings()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader("# HELP pimrelay_observe_warnings Things that a person should look at: see /readyz.\n# TYPE pimrelay_observe_warnings gauge\npimrelay_observe_warnings 2\n")); err != nil {
			t.Error(err)
		}
		h.Also(func() []Warning { return make([]Warning, 3) })
		if err := testutil.GatherAndCompare(registry, strings.NewReader("# HELP pimrelay_observe_warnings Things that a person should look at: see /readyz.\n# TYPE pimrelay_observe_warnings gauge\npimrelay_observe_warnings 5\n")); err != nil {
			t.Error(err)
		}
		h.Clear("b")
		h.Clear("never there")
		h.Clear("a")
		if got := h.Warnings(); got == nil || len(got) != 0 {
			t.Errorf("after Clear: %#v", got)
		}
	})
}

func TestTelemetry(t *testing.T) {
	t.Parallel()
	registry := NewRegistry("v1.2.3")
	tele := &Telemetry{Health: NewHealth(registry), Gatherer: registry, Logger: slog.New(slog.DiscardHandler),
		Warnings: func() []Warning { return []Warning{{Key: "lane", Message: "fails"}} }}
	server := httptest.NewServer(tele.Handler())
	defer server.Close()
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, tt := range []struct {
		path string
		code int
		body string
	}{
		{"/livez", 200, ""},
		{"/readyz", 503, `{"ready":false,"reason":"starting","warnings":[{"key":"lane","message":"fails"`},
		{"/metrics", 200, `pimrelay_build_info{go_version="go`},
		{"/metrics", 200, `version="v1.2.3"} 1`},
		{"/", 404, ""},
		{"/debug/pprof/", 404, ""},
	} {
		if code, body := get(tt.path); code != tt.code || !strings.Contains(body, tt.body) {
			t.Errorf("%s: %d %q", tt.path, code, body)
		}
	}
	tele.Health.SetReady(true, "")
	if code, body := get("/readyz"); code != 200 || !strings.Contains(body, `"ready":true`) {
		t.Errorf("ready: %d %q", code, body)
	}
}
