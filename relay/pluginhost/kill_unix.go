//go:build unix

package pluginhost

import (
	"errors"
	"os/exec"
	"syscall"
)

// killGroup ends the process and all that it has started. It is no error if
// nobody is left.
func killGroup(cmd *exec.Cmd) error {
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
