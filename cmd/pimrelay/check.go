package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay"
)

func newCheckCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration file and show everything that is wrong with it (exit code 2)",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(file)
			if err != nil {
				return err
			}
			if err := relay.Preflight(file, cfg); err != nil {
				return err
			}
			reports, err := relay.TryPlugins(cmd.Context(), file, os.Environ(), cfg, isolated)
			for _, r := range reports {
				if r.Err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "forwarder %s: plugin %s starts and accepts its configuration\n", r.Forwarder, orDash(strings.TrimSpace(r.Description.Name+" "+r.Description.Version)))
				}
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok (%s, %s)\n", file,
				counted(len(cfg.Sources), "source"), counted(len(cfg.Forwarders), "forwarder"))
			return err
		},
	}
	addFileFlag(cmd, &file)
	return cmd
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
