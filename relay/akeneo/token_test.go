package akeneo

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	passwordGrant = `{"grant_type":"password","password":"the-password","username":"the-user"}`
	refreshGrant1 = `{"grant_type":"refresh_token","refresh_token":"refresh-1"}`
	refreshGrant2 = `{"grant_type":"refresh_token","refresh_token":"refresh-2"}`
)

func TestTokenIsRenewedBeforeItExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{t: t, answer: say(200, "[]")}
		c := f.client()
		for _, wait := range []time.Duration{0, 53 * time.Minute, 2 * time.Minute, 55 * time.Minute} {
			time.Sleep(wait)
			if _, err := c.Subscribers(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var used []string
		for _, call := range f.calls {
			used = append(used, call.header.Get("X-PIM-TOKEN"))
		}
		if diff := cmp.Diff([]string{"access-1", "access-1", "access-2", "access-3"}, used); diff != "" {
			t.Errorf("tokens (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{passwordGrant, refreshGrant1, refreshGrant2}, f.grants); diff != "" {
			t.Errorf("grants (-want +got):\n%s", diff)
		}
	})
}

func TestTokenRequest(t *testing.T) {
	t.Parallel()
	var got http.Header
	f := &fake{t: t, answer: say(200, "[]"), token: func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		say(200, `{"access_token":"a"}`)(w, r)
	}}
	if _, err := f.client().Subscribers(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := http.Header{
		"Authorization": {"Basic dGhlLWNsaWVudC1pZDp0aGUtY2xpZW50LXNlY3JldA=="}, // the-client-id:the-client-secret
		"Content-Type":  {"application/json"},
		"Accept":        {"application/json"},
		"User-Agent":    {"pimrelay"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

// TestLife: which lives the PIM may state, and how long the token then serves.
func TestLife(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]time.Duration{
		`{"access_token":"a"}`:                          54 * time.Minute,
		`{"access_token":"a","expires_in":0}`:           54 * time.Minute,
		`{"access_token":"a","expires_in":-5}`:          54 * time.Minute,
		`{"access_token":"a","expires_in":100}`:         90 * time.Second,
		`{"access_token":"a","expires_in":1e300}`:       24*time.Hour - 24*time.Hour/10,
		`{"access_token":"a","refresh_token":null}`:     54 * time.Minute,
		`{"access_token":"a","scope":"x","new":[1,{}]}`: 54 * time.Minute,
	} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &fake{t: t, answer: say(200, "[]"), token: say(200, answer)}
				c := f.client()
				var grants []int
				for _, wait := range []time.Duration{0, want - 1, 1} {
					time.Sleep(wait)
					if _, err := c.Subscribers(t.Context()); err != nil {
						t.Fatal(err)
					}
					grants = append(grants, len(f.grants))
				}
				if diff := cmp.Diff([]int{1, 1, 2}, grants); diff != "" {
					t.Errorf("grants at once, just before and just after %v (-want +got):\n%s", want, diff)
				}
			})
		})
	}
}

func TestRefusedRefreshLeadsToThePassword(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{t: t, answer: say(200, "[]"), token: inTurn(
			say(200, `{"access_token":"a","refresh_token":"refresh-1"}`),
			say(422, `{"code":422,"message":"expired"}`),
			say(200, `{"access_token":"b","refresh_token":"refresh-2"}`),
		)}
		c := f.client()
		for range 2 {
			if _, err := c.Subscribers(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		if diff := cmp.Diff([]string{passwordGrant, refreshGrant1, passwordGrant}, f.grants); diff != "" {
			t.Errorf("grants (-want +got):\n%s", diff)
		}
	})
}

