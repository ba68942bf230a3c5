package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay/admin"
)

func newForwarderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "forwarder",
		Short: "Make a forwarder stand still, or go on",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newPauseCommand("pause", "Finish the deliveries in hand and start no more; events wait in the journal, until resume or a restart of the relay", (*admin.Client).PauseForwarder),
		newPauseCommand("resume", "Go on after a pause", (*admin.Client).ResumeForwarder))
	return cmd
}

func newPauseCommand(verb, short string, act func(*admin.Client, context.Context, string) (admin.ForwarderPaused, error)) *cobra.Command {
	var target daemonFlags
	cmd := &cobra.Command{
		Use: verb + " NAME", Short: short, Args: oneArg("forwarder's NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(&target, cmd, func(ctx context.Context, c *admin.Client) (admin.ForwarderPaused, error) {
				return act(c, ctx, args[0])
			}, func(out io.Writer, f admin.ForwarderPaused) error {
				state := "goes on"
				if f.Paused {
					state = "is paused"
				}
				_, err := fmt.Fprintf(out, "%s %s\n", f.Forwarder, state)
				return err
			})
		},
	}
	target.add(cmd)
	return cmd
}
