package pluginhost

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// longestDirectory leaves room for the names of two directories and a socket in the
// 104 bytes that an address of a Unix socket may have.
const longestDirectory = 50

// Directory makes the directory for plugins' sockets in the relay's data
// directory, or in the system's directory for temporary files if that is too
// long for the address of a socket. Nobody else may enter it. What an earlier
// relay has left there is removed: one process at a time uses a data directory.
func Directory(dataDir string) (string, error) {
	directory := filepath.Join(dataDir, "plugins")
	if len(directory) > longestDirectory {
		sum := sha256.Sum256([]byte(dataDir))
		directory = filepath.Join(os.TempDir(), "pimrelay-"+hex.EncodeToString(sum[:6]))
	}
	if err := os.RemoveAll(directory); err != nil {
		return "", fmt.Errorf("clear the directory for plugins' sockets: %w", err)
	}
	// Mkdir fails if somebody else has been quicker, and follows no link.
	if err := os.Mkdir(directory, 0o700); err != nil {
		return "", fmt.Errorf("make the directory for plugins' sockets: %w", err)
	}
	return directory, nil
}
