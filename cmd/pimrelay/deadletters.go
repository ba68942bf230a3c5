package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay/admin"
)

func newDeadLettersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead-letters",
		Short: "List, show, retry or discard what a forwarder was spared",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDeadLettersListCommand(), newDeadLettersShowCommand(),
		newDeadLettersActCommand("retry", "Make the events due again; they go out marked as replayed", (*admin.Client).RetryDeadLetters),
		newDeadLettersActCommand("discard", "Delete dead letters for good", (*admin.Client).DiscardDeadLetters))
	return cmd
}

// letterFlags choose dead letters.
type letterFlags struct {
	query        admin.DeadLetterQuery
	since, until string
}

func (f *letterFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.query.Forwarder, "forwarder", "", "of this forwarder")
	flags.StringVar(&f.query.Source, "source", "", "from this source")
	flags.StringVar(&f.query.Type, "type", "", "of this event type")
	flags.StringVar(&f.query.Reason, "reason", "", "with this text in the reason")
	flags.BoolVar(&f.query.Unreadable, "unreadable", false, "deliveries that could not be read, which belong to no forwarder")
	flags.StringVar(&f.since, "since", "", "last tried at or after this time, or so long ago (2026-01-31T15:00:00Z, 24h)")
	flags.StringVar(&f.until, "until", "", "last tried before this time, or so long ago")
}

// read completes the query.
func (f *letterFlags) read(now time.Time, numbers []string) error {
	var err error
	if f.query.Since, err = pointInTime("--since", f.since, now); err != nil {
		return err
	}
	if f.query.Until, err = pointInTime("--until", f.until, now); err != nil {
		return err
	}
	for _, text := range numbers {
		number, err := strconv.ParseInt(text, 10, 64)
		if err != nil || number < 1 {
			return usageError{fmt.Errorf("%q is no dead letter's number: `pimrelay dead-letters list` shows them", text)}
		}
		f.query.Numbers = append(f.query.Numbers, number)
	}
	return nil
}

// chooses reports whether anything narrows the choice.
func (f *letterFlags) chooses() bool {
	q := f.query
	return q.Forwarder != "" || q.Source != "" || q.Type != "" || q.Reason != "" || q.Unreadable || !q.Since.IsZero() || !q.Until.IsZero() || len(q.Numbers) > 0
}

// pointInTime reads a time, or a duration before now.
func pointInTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, usageError{fmt.Errorf("%s must be a time such as 2026-01-31T15:00:00Z, or how long ago, such as 24h (got %q)", flag, text)}
	}
	return t, nil
}

func newDeadLettersListCommand() *cobra.Command {
	var target daemonFlags
	var chosen letterFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List dead letters, the newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := chosen.read(time.Now(), nil); err != nil {
				return err
			}
			return ask(&target, cmd, func(ctx context.Context, c *admin.Client) ([]admin.DeadLetter, error) {
				return c.DeadLetters(ctx, chosen.query)
			}, func(out io.Writer, letters []admin.DeadLetter) error {
				return printDeadLetters(out, letters, time.Now())
			})
		},
	}
	target.add(cmd)
	chosen.add(cmd)
	cmd.Flags().IntVar(&chosen.query.Limit, "limit", 50, "at most so many")
	cmd.Flags().Int64Var(&chosen.query.After, "after", 0, "go on behind the dead letter with this number")
	return cmd
}

func printDeadLetters(out io.Writer, letters []admin.DeadLetter, now time.Time) error {
	if len(letters) == 0 {
		_, err := fmt.Fprintln(out, "no dead letters")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NUMBER\tFORWARDER\tSOURCE\tTYPE\tEVENT\tATTEMPTS\tLAST\tREASON")
	for _, d := range letters {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", d.Number, orDash(d.Forwarder), d.Source, orDash(d.Type), orDash(d.ID), d.Attempts, ago(d.Last, now), d.Reason)
	}
	return w.Flush()
}

func newDeadLettersShowCommand() *cobra.Command {
	var target daemonFlags
	cmd := &cobra.Command{
		Use: "show NUMBER", Short: "Show one dead letter with its event", Args: oneArg("NUMBER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var chosen letterFlags
			if err := chosen.read(time.Now(), args); err != nil {
				return err
			}
			return ask(&target, cmd, func(ctx context.Context, c *admin.Client) (admin.DeadLetterDetail, error) {
				return c.DeadLetter(ctx, chosen.query.Numbers[0])
			}, printDeadLetter)
		},
	}
	target.add(cmd)
	return cmd
}

func printDeadLetter(out io.Writer, d admin.DeadLetterDetail) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"number", strconv.FormatInt(d.Number, 10)}, {"forwarder", orDash(d.Forwarder)}, {"source", d.Source}, {"event", orDash(d.ID)}, {"type", orDash(d.Type)},
		{"entity", orDash(d.Entity)}, {"reason", d.Reason}, {"attempts", strconv.Itoa(d.Attempts)}, {"first", d.First.Format(time.RFC3339)}, {"last", d.Last.Format(time.RFC3339)},
		{"answer", orDash(strings.ReplaceAll(d.Answer, "\n", "\n\t"))},
	} {
		fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s\n", d.Body)
	return err
}

// newDeadLettersActCommand does something to all dead letters that are chosen.
func newDeadLettersActCommand(verb, short string, act func(*admin.Client, context.Context, admin.DeadLetterQuery) (admin.Count, error)) *cobra.Command {
	var target daemonFlags
	var chosen letterFlags
	var all bool
	cmd := &cobra.Command{
		Use: verb + " [NUMBER...]", Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := chosen.read(time.Now(), args); err != nil {
				return err
			}
			if !all && !chosen.chooses() {
				return usageError{fmt.Errorf("which ones? Give numbers, or flags that choose, or --all")}
			}
			return ask(&target, cmd, func(ctx context.Context, c *admin.Client) (admin.Count, error) {
				return act(c, ctx, chosen.query)
			}, func(out io.Writer, n admin.Count) error {
				_, err := fmt.Fprintf(out, "%s: %s\n", verb, counted(n.Count, "dead letter"))
				return err
			})
		},
	}
	target.add(cmd)
	chosen.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all dead letters")
	return cmd
}

// oneArg demands exactly one argument.
func oneArg(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError{errors.New("give exactly one " + name)}
		}
		return nil
	}
}
