package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/pimrelay/pimrelay/relay/admin"
)

// benchConfig is the configuration of a relay that is measured.
var benchConfig = template.Must(template.New("").Parse(`data_dir: {{.Dir}}/data
listen: {address: "127.0.0.1:0", tls: {mode: "off"}}
sources:
  bench: {path: {{.Path}}, secrets: {primary: {{.Secret}}}}
forwarders:
{{- if .Sinks}}
{{- range $i, $url := .Sinks}}
  http-{{$i}}: {plugin: http, config: {url: "{{$url}}"}}
{{- end}}
  file: {plugin: file, config: {path: {{.Dir}}/events.jsonl}}
{{- else}}
  idle: {plugin: file, match: "false", config: {path: {{.Dir}}/events.jsonl}}
{{- end}}
telemetry: {address: ""}
log: {level: info, format: json}
drain_timeout: 5s
`))

// benchServer is a server under load.
type benchServer struct {
	*benchProcess
	load  *benchLoad
	admin *admin.Client // nil: no relay
	// firstAnswer is the time from the start of the process to the first
	// 200. That event is no part of total.
	firstAnswer time.Duration
	total       benchRound
	cpu         time.Duration // of the server in the rounds of total
	cpuKnown    bool
}

// startRelay starts a relay on a directory of that name, which may have been
// used before, with these HTTP sinks and a file, or with no sink and one
// forwarder that nothing matches.
func (b *bench) startRelay(ctx context.Context, name string, sinks []string) (*benchServer, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "pimrelay.yaml")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	err = benchConfig.Execute(file, map[string]any{"Dir": dir, "Path": benchPath, "Secret": benchSecret, "Sinks": sinks})
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	s, err := b.startServer(ctx, "run", "-c", path)
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	s.admin = admin.NewClient(filepath.Join(dir, "data"))
	return s, nil
}

func (b *bench) startCeiling(ctx context.Context) (*benchServer, error) {
	s, err := b.startServer(ctx, "bench", "ceiling", "--file", filepath.Join(b.dir, ceilingFile))
	if err != nil {
		return nil, fmt.Errorf("ceiling: %w", err)
	}
	return s, nil
}

// startServer starts a process, connects, and waits for its first 200.
func (b *bench) startServer(ctx context.Context, args ...string) (_ *benchServer, err error) {
	process, err := launch(b.environ, args...)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			process.kill()
		}
	}()
	address, err := process.opened(ctx)
	if err != nil {
		return nil, err
	}
	s := &benchServer{benchProcess: process}
	first, err := dialLoad(ctx, address, 1, b.size)
	if err != nil {
		return nil, err
	}
	defer first.close()
	status, err := first.workers[0].once(ctx)
	s.firstAnswer = time.Since(process.started)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the first event was answered %d", status)
	}
	if err != nil {
		return nil, err
	}
	s.load, err = dialLoad(ctx, address, b.connections, b.size)
	return s, err
}

// round puts the server under load and, if it is a relay, waits until it has
// settled what came. What it did adds to total.
func (s *benchServer) round(ctx context.Context, length time.Duration, rate float64, show *progress) (benchRound, error) {
	before, _ := s.usage()
	r, err := s.load.run(ctx, length, rate)
	if err == nil {
		err = s.drained(ctx, show, benchStop)
	}
	if err != nil {
		return r, err
	}
	after, known := s.usage()
	s.cpu, s.cpuKnown = s.cpu+after.cpu-before.cpu, known
	s.total.add(&r)
	return r, nil
}

// drained waits until no forwarder of the relay has a backlog.
func (s *benchServer) drained(ctx context.Context, show *progress, patience time.Duration) error {
	if s.admin == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not everything was delivered within %s after the last event", patience))
	defer cancel()
	var backlog int64
	err := show.while(ctx, func() (bool, error) {
		status, err := s.admin.Status(ctx)
		backlog = 0
		for _, f := range status.Forwarders {
			backlog = max(backlog, f.Backlog)
			if f.DeadLetters > 0 {
				err = errors.Join(err, fmt.Errorf("forwarder %s has %d dead letters: %s", f.Name, f.DeadLetters, f.LastError))
			}
		}
		return backlog == 0, err
	}, func() string { return fmt.Sprintf("%d events to deliver", backlog) })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// abandon ends the server at once, if it has not ended.
func (s *benchServer) abandon() {
	s.load.close()
	s.kill()
}

// end stops the server in order.
func (s *benchServer) end() error {
	s.load.close()
	return s.stop()
}
