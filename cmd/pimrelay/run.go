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
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the relay until it is told to stop (SIGINT or SIGTERM; a second one ends it at once)",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(file)
			if err != nil {
				return err
			}
			return run(cmd.Context(), cfg, file, cmd.ErrOrStderr())
		},
	}
	addFileFlag(cmd, &file)
	return cmd
}

// run is the daemon, which reloads when the file changes and at SIGHUP.
func run(ctx context.Context, cfg *relay.Config, file string, stderr io.Writer) error {
	var level slog.LevelVar
	configured, err := observe.ParseLevel(cfg.Log.Level)
	if err != nil {
		return err
	}
	level.Set(configured)
	logger := observe.NewLogger(stderr, &level, cfg.Log.Format)
	logger.Info("pimrelay starts", "version", version(), "config", file)
	daemon := relay.New(cfg, relay.Options{
		Version: version(), Logger: logger, Builtin: plugins.Builtin, Level: &level,
		File: file, Load: func() (*relay.Config, error) { return load(file) },
	})
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	var reloads sync.WaitGroup
	defer reloads.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	reloads.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				// Reload logs what it did, and why not.
				_, _ = daemon.Reload(ctx)
			}
		}
	})
	return daemon.Run(ctx)
}
