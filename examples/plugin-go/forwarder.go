package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pimrelay/pimrelay/sdk"
)

const (
	// mostRead is how many bytes of an answer are read, mostKept how many are
	// kept. What is read must not end within a secret that is kept in part.
	mostRead, mostKept = 64 << 10, 2 << 10
	// longestWait bounds Retry-After.
	longestWait = 24 * time.Hour
)

// forwarder posts one message for each event.
type forwarder struct {
	logger *slog.Logger

	// Set by Configure and constant from then on.
	config    config
	style     style
	pace      *pace
	secrets   []string // what nobody must see
	transport *http.Transport
}

func newForwarder(logger *slog.Logger) *forwarder { return &forwarder{logger: logger} }

// Describe tells what the forwarder is.
func (f *forwarder) Describe() sdk.Description { return description() }

// Configure checks the configuration, and dials nobody.
func (f *forwarder) Configure(_ context.Context, raw json.RawMessage) error {
	f.config = defaultConfig()
	if err := sdk.DecodeConfig(raw, &f.config); err != nil {
		return err
	}
	f.style = styles[f.config.Style]
	f.pace = &pace{interval: time.Duration(f.config.MinInterval)}
	f.secrets = f.config.secrets()
	f.transport = http.DefaultTransport.(*http.Transport).Clone()
	return nil
}

// Deliver posts a message for each event, one after the other.
func (f *forwarder) Deliver(ctx context.Context, events []sdk.Event) []sdk.Outcome {
	outcomes := make([]sdk.Outcome, len(events))
	for i := range events {
		outcomes[i] = f.deliver(ctx, &events[i])
	}
	return outcomes
}

// Close closes the connections that are kept for reuse.
func (f *forwarder) Close(context.Context) error {
	if f.transport != nil {
		f.transport.CloseIdleConnections()
	}
	return nil
}

func (f *forwarder) deliver(ctx context.Context, event *sdk.Event) sdk.Outcome {
	text, err := render(f.config.message, f.style, event)
	switch {
	case err != nil: // it will not become better
		return sdk.Rejected(oneLine(err))
	case text == "":
		f.logger.Debug("event without a message", "event", event.ID, "type", event.Type)
		return sdk.Delivered() // the template has nothing to say about it
	}
	later, err := f.pace.wait(ctx)
	switch {
	case err != nil:
		return sdk.Retry(0, fmt.Errorf("not sent: %w", err))
	case later > 0:
		return sdk.Throttled(later, "min_interval, or the chat itself, leaves no room for it yet")
	}
	outcome := f.post(ctx, event, text)
	if outcome.Result == sdk.ResultThrottled {
		f.pace.hold(outcome.After)
	}
	return outcome
}

func (f *forwarder) post(ctx context.Context, event *sdk.Event, text string) sdk.Outcome {
	body, err := json.Marshal(f.style.body(text))
	if err != nil {
		return sdk.Rejected(oneLine(err))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, string(f.config.URL), bytes.NewReader(body))
	if err != nil {
		return sdk.Retry(0, errors.New("the request cannot be made: check url"))
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	request.Header.Set("User-Agent", "pimrelay-chat")
	// The chats show a repetition again; what stands between may recognise it.
	request.Header.Set("Idempotency-Key", url.PathEscape(event.IdempotencyKey()))
	// The transport itself follows no redirect.
	response, err := f.transport.RoundTrip(request)
	if err != nil {
		return sdk.Retry(0, f.transportError(err))
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(response.Body, mostRead)) // the status counts
	outcome := classify(response.StatusCode, response.Header, time.Now())
	if outcome.Result != sdk.ResultDelivered {
		clean := f.clean(string(answer))
		outcome.Answer = strings.ToValidUTF8(clean[:min(len(clean), mostKept)], "")
	}
	return outcome
}

// classify is the outcome that a status means: what speaks about this message is
// permanent; what speaks about the webhook would meet every message, and is
// tried again until somebody has repaired it.
func classify(status int, header http.Header, now time.Time) sdk.Outcome {
	reason := strings.TrimSpace("the chat answered " + strconv.Itoa(status) + " " + http.StatusText(status))
	after := retryAfter(header.Get("Retry-After"), now)
	switch status {
	case http.StatusTooManyRequests:
		return sdk.Throttled(after, reason)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone:
		return sdk.Retry(after, errors.New(reason+": check url, the webhook may have been removed"))
	case http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly:
		return sdk.Retry(after, errors.New(reason))
	}
	switch {
	case status >= 200 && status < 300:
		return sdk.Delivered()
	case status >= 400 && status < 500:
		return sdk.Rejected(reason)
	}
	return sdk.Retry(after, errors.New(reason))
}

// retryAfter is the wait that a Retry-After header asks for, in either of its
// forms (RFC 9110, section 10.2.3), or zero.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, longestWait)
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(date.Sub(now), 0), longestWait)
}

// transportError says why there is no answer.
func (f *forwarder) transportError(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer within the lane's timeout")
	case errors.Is(err, context.Canceled):
		return errors.New("stopped before the answer came")
	}
	return errors.New(f.clean(oneLine(err)))
}

// clean is a text from outside without secrets, and without what could disturb
// a terminal.
func (f *forwarder) clean(text string) string {
	for _, secret := range f.secrets {
		text = strings.ReplaceAll(text, secret, sdk.Secret(secret).String())
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD")))
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
