package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay"
	"github.com/pimrelay/pimrelay/relay/admin"
)

func newBenchCommand() *cobra.Command {
	b := bench{}
	listen := relay.Listen{MaxBody: 1 << 10} // sizes are written here as in the configuration
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what a relay can do on this machine: events a second, latency, CPU, memory, beside a bare server",
		Long: "bench runs a relay on loopback, sends it signed events, and measures durable ingest, latency and delivery to the end.\n" +
			"In the same run it measures the least that a durable endpoint does (verify, append, fsync for all that wait together),\n" +
			"so that the ratio of the two means something on any machine. The load generator uses the same cores; its share is shown.\n" +
			"It takes about five times --duration. Nothing leaves this machine, and what bench writes is removed.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b.size = int(listen.MaxBody)
			if err := b.check(); err != nil {
				return usageError{err}
			}
			b.environ, b.out, b.progress = benchEnviron(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			// Without its servers ended and its files removed a bench must not
			// end, so neither when the terminal or the reader of the pipe goes.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP, syscall.SIGPIPE)
			defer stop()
			return b.run(ctx)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&b.duration, "duration", 10*time.Second, "how long each phase measures")
	flags.IntVar(&b.connections, "connections", 64, "connections that the events come over")
	flags.TextVar(&listen.MaxBody, "size", listen.MaxBody, "size of an event's body")
	flags.Float64Var(&b.rate, "rate", 0, "events a second for ingest and delivery; 0 = as fast as they are answered")
	flags.IntVar(&b.sinks, "sinks", 2, "HTTP sinks that deliveries go to, beside a file")
	flags.StringVar(&b.parent, "dir", "", "empty directory on the disk to measure (default: the one for temporary files)")
	flags.BoolVar(&b.json, "json", false, "print JSON, with times in seconds and sizes in bytes")
	cmd.AddCommand(newCeilingCommand())
	return cmd
}

// bench is one run of the benchmark.
type bench struct {
	duration           time.Duration
	connections, sinks int
	size               int // of a body, in bytes
	rate               float64
	parent             string
	json               bool
	environ            []string // of the servers
	out, progress      io.Writer

	dir    string // holds everything that the bench writes; removed at its end
	show   *progress
	result benchResult
}

func (b *bench) check() error {
	var errs []error
	require := func(ok bool, problem string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(problem, args...))
		}
	}
	require(b.duration >= 100*time.Millisecond && b.duration <= 10*time.Minute, "--duration must be from 100ms to 10m (got %s)", b.duration)
	require(b.connections >= 1 && b.connections <= 1000, "--connections must be from 1 to 1000 (got %d)", b.connections)
	require(b.size >= smallestBenchBody && b.size <= largestBenchBody, "--size must be from 512B to 1MiB (got %dB)", b.size)
	require(b.rate >= 0 && b.rate <= 1e6, "--rate must be from 0 to 1000000 (got %g)", b.rate)
	require(b.sinks >= 1 && b.sinks <= 16, "--sinks must be from 1 to 16 (got %d)", b.sinks)
	return errors.Join(errs...)
}

// run measures and prints the result.
func (b *bench) run(ctx context.Context) (err error) {
	if err := b.prepare(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	b.show = newProgress(b.progress)
	defer b.show.end()
	measuring, end := context.WithCancelCause(ctx)
	defer end(nil)
	stop := inBackground(func(watching context.Context) { b.watchDisk(watching, end) })
	defer stop()

	err = b.measure(measuring)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted before everything was measured")
	case measuring.Err() != nil:
		return context.Cause(measuring)
	case err != nil:
		return err
	}
	b.show.end()
	if b.json {
		return b.result.printJSON(b.out)
	}
	return b.result.print(b.out)
}

// prepare makes the directory.
func (b *bench) prepare() error {
	if b.parent != "" {
		if err := os.MkdirAll(b.parent, 0o700); err != nil {
			return err
		}
		entries, err := os.ReadDir(b.parent)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			return fmt.Errorf("--dir %s is not empty: name an empty directory, or one that does not exist", b.parent)
		}
	}
	dir, err := os.MkdirTemp(b.parent, "pimrelay-bench-")
	if err != nil {
		return err
	}
	if b.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := admin.CheckDir(filepath.Join(b.dir, deliveryDir, "data")); err != nil {
		return errors.Join(fmt.Errorf("--dir %s %w", filepath.Dir(b.dir), err), os.RemoveAll(b.dir))
	}
	b.result = newBenchResult(b)
	if b.result.MemoryFileSystem = inMemory(b.dir); b.result.MemoryFileSystem {
		fmt.Fprintf(b.progress, "warning: %s is in memory, where fsync means nothing: name a directory on a disk with --dir\n", filepath.Dir(b.dir))
	}
	return nil
}

// The numbers of file systems in memory, from statfs(2) of Linux.
const (
	magicTmpfs = 0x01021994
	magicRamfs = 0x858458f6
)

func inMemory(dir string) bool {
	var fs syscall.Statfs_t
	if syscall.Statfs(dir, &fs) != nil {
		return false
	}
	kind := uint32(fs.Type)
	return kind == magicTmpfs || kind == magicRamfs
}

// leastFree is what a bench leaves free on the disk.
const leastFree = 512 << 20

// watchDisk ends the bench before the disk is full.
func (b *bench) watchDisk(ctx context.Context, end context.CancelCauseFunc) {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		var fs syscall.Statfs_t
		if syscall.Statfs(b.dir, &fs) == nil && fs.Bavail*uint64(fs.Bsize) < leastFree {
			end(fmt.Errorf("less than 512 MiB are free at %s: make room, choose another --dir or a shorter --duration", filepath.Dir(b.dir)))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
