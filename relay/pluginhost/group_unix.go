//go:build unix && !linux

package pluginhost

import (
	"os/exec"
	"syscall"
)

// ownGroup makes the process the head of a group, so that a Ctrl-C in the
// relay's terminal does not reach it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
