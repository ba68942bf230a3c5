package relay_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pimrelay/pimrelay/plugins"
	"github.com/pimrelay/pimrelay/relay"
)

// who may deliver, by a further line of the listen section.
func who(line string) string {
	return strings.Replace(manual, `tls: {mode: "off"}`, `tls: {mode: "off"}`+"\n  "+line, 1) + archive
}

func TestListenIsChecked(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"allow_from: [34.140.80.128/33]":                     `listen.allow_from: must be networks such as 192.0.2.0/24, or addresses (got "34.140.80.128/33")`,
		"trusted_proxies: [proxy.example.com]":               `listen.trusted_proxies: must be networks such as 192.0.2.0/24, or addresses (got "proxy.example.com")`,
		`require_headers: {"a b": x}`:                        `listen.require_headers: must be header names with values (got "a b")`,
		`require_headers: {Authorization: ""}`:               `listen.require_headers: must be header names with values (got "Authorization")`,
		"limits: {headers: 1KiB}":                            "listen.limits.headers: must be from 4KiB to 1MiB (got 1KiB)",
		"limits: {header_timeout: 2m}":                       "listen.limits.header_timeout: must be from 1s to 1m (got 2m0s)",
		"limits: {idle_timeout: 1s}":                         "listen.limits.idle_timeout: must be from 10s to 1h",
		"limits: {concurrent_requests: 0}":                   "listen.limits.concurrent_requests: must be from 1 to 100000 (got 0)",
		"limits: {bodies_in_flight: 10MiB}":                  "listen.limits.bodies_in_flight: must be above max_body, which is 10MiB",
		"limits: {connections_per_address: -1}":              "listen.limits.connections_per_address: must not be below 0 (got -1)",
		"allow_from: [34.140.80.128, 10.0.0.0/8, '::1/128']": "",
	} {
		file := filepath.Join(t.TempDir(), "pimrelay.yaml")
		text := strings.NewReplacer("{dir}", t.TempDir(), "{address}", "127.0.0.1:0").Replace(who(line))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := relay.Load(file, nil, plugins.Builtin)
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

// Who may deliver changes with a reload; the listener does not notice.
func TestReloadOfWhoMayDeliver(t *testing.T) {
	t.Parallel()
	d := start(t, t.TempDir(), who(""))
	send := func(header http.Header) int { return d.post("/hooks/catalog", cloudEvent("1"), header) }
	signature := func(more ...string) http.Header {
		h := signed(cloudEvent("1"))
		for i := 0; i+1 < len(more); i += 2 {
			h.Set(more[i], more[i+1])
		}
		return h
	}
	for _, step := range []struct {
		line   string
		header http.Header
		want   int
		alarm  string
	}{
		{"allow_from: [192.0.2.0/24]", signature(), 429, "listen.allow_from"},
		{"allow_from: [192.0.2.0/24, 127.0.0.1]", signature(), 200, ""},
		{"require_headers: {X-Tenant: acme}", signature(), 429, "listen.require_headers"},
		{"require_headers: {X-Tenant: acme}", signature("X-Tenant", "acme"), 200, ""},
		{"{allow_from: [34.140.80.128], trusted_proxies: [127.0.0.1]}", signature("X-Forwarded-For", "34.140.80.128"), 200, ""},
		{"{allow_from: [34.140.80.128], trusted_proxies: [127.0.0.1]}", signature("X-Forwarded-For", "34.140.80.129"), 429, "listen.allow_from"},
		{"", signature(), 200, ""},
	} {
		line := strings.NewReplacer("{allow_from", "allow_from", ", trusted", "\n  trusted", "}", "").Replace(step.line)
		if strings.HasPrefix(step.line, "require") {
			line = step.line
		}
		d.write(who(line))
		if _, err := d.Reload(t.Context()); err != nil {
			t.Fatalf("%s: %v", step.line, err)
		}
		if got := send(step.header); got != step.want {
			t.Errorf("%s: answered %d, want %d", step.line, got, step.want)
		}
		if step.alarm != "" && !slices.Contains(warned(d), step.alarm) {
			t.Errorf("%s: warnings %v, want %s", step.line, warned(d), step.alarm)
		}
	}
}

// warned are the keys of the warnings.
func warned(d *daemon) (keys []string) {
	for _, w := range d.Status().Warnings {
		keys = append(keys, w.Key)
	}
	return keys
}

// Trouble shows before the platform suspends: a subscription that signs with
// another secret, one whose URL is wrong, and deliveries that fail.
func TestTroubleShows(t *testing.T) {
	t.Parallel()
	d := start(t, t.TempDir(), manual+archive)
	for n := range 30 {
		body := cloudEvent(fmt.Sprint(n))
		d.post("/hooks/catalog/good", body, signed(body))
		d.post("/hooks/catalog/bad", body, signedWith("another-secret-0123456789", body))
		d.post("/hooks/elsewhere", body, signed(body))
	}
	for range 5 {
		d.post("/hooks/catalog/good", cloudEvent("x"), http.Header{})
	}
	eventually(t, "three alarms", func() bool {
		return slices.Equal(warned(d), []string{"listen.unknown_path", "sources.catalog.signature", "sources.catalog.success_rate"})
	})
}
