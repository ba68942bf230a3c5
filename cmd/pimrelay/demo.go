package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay/akeneo/simulator"
)

func newDemoCommand() *cobra.Command {
	d := demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole road on this machine: a simulated Event Platform, a relay, an HTTP sink and a file",
		Long: "demo starts a simulated Event Platform and a relay that subscribes itself to it, over HTTPS on loopback,\n" +
			"sends events of every documented type, and shows what arrived. Nothing leaves this machine.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.events < 1 || d.rate < 0 {
				return usageError{errors.New("--events must be at least 1, --rate at least 0")}
			}
			d.out = cmd.OutOrStdout()
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&d.once, "once", false, "end after the table; the exit code is 0 only if nothing was lost")
	cmd.Flags().IntVar(&d.events, "events", 390, "number of events")
	cmd.Flags().Float64Var(&d.rate, "rate", 200, "events a second; 0 = as the platform paces itself, 1 to 100")
	cmd.Flags().StringVar(&d.dir, "dir", "", "empty directory for everything the demo writes (default: a new temporary one, which is kept)")
	return cmd
}

// demo is one run of the demonstration.
type demo struct {
	once   bool
	events int
	rate   float64
	dir    string
	out    io.Writer

	platform *demoPlatform
	sink     *demoSink
	relay    *demoRelay
}

// patience bounds each step of the demo that waits for something.
const patience = time.Minute

func (d *demo) run(ctx context.Context) (err error) {
	if err := d.prepare(); err != nil {
		return err
	}
	// What the demo starts ends when run returns, in the order against the
	// flow: platform, relay, sink.
	authority, err := simulator.NewAuthority()
	if err != nil {
		return err
	}
	if d.sink, err = startSink(); err != nil {
		return err
	}
	defer d.sink.stop()
	if d.platform, err = startPlatform(authority, d.dir, d.rate); err != nil {
		return err
	}
	defer d.platform.stop()
	if d.relay, err = startRelay(ctx, d.dir, authority, d.platform, d.sink); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.relay.stop()) }()

	if err := d.road(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // interrupted: the shutdown that follows is all there is to do
		}
		return fmt.Errorf("%w (the relay's log is %s)", err, d.relay.logFile)
	}
	result, err := d.result()
	if err != nil {
		return err
	}
	if err := result.print(d.out); err != nil {
		return err
	}
	if !d.once {
		d.lookAround()
		select {
		case <-ctx.Done():
		case <-d.relay.ended:
		}
		fmt.Fprintln(d.out, "\nstopping: the relay finishes what it has in hand, then closes its door and its journal")
		return nil
	}
	return result.err()
}

func (d *demo) prepare() (err error) {
	if d.dir == "" {
		d.dir, err = os.MkdirTemp("", "pimrelay-demo-")
		return err
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.dir)
	if err == nil && len(entries) > 0 {
		return fmt.Errorf("--dir %s is not empty", d.dir)
	}
	if err == nil {
		d.dir, err = filepath.Abs(d.dir)
	}
	return err
}

// road makes events travel: subscribed, fired, delivered.
func (d *demo) road(ctx context.Context) error {
	fmt.Fprintf(d.out, "platform   %s (simulated)\nrelay      %s\nhttp sink  %s\nfile       %s\n\n", d.platform.url, d.relay.url, d.sink.url, d.relay.eventFile)
	ctx, cancel := context.WithTimeout(ctx, patience+d.expected())
	defer cancel()
	show := newProgress(d.out)
	defer show.end()
	if err := show.while(ctx, d.subscribed, func() string { return "subscribing: token, subscriber, subscription" }); err != nil {
		return fmt.Errorf("the relay did not get subscribed: %w", err)
	}
	show.done("subscribed to all 39 documented event types")
	if err := d.platform.fire(d.events, d.rate); err != nil {
		return err
	}
	if err := show.while(ctx, d.arrived, d.counts); err != nil {
		return fmt.Errorf("not everything arrived: %s: %w", d.counts(), err)
	}
	show.done(d.counts())
	return nil
}

// expected is how long the platform needs for the events at least.
func (d *demo) expected() time.Duration {
	rate := d.rate
	if rate == 0 {
		rate = 10 // it begins slowly
	}
	return time.Duration(float64(d.events) / rate * float64(time.Second))
}

func (d *demo) subscribed() (bool, error) {
	status := d.relay.daemon.Status()
	for _, source := range status.Sources {
		for _, sub := range source.Subscriptions {
			if sub.Status == "active" {
				return true, nil
			}
		}
	}
	return false, d.relay.failed()
}

// arrived reports whether nothing is on its way any more.
func (d *demo) arrived() (bool, error) {
	report := d.platform.report()
	if report.Fired < d.events || report.Waiting > 0 || d.sink.count() < report.Acknowledged {
		return false, d.relay.failed()
	}
	for _, f := range d.relay.daemon.Status().Forwarders {
		if f.Backlog > 0 {
			return false, d.relay.failed()
		}
	}
	return true, nil
}

func (d *demo) counts() string {
	report := d.platform.report()
	line := fmt.Sprintf("sent %d of %d, accepted %d", report.Sent, d.events, report.Acknowledged)
	for _, f := range d.relay.daemon.Status().Forwarders {
		line += fmt.Sprintf(", %s %d", f.Name, f.Delivered)
	}
	return line
}

func (d *demo) lookAround() {
	fmt.Fprintf(d.out, `
Everything stays up for a look around, until Ctrl-C:
  pimrelay status -c %s
  curl http://%s/metrics
  curl --cacert %s -X POST %s/simulator/events -d '{"type": "com.akeneo.pim.v1.product.updated", "count": 10}'
  tail -f %s
  the relay's log: %s
`, d.relay.configFile, d.relay.daemon.Status().Telemetry, d.platform.rootFile, d.platform.url, d.relay.eventFile, d.relay.logFile)
}
