package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStatusOverTheSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := Status{
		Version: "v1", Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Ready: true,
		Forwarders: []Forwarder{{Name: "shop", Plugin: "http", Backlog: 3, Failing: true, LastError: "refused"}},
		Warnings:   []Warning{{Key: "k", Message: "m"}},
	}
	// A socket left over by a daemon that was killed is replaced.
	if err := os.WriteFile(filepath.Join(dir, SocketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, SocketName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket is %v, %v; want mode 0600", info, err)
	}
	ctx := t.Context()
	server := httptest.Server{Listener: listener, Config: &http.Server{Handler: (&Server{Daemon: &daemon{status: want}, Logger: slog.New(slog.DiscardHandler)}).Handler()}}
	server.Start()
	got, err := NewClient(dir).Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := NewClient(dir).call(ctx, http.MethodGet, "/nothing", nil, &got); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("unknown route: %v", err)
	}
	if r, err := NewClient(dir).Reload(ctx); err != nil || len(r.Changes) != 1 || r.Changes[0] != "forwarder shop changed" {
		t.Errorf("reload: %+v, %v", r, err)
	}
	if _, err := NewClient(dir).Reload(ctx); err == nil || err.Error() != "line 5 is wrong" {
		t.Errorf("failed reload: %v", err)
	}
	server.Close()
	var notRunning *NotRunningError
	if _, err := NewClient(dir).Status(context.Background()); !errors.As(err, &notRunning) || notRunning.Dir != dir {
		t.Errorf("after the end: %v, want a NotRunningError", err)
	}
}

func TestCheckDir(t *testing.T) {
	t.Parallel()
	if err := CheckDir("/var/lib/pimrelay"); err != nil {
		t.Error(err)
	}
	if err := CheckDir("/" + strings.Repeat("x", 100)); err == nil || !strings.Contains(err.Error(), "by 9 bytes") {
		t.Errorf("got %v", err)
	}
}

// daemon answers what the test expects, and remembers what it was asked.
type daemon struct {
	status  Status
	reloads int
	asked   []any
}

func (d *daemon) Status() Status { return d.status }

func (d *daemon) Reload(context.Context) ([]string, error) { // succeeds once
	if d.reloads++; d.reloads == 1 {
		return []string{"forwarder shop changed"}, nil
	}
	return nil, errors.New("line 5 is wrong")
}

func (d *daemon) PauseForwarder(name string, paused bool) error {
	if name != "shop" {
		return fmt.Errorf("forwarder %q: %w", name, ErrUnknown)
	}
	d.asked = append(d.asked, paused)
	return nil
}

func (d *daemon) DeadLetters(_ context.Context, q DeadLetterQuery) ([]DeadLetter, error) {
	d.asked = append(d.asked, q)
	return nil, nil
}

func (d *daemon) DeadLetter(_ context.Context, number int64) (DeadLetterDetail, error) {
	return DeadLetterDetail{DeadLetter: DeadLetter{Number: number}, Body: "{}"}, nil
}

func (d *daemon) RetryDeadLetters(_ context.Context, q DeadLetterQuery) (int, error) {
	d.asked = append(d.asked, q)
	return 2, nil
}

func (d *daemon) DiscardDeadLetters(_ context.Context, q DeadLetterQuery) (int, error) {
	d.asked = append(d.asked, q)
	return 3, nil
}

func (d *daemon) Replay(_ context.Context, q ReplayQuery) (int, error) {
	d.asked = append(d.asked, q)
	return 4, nil
}

// serve runs a server on a socket of its own.
func serve(t *testing.T, d Daemon) *Client {
	t.Helper()
	dir := t.TempDir()
	listener, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.Server{Listener: listener, Config: &http.Server{Handler: (&Server{Daemon: d, Logger: slog.New(slog.DiscardHandler)}).Handler()}}
	server.Start()
	t.Cleanup(server.Close)
	return NewClient(dir)
}

// What the client asks arrives whole, and comes back.
func TestQuestions(t *testing.T) {
	t.Parallel()
	d := &daemon{}
	c, ctx := serve(t, d), t.Context()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	letters := DeadLetterQuery{Forwarder: "shop", Source: "catalog", Type: "t", Unreadable: true, Reason: "r", Since: at, Until: at.Add(time.Hour), Numbers: []int64{1, 2}, After: 3, Limit: 4}
	replay := ReplayQuery{Forwarder: "shop", From: at, To: at.Add(time.Hour), Types: []string{"t"}, Entity: "product:1", IDs: []string{"x"}}
	if got, err := c.DeadLetters(ctx, letters); err != nil || got == nil || len(got) != 0 {
		t.Errorf("list: %#v, %v", got, err)
	}
	if got, err := c.RetryDeadLetters(ctx, letters); err != nil || got.Count != 2 {
		t.Errorf("retry: %+v, %v", got, err)
	}
	if got, err := c.DiscardDeadLetters(ctx, DeadLetterQuery{}); err != nil || got.Count != 3 {
		t.Errorf("discard: %+v, %v", got, err)
	}
	if got, err := c.Replay(ctx, replay); err != nil || got.Count != 4 {
		t.Errorf("replay: %+v, %v", got, err)
	}
	if got, err := c.DeadLetter(ctx, 7); err != nil || got.Number != 7 || got.Body != "{}" {
		t.Errorf("show: %+v, %v", got, err)
	}
	if got, err := c.PauseForwarder(ctx, "shop"); err != nil || !got.Paused {
		t.Errorf("pause: %+v, %v", got, err)
	}
	if got, err := c.ResumeForwarder(ctx, "shop"); err != nil || got.Paused {
		t.Errorf("resume: %+v, %v", got, err)
	}
	if _, err := c.PauseForwarder(ctx, "a/b"); err == nil || err.Error() != `forwarder "a/b": not known` {
		t.Errorf("pause of another: %v", err)
	}
	if diff := cmp.Diff([]any{letters, letters, DeadLetterQuery{}, replay, true, false}, d.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	var nothing any
	if err := c.call(ctx, http.MethodPost, "/replay", map[string]int{"bogus": 1}, &nothing); err == nil || !strings.Contains(err.Error(), "bogus") {
		t.Errorf("an unknown field: %v", err)
	}
	if err := c.call(ctx, http.MethodGet, "/dead-letters/x", nil, &nothing); err == nil || !strings.Contains(err.Error(), "has a number") {
		t.Errorf("no number: %v", err)
	}
}
