package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

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
			level, err := observe.ParseLevel(cfg.Log.Level)
			if err != nil {
				return err
			}
			logger := observe.NewLogger(cmd.ErrOrStderr(), level, cfg.Log.Format)
			logger.Info("pimrelay starts", "version", version(), "config", file)
			return relay.New(cfg, relay.Options{Version: version(), Logger: logger, Builtin: plugins.Builtin}).Run(cmd.Context())
		},
	}
	addFileFlag(cmd, &file)
	return cmd
}
