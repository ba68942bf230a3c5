package main

import (
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/sdktest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	destination, err := sdktest.ListenHTTP()
	if err != nil {
		t.Fatal(err)
	}
	defer destination.Close()
	makeOne := func(logger *slog.Logger) sdk.Forwarder { return newForwarder(logger) }
	sdktest.Run(t, sdktest.Subject{
		New:         sdktest.OverGRPC(makeOne),
		Config:      json.RawMessage(`{"url": "` + destination.URL() + `", "min_interval": "0s"}`),
		Destination: destination,
		Faulty: []sdktest.Faulty{
			{Name: "attribute", Config: json.RawMessage(`{"url": "https://chat.example.com/x", "text": "{{.Typ}}"}`), Field: "text"},
			{Name: "credentials", Config: json.RawMessage(`{"url": "https://me:opensesame@chat.example.com/x"}`), Field: "url", Secrets: []string{"opensesame"}},
		},
	})
}
