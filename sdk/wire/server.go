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
	s.mu.Lock()
	former := s.instances[request.GetInstance()]
	s.instances[request.GetInstance()] = &instance{Forwarder: forwarder}
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

func (i *instance) close(ctx context.Context, logger *slog.Logger) {
	if err := i.drain(ctx); err != nil {
		logger.Warn("forwarder closed with an error", "err", err)
	}
}

// drain waits for the calls that run, and closes the forwarder. The forwarder
// stays open if ctx ends first.
func (i *instance) drain(ctx context.Context) error {
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
