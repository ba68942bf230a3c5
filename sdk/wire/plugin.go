package wire

import (
	"context"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// Plugin is a forwarder's process as hashicorp/go-plugin knows it.
type Plugin struct {
	plugin.NetRPCUnsupportedPlugin
	// Forwarders are what the process serves; nil on the relay's side.
	Forwarders *Server
}

// Plugins are the plugins of each version of the contract.
func Plugins(server *Server) map[int]plugin.PluginSet {
	return map[int]plugin.PluginSet{Version: {PluginName: &Plugin{Forwarders: server}}}
}

// GRPCServer adds the forwarder to the process's server.
func (p *Plugin) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	p.Forwarders.Register(g)
	return nil
}

// GRPCClient gives the relay the connection.
func (p *Plugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}
