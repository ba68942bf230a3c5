package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay/admin"
)

func newReplayCommand() *cobra.Command {
	var target daemonFlags
	var q admin.ReplayQuery
	var from, to string
	var all bool
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Deliver stored events to a forwarder again, marked as replayed",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if q.From, err = pointInTime("--from", from, time.Now()); err != nil {
				return err
			}
			if q.To, err = pointInTime("--to", to, time.Now()); err != nil {
				return err
			}
			if q.Forwarder == "" {
				return usageError{errors.New("--forwarder says who gets the events")}
			}
			if !all && q.From.IsZero() && q.To.IsZero() && len(q.Types) == 0 && q.Entity == "" && len(q.IDs) == 0 {
				return usageError{errors.New("which events? Give --from, --to, --type, --entity or --id, or --all for everything that is kept")}
			}
			return ask(&target, cmd, func(ctx context.Context, c *admin.Client) (admin.Count, error) {
				return c.Replay(ctx, q)
			}, func(out io.Writer, n admin.Count) error {
				_, err := fmt.Fprintf(out, "%s will be delivered to %s again\n", counted(n.Count, "event"), q.Forwarder)
				return err
			})
		},
	}
	target.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&q.Forwarder, "forwarder", "", "the forwarder that gets them")
	flags.StringVar(&from, "from", "", "received at or after this time, or so long ago (2026-01-31T15:00:00Z, 24h)")
	flags.StringVar(&to, "to", "", "received before this time, or so long ago")
	flags.StringSliceVar(&q.Types, "type", nil, "of these event types")
	flags.StringVar(&q.Entity, "entity", "", "about this entity, such as product:<uuid>")
	flags.StringSliceVar(&q.IDs, "id", nil, "with these ids")
	flags.BoolVar(&all, "all", false, "everything that is kept")
	return cmd
}
