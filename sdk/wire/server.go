package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/pimrelay/pimrelay/sdk"
	pb "github.com/pimrelay/pimrelay/sdk/wire/forwarderv1"
)

// Server serves forwarders in the plugin's process. Its methods may be called
// concurrently.
type Server struct {
	pb.UnimplementedForwarderServer
	make   func(*slog.Logger) sdk.Forwarder
	logger *slog.Logger

	mu        sync.Mutex
	instances map[string]*instance // guarded by mu
}

// instance is one configured forwarder.
type instance struct {
	sdk.Forwarder
	conn  any            // that it was configured on, if that is known
	calls sync.WaitGroup // of Deliver and Health; added to under the server's mu
}

// NewServer serves what newForwarder makes, which logs to a logger of its own.
func NewServer(newForwarder func(*slog.Logger) sdk.Forwarder, logger *slog.Logger) *Server {
	return &Server{make: newForwarder, logger: logger, instances: make(map[string]*instance)}
}

// Register makes s part of a gRPC server, which must have been made with
// [ServerOptions].
func (s *Server) Register(g *grpc.Server) { pb.RegisterForwarderServer(g, s) }

// Describe tells what the plugin is.
func (s *Server) Describe(_ context.Context, request *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	if request.GetInstance() == "" {
		return toDescription(s.make(slog.New(slog.DiscardHandler)), false), nil
	}
	i, err := s.enter(request.GetInstance())
	if err != nil {
		return nil, err
	}
	defer i.calls.Done()
	return toDescription(i.Forwarder, true), nil
}

// Configure makes a forwarder.
func (s *Server) Configure(ctx context.Context, request *pb.ConfigureRequest) (*pb.ConfigureResponse, error) {
	logger := s.logger
	if name := request.GetForwarder(); name != "" {
		logger = logger.With("forwarder", name)
	}
	forwarder := s.make(logger)
	err := forwarder.Configure(ctx, json.RawMessage(request.GetConfig()))
	var faults sdk.Faults
	switch {
	case errors.As(err, &faults) && len(faults) > 0:
		return &pb.ConfigureResponse{Faults: toFaults(faults)}, nil
	case err != nil:
		return &pb.ConfigureResponse{Faults: toFaults(sdk.Faults{{Problem: err.Error()}})}, nil
	}
	made := &instance{Forwarder: forwarder, conn: ctx.Value(connKey{})}
	if ctx.Err() != nil { // nobody will use it
		made.close(context.WithoutCancel(ctx), s.logger)
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	s.mu.Lock()
	former := s.instances[request.GetInstance()]
	s.instances[request.GetInstance()] = made
	s.mu.Unlock()
	if former != nil {
		go former.close(context.WithoutCancel(ctx), s.logger)
	}
	return &pb.ConfigureResponse{}, nil
}

// enter finds an instance and keeps it open until its calls.Done.
func (s *Server) enter(name string) (*instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.instances[name]
	if !ok {
		// Aborted: the request has not been looked at.
		return nil, status.Error(codes.Aborted, "no such forwarder here: it was not configured, or has been closed")
	}
	i.calls.Add(1)
	return i, nil
}

// Deliver delivers within the request's timeout.
func (s *Server) Deliver(ctx context.Context, request *pb.DeliverRequest) (*pb.DeliverResponse, error) {
	i, err := s.enter(request.GetInstance())
	if err != nil {
		return nil, err
	}
	defer i.calls.Done()
	if timeout := request.GetTimeout(); timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout.AsDuration())
		defer cancel()
	}
	events := make([]sdk.Event, len(request.GetEvents()))
	for n, e := range request.GetEvents() {
		events[n] = fromEvent(e)
	}
	outcomes := s.deliver(ctx, i, events)
	response := &pb.DeliverResponse{Outcomes: make([]*pb.Outcome, len(outcomes))}
	for n, o := range outcomes {
		response.Outcomes[n] = toOutcome(o)
	}
	return response, nil
}

