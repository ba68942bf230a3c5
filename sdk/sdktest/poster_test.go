package sdktest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// poster is a forwarder that does everything right: it posts the events of a
// batch one after the other.
type poster struct {
	config posterConfig
	client *http.Client
}

type posterConfig struct {
	URL   string     `json:"url" doc:"receives the events"`
	Token sdk.Secret `json:"token" doc:"sent with each event"`
	Tries int        `json:"tries"`
}

// Validate is called by sdk.DecodeConfig.
func (c *posterConfig) Validate() sdk.Faults {
	var faults sdk.Faults
	if c.URL == "" {
		faults.Add("url", "is required, such as https://example.com/hook")
	}
	return faults
}

func newPoster(*slog.Logger) sdk.Forwarder { return &poster{} }

func (p *poster) Configure(_ context.Context, config json.RawMessage) error {
	p.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10}}
	return sdk.DecodeConfig(config, &p.config)
}

func (p *poster) Describe() sdk.Description {
	return sdk.Description{Name: "poster", Version: "1.0.0", ConfigSchema: sdk.ConfigSchema(&posterConfig{}), KeepsOrder: true}
}

func (p *poster) BatchLimits() sdk.BatchLimits {
	return sdk.BatchLimits{Events: 200, Bytes: 1 << 20}
}

func (p *poster) Deliver(ctx context.Context, events []sdk.Event) []sdk.Outcome {
	outcomes := make([]sdk.Outcome, len(events))
	for i := range events {
		outcomes[i] = p.post(ctx, &events[i])
	}
	return outcomes
}

func (p *poster) post(ctx context.Context, event *sdk.Event) sdk.Outcome {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.config.URL, bytes.NewReader(bytes.Clone(event.Payload)))
	if err != nil {
		return sdk.Retry(0, err)
	}
	request.Header.Set("Idempotency-Key", strconv.QuoteToASCII(event.IdempotencyKey()))
	if plain := event.IdempotencyKey(); strconv.QuoteToASCII(plain) != strconv.Quote(plain) {
		request.Header.Del("Idempotency-Key") // the body has it
	}
	answer, err := p.client.Do(request)
	if err != nil {
		return sdk.Retry(0, err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
	switch {
	case answer.StatusCode < 300:
		return sdk.Delivered()
	case answer.StatusCode == http.StatusTooManyRequests:
		return sdk.Throttled(time.Duration(seconds)*time.Second, answer.Status)
	case answer.StatusCode < 500:
		return sdk.Rejected(answer.Status)
	}
	return sdk.Retry(0, errors.New(answer.Status))
}

func (p *poster) Health(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.config.URL, nil)
	if err != nil {
		return err
	}
	answer, err := p.client.Do(request)
	if err != nil {
		return fmt.Errorf("not there: %w", err)
	}
	return answer.Body.Close()
}

func (p *poster) Close(context.Context) error {
	if p.client != nil {
		p.client.CloseIdleConnections()
	}
	return nil
}
