// Package http is the forwarder that posts each event to a URL.
//
// It makes one request for each event and translates what comes back into an
// outcome. Rates, retries, ordering and what becomes of a rejected event are
// the lane's business.
package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	nethttp "net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

const (
	// answerWait is how long a response's body may take after its header.
	answerWait = time.Second
	// drainLimit is how much of a response's body is read so that its
	// connection can be used again; above that a new one is cheaper.
	drainLimit = 64 << 10
	// headerLimit bounds a response's header, whose sender is not trusted.
	headerLimit = 64 << 10
	// idleTimeout closes connections before the usual load balancers do,
	// which forget them silently.
	idleTimeout = 50 * time.Second
	// pingAfter and pingTimeout find a dead HTTP/2 connection, on which
	// otherwise each request would wait for its own time-out.
	pingAfter   = 15 * time.Second
	pingTimeout = 10 * time.Second
)

type forwarder struct {
	logger     *slog.Logger
	answerWait time.Duration

	// Set by Configure and constant from then on.
	config    config
	transport *nethttp.Transport
	secrets   []string // what no answer may show

	transformed sync.Once // warns that signatures are left out
}

// New returns the forwarder. It logs to logger.
func New(logger *slog.Logger) sdk.Forwarder {
	return &forwarder{logger: logger, answerWait: answerWait}
}

// Configure checks the configuration and reads trusted_roots.
func (f *forwarder) Configure(_ context.Context, raw json.RawMessage) error {
	f.config = defaultConfig()
	if err := sdk.DecodeConfig(raw, &f.config); err != nil {
		return err
	}
	f.secrets = f.config.secrets()
	f.transport = &nethttp.Transport{
		Proxy:                  nethttp.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{RootCAs: f.config.roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		HTTP2:                  &nethttp.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		MaxIdleConns:           f.config.MaxIdleConnections,
		MaxIdleConnsPerHost:    f.config.MaxIdleConnections,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: headerLimit,
		DisableCompression:     true, // what is kept of an answer is too short to be worth it
	}
	return nil
}

// Describe tells what the forwarder is.
func (f *forwarder) Describe() sdk.Description {
	c := defaultConfig()
	return sdk.Description{Name: "http", ConfigSchema: sdk.ConfigSchema(&c)}
}

// Deliver makes one request for each event, one after the other.
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
	if err := ctx.Err(); err != nil {
		return sdk.Retry(0, fmt.Errorf("not sent: %w", err))
	}
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	request, err := f.request(call, event)
	if err != nil {
		return sdk.Retry(0, err)
	}
	// The transport itself follows no redirect, and its errors, unlike a
	// client's, do not show the URL.
	response, err := f.transport.RoundTrip(request)
	if err != nil {
		return sdk.Retry(0, transportError(err, f.secrets))
	}
	defer response.Body.Close()
	timer := time.AfterFunc(f.answerWait, cancel)
	defer timer.Stop()
	outcome := classify(response.StatusCode, response.Header, time.Now())
	if outcome.Result != sdk.ResultDelivered {
		// An answer that breaks off is as good as none: the status counts.
		start, _ := io.ReadAll(io.LimitReader(response.Body, answerLimit))
		outcome.Answer = readable(start, f.secrets)
	}
	_, _ = io.CopyN(io.Discard, response.Body, drainLimit)
	return outcome
}

func (f *forwarder) request(ctx context.Context, event *sdk.Event) (*nethttp.Request, error) {
	// net/http allows a transport to read the body for a moment longer than
	// the call takes, and the event is the relay's again then: hence a copy.
	body := bytes.NewReader(bytes.Clone(event.Payload))
	request, err := nethttp.NewRequestWithContext(ctx, f.config.Method, f.config.URL, body)
	if err != nil {
		var withURL *url.Error
		if errors.As(err, &withURL) {
			err = withURL.Err
		}
		return nil, fmt.Errorf("build the request: %w", err)
	}
	header := request.Header
	for name, value := range f.config.Headers {
		header.Set(name, string(value))
	}
	set(header, "Content-Type", event.ContentType)
	if f.config.PassSignatures {
		f.passOn(header, event)
	}
	header.Set("User-Agent", "pimrelay")
	set(header, "Idempotency-Key", idempotencyKey(event))
	return request, nil
}

// passOn adds the headers by which the destination can check the platform's
// own signature. They fit only the body that the platform signed.
func (f *forwarder) passOn(header nethttp.Header, event *sdk.Event) {
	set(header, "X-Correlation-ID", event.Headers["X-Correlation-Id"])
	if !untouched(event) {
		f.transformed.Do(func() {
			f.logger.Warn("signatures left out of a transformed event", "event", event.ID, "type", event.Type)
		})
		return
	}
	for name, value := range event.Headers {
		if strings.HasPrefix(name, signaturePrefix) {
			set(header, name, value)
		}
	}
	if original := event.Headers["Content-Type"]; original != "" {
		set(header, "Content-Type", original)
	}
}

// untouched reports whether the payload is the body that the platform signed.
func untouched(event *sdk.Event) bool {
	body, payload := event.Body, event.Payload
	if len(body) != len(payload) {
		return false
	}
	return len(body) == 0 || &body[0] == &payload[0] || bytes.Equal(body, payload)
}

// set leaves out what cannot stand in a header: it comes from outside, and the
// transport would take it for a fault of the connection.
func set(header nethttp.Header, name, value string) {
	if value != "" && isHeaderValue(value) {
		header.Set(name, value)
	}
}

// idempotencyKey is the event's id, percent-encoded if it could not stand in a
// header as it is.
func idempotencyKey(event *sdk.Event) string {
	key := event.IdempotencyKey()
	if isVisible(key) {
		return key
	}
	return url.PathEscape(key)
}
