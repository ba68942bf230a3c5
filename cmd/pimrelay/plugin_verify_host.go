package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pimrelay/pimrelay/relay/pluginhost"
	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/sdktest"
	"github.com/pimrelay/pimrelay/sdk/wire"
)

// verifyHost starts the plugin as the relay would.
type verifyHost struct {
	process pluginhost.Process
	sockets string
	log     pluginWords
}

func newVerifyHost(command []string, sockets string) *verifyHost {
	h := &verifyHost{sockets: sockets}
	h.process.SetDefaults()
	h.process.Command = command
	return h
}

// fresh is a plugin whose process Configure starts.
func (h *verifyHost) fresh(context.Context) (sdk.Forwarder, error) {
	options := pluginhost.Options{Name: "verify", Directory: h.sockets, Logger: h.log.logger()}
	return &verifiedPlugin{pluginhost.New(h.process, options)}, nil
}

// meet starts the plugin once and ends it, to see whether it is one and what it
// says of itself.
func (h *verifyHost) meet(ctx context.Context, own *ownConfig) (wire.Description, error) {
	plugin := &verifiedPlugin{pluginhost.New(h.process, pluginhost.Options{Name: "verify", Directory: h.sockets, Logger: h.log.logger()})}
	defer plugin.Discard()
	err := plugin.Configure(ctx, own.json)
	var faults sdk.Faults
	switch {
	case errors.As(err, &faults):
		return wire.Description{}, own.refused(faults)
	case err != nil:
		return wire.Description{}, fmt.Errorf("%s does not start as a plugin: %w", h.process.Command[0], err)
	}
	return plugin.Description(), nil
}

// verifiedPlugin is a plugin's process as the suite needs it: Configure waits
// for the answer, and what the process does wrong is no mere retry.
type verifiedPlugin struct{ *pluginhost.Plugin }

// Configure starts the process. No configuration is an empty one, as in the
// relay.
func (p *verifiedPlugin) Configure(ctx context.Context, own json.RawMessage) error {
	if len(bytes.TrimSpace(own)) == 0 {
		own = json.RawMessage("{}")
	}
	if err := p.Plugin.Configure(ctx, own); err != nil {
		return err
	}
	err := p.Started(ctx)
	if err != nil {
		p.Discard() // it would be started again and again
	}
	return err
}

// Deliver tells of events that the process had in hand when it failed.
func (p *verifiedPlugin) Deliver(ctx context.Context, events []sdk.Event) []sdk.Outcome {
	outcomes, inHand, err := p.Attempt(ctx, events)
	if inHand {
		err = &wire.LostError{InHand: true, Cause: err}
	}
	return sdktest.Complete(outcomes, len(events), err)
}

// Description is what the plugin has said of itself.
func (p *verifiedPlugin) Description() wire.Description { return p.Status().Description }

// Discard ends the process, without waiting for what it has in hand.
func (p *verifiedPlugin) Discard() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = p.Close(ctx)
}

// keptLines is how many lines of the plugin's log are shown when a case fails.
const keptLines = 8

// pluginWords are the last lines of a log, which the suite's forwarders write to.
type pluginWords struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

// Write takes one line.
func (l *pluginWords) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(`msg="plugin started"`)) {
		return len(line), nil // says nothing of a case
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, strings.TrimSpace(string(line)))
	l.lines = l.lines[max(len(l.lines)-keptLines, 0):]
	return len(line), nil
}

// take are the lines since the last call.
func (l *pluginWords) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

// logger logs into the lines, without what is the same in all of them.
func (l *pluginWords) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}
