package pluginhost

import (
	"context"
	"log/slog"
	"os"
	"testing"

	"github.com/pimrelay/pimrelay/relay/internal/testplugin"
)

// slow is a log in which the start of a plugin takes its time.
type slow struct {
	written chan<- struct{}
	free    <-chan struct{}
}

func (s slow) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "plugin started" {
		s.written <- struct{}{}
		<-s.free
	}
	return nil
}

// Whoever has waited for the start can deliver.
func TestStartedMeansThatItTakesCalls(t *testing.T) {
	t.Parallel()
	sockets, err := os.MkdirTemp("", "pimrelay-test-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	written, free := make(chan struct{}), make(chan struct{})
	plugin := New(process(testplugin.Good), Options{Name: "plug", Directory: sockets, Logger: slog.New(slow{written, free}), Pace: quick})
	if err := plugin.Configure(t.Context(), []byte(`{"out": "/dev/null"}`)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plugin.Close(context.Background()) })
	<-written
	select {
	case <-plugin.first:
		t.Error("Started returns before the plugin is known to run")
	default:
	}
	close(free)
	if err := plugin.Started(t.Context()); err != nil {
		t.Fatal(err)
	}
	if reason := plugin.Down(); reason != "" {
		t.Error(reason)
	}
}

// Enabled is for everything.
func (s slow) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs and WithGroup keep the handler.
func (s slow) WithAttrs([]slog.Attr) slog.Handler { return s }

func (s slow) WithGroup(string) slog.Handler { return s }
