package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay"
)

func newCheckCommand() *cobra.Command {
	var file, staging string
	var online bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration file and show everything that is wrong with it (exit code 2)",
		Long: "check reads the configuration file, with what it refers to on this machine, and shows everything that is wrong\n" +
			"(exit code 2). With --online it also looks outside (exit code 1 if something fails): whether each host name resolves,\n" +
			"whether the certificate authority's directory for trying out issues a certificate for it, whether public_url leads here,\n" +
			"and whether plugins that can tell reach their destinations. Nothing is subscribed. For that it opens listen.address, unless the relay is running.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(file)
			if err != nil {
				return err
			}
			if err := relay.Preflight(file, cfg); err != nil {
				return err
			}
			reports, err := relay.TryPlugins(cmd.Context(), file, os.Environ(), cfg, isolated, online)
			showReports(cmd.OutOrStdout(), reports)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok (%s, %s)\n", file,
				counted(len(cfg.Sources), "source"), counted(len(cfg.Forwarders), "forwarder"))
			if err != nil || !online {
				return err
			}
			return relay.CheckOnline(cmd.Context(), cfg, relay.OnlineOptions{Staging: staging, Report: func(f relay.Finding) {
				fmt.Fprintf(cmd.OutOrStdout(), "%-4s  %-5s  %s\n", f.Verdict, f.Topic, f.Detail)
			}})
		},
	}
	addFileFlag(cmd, &file)
	cmd.Flags().BoolVar(&online, "online", false, "also look outside: DNS, the certificate authority, whether public_url leads here, and whether plugins reach their destinations")
	cmd.Flags().StringVar(&staging, "staging-directory", "", "the ACME directory to try with --online; for Let's Encrypt it is known")
	return cmd
}

// showReports shows the plugins that have started.
func showReports(out io.Writer, reports []relay.PluginReport) {
	for _, r := range reports {
		if r.Err == nil {
			fmt.Fprintf(out, "forwarder %s: plugin %s starts and accepts its configuration\n", r.Forwarder, orDash(strings.TrimSpace(r.Description.Name+" "+r.Description.Version)))
		}
		if r.Health != nil {
			fmt.Fprintf(out, "warn  sink   forwarder %s: its destination cannot be reached: %v\n", r.Forwarder, r.Health)
		}
	}
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
