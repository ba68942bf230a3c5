//go:build unix

package serve

import "syscall"

// endGroup ends this process and whatever else is in the group that the relay has
// made for it: what it has started, and a program that has started it.
func endGroup() { _ = syscall.Kill(0, syscall.SIGKILL) }
