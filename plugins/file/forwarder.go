// Package file is the forwarder that appends events to a file in the JSON
// Lines format.
//
// It writes whole batches and, unless told otherwise, reports an event as
// delivered only when it is on disk. Rotating, compressing and deleting the
// file is left to others; the forwarder notices and begins a new one.
package file

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pimrelay/pimrelay/sdk"
)

type config struct {
	Path  string `json:"path" doc:"file to append to"`
	Fsync string `json:"fsync" doc:"batch: on disk before an event counts as delivered; never: left to the system"`
	Mode  string `json:"mode" doc:"permissions of a file that the forwarder creates, in octal"`
}

func defaultConfig() config { return config{Fsync: "batch", Mode: "0600"} }

// Validate checks without touching the file.
func (c *config) Validate() sdk.Faults {
	var faults sdk.Faults
	switch info, err := os.Stat(c.Path); {
	case c.Path == "":
		faults.Add("path", "is required, such as /var/lib/pimrelay/events.jsonl")
	case strings.HasSuffix(c.Path, string(filepath.Separator)):
		faults.Add("path", "must name a file, not a directory")
	case strings.ContainsRune(c.Path, 0):
		faults.Add("path", "must not contain a NUL byte")
	case err == nil && !info.Mode().IsRegular():
		faults.Add("path", "must name a regular file (there is a "+kindOf(info.Mode())+")")
	}
	if c.Fsync != "batch" && c.Fsync != "never" {
		faults.Add("fsync", `must be "batch" or "never"`)
	}
	if _, err := parseMode(c.Mode); err != nil {
		faults.Add("mode", err.Error())
	}
	return faults
}

func parseMode(text string) (fs.FileMode, error) {
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil || mode > 0o777 || mode&0o600 != 0o600 {
		return 0, fmt.Errorf(`must be an octal string that lets the owner read and write, such as "0600" or "0640"`)
	}
	return fs.FileMode(mode), nil
}

type forwarder struct {
	logger *slog.Logger
	open   opener
	// turn holds one token; whoever has put it there owns output.
	turn   chan struct{}
	output *output // set by Configure
}

// New returns the forwarder. It logs to logger.
func New(logger *slog.Logger) sdk.Forwarder {
	return &forwarder{logger: logger, open: openFile, turn: make(chan struct{}, 1)}
}

// Configure checks the configuration; the file is opened when the first event
// comes. A relative path is taken from the working directory at this moment.
func (f *forwarder) Configure(_ context.Context, raw json.RawMessage) error {
	c := defaultConfig()
	if err := sdk.DecodeConfig(raw, &c); err != nil {
		return err
	}
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return sdk.Faults{{Field: "path", Problem: "cannot be made absolute: " + err.Error()}}
	}
	mode, err := parseMode(c.Mode)
	if err != nil {
		return sdk.Faults{{Field: "mode", Problem: err.Error()}}
	}
	f.output = &output{path: path, mode: mode, sync: c.Fsync == "batch", open: f.open, logger: f.logger}
	return nil
}

// Describe tells what the forwarder is.
func (f *forwarder) Describe() sdk.Description {
	c := defaultConfig()
	return sdk.Description{Name: "file", ConfigSchema: sdk.ConfigSchema(&c), KeepsOrder: true}
}

// BatchLimits are sizes at which one fsync is well shared and one write is
// still quick.
func (f *forwarder) BatchLimits() sdk.BatchLimits {
	return sdk.BatchLimits{Events: 1000, Bytes: 8 << 20}
}

// Deliver appends the events, all of them or none.
func (f *forwarder) Deliver(ctx context.Context, events []sdk.Event) []sdk.Outcome {
	if len(events) == 0 {
		return nil
	}
	var lines bytes.Buffer
	for i := range events {
		appendLine(&lines, events[i].Payload)
	}
	err := f.alone(ctx, func() error { return f.output.append(lines.Bytes()) })
	if err != nil {
		return sdk.Each(len(events), sdk.Retry(0, err))
	}
	return sdk.Each(len(events), sdk.Delivered())
}

// Close makes the file durable, with either value of fsync, and gives it free
// for another writer.
func (f *forwarder) Close(ctx context.Context) error {
	if f.output == nil {
		return nil
	}
	return f.alone(ctx, f.output.close)
}

// alone runs work while nobody else runs any. When ctx is done it returns
// although work may still be running, for a disk can hang; the next caller
// then waits until that work has come to its end.
func (f *forwarder) alone(ctx context.Context, work func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not written: %w", err)
	}
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("not written, another write still hangs: %w", ctx.Err())
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-f.turn }()
		done <- work()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the write takes too long: %w", ctx.Err())
	}
}
