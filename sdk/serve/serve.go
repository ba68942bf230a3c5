// Package serve is the main function of a plugin: [Main] is all that a
// forwarder's program needs.
//
// It leaves the forwarder itself to its author, and the messages to package
// wire.
package serve

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/wire"
)

// Environment variables that the relay sets for the processes it starts.
const (
	// ParentVariable, if not empty, says that standard input is a pipe that
	// closes when the relay has gone, in whatever way: the plugin must end.
	ParentVariable = "PIMRELAY_PARENT"
	// LogLevelVariable is the least level worth logging: debug, info, warn
	// or error.
	LogLevelVariable = "PIMRELAY_LOG_LEVEL"
)

// Main runs the program of the forwarder that newForwarder makes, and does not
// return. The forwarder logs to the logger it is given; what else the program
// prints goes into the relay's log, too.
//
// Started by the relay, the program serves one forwarder until the relay ends
// it or has gone. It then ignores SIGINT and SIGTERM, because the relay decides
// when what is in hand is finished.
//
// Started with --listen unix:///run/x.sock, it is a service of its own that any
// number of lanes connect to (`address` in the relay's configuration), and that
// finishes what it has in hand at SIGTERM. --mode gives the socket's
// permissions, 0600 if it is left out.
//
// Started in any other way, it says what it is and exits with code 2.
func Main(newForwarder func(*slog.Logger) sdk.Forwarder) {
	os.Exit(run(newForwarder, os.Args, os.Stderr))
}

func run(newForwarder func(*slog.Logger) sdk.Forwarder, args []string, stderr io.Writer) int {
	if os.Getenv(wire.Handshake.MagicCookieKey) == wire.Handshake.MagicCookieValue {
		serveRelay(newForwarder, stderr)
		return 0
	}
	name := filepath.Base(args[0])
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	listen := flags.String("listen", "", "")
	mode := flags.String("mode", "0600", "")
	err := flags.Parse(args[1:])
	permissions, modeErr := strconv.ParseUint(*mode, 8, 32)
	switch {
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case err == nil && (modeErr != nil || permissions > 0o777):
		err = fmt.Errorf("--mode must be octal permissions such as 0660 (got %q)", *mode)
	}
	if err != nil || *listen == "" {
		if err != nil {
			fmt.Fprintf(stderr, "%s: %v\n\n", name, err)
		}
		fmt.Fprintf(stderr, usage, name)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level()}))
	if err := Service(ctx, newForwarder, *listen, os.FileMode(permissions), logger); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

const usage = `%[1]s is a forwarder plugin of pimrelay, which starts it by itself:

    forwarders:
      example:
        command: [/path/to/%[1]s]

Try it without a relay:

    pimrelay plugin verify -- ./%[1]s

Or run it as a service of its own, which a relay connects to with
address: unix:///run/%[1]s.sock

    %[1]s --listen unix:///run/%[1]s.sock [--mode 0660]
`

// level is the level that the relay, or whoever started the service, asks for.
func level() slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(os.Getenv(LogLevelVariable))) != nil {
		return slog.LevelInfo
	}
	return l
}

// serveRelay serves the relay that has started this process, until it says to
// stop.
func serveRelay(newForwarder func(*slog.Logger) sdk.Forwarder, stderr io.Writer) {
	// Not signal.Ignore, which programs that the plugin starts would inherit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM)
	if os.Getenv(ParentVariable) != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			endGroup() // nobody is left to answer to
			os.Exit(1)
		}()
	}
	// The relay reads its plugins' standard error line by line. The library
	// replaces both streams by one of its own, from which what is printed last
	// is lost: as soon as it has, they are put back.
	direct := os.Stderr
	putBack := sync.OnceFunc(func() { os.Stdout, os.Stderr = direct, direct })
	made := func(logger *slog.Logger) sdk.Forwarder {
		putBack()
		return newForwarder(logger)
	}
	logger := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level()}))
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: wire.Plugins(wire.NewServer(made, logger)),
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(options, wire.ServerOptions()...)...)
		},
		Logger: hclog.New(&hclog.LoggerOptions{Output: stderr, JSONFormat: true, Level: hclog.Warn}),
	})
}
