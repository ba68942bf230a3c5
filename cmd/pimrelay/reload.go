package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay/admin"
)

func newReloadCommand() *cobra.Command {
	var target daemonFlags
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Make the running relay read its configuration file anew, at once",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(&target, cmd, func(ctx context.Context, c *admin.Client) (admin.Reloaded, error) {
				return c.Reload(ctx)
			}, printReloaded)
		},
	}
	target.add(cmd)
	return cmd
}

func printReloaded(out io.Writer, r admin.Reloaded) error {
	if len(r.Changes) == 0 {
		_, err := fmt.Fprintln(out, "nothing has changed")
		return err
	}
	_, err := fmt.Fprintln(out, strings.Join(r.Changes, "\n"))
	return err
}
