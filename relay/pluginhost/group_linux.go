package pluginhost

import (
	"os/exec"
	"syscall"
)

// ownGroup makes the process the head of a group, so that a Ctrl-C in the
// relay's terminal does not reach it, and has the kernel end it with the relay.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
