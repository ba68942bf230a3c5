package pluginhost

import (
	"fmt"
	"os"
	"path/filepath"
)

const (
	// longestAddress is how long the address of a Unix socket may be on every
	// system, and socketNames what the names of a socket and of the library's
	// directory for it take of that.
	longestAddress = 103
	socketNames    = len("/plugin-dir1234567890/plugin1234567890")
	// longestDirectory leaves room for these and a process's own directory.
	longestDirectory = longestAddress - socketNames - len("/1234567890")
)

// Directory makes the directory for plugins' sockets: "sockets" in the relay's
// data directory, whose former content goes, for one process at a time uses a
// data directory; or one among the system's temporary files, if that would be
// too long for the address of a socket. Nobody else may enter it. Remove it at
// the end.
func Directory(dataDir string) (string, error) {
	directory := filepath.Join(dataDir, "sockets")
	if len(directory) > longestDirectory {
		return os.MkdirTemp("", "pimrelay-")
	}
	if err := os.RemoveAll(directory); err != nil {
		return "", fmt.Errorf("clear the directory for plugins' sockets: %w", err)
	}
	if err := os.Mkdir(directory, 0o700); err != nil {
		return "", fmt.Errorf("make the directory for plugins' sockets: %w", err)
	}
	return directory, nil
}
