package http

import (
	"encoding/json"
	"testing"

	"github.com/pimrelay/pimrelay/sdk/sdktest"
)

// The forwarder passes the suite in process and through gRPC.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, newForwarder := range map[string]sdktest.Maker{"in process": sdktest.InProcess(New), "over gRPC": sdktest.OverGRPC(New)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			destination, err := sdktest.ListenHTTP()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = destination.Close() })
			configuration := func(keys map[string]any) json.RawMessage {
				raw, err := json.Marshal(keys)
				if err != nil {
					t.Fatal(err)
				}
				return raw
			}
			url := destination.URL()
			sdktest.Run(t, sdktest.Subject{
				New:         newForwarder,
				Config:      configuration(map[string]any{"url": url, "headers": map[string]any{"Authorization": "Bearer hunter2"}}),
				Destination: destination,
				Faulty: []sdktest.Faulty{
					{Name: "no url", Config: configuration(map[string]any{}), Field: "url"},
					{Name: "a url with a password", Config: configuration(map[string]any{"url": "http://user:hunter2@127.0.0.1/"}), Field: "url", Secrets: []string{"hunter2"}},
					{Name: "a url of another scheme", Config: configuration(map[string]any{"url": "ftp://hunter2.example/"}), Field: "url", Secrets: []string{"hunter2"}},
					{Name: "a method without a body", Config: configuration(map[string]any{"url": url, "method": "GET"}), Field: "method"},
					{Name: "a header that is not its own", Config: configuration(map[string]any{"url": url, "headers": map[string]any{"Host": "hunter2"}}), Field: "headers.Host", Secrets: []string{"hunter2"}},
					{Name: "a header of two lines", Config: configuration(map[string]any{"url": url, "headers": map[string]any{"X-Token": "hunter2\nX: y"}}), Field: "headers.X-Token", Secrets: []string{"hunter2"}},
					{Name: "a file that is not there", Config: configuration(map[string]any{"url": url, "trusted_roots": "/nonexistent.pem"}), Field: "trusted_roots"},
					{Name: "no connections", Config: configuration(map[string]any{"url": url, "max_idle_connections": 0}), Field: "max_idle_connections"},
				},
			})
		})
	}
}
