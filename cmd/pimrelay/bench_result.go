package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
	"time"
)

// benchResult is what a bench has measured. Pointers are nil where the operating
// system does not tell.
type benchResult struct {
	Version          string          `json:"version"`
	Platform         string          `json:"platform"`
	CPUs             int             `json:"cpus"`
	MemoryFileSystem bool            `json:"memory_file_system"`
	Connections      int             `json:"connections"`
	BodyBytes        int             `json:"body_bytes"`
	DurationSeconds  float64         `json:"duration_seconds"`
	RatePerSecond    float64         `json:"rate_per_second"` // 0: as fast as possible
	HTTPSinks        int             `json:"http_sinks"`
	Ingest           benchThroughput `json:"ingest"`
	Ceiling          benchThroughput `json:"ceiling"`
	Ratio            benchRatio      `json:"ratio"`
	Latency          benchLatency    `json:"latency"`
	EndToEnd         benchThroughput `json:"end_to_end"`
	Memory           benchMemory     `json:"memory"`
	Start            benchStartTimes `json:"start"`
	Generator        benchGenerator  `json:"generator"`
}

// benchThroughput is how much a server did. Accepted events only; refused ones
// are counted beside them.
type benchThroughput struct {
	Events             int64    `json:"events"`
	Refused            int64    `json:"refused"`
	Seconds            float64  `json:"seconds"`
	PerSecond          float64  `json:"per_second"`
	P50Seconds         float64  `json:"p50_seconds"`
	P99Seconds         float64  `json:"p99_seconds"`
	CPUSecondsPer10000 *float64 `json:"cpu_seconds_per_10000_events,omitempty"`
}

// benchRatio is the relay's ingest by the ceiling's.
type benchRatio struct {
	Overall float64 `json:"overall"`
	// Of single rounds.
	Lowest  float64 `json:"lowest"`
	Highest float64 `json:"highest"`
}

// benchLatency is how long the 200 took at a fixed rate, counted from the moment
// at which the event should have been sent.
type benchLatency struct {
	RatePerSecond  float64 `json:"rate_per_second"`
	Events         int64   `json:"events"`
	Refused        int64   `json:"refused"`
	P50Seconds     float64 `json:"p50_seconds"`
	P99Seconds     float64 `json:"p99_seconds"`
	P999Seconds    float64 `json:"p999_seconds"`
	HighestSeconds float64 `json:"highest_seconds"`
}

// benchMemory is the relay's resident memory.
type benchMemory struct {
	RestBytes   *int64 `json:"rest_bytes,omitempty"`
	AfterBytes  *int64 `json:"after_bytes,omitempty"` // after ingest and latency
	AfterEvents int64  `json:"after_events"`
	// DeliveryBytes is that of the relay that delivered, at the end.
	DeliveryBytes *int64 `json:"delivery_bytes,omitempty"`
}

// benchStartTimes are from the start of the process to its first 200.
type benchStartTimes struct {
	EmptySeconds    float64 `json:"empty_seconds"`
	RetainedSeconds float64 `json:"retained_seconds"`
	RetainedEvents  int64   `json:"retained_events"`
}

// benchGenerator is what the load generator itself took of the cores.
type benchGenerator struct {
	CPUSecondsPer10000 float64 `json:"cpu_seconds_per_10000_events"`
}

func newBenchResult(b *bench) benchResult {
	return benchResult{
		Version: version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(),
		Connections: b.connections, BodyBytes: b.size, DurationSeconds: b.duration.Seconds(), RatePerSecond: b.rate, HTTPSinks: b.sinks,
	}
}

func newBenchLatency(r *benchRound) benchLatency {
	return benchLatency{
		RatePerSecond: benchLatencyRate, Events: r.accepted, Refused: r.refused,
		P50Seconds: r.answers.quantile(0.5).Seconds(), P99Seconds: r.answers.quantile(0.99).Seconds(),
		P999Seconds: r.answers.quantile(0.999).Seconds(), HighestSeconds: r.answers.most.Seconds(),
	}
}

