package akeneo

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// obtainToken is the operation that errors of the PIM's token route name.
const obtainToken = "obtain PIM token"

const (
	// defaultLife is an access token's life where the PIM does not say it:
	// its own default, one hour.
	defaultLife = time.Hour
	// longestLife bounds what the PIM says, so that a strange answer does
	// not keep a token for ever.
	longestLife = 24 * time.Hour
)

// tokens keep one valid access token for a PIM. They are safe for concurrent
// use: callers wait while one of them renews.
type tokens struct {
	client *http.Client
	pim    PIM
	url    string

	turn    chan struct{} // of one element; who holds it owns the fields below
	access  sdk.Secret
	refresh sdk.Secret // changes with each renewal; empty if there is none
	renewAt time.Time  // a tenth of its life before the token expires
}

func newTokens(client *http.Client, pim PIM, base string) *tokens {
	return &tokens{client: client, pim: pim, url: base + "/api/oauth/v1/token", turn: make(chan struct{}, 1)}
}

// get returns an access token that is valid, as far as is known.
func (t *tokens) get(ctx context.Context) (sdk.Secret, error) {
	if t.pim.Token != "" {
		return t.pim.Token, nil
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return "", fmt.Errorf("%s: %w", obtainToken, ctx.Err())
	}
	if t.access == "" || !time.Now().Before(t.renewAt) {
		if err := t.renew(ctx); err != nil {
			return "", err
		}
	}
	return t.access, nil
}

// reject takes note that a token was answered with 401, and returns whether
// asking for another one is of use.
func (t *tokens) reject(ctx context.Context, token sdk.Secret) (renewable bool) {
	if t.pim.Token != "" {
		return false
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return false
	}
	if t.access == token {
		t.access = ""
	}
	return true
}

// renew obtains a new pair of tokens: by the refresh token if there is one, and
// otherwise, or if the PIM does not take it any more, by the password.
func (t *tokens) renew(ctx context.Context) error {
	if t.refresh != "" {
		err := t.grant(ctx, map[string]string{"grant_type": "refresh_token", "refresh_token": string(t.refresh)})
		var refused *APIError
		if !errors.As(err, &refused) || refused.Temporary() {
			return err
		}
		t.refresh = ""
	}
	return t.grant(ctx, map[string]string{
		"grant_type": "password", "username": t.pim.Username, "password": string(t.pim.Password),
	})
}

// grant asks the token route. Asking again is harmless: a refresh token that
// was used up by an answer which got lost leads to the password.
func (t *tokens) grant(ctx context.Context, fields map[string]string) error {
	body, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("%s: %w", obtainToken, err)
	}
	asked := time.Now()
	basic := base64.StdEncoding.EncodeToString([]byte(t.pim.ClientID + ":" + string(t.pim.ClientSecret)))
	answer, err := repeat(ctx, t.client, request{
		operation: obtainToken,
		method:    http.MethodPost,
		url:       t.url,
		header:    http.Header{"Authorization": {"Basic " + basic}},
		body:      body,
		secrets:   []sdk.Secret{t.pim.ClientSecret, t.pim.Password, t.refresh, sdk.Secret(basic)},
	})
	if err != nil {
		return err
	}
	var pair struct {
		Access    string  `json:"access_token"`
		Refresh   string  `json:"refresh_token"`
		ExpiresIn float64 `json:"expires_in"` // seconds
	}
	if err := json.Unmarshal(answer, &pair); err != nil || pair.Access == "" {
		return fmt.Errorf("%s: the answer holds no access_token: check that url of the pim section is a PIM's", obtainToken)
	}
	life := defaultLife
	if pair.ExpiresIn > 0 {
		life = time.Duration(min(pair.ExpiresIn, longestLife.Seconds()) * float64(time.Second))
	}
	t.access, t.refresh, t.renewAt = sdk.Secret(pair.Access), sdk.Secret(pair.Refresh), asked.Add(life-life/10)
	return nil
}
