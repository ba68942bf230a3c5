// Command chat is a forwarder plugin that posts events as messages into a chat:
// to an incoming webhook of Slack, Google Chat or Microsoft Teams.
//
// It shows what a plugin in Go is made of. The program is one call of
// [serve.Main]; the forwarder, which is the rest, knows nothing of processes.
// Retries, rate limits and order are the relay's business.
package main

import (
	"log/slog"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/serve"
)

func main() {
	serve.Main(func(logger *slog.Logger) sdk.Forwarder { return newForwarder(logger) })
}
