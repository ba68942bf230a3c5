//go:build unix

package main

import (
	"os"
	"syscall"
)

// takeoverSignals make the relay start a successor and hand it the socket.
var takeoverSignals = []os.Signal{syscall.SIGUSR2}
