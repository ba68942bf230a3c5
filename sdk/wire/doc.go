// Package wire carries the contract of package sdk over gRPC, in the messages
// of package forwarderv1: a [Server] in the plugin's process, a [Client] in the
// relay's. Each message is converted in one place, and what a plugin reports
// and what the connection reports come together in one function.
//
// Starting, supervising and ending processes is left to others, and so is the
// plugin's main function, which is in package serve.
package wire

import (
	"google.golang.org/grpc"

	"github.com/hashicorp/go-plugin"
)

// Version is the version of the contract that this package speaks, and the
// only one there is so far.
const Version = 1

// PluginName is the name under which hashicorp/go-plugin dispenses a
// forwarder.
const PluginName = "forwarder"

// Handshake keeps people from running a plugin by hand; it protects nothing.
// The names are part of the contract.
var Handshake = plugin.HandshakeConfig{MagicCookieKey: "PIMRELAY_PLUGIN", MagicCookieValue: "forwarder"}

const (
	// MaxMessage is the largest message, in bytes, that a plugin made with
	// package serve takes: room for an event of the largest body that the
	// relay accepts together with its transformation, and for a lane's
	// largest batch.
	MaxMessage = 256 << 20
	// defaultMaxMessage is what most gRPC libraries take if nothing else is
	// said, and what stands for a plugin that says nothing.
	defaultMaxMessage = 4 << 20
	// maxAnswer is the largest message that the relay takes from a plugin: a
	// thousand outcomes with a long answer each, several times over.
	maxAnswer = 16 << 20
	// window is how much of a message may be on its way at once. gRPC's own
	// 64 KiB would make a batch of a hundred events wait for its receiver
	// again and again. buffer is what is written and read at once.
	window = 4 << 20
	buffer = 128 << 10
	// maxText is how much of a plugin's reasons and answers is kept.
	maxText = 2 << 10
)

// ServerOptions are what a plugin's gRPC server must be made with.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage), grpc.ChainUnaryInterceptor(recovering),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window), grpc.ReadBufferSize(buffer), grpc.WriteBufferSize(buffer),
	}
}

// DialOptions are what the relay's connection to a plugin must be made with.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window), grpc.WithReadBufferSize(buffer), grpc.WithWriteBufferSize(buffer),
	}
}