// TestLostRenewal: the PIM renews, its answer is lost, and the old refresh token
// is used up.
func TestLostRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{t: t, answer: say(200, "[]"), token: inTurn(
			say(200, `{"access_token":"a","refresh_token":"refresh-1"}`),
			say(lost, ""),
			say(422, ""),
			say(200, `{"access_token":"b"}`),
		)}
		c := f.client()
		for range 2 {
			if _, err := c.Subscribers(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		if diff := cmp.Diff([]string{passwordGrant, refreshGrant1, refreshGrant1, passwordGrant}, f.grants); diff != "" {
			t.Errorf("grants (-want +got):\n%s", diff)
		}
	})
}

func TestUnauthorizedRenewsTheTokenOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		answer http.HandlerFunc
		calls  int
		fails  bool
	}{
		{"and succeeds", inTurn(say(401, ""), say(201, `{"id":"i"}`)), 2, false},
		{"in vain", say(401, `{"errors":[{"message":"no"}]}`), 2, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{t: t, answer: test.answer}
			_, err := f.client().CreateSubscriber(t.Context(), SubscriberSpec{Name: "n"})
			if len(f.calls) != test.calls || f.calls[1].header.Get("X-PIM-TOKEN") != "access-2" {
				t.Errorf("%d calls, want %d, the second with a new token", len(f.calls), test.calls)
			}
			var refused *APIError
			if test.fails && (!errors.As(err, &refused) || !refused.Unauthorized() || !strings.Contains(err.Error(), "belong together")) ||
				!test.fails && err != nil {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestAppTokenIsUsedAsItIs(t *testing.T) {
	t.Parallel()
	f := &fake{t: t, answer: say(401, "")}
	c, err := NewClient(PIM{URL: "https://acme.example", ClientID: "c", Token: "app-token"}, DefaultPlatformURL, &http.Client{Transport: f})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Subscribers(t.Context()); err == nil {
		t.Error("no error from a 401")
	}
	if len(f.calls) != 1 || len(f.grants) != 0 || f.calls[0].header.Get("X-PIM-TOKEN") != "app-token" {
		t.Errorf("%d calls and %d grants, want one call with the app's token", len(f.calls), len(f.grants))
	}
}

func TestTokenErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body, want string
		status, grants   int
	}{
		{"wrong credentials", `{"code":422,"message":"No user found for the-user and the-password, dGhlLWNsaWVudC1pZDp0aGUtY2xpZW50LXNlY3JldA=="}`,
			"list subscribers: obtain PIM token: the answer is 422 Unprocessable Entity: No user found for the-user and [redacted], [redacted] " +
				"(check client_id, client_secret, username and password of the connection)", 422, 1},
		{"no PIM", "<html>", "list subscribers: obtain PIM token: the answer holds no access_token: check that url of the pim section is a PIM's", 200, 1},
		{"empty token", `{"access_token":""}`, "list subscribers: obtain PIM token: the answer holds no access_token: check that url of the pim section is a PIM's", 200, 1},
		{"a 401 is not the platform's", "", "list subscribers: obtain PIM token: the answer is 401 Unauthorized (check that url, client_id and " +
			"credentials of the pim section belong together, and that the connection or app still exists)", 401, 1},
		{"not now", "", "list subscribers: obtain PIM token: the answer is 503 Service Unavailable", 503, 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &fake{t: t, answer: say(200, "[]"), token: say(test.status, test.body)}
				_, err := f.client().Subscribers(t.Context())
				if err == nil || err.Error() != test.want {
					t.Errorf("error\n%v, want\n%s", err, test.want)
				}
				if len(f.grants) != test.grants || len(f.calls) != 0 {
					t.Errorf("%d grants and %d calls, want %d and none", len(f.grants), len(f.calls), test.grants)
				}
			})
		})
	}
}

func TestConcurrentCallsShareOneToken(t *testing.T) {
	t.Parallel()
	f := &fake{t: t, answer: say(200, "[]")}
	c := f.client()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.Subscribers(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(f.grants) != 1 {
		t.Errorf("%d tokens were asked for, want 1", len(f.grants))
	}
}
