package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// serve is a part that answers on a listener of the daemon's own, not on the
// door, until its context ends. An answer may take patience.
func (r *Relay) serve(name string, listener net.Listener, handler http.Handler, patience time.Duration) part {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: patience, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(r.Logger.Handler(), slog.LevelDebug),
	}
	return part{name, func(ctx context.Context) error {
		closed := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			defer close(closed)
			// What is being answered gets a moment; the daemon is going down.
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := server.Shutdown(grace); err != nil {
				r.Logger.Debug("answers cut off", "part", name, "err", errors.Join(err, server.Close()))
			}
		})
		err := server.Serve(listener)
		if !stop() {
			<-closed
		}
		if !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("answer on %s: %w", listener.Addr(), err)
		}
		return nil
	}}
}
