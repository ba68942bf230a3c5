package dispatch

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/sdk"
)

// counter is a destination that takes everything.
type counter struct {
	n    atomic.Int64
	want int64
	done chan struct{} // receives when want is reached
}

func (c *counter) Configure(context.Context, json.RawMessage) error { return nil }
func (c *counter) Close(context.Context) error                      { return nil }

func (c *counter) Deliver(_ context.Context, events []sdk.Event) []sdk.Outcome {
	if c.n.Add(int64(len(events))) == c.want {
		c.done <- struct{}{}
	}
	return sdk.Each(len(events), sdk.Delivered())
}

// BenchmarkLane measures a lane with a destination that takes everything at
// once: from memory, where events are delivered as they are appended, and from
// disk, where it catches up.
func BenchmarkLane(b *testing.B) {
	for _, order := range []string{"", "event.entity"} {
		for _, from := range []string{"memory", "disk"} {
			b.Run(fmt.Sprintf("from=%s/order=%q", from, order), func(b *testing.B) { benchmarkLane(b, order, from == "disk") })
		}
	}
}

func benchmarkLane(b *testing.B, order string, disk bool) {
	logger := slog.New(slog.DiscardHandler)
	dir := b.TempDir()
	j, err := journal.Open(b.Context(), dir, journal.Options{Logger: logger})
	if err != nil {
		b.Fatal(err)
	}
	const events = 20_000
	var config Config
	config.SetDefaults()
	config.OrderBy = order
	metrics := NewMetrics(prometheus.NewRegistry())
	var spent time.Duration
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		d := &counter{want: events, done: make(chan struct{}, 1)}
		cursor, err := j.Cursor(b.Context(), fmt.Sprint("lane", i), journal.Start{})
		if err != nil {
			b.Fatal(err)
		}
		lane, err := New(config, Options{Name: fmt.Sprint("lane", i), Forwarder: d, Cursor: cursor, Drain: time.Second, Logger: logger, Metrics: metrics})
		if err != nil {
			b.Fatal(err)
		}
		if disk {
			appendEvents(b, j, i, events)
		}
		ctx, stop := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		b.StartTimer()
		began := time.Now()
		go func() { ended <- lane.Run(ctx) }()
		if !disk {
			appendEvents(b, j, i, events)
		}
		<-d.done
		spent += time.Since(began)
		stop()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*events/spent.Seconds(), "events/s")
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
}

// appendEvents appends with 64 writers.
func appendEvents(b *testing.B, j *journal.Journal, round, events int) {
	b.Helper()
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for n := w; n < events; n += 64 {
				e := product()
				e.ID = fmt.Sprintf("%d-%d", round, n)
				e.Entity = fmt.Sprintf("product:%d", n%1000)
				if _, err := j.Append(context.Background(), e); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
