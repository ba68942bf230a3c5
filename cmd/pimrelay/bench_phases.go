package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// benchRounds is the number of rounds in which relay and ceiling take turns, so
// that what else the machine does falls on both.
const benchRounds = 5

// benchLatencyRate is the rate at which the latency is measured, in events a
// second: ten times what the platform sends for a subscription at most.
const benchLatencyRate = 1000

// What lies in the directory of the bench: the relays' directories and the
// ceiling's file.
const (
	ingestDir   = "ingest"
	deliveryDir = "delivery"
	ceilingFile = "ceiling"
)

// measure fills in the result, phase by phase.
func (b *bench) measure(ctx context.Context) error {
	generator := ownCPU()
	if err := b.measureIngest(ctx); err != nil {
		return err
	}
	b.result.Generator.use(ownCPU()-generator, b.result.Ingest.Events+b.result.Ceiling.Events+b.result.Latency.Events)
	if err := b.measureStart(ctx); err != nil {
		return err
	}
	return b.measureEndToEnd(ctx)
}

// measureIngest measures a relay whose one forwarder gets nothing: memory at
// rest, ingest in turns with the ceiling, latency, memory after that.
func (b *bench) measureIngest(ctx context.Context) error {
	relay, err := b.startRelay(ctx, ingestDir, nil)
	if err != nil {
		return err
	}
	defer relay.abandon()
	b.result.Start.EmptySeconds = relay.firstAnswer.Seconds()
	select {
	case <-time.After(min(b.duration, time.Second)): // what starting needs is over
	case <-ctx.Done():
		return ctx.Err()
	}
	b.result.Memory.RestBytes = relay.resident()
	b.show.done(fmt.Sprintf("start: first 200 after %s", rounded(relay.firstAnswer)))

	if err := b.compare(ctx, relay); err != nil {
		return err
	}
	b.result.Ingest = relay.throughput()
	answers, err := relay.load.run(ctx, b.duration, benchLatencyRate)
	if err != nil {
		return err
	}
	b.result.Latency = newBenchLatency(&answers)
	b.show.done(fmt.Sprintf("latency: p50 %s, p99 %s at %d events/s", rounded(answers.answers.quantile(0.5)), rounded(answers.answers.quantile(0.99)), benchLatencyRate))
	b.result.Memory.AfterBytes = relay.resident()
	status, err := relay.admin.Status(ctx)
	if err != nil {
		return err
	}
	b.result.Memory.AfterEvents, b.result.Start.RetainedEvents = status.Journal.Head, status.Journal.Head
	return relay.end()
}

// compare measures relay and ceiling in turns; which of the two begins changes
// from round to round.
func (b *bench) compare(ctx context.Context, relay *benchServer) error {
	ceiling, err := b.startCeiling(ctx)
	if err != nil {
		return err
	}
	defer ceiling.abandon()
	length := b.duration / benchRounds
	for _, s := range []*benchServer{relay, ceiling} {
		if _, err := s.load.run(ctx, min(length, time.Second), b.rate); err != nil { // warm up
			return err
		}
	}
	if err := relay.drained(ctx, b.show, benchStop); err != nil {
		return err
	}
	for i := range benchRounds {
		var rounds [2]benchRound
		for k := range rounds {
			k = (k + i) % 2
			if rounds[k], err = []*benchServer{relay, ceiling}[k].round(ctx, length, b.rate, b.show); err != nil {
				return err
			}
		}
		mine, bare := rounds[0].perSecond(), rounds[1].perSecond()
		if mine == 0 || bare == 0 {
			return errors.New("a server accepted nothing in a whole round: is the disk very slow? choose a longer --duration")
		}
		b.result.Ratio.round(mine / bare)
		b.show.done(fmt.Sprintf("ingest %d/%d: relay %.0f/s, ceiling %.0f/s, ratio %.2f", i+1, benchRounds, mine, bare, mine/bare))
	}
	b.result.Ceiling = ceiling.throughput()
	b.result.Ratio.Overall = relay.total.perSecond() / ceiling.total.perSecond()
	return ceiling.end()
}

// measureStart measures how long a relay takes to start on a journal that is
// full.
func (b *bench) measureStart(ctx context.Context) error {
	relay, err := b.startRelay(ctx, ingestDir, nil)
	if err != nil {
		return err
	}
	defer relay.abandon()
	b.result.Start.RetainedSeconds = relay.firstAnswer.Seconds()
	b.show.done(fmt.Sprintf("start with %d events: first 200 after %s", b.result.Start.RetainedEvents, rounded(relay.firstAnswer)))
	if err := relay.end(); err != nil {
		return err
	}
	// The disk is for the next phase.
	return errors.Join(os.RemoveAll(filepath.Join(b.dir, ingestDir)), os.RemoveAll(filepath.Join(b.dir, ceilingFile)))
}

// measureEndToEnd measures until everything is at all sinks.
func (b *bench) measureEndToEnd(ctx context.Context) error {
	var urls []string
	var sinks []*benchSink
	for range b.sinks {
		sink, err := startBenchSink()
		if err != nil {
			return err
		}
		defer sink.stop()
		sinks, urls = append(sinks, sink), append(urls, sink.url)
	}
	relay, err := b.startRelay(ctx, deliveryDir, urls)
	if err != nil {
		return err
	}
	defer relay.abandon()
	before, _ := relay.usage()
	began := time.Now()
	r, err := relay.load.run(ctx, b.duration, b.rate)
	if err != nil {
		return err
	}
	b.show.done(fmt.Sprintf("end to end: %d events accepted in %s", r.accepted, rounded(r.elapsed)))
	if err := relay.drained(ctx, b.show, 20*b.duration+benchStop); err != nil {
		return err
	}
	r.elapsed = time.Since(began)
	after, known := relay.usage()
	relay.total, relay.cpu, relay.cpuKnown = r, after.cpu-before.cpu, known
	b.result.EndToEnd = relay.throughput()
	b.result.Memory.DeliveryBytes = relay.resident()
	b.show.done(fmt.Sprintf("end to end: everything delivered after %s", rounded(r.elapsed)))
	for i, sink := range sinks {
		if got := sink.received.Load(); got < r.accepted+1 { // and the first one
			return fmt.Errorf("sink %d received %d of %d events, although the relay has none left to deliver", i, got, r.accepted+1)
		}
	}
	return relay.end()
}

// benchSink is an HTTP endpoint that accepts everything.
type benchSink struct {
	url      string
	received atomic.Int64
	stop     func()
}

func startBenchSink() (*benchSink, error) {
	listener, err := listenLoopback()
	if err != nil {
		return nil, err
	}
	s := &benchSink{url: "http://" + listener.Addr().String() + "/"}
	server := &http.Server{Handler: s, ReadHeaderTimeout: benchAnswer}
	s.stop = inBackground(func(ctx context.Context) {
		stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // nothing of it is needed any more
		defer stop()
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("sink", "err", err)
		}
	})
	return s, nil
}

func (s *benchSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.received.Add(1)
}
