package simulator

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// TestGettingStarted sends the requests of the platform's getting-started guide
// with only the base URLs replaced, and over real connections.
func TestGettingStarted(t *testing.T) {
	t.Parallel()
	sim, err := New(Options{ActivationDelay: DefaultActivationDelay})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(sim)
	defer server.Close()

	send := func(method, path, body string, headers ...string) (int, map[string]any, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var object map[string]any
		if raw[0] == '{' {
			if err := json.Unmarshal(raw, &object); err != nil {
				t.Fatal(err)
			}
		}
		return resp.StatusCode, object, string(raw)
	}

	status, token, raw := send("POST", "/api/oauth/v1/token", `{
    "grant_type": "password",
    "username": "demo-user",
    "password": "demo-password"
    }`, "Content-Type", "application/json", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("demo-client:demo-secret")))
	if status != 200 {
		t.Fatalf("token: %d %s", status, raw)
	}
	pim := []string{
		"X-PIM-URL", server.URL, "X-PIM-TOKEN", token["access_token"].(string), "X-PIM-CLIENT-ID", "demo-client",
		"Content-Type", "application/json",
	}

	status, subscriber, raw := send("POST", "/api/v1/subscribers", `{
    "name": "example subscriber name",
    "contact": {
        "technical_email": "subscriber.test.email@example.com"
    }
}`, pim...)
	want := regexp.MustCompile(`^\{"id":"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}","name":"example subscriber name","subject":"` +
		regexp.QuoteMeta(server.URL) + `","status":"active","contact":\{"technical_email":"subscriber.test.email@example.com"\},` +
		`"created_at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","updated_at":"[^"]+Z"\}\n$`)
	if status != 201 || !want.MatchString(raw) {
		t.Fatalf("create a subscriber: %d %s", status, raw)
	}

	path := "/api/v1/subscribers/" + subscriber["id"].(string) + "/subscriptions"
	status, subscription, raw := send("POST", path, `{
    "source": "pim",
    "subject": "`+server.URL+`",
    "events": [
        "com.akeneo.pim.v1.product.updated"
    ],
    "type": "https",
    "config": {
        "url": "https://my-destination-url.com",
        "secret": {
            "primary": "averysecretprimarysecret",
            "secondary": "you can leave empty here, only use to ease your secret rotation use cases"
        }
    }
}`, pim...)
	if status != 201 || subscription["status"] != "active" {
		t.Fatalf("create a subscription: %d %s", status, raw)
	}
	if strings.Contains(raw, "averysecret") || strings.Count(raw, "***redacted***") != 2 {
		t.Errorf("secrets must be redacted: %s", raw)
	}

	if status, _, raw := send("GET", path, "", pim...); status != 200 || !strings.HasPrefix(raw, "[{") {
		t.Errorf("list: %d %s, want a bare array", status, raw)
	}
	one := path + "/" + subscription["id"].(string)
	for _, step := range []struct {
		method, path string
		code         int
		status       string
	}{
		{"POST", one + "/suspend", 202, "suspended"},
		{"GET", one, 200, "suspended"},
		{"POST", one + "/resume", 202, "active"},
		{"DELETE", one, 200, "deleted"},
		{"DELETE", "/api/v1/subscribers/" + subscriber["id"].(string), 200, "deleted"},
	} {
		code, object, raw := send(step.method, step.path, "", pim...)
		if code != step.code || object["status"] != step.status {
			t.Errorf("%s %s: %d %s, want %d and status %s", step.method, step.path, code, raw, step.code, step.status)
		}
	}
}

func TestWriteGuide(t *testing.T) {
	t.Parallel()
	sim, err := New(Options{ActivationDelay: DefaultActivationDelay, Connection: Connection{Password: "it's $secret"}})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := sim.WriteGuide(&text, "https://127.0.0.1:9000", "/tmp/my ca.pem"); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		"export TARGET_PIM_URL=https://127.0.0.1:9000\n", "CLIENT_ID=demo-client CLIENT_SECRET=demo-secret",
		`API_PASSWORD='it'\''s $secret'`, "curl --silent --show-error --cacert '/tmp/my ca.pem' \"$TARGET_PIM_URL", "after 3m0s of platform time",
	} {
		if !strings.Contains(text.String(), part) {
			t.Errorf("the guide lacks %q:\n%s", part, &text)
		}
	}
	if regexp.MustCompile(`\{(curl|base|delay|speed|id|secret|user|password)\}`).MatchString(text.String()) {
		t.Errorf("a placeholder is left:\n%s", &text)
	}
	if got := shellQuote(""); got != "''" {
		t.Errorf("an empty word is quoted as %s", got)
	}
}
