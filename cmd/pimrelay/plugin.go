package main

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/plugins"
	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/serve"
)

func newPluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "List, write and try forwarder plugins",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPluginListCommand(), newPluginNewCommand(), newPluginVerifyCommand(), newPluginServeCommand())
	return cmd
}

// isolated is the command that runs a built-in forwarder in a process of its
// own: this program, also when its file has been replaced since it was started.
func isolated(name string) []string {
	self := "/proc/self/exe"
	if runtime.GOOS != "linux" {
		self, _ = os.Executable() // without it the plugin does not start, and says so
	}
	return []string{self, "plugin", "serve", name}
}

// newPluginServeCommand is what isolated runs.
func newPluginServeCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "serve NAME",
		Short:  "Serve a built-in forwarder to the relay that has started this process",
		Hidden: true,
		Args:   oneArg("plugin's NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, ok := plugins.Builtin(args[0], slog.New(slog.DiscardHandler)); !ok {
				return usageError{fmt.Errorf("no built-in forwarder %q, there are %s", args[0], strings.Join(plugins.Names(), ", "))}
			}
			serve.Main(func(logger *slog.Logger) sdk.Forwarder {
				forwarder, _ := plugins.Builtin(args[0], logger)
				return forwarder
			})
			return nil
		},
	}
}
