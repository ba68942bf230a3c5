// Package admin is how an operator talks to the running daemon: HTTP with JSON
// on a Unix socket in data_dir, which only the daemon's own user may open.
//
// The package holds the protocol, both its ends, and nothing of what it shows:
// the daemon fills in the answers.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// SocketName is the name of the socket in data_dir.
const SocketName = "admin.sock"

// socketPathBytes is the longest path of a Unix socket that Linux, macOS and
// Windows all take (104 on macOS, with its terminating zero).
const socketPathBytes = 103

// CheckDir reports a data_dir whose path leaves no room for the socket's.
func CheckDir(dir string) error {
	if path := filepath.Join(dir, SocketName); len(path) > socketPathBytes {
		return fmt.Errorf("is too long by %d bytes for the admin socket in it: choose a shorter path", len(path)-socketPathBytes)
	}
	return nil
}

// Server answers on the socket.
type Server struct {
	// Status describes the daemon; it is called concurrently.
	Status func() Status
	// Reload reads the configuration file anew and says what has changed.
	Reload func(context.Context) (changes []string, err error)
	Logger *slog.Logger
}

// Listen opens the socket in dir with permissions 0600. The caller holds the
// lock on dir, so a socket that is there already is left over and replaced.
func Listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old admin socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect admin socket: %w", err), listener.Close())
	}
	return listener, nil
}

// Serve answers until ctx ends; it closes the listener.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		// What is being answered gets a moment; the daemon is going down.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := server.Shutdown(grace); err != nil {
			s.Logger.Debug("admin socket cut off", "err", errors.Join(err, server.Close()))
		}
	})
	err := server.Serve(listener)
	if !stop() {
		<-closed
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin socket: %w", err)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.Status()) })
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		changes, err := s.Reload(r.Context())
		s.done(w, Reloaded{Changes: append([]string{}, changes...)}, err)
	})
	return mux
}

// done answers with what was done, or with why not.
func (s *Server) done(w http.ResponseWriter, body any, err error) {
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		body = failure{Error: err.Error()}
	}
	s.answer(w, body)
}

func (s *Server) answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.Logger.Debug("admin answer not sent", "err", err)
	}
}
