package pluginhost

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	pluginrunner "github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/wire"
)

// endpoint is a plugin that runs and is configured: a process, or a service.
type endpoint struct {
	*wire.Client
	conn        *grpc.ClientConn
	description wire.Description
	pid         int             // 0 for a service
	exited      <-chan struct{} // nil for a service
	state       func() string   // how the process ended
	// end closes the connection and ends the process: at once, or after it
	// was asked to. It returns when the process has gone.
	end func(atOnce bool)
	// calls is held for reading by each call of Deliver.
	calls  sync.RWMutex
	served atomic.Bool // a call has come back
	// lost has an element when a call has not come back.
	lost chan struct{}

	// settled is closed when it is known whether the plugin has gone; nil
	// while nobody doubts it. failure is how it has. Both are guarded by the
	// Plugin's mu.
	settled chan struct{}
	failure error
}

// launch starts the process, or connects to the service, and configures it. The
// error is sdk.Faults if the configuration is wrong.
func (p *Plugin) launch(ctx context.Context) (*endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, p.process.Limits.StartTimeout)
	defer cancel()
	var e *endpoint
	var err error
	if p.process.Address != "" {
		e, err = p.connect()
	} else {
		e, err = p.spawn(ctx)
	}
	if err != nil {
		return nil, err
	}
	e.Client, e.lost = wire.NewClient(e.conn, rand.Text()), make(chan struct{}, 1)
	if err = e.serving(ctx); err == nil {
		err = p.configure(ctx, e)
	}
	if err == nil {
		return e, nil
	}
	var faults sdk.Faults
	if !errors.As(err, &faults) && e.exited != nil {
		select {
		case <-e.exited:
			err = fmt.Errorf("it ended while it was being configured, with %s", e.state())
		case <-ctx.Done():
			err = fmt.Errorf("not configured within %s: %w", p.process.Limits.StartTimeout, err)
		case <-time.After(exitGrace): // a broken connection comes before the news of the process's end
		}
	}
	e.dispose(true)
	return nil, err
}

// disposeWithin is how long a service may take to close a forwarder that nobody
// uses any more.
const disposeWithin = time.Second

// dispose ends what end ends. A service, which goes on, closes the forwarder.
func (e *endpoint) dispose(atOnce bool) {
	if e.exited == nil {
		ctx, cancel := context.WithTimeout(context.Background(), disposeWithin)
		defer cancel()
		_ = e.Drain(ctx) // it may have gone
	}
	e.end(atOnce)
}

// exitGrace is how long after a failed call the end of the process may still
// explain it.
const exitGrace = 200 * time.Millisecond

// configure configures the plugin.
func (p *Plugin) configure(ctx context.Context, e *endpoint) (err error) {
	described, err := e.Describe(ctx)
	if err != nil {
		return err
	}
	// From here on it knows secrets.
	p.secrets.Store(newRedactor(p.process.Limits, described.ConfigSchema, p.config, p.Redact))
	e.description, err = e.Configure(ctx, p.Name, p.config)
	var faults sdk.Faults
	if errors.As(err, &faults) {
		p.secrets.Load().faults(faults)
	}
	return err
}

// spawn starts the process, and waits for its handshake.
func (p *Plugin) spawn(ctx context.Context) (*endpoint, error) {
	if err := checkFiles(p.process); err != nil {
		return nil, err
	}
	sockets, err := os.MkdirTemp(p.Directory, "")
	if err != nil {
		return nil, fmt.Errorf("make a directory for its socket: %w", err)
	}
	if len(sockets)+socketNames > longestAddress {
		_ = os.Remove(sockets)
		return nil, fmt.Errorf("%s is too long for the address of a Unix socket: give a shorter data_dir, or a shorter TMPDIR", sockets)
	}
	cmd := exec.Command(p.process.Command[0], p.process.Command[1:]...)
	cmd.Env = environment(p.process.Limits, p.level())
	out := newOutput(p.Logger, p.allowance, func(s string) string { return p.secrets.Load().text(s) })
	run := newRunner(cmd, out)
	deadline, _ := ctx.Deadline()
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: wire.Handshake, VersionedPlugins: wire.Plugins(nil), AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, _ string) (pluginrunner.Runner, error) {
			cmd.Env = append(cmd.Env, spec.Env...)
			return run, nil
		},
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: sockets},
		SkipHostEnv:      true, AutoMTLS: true, StartTimeout: time.Until(deadline), GRPCDialOptions: wire.DialOptions(),
		Stderr: out.stream("stderr"), SyncStdout: out.stream("stdout"), SyncStderr: out.stream("stderr"),
		Logger: hclog.NewNullLogger(),
	})
	stop := context.AfterFunc(ctx, func() { _ = run.Kill(context.Background()) })
	defer stop()
	conn, err := dispense(client)
	e := &endpoint{conn: conn, exited: run.exited, state: func() string { return ended(run) }, end: func(atOnce bool) {
		end(client, run, atOnce)
		_ = os.RemoveAll(sockets)
	}}
	if err != nil {
		e.end(true)
		return nil, explain(run, err, deadline, p.process.Limits.StartTimeout)
	}
	e.pid = cmd.Process.Pid
	return e, nil
}