// deliver calls the forwarder; its panic is a Retry, and the process goes on.
func (s *Server) deliver(ctx context.Context, f sdk.Forwarder, events []sdk.Event) (outcomes []sdk.Outcome) {
	defer func() {
		if p := recover(); p != nil {
			s.logger.Error("the forwarder panicked", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			outcomes = sdk.Each(len(events), sdk.Retry(0, fmt.Errorf("the forwarder panicked: %v", p)))
		}
	}()
	return f.Deliver(ctx, events)
}

// Health asks the forwarder for the health of its destination.
func (s *Server) Health(ctx context.Context, request *pb.HealthRequest) (*pb.HealthResponse, error) {
	i, err := s.enter(request.GetInstance())
	if err != nil {
		return nil, err
	}
	defer i.calls.Done()
	checker, ok := i.Forwarder.(sdk.HealthChecker)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "the plugin does not tell of its destination's health")
	}
	if err := checker.Health(ctx); err != nil {
		return &pb.HealthResponse{Problem: short(err.Error())}, nil
	}
	return &pb.HealthResponse{}, nil
}

// Drain ends an instance. One that is not there has been drained.
func (s *Server) Drain(ctx context.Context, request *pb.DrainRequest) (*pb.DrainResponse, error) {
	s.mu.Lock()
	i := s.instances[request.GetInstance()]
	delete(s.instances, request.GetInstance())
	s.mu.Unlock()
	if i == nil {
		return &pb.DrainResponse{}, nil
	}
	if err := i.drain(ctx); err != nil {
		return &pb.DrainResponse{Problem: short(err.Error())}, nil
	}
	return &pb.DrainResponse{}, nil
}

// DrainAll ends all instances, side by side, and takes no further calls for
// them.
func (s *Server) DrainAll(ctx context.Context) {
	s.mu.Lock()
	all := s.instances
	s.instances = make(map[string]*instance)
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, i := range all {
		wg.Go(func() { i.close(ctx, s.logger) })
	}
	wg.Wait()
}

// connKey is the context key of a connection.
type connKey struct{}

// Connections makes a server end the instances that were configured on a
// connection when that closes: a relay that is killed leaves none behind. It is
// for servers that outlive their relays.
func (s *Server) Connections() grpc.ServerOption { return grpc.StatsHandler(&connections{server: s}) }

type connections struct{ server *Server }

// TagConn gives each connection a value of its own.
func (*connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, connKey{}, new(byte))
}

// HandleConn ends the instances of a connection that has closed.
func (c *connections) HandleConn(ctx context.Context, s stats.ConnStats) {
	if _, ended := s.(*stats.ConnEnd); !ended {
		return
	}
	conn := ctx.Value(connKey{})
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	for name, i := range c.server.instances {
		if i.conn == conn {
			delete(c.server.instances, name)
			go i.close(context.WithoutCancel(ctx), c.server.logger)
		}
	}
}

// TagRPC and HandleRPC have nothing to do.
func (*connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (*connections) HandleRPC(context.Context, stats.RPCStats) {}

// recovering keeps the process alive when a method panics.
func recovering(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	defer func() {
		if p := recover(); p != nil {
			answer, err = nil, status.Errorf(codes.Internal, "the plugin panicked: %v", p)
		}
	}()
	return handle(ctx, request)
}

func (i *instance) close(ctx context.Context, logger *slog.Logger) {
	if err := i.drain(ctx); err != nil {
		logger.Warn("forwarder closed with an error", "err", err)
	}
}

// drain waits for the calls that run, and closes the forwarder. The forwarder
// stays open if ctx ends first.
func (i *instance) drain(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the forwarder panicked: %v", p)
		}
	}()
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		i.calls.Wait()
	}()
	select {
	case <-idle:
		return i.Close(ctx)
	case <-ctx.Done():
		return fmt.Errorf("deliveries are still running: %w", ctx.Err())
	}
}