func (s *benchServer) throughput() benchThroughput {
	t := benchThroughput{
		Events: s.total.accepted, Refused: s.total.refused, Seconds: s.total.elapsed.Seconds(), PerSecond: s.total.perSecond(),
		P50Seconds: s.total.answers.quantile(0.5).Seconds(), P99Seconds: s.total.answers.quantile(0.99).Seconds(),
	}
	if s.cpuKnown && t.Events > 0 {
		per := s.cpu.Seconds() / float64(t.Events) * 10_000
		t.CPUSecondsPer10000 = &per
	}
	return t
}

// resident is the server's memory at the moment, nil if it cannot be known.
func (s *benchServer) resident() *int64 {
	if u, ok := s.usage(); ok {
		return &u.resident
	}
	return nil
}

func (r *benchRatio) round(ratio float64) {
	if r.Lowest == 0 || ratio < r.Lowest {
		r.Lowest = ratio
	}
	r.Highest = max(r.Highest, ratio)
}

func (g *benchGenerator) use(cpu time.Duration, events int64) {
	if events > 0 {
		g.CPUSecondsPer10000 = cpu.Seconds() / float64(events) * 10_000
	}
}

func (r *benchResult) printJSON(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// print is the result for people.
func (r *benchResult) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, value, note string) { fmt.Fprintf(w, "%s\t%s\t%s\n", name, value, note) }
	seconds := func(s float64) string { return rounded(time.Duration(s * float64(time.Second))).String() }
	speed := func(t benchThroughput) string { return fmt.Sprintf("%.0f/s", t.PerSecond) }
	took := func(t benchThroughput) string {
		return fmt.Sprintf("p50 %s, p99 %s", seconds(t.P50Seconds), seconds(t.P99Seconds))
	}
	row("durable ingest", speed(r.Ingest), fmt.Sprintf("%d connections, bodies of %d bytes, one idle forwarder; %s", r.Connections, r.BodyBytes, took(r.Ingest)))
	row("ceiling", speed(r.Ceiling), "a bare server: verify, append to a file, fsync in groups; "+took(r.Ceiling))
	row("ratio", fmt.Sprintf("%.2f", r.Ratio.Overall), fmt.Sprintf("of %d rounds in turns, from %.2f to %.2f", benchRounds, r.Ratio.Lowest, r.Ratio.Highest))
	at := func(quantile string) string {
		return fmt.Sprintf("200 at %.0f/s: %s", r.Latency.RatePerSecond, quantile)
	}
	row(at("p50"), seconds(r.Latency.P50Seconds), fmt.Sprintf("of %d events", r.Latency.Events))
	row(at("p99"), seconds(r.Latency.P99Seconds), "")
	row(at("p99.9"), seconds(r.Latency.P999Seconds), "highest "+seconds(r.Latency.HighestSeconds))
	row("end to end", speed(r.EndToEnd), fmt.Sprintf("%d events into %d HTTP sinks and a file, until the last was delivered", r.EndToEnd.Events, r.HTTPSinks))
	row("refused", fmt.Sprint(r.Ingest.Refused+r.Latency.Refused+r.EndToEnd.Refused), "by the relay, answered other than 200")
	row("CPU per 10,000 events", cpuTime(r.Ingest), fmt.Sprintf("ingest; ceiling %s, end to end %s, load generator %s", cpuTime(r.Ceiling), cpuTime(r.EndToEnd), seconds(r.Generator.CPUSecondsPer10000)))
	row("memory at rest", mebibytes(r.Memory.RestBytes), fmt.Sprintf("%s after %d events, %s after delivering", mebibytes(r.Memory.AfterBytes), r.Memory.AfterEvents, mebibytes(r.Memory.DeliveryBytes)))
	row("start to first 200", seconds(r.Start.EmptySeconds), fmt.Sprintf("%s with %d events in the journal", seconds(r.Start.RetainedSeconds), r.Start.RetainedEvents))
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\npimrelay %s, %s, %d CPUs, which relay, sinks and load generator share\n", r.Version, r.Platform, r.CPUs)
	return err
}

func cpuTime(t benchThroughput) string {
	if t.CPUSecondsPer10000 == nil {
		return "unknown"
	}
	return rounded(time.Duration(*t.CPUSecondsPer10000 * float64(time.Second))).String()
}

func mebibytes(bytes *int64) string {
	if bytes == nil {
		return "unknown"
	}
	return fmt.Sprintf("%.1f MiB", float64(*bytes)/(1<<20))
}

// rounded is a duration with as many digits as people read.
func rounded(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(10 * time.Millisecond)
}
