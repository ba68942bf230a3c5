package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
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
	server := Server{Status: func() Status { return want }, Reload: reloads(), Logger: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- server.Serve(ctx, listener) }()
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
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
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

// reloads succeeds once.
func reloads() func(context.Context) ([]string, error) {
	n := 0
	return func(context.Context) ([]string, error) {
		if n++; n == 1 {
			return []string{"forwarder shop changed"}, nil
		}
		return nil, errors.New("line 5 is wrong")
	}
}
