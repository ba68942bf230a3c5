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
	"strconv"
	"time"
)

// SocketName is the name of the socket in data_dir.
const SocketName = "admin.sock"

// socketPathBytes is the longest path of a Unix socket that Linux, macOS and
// Windows all take (104 on macOS, with its terminating zero).
const socketPathBytes = 103

// Patience bounds an answer of the daemon: a replay may go through the whole
// journal.
const Patience = 10 * time.Minute

// CheckDir reports a data_dir whose path leaves no room for the socket's.
func CheckDir(dir string) error {
	if path := filepath.Join(dir, SocketName); len(path) > socketPathBytes {
		return fmt.Errorf("is too long by %d bytes for the admin socket in it: choose a shorter path", len(path)-socketPathBytes)
	}
	return nil
}

// Daemon is what the socket asks for. Its methods are called concurrently. An
// error that wraps ErrUnknown is about something that is not there; any other
// says why something cannot be done.
type Daemon interface {
	Status() Status
	// Reload reads the configuration file anew and says what has changed.
	Reload(context.Context) (changes []string, err error)
	// PauseForwarder makes a forwarder's lane stand still, or go on.
	PauseForwarder(name string, paused bool) error
	DeadLetters(context.Context, DeadLetterQuery) ([]DeadLetter, error)
	DeadLetter(ctx context.Context, number int64) (DeadLetterDetail, error)
	// RetryDeadLetters, DiscardDeadLetters and Replay return how many
	// events they are about.
	RetryDeadLetters(context.Context, DeadLetterQuery) (int, error)
	DiscardDeadLetters(context.Context, DeadLetterQuery) (int, error)
	Replay(context.Context, ReplayQuery) (int, error)
}

// ErrUnknown says that what was asked for is not there.
var ErrUnknown = errors.New("not known")

// Server answers on the socket.
type Server struct {
	Daemon Daemon
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

// Handler answers the questions of a Client. It is served on Listen's socket, and
// an answer may take Patience.
func (s *Server) Handler() http.Handler {
	d, mux := s.Daemon, http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, d.Status(), nil) })
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		changes, err := d.Reload(r.Context())
		s.answer(w, Reloaded{Changes: append([]string{}, changes...)}, err)
	})
	for action, paused := range map[string]bool{"pause": true, "resume": false} {
		mux.HandleFunc("POST /forwarders/{name}/"+action, func(w http.ResponseWriter, r *http.Request) {
			name := r.PathValue("name")
			s.answer(w, ForwarderPaused{Forwarder: name, Paused: paused}, d.PauseForwarder(name, paused))
		})
	}
	mux.HandleFunc("GET /dead-letters/{number}", func(w http.ResponseWriter, r *http.Request) {
		number, err := strconv.ParseInt(r.PathValue("number"), 10, 64)
		if err != nil {
			s.answer(w, nil, fmt.Errorf("%w: a dead letter has a number", ErrUnknown))
			return
		}
		letter, err := d.DeadLetter(r.Context(), number)
		s.answer(w, letter, err)
	})
	mux.HandleFunc("POST /dead-letters/search", query(s, func(ctx context.Context, q DeadLetterQuery) (any, error) {
		letters, err := d.DeadLetters(ctx, q)
		return append([]DeadLetter{}, letters...), err
	}))
	mux.HandleFunc("POST /dead-letters/retry", query(s, counted(d.RetryDeadLetters)))
	mux.HandleFunc("POST /dead-letters/discard", query(s, counted(d.DiscardDeadLetters)))
	mux.HandleFunc("POST /replay", query(s, counted(d.Replay)))
	return mux
}

func counted[Q any](do func(context.Context, Q) (int, error)) func(context.Context, Q) (any, error) {
	return func(ctx context.Context, q Q) (any, error) {
		n, err := do(ctx, q)
		return Count{Count: n}, err
	}
}

// queryBytes bounds a question.
const queryBytes = 1 << 20

// query reads a question and answers it.
func query[Q any](s *Server, do func(context.Context, Q) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, queryBytes))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&q); err != nil {
			s.answer(w, nil, fmt.Errorf("read the question: %w", err))
			return
		}
		answer, err := do(r.Context(), q)
		s.answer(w, answer, err)
	}
}

// answer answers with body, or with why there is none.
func (s *Server) answer(w http.ResponseWriter, body any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		status := http.StatusUnprocessableEntity
		if errors.Is(err, ErrUnknown) {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
		body = failure{Error: err.Error()}
	}
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.Logger.Debug("admin answer not sent", "err", err)
	}
}
