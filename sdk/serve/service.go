package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/wire"
)

// drainTime is how long a service that is told to stop waits for deliveries.
const drainTime = 20 * time.Second

// Service serves forwarders on a Unix socket until ctx ends; then it finishes
// what it has in hand and returns. The address is unix:///path, the socket gets
// the permissions mode.
func Service(ctx context.Context, newForwarder func(*slog.Logger) sdk.Forwarder, address string, mode os.FileMode, logger *slog.Logger) error {
	listener, err := listen(address, mode)
	if err != nil {
		return err
	}
	server := wire.NewServer(newForwarder, logger)
	g := grpc.NewServer(append(wire.ServerOptions(), server.Connections())...)
	server.Register(g)
	state := health.NewServer()
	state.SetServingStatus(plugin.GRPCServiceName, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(g, state)
	done := make(chan error, 1)
	go func() { done <- g.Serve(listener) }()
	logger.Info("serving", "address", address)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	state.Shutdown()
	// What is in hand outlives ctx, for a bounded time.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	server.DrainAll(ending)
	stop := context.AfterFunc(ending, g.Stop)
	defer stop()
	g.GracefulStop() // the answers of what was in hand are still on their way
	<-done
	return nil
}

// listen opens the socket. One that nobody listens on any more is replaced.
func listen(address string, mode os.FileMode) (net.Listener, error) {
	path, ok := strings.CutPrefix(address, "unix://")
	if !ok || !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("--listen must be the absolute path of a socket, such as unix:///run/x.sock (got %q)", address)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("another process listens on %s", path), conn.Close())
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// The socket appears under its name when its permissions are what they
	// must be.
	young := fmt.Sprintf("%s.%d", path, os.Getpid())
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: young, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(young, mode), os.Rename(young, path)); err != nil {
		return nil, errors.Join(err, listener.Close(), os.Remove(young))
	}
	return &removing{Listener: listener, path: path}, nil
}

// removing removes the socket when it is closed.
type removing struct {
	net.Listener
	path string
}

func (r *removing) Close() error {
	return errors.Join(r.Listener.Close(), os.Remove(r.path))
}
