package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/plugins"
	"github.com/pimrelay/pimrelay/relay"
	"github.com/pimrelay/pimrelay/relay/observe"
	"github.com/pimrelay/pimrelay/relay/pluginhost"
)

// defaultFile is where the packages put the configuration.
const defaultFile = "/etc/pimrelay/pimrelay.yaml"

func addFileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", defaultFile, "configuration file")
}

func load(file string) (*relay.Config, error) {
	cfg, err := relay.Load(file, os.Environ(), plugins.Builtin)
	if errors.Is(err, fs.ErrNotExist) {
		err = usageError{fmt.Errorf("%w: name the configuration file with -c", err)}
	}
	return cfg, err
}

func newRunCommand() *cobra.Command {
	var file string
	var attach map[string]string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the relay until it is told to stop (SIGINT or SIGTERM; a second one ends it at once)",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(file)
			if err != nil {
				return err
			}
			if err := checkAttach(cfg, file, attach); err != nil {
				return err
			}
			return run(cmd.Context(), cfg, file, attach, cmd.ErrOrStderr())
		},
	}
	addFileFlag(cmd, &file)
	cmd.Flags().StringToStringVar(&attach, "attach", nil, "development: connect a forwarder to a plugin that you run yourself, such as under a debugger: NAME=unix:///path")
	return cmd
}

// checkAttach looks whether each forwarder exists and each address can be one.
func checkAttach(cfg *relay.Config, file string, attach map[string]string) error {
	for name, address := range attach {
		var process pluginhost.Process
		process.SetDefaults()
		process.Address = address
		if _, ok := cfg.Forwarders[name]; !ok || process.Validate() != nil {
			return usageError{fmt.Errorf("--attach needs the name of a forwarder in %s and the address of a plugin started with --listen: --attach NAME=unix:///path (got %s=%s)", file, name, address)}
		}
	}
	return nil
}

// run is the daemon. It reloads when the file changes and at SIGHUP, and starts
// a successor that takes over the socket at SIGUSR2.
func run(ctx context.Context, cfg *relay.Config, file string, attach map[string]string, stderr io.Writer) error {
	var level slog.LevelVar
	configured, err := observe.ParseLevel(cfg.Log.Level)
	if err != nil {
		return err
	}
	level.Set(configured)
	logger := observe.NewLogger(stderr, &level, cfg.Log.Format).With("pid", os.Getpid())
	logger.Info("pimrelay starts", "version", version(), "config", file)
	// From here on the signals are heard, and kept until they are served.
	hangups, takeovers := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	if len(takeoverSignals) > 0 {
		signal.Notify(takeovers, takeoverSignals...)
		defer signal.Stop(takeovers)
	}
	if err := relay.Preflight(file, cfg); err != nil {
		return err
	}
	socket, err := openDoor(cfg.Listen.Address)
	if err != nil {
		return err
	}
	daemon := relay.New(cfg, relay.Options{
		Version: version(), Logger: logger, Builtin: plugins.Builtin, Isolated: isolated, Attach: attach, Level: &level, Listener: socket.listener, Takeover: socket.inherited(),
		File: file, Load: func() (*relay.Config, error) { return load(file) },
	})
	if err := socket.ready(); err != nil {
		return errors.Join(fmt.Errorf("tell the predecessor: %w", err), socket.listener.Close())
	}
	ctx, end := socket.run(ctx, takeovers, logger)
	var reloads sync.WaitGroup
	defer reloads.Wait()
	defer end()
	reloads.Go(func() { reloadAt(ctx, hangups, daemon) })
	return daemon.Run(ctx)
}

// reloadAt reloads at each signal until ctx ends.
func reloadAt(ctx context.Context, signals <-chan os.Signal, daemon *relay.Relay) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			// Reload logs what it did, and why not.
			_, _ = daemon.Reload(ctx)
		}
	}
}
