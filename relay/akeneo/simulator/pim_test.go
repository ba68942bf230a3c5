package simulator

import (
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// tokenCall asks the token route with the demo client's credentials.
func (p *platform) tokenCall(contentType, body string) (int, string) {
	p.t.Helper()
	return p.tokenCallAs("demo-client", "demo-secret", contentType, body)
}

func (p *platform) tokenCallAs(id, secret, contentType, body string) (int, string) {
	p.t.Helper()
	req := httptest.NewRequest("POST", testURL+"/api/oauth/v1/token", strings.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	if id != "" {
		req.SetBasicAuth(id, secret)
	}
	rec := httptest.NewRecorder()
	p.sim.ServeHTTP(rec, req)
	return rec.Code, rec.Body.String()
}

func TestTokenRefusals(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	good := `{"grant_type":"password","username":"demo-user","password":"demo-password"}`
	tests := map[string]struct {
		id, secret, contentType, body string
		status                        int
		message                       string // part of it
	}{
		"not JSON":            {"demo-client", "demo-secret", "application/json", `{`, 400, "Invalid json message received"},
		"content type":        {"demo-client", "demo-secret", "text/plain", good, 415, "text/plain"},
		"no content type":     {"demo-client", "demo-secret", "", good, 415, "application/json"},
		"too large":           {"demo-client", "demo-secret", "application/json", strings.Repeat(" ", maxTokenBody+1), 413, ""},
		"no grant type":       {"demo-client", "demo-secret", "application/json", `{"username":"demo-user","password":"demo-password"}`, 422, "grant_type"},
		"wrong type":          {"demo-client", "demo-secret", "application/json", `{"grant_type":["password"]}`, 422, "grant_type"},
		"unknown grant type":  {"demo-client", "demo-secret", "application/json", `{"grant_type":"x"}`, 422, "grant_type"},
		"grant not allowed":   {"demo-client", "demo-secret", "application/json", `{"grant_type":"client_credentials"}`, 422, "not authorized"},
		"no password":         {"demo-client", "demo-secret", "application/json", `{"grant_type":"password","username":"demo-user"}`, 422, "password"},
		"no client":           {"", "", "application/json", good, 422, "client"},
		"unknown client":      {"other", "demo-secret", "application/json", good, 422, "client"},
		"wrong client secret": {"demo-client", "other", "application/json", good, 422, "client"},
		"wrong password":      {"demo-client", "demo-secret", "application/json", `{"grant_type":"password","username":"demo-user","password":"x"}`, 422, "No user found for the given username and password"},
		"unknown user":        {"demo-client", "demo-secret", "application/json", `{"grant_type":"password","username":"x","password":"demo-password"}`, 422, "No user found for the given username and password"},
		"no refresh token":    {"demo-client", "demo-secret", "application/json", `{"grant_type":"refresh_token"}`, 422, "missing"},
		"bad refresh token":   {"demo-client", "demo-secret", "application/json", `{"grant_type":"refresh_token","refresh_token":"x"}`, 422, "invalid"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			status, body := p.tokenCallAs(tt.id, tt.secret, tt.contentType, tt.body)
			var answer pimError
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatalf("answer %q: %v", body, err)
			}
			if status != tt.status || answer.Code != tt.status || !strings.Contains(answer.Message, tt.message) {
				t.Errorf("got %d %s, want %d with %q", status, body, tt.status, tt.message)
			}
		})
	}
}

func TestTokenAnswer(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	form := url.Values{"grant_type": {"password"}, "username": {"demo-user"}, "password": {"demo-password"}}
	status, body := p.tokenCall("application/x-www-form-urlencoded", form.Encode())
	var answer map[string]any
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if answer["expires_in"] != 3600.0 || answer["token_type"] != "bearer" || answer["access_token"] == "" || answer["refresh_token"] == "" {
		t.Errorf("unexpected answer %s", body)
	}
	if scope, present := answer["scope"]; !present || scope != nil {
		t.Errorf("scope must be present and null: %s", body)
	}
}

func TestRefreshRotates(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	grantBy := func(body string) (int, grantResponse) {
		t.Helper()
		status, text := p.tokenCall("application/json", body)
		var g grantResponse
		if err := json.Unmarshal([]byte(text), &g); err != nil {
			t.Fatal(err)
		}
		return status, g
	}
	_, first := grantBy(`{"grant_type":"password","username":"demo-user","password":"demo-password"}`)
	refresh := `{"grant_type":"refresh_token","refresh_token":"` + first.RefreshToken + `"}`
	status, second := grantBy(refresh)
	if status != 200 || second.AccessToken == first.AccessToken || second.RefreshToken == first.RefreshToken {
		t.Fatalf("refresh: %d %+v after %+v", status, second, first)
	}
	if status, _ := grantBy(refresh); status != 422 {
		t.Errorf("a refresh token worked twice: %d", status)
	}
	p.token = second.AccessToken
	p.must(200, "GET", subscribers, "")
}

func TestTokenExpiresByPlatformTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform(t, Options{Speed: 60})
		time.Sleep(59 * time.Second)
		p.must(200, "GET", subscribers, "")
		time.Sleep(time.Second)
		if status, body := p.call("GET", subscribers, ""); status != 401 {
			t.Errorf("after an hour of platform time: %d %s, want 401", status, body)
		}
	})
}

func TestTokenInfo(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	for authorization, want := range map[string]struct {
		status int
		part   string
	}{
		"":                  {401, "Authentication is required"},
		"Bearer nonsense":   {401, "The access token provided is invalid."},
		p.token:             {401, "Authentication is required"},
		"Bearer " + p.token: {200, `"client_id":"demo-client"`},
	} {
		req := httptest.NewRequest("GET", testURL+"/api/rest/v1/token-info", nil)
		req.Header.Set("Authorization", authorization)
		rec := httptest.NewRecorder()
		p.sim.ServeHTTP(rec, req)
		if rec.Code != want.status || !strings.Contains(rec.Body.String(), want.part) {
			t.Errorf("Authorization %q: %d %s, want %d with %s", authorization, rec.Code, rec.Body, want.status, want.part)
		}
	}
}
