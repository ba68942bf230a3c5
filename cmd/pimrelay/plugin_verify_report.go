package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pimrelay/pimrelay/sdk/sdktest"
	"github.com/pimrelay/pimrelay/sdk/wire"
)

// verifyReport is what `plugin verify --json` prints.
type verifyReport struct {
	Plugin  listedPlugin `json:"plugin"`
	Command string       `json:"command"`
	// Destination is the URL that verify serves, if the configuration uses it.
	Destination string       `json:"destination,omitempty"`
	Cases       []caseReport `json:"cases"`
	Passed      int          `json:"passed"`
	Failed      int          `json:"failed"`
	LeftOut     int          `json:"left_out"`
	Seconds     float64      `json:"seconds"`
}

// caseReport is what came of one case.
type caseReport struct {
	Case    string         `json:"case"`
	About   string         `json:"about"`
	Status  sdktest.Status `json:"status"`
	Seconds float64        `json:"seconds"`
	Detail  string         `json:"detail,omitempty"`
	// Log are the plugin's last words in a case that has failed.
	Log []string `json:"log,omitempty"`
}

// described is a plugin in the words of `plugin list`.
func described(d wire.Description) listedPlugin {
	return listedPlugin{
		Name: d.Name, Version: d.Version, Runs: "command", Batches: d.Batches, MaxEvents: d.Limits.Events, MaxBytes: d.Limits.Bytes,
		KeepsOrder: d.KeepsOrder, Health: d.Health, Schema: d.ConfigSchema,
	}
}

// run runs the cases and tells of each as it ends. The error says how many have
// failed.
func (r *verifyReport) run(ctx context.Context, subject sdktest.Subject, log *pluginWords, each func(caseReport)) error {
	began := time.Now()
	for _, c := range sdktest.Cases() {
		log.take()
		result := c.Run(ctx, subject)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		report := caseReport{Case: c.Name, About: c.About, Status: result.Status, Seconds: result.Took.Seconds(), Detail: result.Detail}
		switch result.Status {
		case sdktest.Failed:
			r.Failed++
			report.Log = log.take()
		case sdktest.LeftOut:
			r.LeftOut++
		default:
			r.Passed++
		}
		r.Cases = append(r.Cases, report)
		each(report)
	}
	r.Seconds = time.Since(began).Seconds()
	return nil
}

// verdict is the command's error.
func (r *verifyReport) verdict() error {
	if r.Failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %s failed", r.Failed, counted(len(r.Cases), "case"))
}

func (r *verifyReport) printJSON(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// printHead prints what is verified, and the head of the table.
func (r *verifyReport) printHead(out io.Writer) {
	name := strings.TrimSpace(cmp.Or(r.Plugin.Name, "without a name") + " " + r.Plugin.Version)
	destination := r.Destination
	if destination == "" {
		destination = "the configuration's own"
	}
	fmt.Fprintf(out, "plugin       %s: %s\n", name, r.Command)
	fmt.Fprintf(out, "             %s\n", r.Plugin.capabilities())
	fmt.Fprintf(out, "destination  %s\n\n", destination)
	row(out, "CASE", "RESULT", "TOOK", "DETAIL")
}

// print prints a line of the table, and below what a failed case is about.
func (c caseReport) print(out io.Writer) {
	took := time.Duration(c.Seconds * float64(time.Second)).Round(time.Millisecond).String()
	result := string(c.Status)
	if c.Status == sdktest.Failed {
		result = "FAILED"
	}
	row(out, c.Case, result, took, c.Detail)
	if c.Status == sdktest.Failed {
		row(out, "", "", "", "A forwarder "+c.About+".")
	}
	for _, line := range c.Log {
		row(out, "", "", "", "log: "+line)
	}
}

// printEnd prints what it came to.
func (r *verifyReport) printEnd(out io.Writer) error {
	failed := "none failed"
	if r.Failed > 0 {
		failed = fmt.Sprintf("%d FAILED", r.Failed)
	}
	fmt.Fprintf(out, "\n%s: %d passed, %d left out, %s (%.1fs)\n", counted(len(r.Cases), "case"), r.Passed, r.LeftOut, failed, r.Seconds)
	var err error
	if r.Destination == "" {
		_, err = fmt.Fprintln(out, "Cases that need a destination were left out: use ${destination} in the configuration if the plugin speaks HTTP.")
	}
	return err
}

// row prints a line of the table; its columns have a fixed width, because the
// lines come one by one.
func row(out io.Writer, name, result, took, detail string) {
	widest := 0
	for _, c := range sdktest.Cases() {
		widest = max(widest, len(c.Name))
	}
	line := fmt.Sprintf("%-*s  %-8s  %7s  %s", widest, name, result, took, detail)
	fmt.Fprintln(out, strings.TrimRight(line, " "))
}
