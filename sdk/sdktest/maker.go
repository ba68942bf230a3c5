package sdktest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/wire"
)

// InProcess makes forwarders as the relay runs its built-in ones. What they log
// goes nowhere.
func InProcess(newForwarder func(*slog.Logger) sdk.Forwarder) Maker {
	return func(context.Context) (sdk.Forwarder, error) {
		return newForwarder(slog.New(slog.DiscardHandler)), nil
	}
}

// OverGRPC puts each forwarder behind a gRPC server and client of package wire,
// which talk through a Unix socket, as a plugin and the relay do.
func OverGRPC(newForwarder func(*slog.Logger) sdk.Forwarder) Maker {
	return func(context.Context) (sdk.Forwarder, error) {
		directory, err := os.MkdirTemp("", "sdktest-")
		if err != nil {
			return nil, err
		}
		address := filepath.Join(directory, "s")
		listener, err := net.Listen("unix", address)
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(directory))
		}
		server := grpc.NewServer(wire.ServerOptions()...)
		wire.NewServer(newForwarder, slog.New(slog.DiscardHandler)).Register(server)
		r := &remote{directory: directory, server: server}
		r.serving.Go(func() { _ = server.Serve(listener) }) // ends with Discard
		conn, err := grpc.NewClient("unix:"+address, append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			r.Discard()
			return nil, err
		}
		r.conn, r.client = conn, wire.NewClient(conn, "sdktest")
		return r, nil
	}
}

// remote is a forwarder behind a connection.
type remote struct {
	directory string
	server    *grpc.Server
	serving   sync.WaitGroup
	conn      *grpc.ClientConn
	client    *wire.Client

	description wire.Description // set by Configure
}

func (r *remote) Configure(ctx context.Context, config json.RawMessage) (err error) {
	r.description, err = r.client.Configure(ctx, "sdktest", config)
	return err
}

func (r *remote) Description() wire.Description { return r.description }

func (r *remote) Deliver(ctx context.Context, events []sdk.Event) []sdk.Outcome {
	outcomes, err := r.client.Deliver(ctx, events)
	return Complete(outcomes, len(events), err)
}

func (r *remote) Health(ctx context.Context) error { return r.client.Health(ctx) }

func (r *remote) Close(ctx context.Context) error { return r.client.Drain(ctx) }

// Discard ends the connection and the server, whatever the forwarder does.
func (r *remote) Discard() {
	if r.conn != nil {
		_ = r.conn.Close()
	}
	r.server.Stop() // does not wait for calls, of which one may never return
	r.serving.Wait()
	_ = os.RemoveAll(r.directory)
}

// Complete adds the outcomes of the events that a connection's error was about,
// as the suite needs them: events that the forwarder had in hand have no result,
// which fails each case, others are a retry.
func Complete(outcomes []sdk.Outcome, events int, err error) []sdk.Outcome {
	var lost *wire.LostError
	for len(outcomes) < events && err != nil {
		o := sdk.Retry(0, err)
		if errors.As(err, &lost) && lost.InHand {
			o = sdk.Outcome{Reason: fmt.Sprintf("the call was lost: %v", err)}
		}
		outcomes = append(outcomes, o)
	}
	return outcomes
}
