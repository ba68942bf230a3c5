package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/plugins"
	"github.com/pimrelay/pimrelay/sdk/sdktest"
)

// verification is what the flags of `pimrelay plugin verify` say.
type verification struct {
	file, builtin string
	timeout       time.Duration
	json          bool
}

func newPluginVerifyCommand() *cobra.Command {
	var v verification
	cmd := &cobra.Command{
		Use:   "verify [flags] -- COMMAND [ARGS...]",
		Short: "Run the conformance suite against a plugin, as the relay would run it, and show a table of cases (exit code 1 if one fails)",
		Long: `Run the conformance suite against a plugin: an executable in any language, which
verify starts as the relay would.

The configuration file holds the plugin's own configuration in YAML or JSON: what
stands under "config" in pimrelay.yaml. In its values, ${destination} is the URL of
an HTTP destination that verify serves, looks into and makes misbehave, and ${dir}
is a directory that is removed at the end:

    url: ${destination}

A plugin whose configuration has no ${destination} delivers to wherever it says: name
a destination for tests. What needs a look into the destination is left out then.`,
		Example: "  pimrelay plugin verify --config chat.yaml -- ./chat\n" +
			"  pimrelay plugin verify --config orders.yaml -- node orders.js\n" +
			"  pimrelay plugin verify --config http.yaml --plugin http",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			command, err := v.command(args)
			if err != nil {
				return usageError{err}
			}
			return v.run(cmd.Context(), command, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the command is the command's
	flags.StringVarP(&v.file, "config", "c", "", "file with the plugin's own configuration, in YAML or JSON; without it the configuration is empty")
	flags.StringVar(&v.builtin, "plugin", "", "verify a built-in forwarder in a process of its own, instead of a command")
	flags.DurationVar(&v.timeout, "timeout", sdktest.DefaultTimeout, "how long a case may take")
	flags.BoolVar(&v.json, "json", false, "print JSON, when all cases have run")
	return cmd
}

// command is the plugin's command with the absolute path of its executable.
func (v *verification) command(args []string) ([]string, error) {
	switch {
	case v.timeout < time.Second || v.timeout > time.Hour:
		return nil, fmt.Errorf("--timeout must be from 1s to 1h (got %s)", v.timeout)
	case v.builtin != "" && len(args) > 0:
		return nil, errors.New("give either --plugin or a command, not both")
	case v.builtin != "":
		if _, ok := plugins.Builtin(v.builtin, slog.New(slog.DiscardHandler)); !ok {
			return nil, fmt.Errorf("no built-in forwarder %q, there are %s", v.builtin, strings.Join(plugins.Names(), ", "))
		}
		return isolated(v.builtin), nil
	case len(args) == 0:
		return nil, errors.New("give the plugin's command: pimrelay plugin verify -- ./my-plugin")
	}
	path, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return nil, fmt.Errorf("the plugin's command: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	return append([]string{path}, args[1:]...), nil
}

// run verifies the plugin.
func (v *verification) run(ctx context.Context, command []string, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "pimrelay-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	sockets, scratch := filepath.Join(dir, "s"), filepath.Join(dir, "dir")
	if err := errors.Join(os.Mkdir(sockets, 0o700), os.Mkdir(scratch, 0o700)); err != nil {
		return err
	}
	destination, err := sdktest.ListenHTTP()
	if err != nil {
		return err
	}
	defer destination.Close()
	own, err := readOwnConfig(v.file, map[string]string{"${destination}": destination.URL(), "${dir}": scratch})
	if err != nil {
		return err
	}
	host := newVerifyHost(command, sockets)
	plugin, err := host.meet(ctx, own)
	if err != nil {
		return err
	}
	report := &verifyReport{Plugin: described(plugin), Command: strings.Join(command, " ")}
	if v.builtin != "" {
		report.Command = "pimrelay plugin serve " + v.builtin
	}
	subject := sdktest.Subject{New: host.fresh, Config: own.json, Timeout: v.timeout}
	if own.uses["${destination}"] {
		subject.Destination, report.Destination = destination, destination.URL()
	}
	return v.report(ctx, subject, report, &host.log, out)
}

// report runs the cases and prints what comes of them.
func (v *verification) report(ctx context.Context, subject sdktest.Subject, report *verifyReport, log *pluginWords, out io.Writer) error {
	each, end := func(caseReport) {}, report.printJSON
	if !v.json {
		report.printHead(out)
		each, end = func(c caseReport) { c.print(out) }, report.printEnd
	}
	if err := report.run(ctx, subject, log, each); err != nil {
		return err
	}
	if err := end(out); err != nil {
		return err
	}
	return report.verdict()
}
