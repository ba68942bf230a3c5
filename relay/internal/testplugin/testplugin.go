// Package testplugin is a forwarder that misbehaves on demand, in a process of
// its own: a test binary that starts with [Main] serves as its executable, so
// that tests of plugins meet the real boundary between processes.
package testplugin

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/serve"
	"github.com/pimrelay/pimrelay/sdk/wire"
	pb "github.com/pimrelay/pimrelay/sdk/wire/forwarderv1"
)

// marker is the first argument of a test binary that is to be the plugin.
const marker = "be-the-test-plugin"

// Ways to start, for Command.
const (
	Good     = "good"     // as it should be
	Chatty   = "chatty"   // prints to standard output before the handshake
	Exits    = "exits"    // ends at once with status 3
	Silent   = "silent"   // never says anything
	Stubborn = "stubborn" // does not end when it is told to
	Garbage  = "garbage"  // answers deliveries with what is no answer
	Newer    = "newer"    // speaks version 2 of the contract only
	Parent   = "parent"   // starts a process of its own, whose number it logs
)

// Command is the command that runs the plugin in one of the ways above.
func Command(way string) []string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return []string{self, marker, way}
}

// Main is the plugin's main function if this process was started by Command,
// and returns otherwise. Call it first in TestMain.
func Main() {
	if len(os.Args) < 3 || os.Args[1] != marker {
		return
	}
	switch os.Args[2] {
	case Good:
	case Chatty:
		fmt.Println("Welcome to the chatty plugin!\n1|2|3")
	case Exits:
		fmt.Fprintln(os.Stderr, "cannot find my destination's library")
		os.Exit(3)
	case Silent:
		wait := make(chan os.Signal, 1)
		signal.Notify(wait, syscall.SIGUSR1) // a signal that nobody sends
		<-wait
	case Stubborn:
		stubborn()
	case Garbage, Newer:
		foreign(os.Args[2])
		os.Exit(0)
	case Parent:
		child := exec.Command("sleep", "600")
		if err := child.Start(); err != nil {
			panic(err)
		}
		fmt.Fprintf(os.Stderr, `{"level":"info","msg":"child started","child":%d}`+"\n", child.Process.Pid)
	}
	serve.Main(New)
}

// stubborn serves without heeding anything that could end it.
func stubborn() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	serveVersion(wire.Version, nil)
	wait := make(chan os.Signal, 1)
	signal.Notify(wait, syscall.SIGUSR1) // a signal that nobody sends
	<-wait
}

// foreign serves what another contract might be.
func foreign(way string) {
	version := wire.Version
	if way == Newer {
		version++
	}
	serveVersion(version, func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		if err := decode(new(pb.DeliverRequest)); err != nil {
			return nil, err
		}
		return wrapperspb.Bytes([]byte{0xff, 0xff, 0xff}), nil
	})
}

// serveVersion serves the forwarder as that version of the contract, with
// deliver instead of its own way to be called.
func serveVersion(version int, deliver grpc.MethodHandler) {
	server := &oddServer{forwarders: wire.NewServer(New, slog.New(slog.DiscardHandler)), deliver: deliver}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: map[int]plugin.PluginSet{version: {wire.PluginName: server}},
		GRPCServer:       func(o []grpc.ServerOption) *grpc.Server { return grpc.NewServer(append(o, wire.ServerOptions()...)...) },
		Logger:           hclog.NewNullLogger(),
	})
}

// oddServer is a forwarder's server with another Deliver.
type oddServer struct {
	plugin.NetRPCUnsupportedPlugin
	forwarders *wire.Server
	deliver    grpc.MethodHandler
}

func (s *oddServer) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	service := pb.Forwarder_ServiceDesc
	service.Methods = append([]grpc.MethodDesc(nil), service.Methods...)
	for i, m := range service.Methods {
		if m.MethodName == "Deliver" && s.deliver != nil {
			service.Methods[i].Handler = s.deliver
		}
	}
	g.RegisterService(&service, s.forwarders)
	return nil
}

func (s *oddServer) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

// Any is every event, for the key exit.
const Any = "*"

// config says what to do with which events. Ids are CloudEvents ids.
type config struct {
	Out       string       `json:"out" doc:"file to which the ids of delivered events are appended"`
	Secret    sdk.Secret   `json:"secret"`
	Tell      bool         `json:"tell" doc:"tell secrets"`
	Batch     int          `json:"batch" doc:"most events of a delivery"`
	Exit      string       `json:"exit" doc:"event with which the process ends, before anything is delivered"`
	ExitAfter string       `json:"exit_after" doc:"event with which it ends once, after everything is delivered"`
	Hang      string       `json:"hang" doc:"event with which the process stops"`
	Panic     string       `json:"panic" doc:"event with which the forwarder panics at the first attempt"`
	Few       string       `json:"few" doc:"event for which there is no outcome at the first attempt"`
	Deaf      string       `json:"deaf" doc:"event whose delivery ignores its deadline at the first attempt"`
	Leak      sdk.Size     `json:"leak" doc:"memory that each delivery leaves behind"`
	Answer    sdk.Size     `json:"answer" doc:"length of the answer in each outcome"`
	Slow      sdk.Duration `json:"slow" doc:"how long a delivery takes"`
}

