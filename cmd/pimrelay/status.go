package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay"
	"github.com/pimrelay/pimrelay/relay/admin"
)

// daemonFlags say which running relay a command is about, and how to answer.
type daemonFlags struct {
	file, dir string
	json      bool
}

func (f *daemonFlags) add(cmd *cobra.Command) {
	addFileFlag(cmd, &f.file)
	cmd.Flags().StringVar(&f.dir, "data-dir", "", "data_dir of the relay, instead of the one in the configuration file")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
}

func (f *daemonFlags) client() (*admin.Client, error) {
	if f.dir != "" {
		return admin.NewClient(f.dir), nil
	}
	dir, err := relay.DataDir(f.file, os.Environ())
	if err != nil {
		return nil, err
	}
	return admin.NewClient(dir), nil
}

// ask puts a question to the daemon and prints the answer, as JSON or with show.
func ask[A any](f *daemonFlags, cmd *cobra.Command, question func(context.Context, *admin.Client) (A, error), show func(io.Writer, A) error) error {
	client, err := f.client()
	if err != nil {
		return err
	}
	answer, err := question(cmd.Context(), client)
	if err != nil {
		return err
	}
	if f.json {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetIndent("", "  ")
		return encoder.Encode(answer)
	}
	return show(cmd.OutOrStdout(), answer)
}

func newStatusCommand() *cobra.Command {
	var target daemonFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running relay does: door, sources, forwarders, warnings",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(&target, cmd, func(ctx context.Context, c *admin.Client) (admin.Status, error) {
				return c.Status(ctx)
			}, func(out io.Writer, s admin.Status) error { return printStatus(out, s, time.Now()) })
		},
	}
	target.add(cmd)
	return cmd
}

// printStatus is the status for people.
func printStatus(out io.Writer, s admin.Status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	state := "ready"
	if !s.Ready {
		state = "not ready: " + s.Reason
	}
	fmt.Fprintf(w, "pimrelay %s, up %s, %s\n", s.Version, now.Sub(s.Started).Round(time.Second), state)
	fmt.Fprintf(w, "door %s, tls %s, %s\n", s.Door.Address, s.Door.TLS, orDash(s.Door.PublicURL))
	for _, c := range s.Door.Certificates {
		fmt.Fprintf(w, "certificate for %s: %s\n", c.Host, until(c.NotAfter, now))
	}
	fmt.Fprintf(w, "journal: last event %d, %.1f MiB on disk\n\n", s.Journal.Head, float64(s.Journal.DiskBytes)/(1<<20))

	fmt.Fprintln(w, "SOURCE\tPATH\tSUBSCRIPTION\tSTATUS\tID\tEVENTS")
	for _, source := range s.Sources {
		if source.Manual {
			fmt.Fprintf(w, "%s\t%s\t(by hand)\t-\t-\t-\n", source.Name, source.Path)
		}
		for _, sub := range source.Subscriptions {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", source.Name, source.Path, sub.Key, orDash(sub.Status), orDash(sub.ID), len(sub.Events))
		}
	}
	fmt.Fprintln(w, "\nFORWARDER\tPLUGIN\tBACKLOG\tRETRYING\tPARKED\tIN FLIGHT\tDEAD LETTERS\tDELIVERED\tLAST DELIVERY\tSTATE")
	for _, f := range s.Forwarders {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", f.Name, f.Plugin, f.Backlog, f.Retrying, f.Parked, f.InFlight, f.DeadLetters, f.Delivered, ago(f.LastDelivered, now), forwarderState(f))
	}
	if len(s.Warnings) > 0 {
		fmt.Fprintln(w, "\nWARNING\tSINCE\t")
		for _, warning := range s.Warnings {
			fmt.Fprintf(w, "%s\t%s\t%s\n", warning.Key, ago(warning.Since, now), warning.Message)
		}
	}
	return w.Flush()
}

func forwarderState(f admin.Forwarder) string {
	switch {
	case f.Paused:
		return "paused"
	case f.Process != nil && !f.Process.Up:
		return "plugin down: " + f.Process.Reason
	case f.Breaker != "closed":
		return "breaker " + f.Breaker + ": " + f.BreakerReason
	case f.Failing:
		return "failing: " + f.LastError
	}
	return "ok"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// until says when a certificate ends.
func until(t, now time.Time) string {
	if t.IsZero() {
		return "none yet"
	}
	return fmt.Sprintf("until %s (%d days left)", t.Format(time.RFC3339), int(t.Sub(now).Hours()/24))
}

func ago(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return now.Sub(t).Round(time.Second).String() + " ago"
}
