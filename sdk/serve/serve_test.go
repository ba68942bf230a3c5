package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/wire"
)

// slow is a forwarder whose deliveries end when the test says so.
type slow struct{ begun, end, closed chan struct{} }

func (s *slow) Configure(context.Context, json.RawMessage) error { return nil }

func (s *slow) Deliver(_ context.Context, events []sdk.Event) []sdk.Outcome {
	close(s.begun)
	<-s.end
	return sdk.Each(len(events), sdk.Delivered())
}

func (s *slow) Close(context.Context) error {
	close(s.closed)
	return nil
}

// Whoever starts a plugin by hand is told what it is, or what was wrong.
func TestByHand(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "chat is a forwarder plugin of pimrelay"},
		{[]string{"--help"}, 2, "pimrelay plugin verify -- ./chat"},
		{[]string{"--listn", "x"}, 2, "flag provided but not defined: -listn"},
		{[]string{"word"}, 2, `unexpected argument "word"`},
		{[]string{"--listen", "unix:///x", "--mode", "rw"}, 2, "--mode must be octal permissions"},
		{[]string{"--listen", "tcp://127.0.0.1:1"}, 1, "must be the absolute path of a socket"},
		{[]string{"--listen", "unix:///nowhere/x.sock"}, 1, "no such file or directory"},
	} {
		var stderr bytes.Buffer
		code := run(func(*slog.Logger) sdk.Forwarder { return nil }, append([]string{"/opt/chat"}, test.args...), &stderr)
		if code != test.code || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%v: %d\n%s", test.args, code, &stderr)
		}
	}
}

// A service that is told to stop finishes what it has in hand, closes its
// forwarders and removes its socket.
func TestServiceDrains(t *testing.T) {
	t.Parallel()
	s := &slow{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	socket := filepath.Join(t.TempDir(), "x.sock")
	// A socket that a killed service has left behind is in nobody's way.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Service(ctx, func(*slog.Logger) sdk.Forwarder { return s }, "unix://"+socket, 0o600, slog.New(slog.DiscardHandler))
	}()
	conn, err := grpc.NewClient("unix://"+socket, append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := wire.NewClient(conn, "one")
	for { // until the service has begun
		if _, err = client.Configure(t.Context(), "f", json.RawMessage(`{}`)); err == nil {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("it ended with %v", err)
		default:
		}
	}
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := Service(t.Context(), nil, "unix://"+socket, 0o600, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a second one: %v", err)
	}
	outcomes := make(chan []sdk.Outcome, 1)
	go func() {
		got, _ := client.Deliver(context.Background(), make([]sdk.Event, 1))
		outcomes <- got
	}()
	<-s.begun
	cancel()
	select {
	case err := <-done:
		t.Errorf("it ended with a delivery in hand: %v", err)
	case <-s.closed:
		t.Error("the forwarder was closed with a delivery in hand")
	default:
	}
	close(s.end)
	if got := <-outcomes; len(got) != 1 || got[0].Result != sdk.ResultDelivered {
		t.Errorf("%+v", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-s.closed
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}
