package akeneo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

const (
	// callTimeout bounds one call, from the connection to the end of the
	// answer.
	callTimeout = 10 * time.Second
	// maxAnswer bounds an answer's body. Twenty subscriptions with all
	// event types come to less than 100 KiB.
	maxAnswer = 4 << 20
	// maxPause is the longest that a call waits because it was asked to,
	// before it leaves the waiting to its caller.
	maxPause = 30 * time.Second
)

// pauses are the longest waits between the attempts of a call that may be
// repeated; each is shortened by up to a half at random.
var pauses = [...]time.Duration{500 * time.Millisecond, 2 * time.Second}

// request is one HTTP request, to be sent once or more.
type request struct {
	operation string // for errors
	method    string
	url       string
	header    http.Header
	body      []byte
	// secrets are what no error may show, should the answer repeat them.
	secrets []sdk.Secret
}

// repeat sends a request that may be sent again without harm, until there is
// an answer that a further attempt would not change.
func repeat(ctx context.Context, client *http.Client, r request) ([]byte, error) {
	for _, pause := range pauses {
		body, err := send(ctx, client, r)
		var refused *APIError
		if err == nil || ctx.Err() != nil || errors.As(err, &refused) && !refused.Temporary() {
			return body, err
		}
		pause -= rand.N(pause / 2)
		if refused != nil {
			pause = max(pause, refused.RetryAfter)
		}
		if pause > maxPause {
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, err
		}
	}
	return send(ctx, client, r)
}

// send sends a request once and returns the body of a 2xx. Any other status is
// an *APIError; any other error leaves open whether the request was carried
// out.
func send(ctx context.Context, client *http.Client, r request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.operation, err)
	}
	req.Header = r.header.Clone()
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "pimrelay")
	if r.method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	answer, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.operation, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case answer.StatusCode < 200 || answer.StatusCode > 299:
		return nil, newAPIError(r.operation, answer.StatusCode, answer.Header, body, r.secrets)
	case err != nil:
		return nil, fmt.Errorf("%s: read the answer: %w", r.operation, err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("%s: the answer has more than %d bytes", r.operation, maxAnswer)
	}
	return body, nil
}

// withoutRedirects is a copy of client, or of a new one if it is nil, that
// follows no redirects: they would carry tokens to places that nobody named.
func withoutRedirects(client *http.Client) *http.Client {
	own := http.Client{}
	if client != nil {
		own = *client
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	own.Jar = nil
	return &own
}
