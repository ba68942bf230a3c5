package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/cloudflare/tableflip"
	"github.com/coreos/go-systemd/v22/activation"
)

// takeover is the door's listening socket, and how it passes from one process to
// the next: connections wait in it while nobody accepts. The first process opens
// it or gets it from systemd; a successor gets it from its predecessor.
type takeover struct {
	listener net.Listener
	upgrader *tableflip.Upgrader // nil where the system has none
}

// socketName is the door's socket among those that a successor inherits. It does
// not depend on listen.address, which may be written in several ways.
const socketName = "door"

// openDoor opens or inherits the socket. Call ready when nothing can go wrong
// any more.
func openDoor(address string) (*takeover, error) {
	upgrader, err := tableflip.New(tableflip.Options{})
	if errors.Is(err, tableflip.ErrNotSupported) {
		listener, err := firstListener("tcp", address)
		return &takeover{listener: listener}, err
	}
	if err != nil {
		return nil, fmt.Errorf("prepare for a successor: %w", err)
	}
	listener, err := upgrader.ListenWithCallback("tcp", socketName, func(string, string) (net.Listener, error) {
		return firstListener("tcp", address)
	})
	if err != nil {
		upgrader.Stop()
		return nil, err
	}
	return &takeover{listener: listener, upgrader: upgrader}, nil
}

// firstListener is the socket that systemd passed on, or a new one.
func firstListener(network, address string) (net.Listener, error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("socket activation: %w", err)
	}
	switch len(passed) {
	case 0:
		listener, err := net.Listen(network, address)
		if err != nil {
			return nil, fmt.Errorf("open listen.address: %w", err)
		}
		return listener, nil
	case 1:
		if passed[0] == nil {
			return nil, errors.New("socket activation: the socket passed on is no listening stream socket")
		}
		return passed[0], nil
	}
	return nil, fmt.Errorf("socket activation: %d sockets were passed on, and the door needs one", len(passed))
}

// inherited reports whether a predecessor may still have the data directory.
func (t *takeover) inherited() bool { return t.upgrader != nil && t.upgrader.HasParent() }

// ready tells the predecessor to let go, if there is one. The configuration is
// known to be good, and the socket is ours.
func (t *takeover) ready() error {
	if t.upgrader == nil {
		return nil
	}
	return t.upgrader.Ready()
}

// run starts a successor at each of the signals, until ctx ends or one has taken
// over; the returned context ends then, too.
func (t *takeover) run(ctx context.Context, signals <-chan os.Signal, log *slog.Logger) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	if t.upgrader == nil {
		return ctx, cancel
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.upgrader.Exit():
				log.Info("a successor has the socket, this process lets go")
				cancel()
				return
			case <-signals:
				log.Info("starting a successor")
				// Our own predecessor may still be on its way out.
				err := t.upgrader.WaitForParent(ctx)
				if err == nil {
					err = t.upgrader.Upgrade()
				}
				if err != nil {
					log.Error("no successor, this process goes on", "err", err)
				}
			}
		}
	}()
	return ctx, func() {
		cancel()
		<-done
		t.upgrader.Stop()
	}
}