// dispense starts the process and returns the connection to it.
func dispense(client *plugin.Client) (*grpc.ClientConn, error) {
	protocol, err := client.Client()
	if err != nil {
		return nil, err
	}
	dispensed, err := protocol.Dispense(wire.PluginName)
	if err != nil {
		return nil, err
	}
	return dispensed.(*grpc.ClientConn), nil
}

// askGrace is how long a process may take to end that was asked to.
const askGrace = 3 * time.Second

// end ends the process and everything that the library holds of it. The library
// would wait for ever for the answer of a process that hangs.
func end(client *plugin.Client, run *runner, atOnce bool) {
	if atOnce {
		_ = run.Kill(context.Background())
	}
	timer := time.AfterFunc(askGrace, func() { _ = run.Kill(context.Background()) })
	defer timer.Stop()
	client.Kill()
}

// explain says why a process did not start. It has been ended meanwhile.
func explain(run *runner, err error, deadline time.Time, timeout time.Duration) error {
	version, parseErr := strconv.Atoi(run.version())
	switch {
	case parseErr == nil && version != wire.Version:
		return fmt.Errorf("it speaks version %d of the plugin contract, this relay speaks version %d: use a plugin made for that version, or another relay", version, wire.Version)
	case run.cmd.Process == nil || parseErr == nil:
		return err
	case time.Until(deadline) < exitGrace:
		return fmt.Errorf("no handshake within %s: is it a pimrelay plugin? If it needs longer, raise process.start_timeout", timeout)
	}
	<-run.exited
	return fmt.Errorf("it ended before its handshake with %s: is it a pimrelay plugin, and complete?", ended(run))
}

// ended says how a process has ended, with its last words.
func ended(run *runner) string {
	how := run.cmd.ProcessState.String() // "exit status 3", "signal: killed"
	if words := run.output.lastWords(); words != "" {
		return fmt.Sprintf("%s (its last words: %s)", how, words)
	}
	return how
}

// finish makes the plugin finish what it has in hand and close its forwarder,
// and waits for the answers. New calls must have ended before.
func (e *endpoint) finish(ctx context.Context) error {
	err := e.Drain(ctx)
	e.idle(ctx) // the answer to a call may come after that to Drain
	return err
}

// idle waits for the calls that run, until ctx is done.
func (e *endpoint) idle(ctx context.Context) {
	idle := make(chan struct{})
	go func() {
		e.calls.Lock()
		defer e.calls.Unlock()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// errStopping says that the plugin finishes what it has in hand and takes
// nothing new.
var errStopping = errors.New("the plugin is being stopped")

// serving reports whether the plugin takes calls.
func (e *endpoint) serving(ctx context.Context) error {
	answer, err := grpc_health_v1.NewHealthClient(e.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: plugin.GRPCServiceName})
	switch {
	case err != nil:
		return err
	case answer.GetStatus() == grpc_health_v1.HealthCheckResponse_NOT_SERVING:
		return errStopping
	case answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING:
		return fmt.Errorf("it reports itself as %s", answer.GetStatus())
	}
	return nil
}

// alive reports whether the plugin takes calls, and still is the one that was
// configured.
func (e *endpoint) alive(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := e.serving(ctx); err != nil {
		return err
	}
	return e.Present(ctx)
}
