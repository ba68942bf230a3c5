package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pimrelay/pimrelay/sdk"
)

// printer is a forwarder that writes one line for each event.
type printer struct {
	out    io.Writer
	config printerConfig
}

type printerConfig struct {
	Prefix   string   `json:"prefix"`
	MaxBytes sdk.Size `json:"max_bytes"`
}

// Validate is called by sdk.DecodeConfig.
func (c *printerConfig) Validate() sdk.Faults {
	var faults sdk.Faults
	if c.MaxBytes == 0 {
		faults.Add("max_bytes", `must be above 0B, such as "64KiB"`)
	}
	return faults
}

func (p *printer) Configure(_ context.Context, config json.RawMessage) error {
	p.config = printerConfig{Prefix: "event", MaxBytes: 64 << 10}
	return sdk.DecodeConfig(config, &p.config)
}

func (p *printer) Deliver(ctx context.Context, events []sdk.Event) []sdk.Outcome {
	outcomes := make([]sdk.Outcome, len(events))
	for i := range events {
		outcomes[i] = p.print(ctx, &events[i])
	}
	return outcomes
}

func (p *printer) print(ctx context.Context, event *sdk.Event) sdk.Outcome {
	if err := ctx.Err(); err != nil {
		return sdk.Retry(0, err)
	}
	if len(event.Payload) > int(p.config.MaxBytes) {
		return sdk.Rejected("the payload is above max_bytes")
	}
	if _, err := fmt.Fprintf(p.out, "%s %s: %s\n", p.config.Prefix, event.IdempotencyKey(), event.Payload); err != nil {
		return sdk.Retry(0, err)
	}
	return sdk.Delivered()
}

func (p *printer) Close(context.Context) error { return nil }

// A forwarder reads its configuration strictly and answers for each event.
func Example() {
	ctx := context.Background()
	var forwarder sdk.Forwarder = &printer{out: os.Stdout}

	err := forwarder.Configure(ctx, json.RawMessage(`{"prefx": "got", "max_bytes": 16}`))
	var faults sdk.Faults
	if errors.As(err, &faults) {
		for _, fault := range faults.Within("forwarders.printer.config") {
			fmt.Println(fault)
		}
	}

	if err := forwarder.Configure(ctx, json.RawMessage(`{"prefix": "got", "max_bytes": "16B"}`)); err != nil {
		fmt.Println(err)
	}
	outcomes := forwarder.Deliver(ctx, []sdk.Event{
		{ID: "1", Payload: []byte(`{"sku":"a"}`)},
		{ID: "2", Payload: []byte(`{"sku":"much too long"}`)},
	})
	for _, o := range outcomes {
		fmt.Printf("%s %q\n", o.Result, o.Reason)
	}
	if err := forwarder.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// forwarders.printer.config.prefx: unknown key, did you mean "prefix"?
	// forwarders.printer.config.max_bytes: must be a size with its unit, such as "64KiB", "10MiB" or "1GiB" (got 16)
	// got 1: {"sku":"a"}
	// delivered ""
	// rejected "the payload is above max_bytes"
}
