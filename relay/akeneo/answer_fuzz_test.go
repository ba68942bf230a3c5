package akeneo

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// FuzzToken checks for any answer of a PIM's token route that it leads to a token
// with a sane life, or to an error that shows no secret.
func FuzzToken(f *testing.F) {
	f.Add(200, `{"access_token":"a","refresh_token":"r","expires_in":3600,"token_type":"bearer","scope":null}`)
	f.Add(200, `{"access_token":"a","expires_in":1e300}`)
	f.Add(200, `{"access_token":"a","expires_in":-1}`)
	f.Add(422, `{"code":422,"message":"No user found for the given username the-user and the-password"}`)
	f.Add(400, `{"error":"invalid_grant","error_description":"the-client-secret"}`)
	f.Add(200, `<html>`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status == 429 || status >= 500 {
			return // those that are tried again, after a pause
		}
		pim := &fake{t: t, token: say(status, body)}
		tokens := newTokens(&http.Client{Transport: pim}, testPIM, "https://acme.example")
		asked := time.Now()
		token, err := tokens.get(t.Context())
		if err != nil {
			checkNoSecrets(t, err)
			return
		}
		if token == "" || status > 299 {
			t.Errorf("%d %q: token %q", status, body, string(token))
		}
		if life := tokens.renewAt.Sub(asked); life < 0 || life > longestLife {
			t.Errorf("%q: to be renewed after %s", body, life)
		}
	})
}

// FuzzAnswer checks for any answer of the platform that it leads to objects with
// ids, or to an error that shows no secret and is not endless.
func FuzzAnswer(f *testing.F) {
	f.Add(200, "", `[{"id":"018e197c-dfe2-70f8-9346-1a8e016f5fbb","name":"pimrelay","technical_email":"ops@example.com","status":"active"}]`)
	f.Add(201, "", `{"id":"x","source":"pim","subject":"https://acme.example","events":["com.akeneo.pim.v1.product.updated"],"type":"https","config":{"url":"https://x.example","secret":{"primary":"***redacted***"}},"status":"active"}`)
	f.Add(202, "", `null`)
	f.Add(400, "", `{"errors":[{"message":"no access-1","path":"x"},{"message":"the-client-secret"}]}`)
	f.Add(404, "", `{"code":404,"message":"not found"}`)
	f.Add(409, "3", strings.Repeat(`{"errors":[`, 100))
	f.Add(302, "99999999999", `[{"id":1}]`)
	f.Fuzz(func(t *testing.T, status int, retryAfter, body string) {
		if status < 200 || status == 429 || status >= 500 || strings.ContainsAny(retryAfter, "\r\n") {
			return
		}
		platform := &fake{t: t, answer: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", retryAfter)
			say(status, body)(w, r)
		}}
		c := platform.client()
		if _, err := c.Subscribers(t.Context()); err != nil {
			checkNoSecrets(t, err)
		}
		if _, err := c.Subscriptions(t.Context(), "s"); err != nil {
			checkNoSecrets(t, err)
		}
		one, err := c.CreateSubscription(t.Context(), "s", SubscriptionSpec{Destination: Destination{Primary: "the-signing-secret"}})
		if err != nil {
			checkNoSecrets(t, err)
		} else if one.ID == "" {
			t.Errorf("%d %q: no id, and no error", status, body)
		}
	})
}

// checkNoSecrets wants an error that may be shown to anybody.
func checkNoSecrets(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	if len(text) > 8<<10 {
		t.Errorf("an error of %d bytes", len(text))
	}
	for _, secret := range []string{string(testPIM.ClientSecret), string(testPIM.Password), "access-1", "the-signing-secret"} {
		if strings.Contains(text, secret) {
			t.Errorf("the error shows %s: %s", secret, text)
		}
	}
}
