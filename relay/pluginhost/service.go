package pluginhost

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pimrelay/pimrelay/sdk/wire"
)

// connect connects to a service that somebody else runs. Its address has been
// validated.
func (p *Plugin) connect() (*endpoint, error) {
	path := strings.TrimPrefix(p.process.Address, "unix://")
	if err := checkSocket(path); err != nil {
		return nil, err
	}
	// Each connection looks at the socket anew: it may be another one by then.
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		if err := checkSocket(path); err != nil {
			return nil, err
		}
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	options := append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	conn, err := grpc.NewClient("passthrough:///plugin", options...)
	if err != nil {
		return nil, err
	}
	return &endpoint{conn: conn, end: func(bool) { _ = conn.Close() }}, nil
}

// checkSocket looks whether only the relay's user, its group and root can have
// put the socket there, and can listen to what is sent to it.
func checkSocket(path string) error {
	info, err := os.Stat(path)
	switch {
	case os.IsNotExist(err):
		return fmt.Errorf("nobody serves %s: start the plugin with --listen unix://%s", path, path)
	case err != nil:
		return err
	case info.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("%s is no socket", path)
	case info.Mode()&0o007 != 0:
		return fmt.Errorf("%s is open to every user of this machine (%s): give it the permissions 0600 or 0660", path, info.Mode().Perm())
	}
	if err := checkOwner(path, info); err != nil {
		return err
	}
	directory := filepath.Dir(path)
	info, err = os.Stat(directory)
	if err != nil {
		return err
	}
	if info.Mode()&0o002 != 0 && info.Mode()&os.ModeSticky == 0 {
		return fmt.Errorf("every user of this machine can put another socket in the place of %s: chmod o-w %s", path, directory)
	}
	return nil
}
