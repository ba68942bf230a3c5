package relay

import (
	"context"
	"crypto/sha256"
	"os"
	"time"
)

// watchInterval is how often the configuration file is looked at.
const watchInterval = 2 * time.Second

// watch reloads when the configuration file has another content. It looks at
// the content rather than at events of the file system, so it does not matter
// how the file came to be: written in place, replaced by an editor or by git, or
// behind a link that was turned round. A content counts when it was the same at
// two looks, so a file is not read while it is being written, and it is tried
// once.
func (r *Relay) watch(ctx context.Context) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	known := r.loaded
	last := known
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now, err := digest(r.File)
		if err != nil {
			continue // it is being replaced, or has gone: the configuration in use stays
		}
		if now == last && now != known {
			known = now
			// Reload logs, and warns about, what is wrong with it.
			_, _ = r.Reload(ctx)
		}
		last = now
	}
}

func digest(path string) ([sha256.Size]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(data), nil
}
