// Command pimrelay is a webhook relay and edge gateway for the Akeneo Event
// Platform. Each sub-command is a file of this package; what the daemon does is
// in package relay.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay/config"
)

// The exit codes.
const (
	exitFailure       = 1
	exitConfiguration = 2 // the configuration or the command line is wrong
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // the second signal ends the process at once
		cancel()
	}()
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "pimrelay",
		Short: "Webhook relay and edge gateway for the Akeneo Event Platform",
		Long: "pimrelay receives the events of the Akeneo Event Platform, stores each one durably before it answers,\n" +
			"and forwards them to where they are needed.",
		SilenceUsage: true, SilenceErrors: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return cmd.Help()
		},
	}
	root.AddCommand(newRunCommand(), newCheckCommand(), newStatusCommand(), newReloadCommand(), newForwarderCommand(), newPluginCommand(), newDeadLettersCommand(), newReplayCommand(), newJournalCommand(),
		newDemoCommand(), newSimulateCommand(), newBenchCommand(), newVersionCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	err := root.ExecuteContext(ctx)
	var problems config.Problems
	switch {
	case err == nil:
		return 0
	case errors.As(err, &problems):
		fmt.Fprintln(stderr, problems)
		return exitConfiguration
	case errors.As(err, new(usageError)):
		fmt.Fprintf(stderr, "pimrelay: %v\nSee 'pimrelay --help'.\n", err)
		return exitConfiguration
	}
	fmt.Fprintln(stderr, "pimrelay:", err)
	return exitFailure
}

// usageError is a command line that cannot be understood.
type usageError struct{ error }

// noArgs refuses arguments beside the flags.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}
