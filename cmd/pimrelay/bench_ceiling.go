package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay/observe"
)

// newCeilingCommand is the server that `pimrelay bench` compares the relay with,
// in a process of its own as the relay is.
func newCeilingCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:    "ceiling",
		Short:  "Serve what a bench takes as the ceiling: verify, append to a file, fsync in groups",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return usageError{errors.New("--file is missing: name the file to append to")}
			}
			return serveCeiling(cmd.Context(), path, observe.NewLogger(cmd.ErrOrStderr(), slog.LevelInfo, "json"))
		},
	}
	cmd.Flags().StringVar(&path, "file", "", "file to append to")
	return cmd
}

// serveCeiling runs until ctx ends.
func serveCeiling(ctx context.Context, path string, logger *slog.Logger) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	listener, err := listenLoopback()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	c := newCeiling(file)
	stop := inBackground(c.write)
	err = c.serve(ctx, listener, logger)
	stop()
	return errors.Join(err, file.Close())
}

// ceiling is the least that a durable endpoint does: it verifies the signature
// and answers when the body is on disk, with one fsync for all that wait.
type ceiling struct {
	file  *os.File
	queue chan *ceilingAppend
	macs  sync.Pool // of hash.Hash
}

type ceilingAppend struct {
	body []byte
	done chan error
}

// ceilingGroup bounds what shares one fsync.
const ceilingGroup = 512

func newCeiling(file *os.File) *ceiling {
	c := &ceiling{file: file, queue: make(chan *ceilingAppend, ceilingGroup)}
	c.macs.New = func() any { return hmac.New(sha256.New, []byte(benchSecret)) }
	return c
}

func (c *ceiling) serve(ctx context.Context, listener net.Listener, logger *slog.Logger) error {
	server := &http.Server{Handler: c, ReadHeaderTimeout: benchAnswer}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchAnswer)
		defer cancel()
		_ = server.Shutdown(patient) // what it would not wait for is nothing that counts
	})
	logger.Info(doorIsOpen, "address", listener.Addr().String())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return err
	}
	<-stopped
	return nil
}

func (c *ceiling) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, max(r.ContentLength, 0))
	if _, err := io.ReadFull(r.Body, body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if !c.verified(r.Header.Get(benchSignature), body) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	a := &ceilingAppend{body: body, done: make(chan error, 1)}
	c.queue <- a
	if err := <-a.done; err != nil {
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (c *ceiling) verified(signature string, body []byte) bool {
	mac := c.macs.Get().(hash.Hash)
	defer c.macs.Put(mac)
	mac.Reset()
	mac.Write(body)
	var sum [sha256.Size]byte
	given, err := hex.DecodeString(signature)
	return err == nil && hmac.Equal(given, mac.Sum(sum[:0]))
}

// write appends what is queued, a group at a time, until ctx ends.
func (c *ceiling) write(ctx context.Context) {
	var lines bytes.Buffer
	group := make([]*ceilingAppend, 0, ceilingGroup)
	for {
		select {
		case first := <-c.queue:
			group = c.gather(append(group[:0], first))
		case <-ctx.Done():
			return
		}
		lines.Reset()
		for _, a := range group {
			lines.Write(a.body)
			lines.WriteByte('\n')
		}
		_, err := c.file.Write(lines.Bytes())
		if err == nil {
			err = c.file.Sync()
		}
		for _, a := range group {
			a.done <- err
		}
	}
}

// gather adds to the group what is queued already.
func (c *ceiling) gather(group []*ceilingAppend) []*ceilingAppend {
	for len(group) < ceilingGroup {
		select {
		case a := <-c.queue:
			group = append(group, a)
		default:
			return group
		}
	}
	return group
}