// Validate checks.
func (c *config) Validate() sdk.Faults {
	var f sdk.Faults
	if c.Out == "" {
		f.Add("out", "is required")
	}
	return f
}

type forwarder struct {
	logger *slog.Logger
	config config
	mu     sync.Mutex
	leaked [][]byte // guarded by mu
}

// New makes the forwarder.
func New(logger *slog.Logger) sdk.Forwarder { return &forwarder{logger: logger} }

func (f *forwarder) Configure(_ context.Context, raw json.RawMessage) error {
	f.config = config{Batch: 1}
	return sdk.DecodeConfig(raw, &f.config)
}

func (f *forwarder) Describe() sdk.Description {
	return sdk.Description{Name: "test", Version: "0.1", ConfigSchema: sdk.ConfigSchema(&config{Batch: 1}), KeepsOrder: true}
}

func (f *forwarder) BatchLimits() sdk.BatchLimits { return sdk.BatchLimits{Events: f.config.Batch} }

func (f *forwarder) Health(context.Context) error {
	if _, err := os.Stat(f.config.Out); err != nil {
		return fmt.Errorf("the file is not there: %w", err)
	}
	return nil
}

func (f *forwarder) Deliver(ctx context.Context, events []sdk.Event) []sdk.Outcome {
	if f.config.Tell {
		f.logger.Warn("it is " + string(f.config.Secret))
		return sdk.Each(len(events), sdk.Outcome{Result: sdk.ResultRejected, Reason: "the secret is " + string(f.config.Secret), Answer: "and TOKEN is " + os.Getenv("TOKEN")})
	}
	outcomes := sdk.Each(len(events), sdk.Outcome{Result: sdk.ResultDelivered, Answer: strings.Repeat("x", int(f.config.Answer))})
	few := false
	for i := range events {
		f.misbehave(ctx, &events[i])
		few = few || events[i].ID == f.config.Few && events[i].Attempt == 1
	}
	if few {
		return outcomes[:0]
	}
	if f.config.Slow > 0 {
		if err := os.WriteFile(begun(f.config.Out), nil, 0o600); err != nil {
			return sdk.Each(len(events), sdk.Retry(0, err))
		}
		select {
		case <-ctx.Done():
			return sdk.Each(len(events), sdk.Retry(0, ctx.Err()))
		case <-time.After(time.Duration(f.config.Slow)):
		}
	}
	if err := f.write(events); err != nil {
		return sdk.Each(len(events), sdk.Retry(0, err))
	}
	for i := range events {
		if events[i].ID == f.config.ExitAfter && f.once() {
			os.Exit(4)
		}
	}
	return outcomes
}

// misbehave does what the event is there for.
func (f *forwarder) misbehave(ctx context.Context, e *sdk.Event) {
	if f.config.Leak > 0 {
		f.leak()
	}
	if f.config.Exit == Any {
		_ = appendTo(f.config.Out+".ends", "ended\n") // for the test
		fmt.Fprintln(os.Stderr, "my destination is away, and nobody has caught the error")
		os.Exit(1)
	}
	switch e.ID {
	case "":
	case f.config.Exit:
		fmt.Fprintln(os.Stderr, "fatal error: this event is too much for me")
		os.Exit(3)
	case f.config.Hang:
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		select {} // the signal may take a moment
	case f.config.Panic:
		if e.Attempt == 1 {
			panic("this event is too much for me")
		}
	case f.config.Deaf:
		if e.Attempt == 1 {
			<-ctx.Done()
			<-time.After(2 * time.Second) // that is what makes it deaf
		}
	}
}

func (f *forwarder) leak() {
	f.mu.Lock()
	defer f.mu.Unlock()
	block := make([]byte, f.config.Leak)
	for i := 0; i < len(block); i += 4096 {
		block[i] = 1 // resident, not only reserved
	}
	f.leaked = append(f.leaked, block)
}

// once reports whether it is asked for the first time, over all processes.
func (f *forwarder) once() bool {
	mark, err := os.OpenFile(f.config.Out+".once", os.O_CREATE|os.O_EXCL, 0o600)
	return err == nil && mark.Close() == nil
}

// begun is the mark that a slow delivery leaves at its beginning.
func begun(out string) string { return out + ".begun" }

// Begun reports whether a slow delivery has begun.
func Begun(out string) bool {
	_, err := os.Stat(begun(out))
	return err == nil
}

func (f *forwarder) write(events []sdk.Event) error {
	var lines strings.Builder
	for i := range events {
		fmt.Fprintln(&lines, events[i].ID)
	}
	return appendTo(f.config.Out, lines.String())
}

func appendTo(name, text string) error {
	out, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = out.WriteString(text)
	return err
}

// Close leaves a mark, by which a test sees that it was called.
func (f *forwarder) Close(context.Context) error {
	return os.WriteFile(f.config.Out+".closed", []byte("closed\n"), 0o600)
}
