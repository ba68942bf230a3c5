package pluginhost

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"testing"

	"github.com/pimrelay/pimrelay/relay/internal/testplugin"
	"github.com/pimrelay/pimrelay/sdk"
)

// BenchmarkDeliver is the cost of a plugin: what a delivery takes beside the
// forwarder's own work, with mutual TLS, in batches of 100 and alone, beside the
// same forwarder in process.
func BenchmarkDeliver(b *testing.B) {
	sockets, err := os.MkdirTemp("", "pimrelay-test-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(sockets)
	config := json.RawMessage(`{"out": "/dev/null", "batch": 100}`)
	plugin := New(process(testplugin.Good), Options{Name: "plug", Directory: sockets, Logger: slog.New(slog.DiscardHandler)})
	if err := plugin.Configure(b.Context(), config); err != nil {
		b.Fatal(err)
	}
	if err := plugin.Started(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer plugin.Close(b.Context())
	inProcess := testplugin.New(slog.New(slog.DiscardHandler))
	if err := inProcess.Configure(b.Context(), config); err != nil {
		b.Fatal(err)
	}
	body := bytes.Repeat([]byte("x"), 1<<10)
	batch := make([]sdk.Event, 100)
	for i := range batch {
		batch[i] = sdk.Event{
			ID: "0198f2c6-7a2b-7c3d-8e4f-0123456789ab", Type: "com.akeneo.pim.v1.product.updated", EventSource: "pim", Subject: "0198f2c6-7a2b-7c3d-8e4f-000000000000",
			Source: "catalog", Entity: "product:0198f2c6-7a2b-7c3d-8e4f-ba9876543210", Body: body, Payload: body, ContentType: "application/json", Attempt: 1,
			Headers: map[string]string{"X-Akeneo-Signature-Primary": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "X-Correlation-Id": "c", "Content-Type": "application/json"},
		}
	}
	for name, f := range map[string]sdk.Forwarder{"plugin": plugin, "in process": inProcess} {
		for _, events := range [][]sdk.Event{batch, batch[:1]} {
			size := "batch of 100"
			if len(events) == 1 {
				size = "alone"
			}
			b.Run(name+"/"+size, func(b *testing.B) {
				for b.Loop() {
					if got := f.Deliver(b.Context(), events); len(got) != len(events) || got[0].Result != sdk.ResultDelivered {
						b.Fatalf("%+v", got)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(events)), "ns/event")
			})
		}
	}
}
