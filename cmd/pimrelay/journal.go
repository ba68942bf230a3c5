package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay"
	"github.com/pimrelay/pimrelay/relay/journal"
)

func newJournalCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "journal",
		Short: "Check or repair the journal of a relay that does not run",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newJournalCheckCommand(), newJournalRepairCommand())
	return cmd
}

func newJournalCheckCommand() *cobra.Command {
	var target daemonFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Read the whole journal and show what is damaged (exit code 1); changes nothing",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := target.dataDir()
			if err != nil {
				return err
			}
			report, err := journal.Check(cmd.Context(), dir)
			if err != nil {
				return err
			}
			if err := printReport(cmd.OutOrStdout(), report, target.json); err != nil {
				return err
			}
			if len(report.Problems) > 0 {
				return fmt.Errorf("the journal is damaged (%s): 'pimrelay journal repair' salvages what can be read", counted(len(report.Problems), "problem"))
			}
			return nil
		},
	}
	target.add(cmd)
	return cmd
}

func newJournalRepairCommand() *cobra.Command {
	var target daemonFlags
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Set a damaged file aside, salvage into a fresh journal what can be read of it, and keep it",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, forwarders, err := target.journal()
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			report, err := journal.Repair(cmd.Context(), dir, forwarders, log)
			if err != nil {
				return err
			}
			if err := printReport(cmd.OutOrStdout(), report, target.json); err != nil {
				return err
			}
			if len(report.Problems) > 0 && len(report.Salvaged) == 0 {
				return errors.New("a repair would not make it better: damaged events become dead letters where they are wanted")
			}
			return nil
		},
	}
	target.add(cmd)
	return cmd
}

// dataDir is the data_dir of the relay.
func (f *daemonFlags) dataDir() (string, error) {
	if f.dir != "" {
		return f.dir, nil
	}
	return relay.DataDir(f.file, os.Environ())
}

// journal is the data_dir and the forwarders that the configuration names;
// without a configuration there are none.
func (f *daemonFlags) journal() (dir string, forwarders []string, err error) {
	if f.dir != "" {
		return f.dir, nil, nil
	}
	cfg, err := load(f.file)
	if err != nil {
		return "", nil, err
	}
	return cfg.DataDir, slices.Sorted(maps.Keys(cfg.Forwarders)), nil
}

func printReport(out io.Writer, r journal.Report, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	fmt.Fprintf(out, "%s\n", r.File)
	for _, table := range slices.Sorted(maps.Keys(r.Rows)) {
		fmt.Fprintf(out, "  %-13s %d rows\n", table, r.Rows[table])
	}
	for _, problem := range r.Problems {
		fmt.Fprintf(out, "problem: %s\n", problem)
	}
	for _, s := range r.Salvaged {
		fmt.Fprintf(out, "salvaged: %d events were read, %d are lost, %d deliveries are made again; the file is kept as %s\n", s.Events, s.Lost, s.Requeued, s.File)
	}
	if len(r.Problems) == 0 {
		fmt.Fprintln(out, "ok")
	}
	return nil
}
