//go:build unix

package pluginhost

import (
	"fmt"
	"os"
	"syscall"
)

// checkOwner looks whether the file belongs to the relay's user or to root, or
// to another user of a group that the relay is in.
func checkOwner(path string, info os.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	for _, group := range append(groups, os.Getegid()) {
		if int(stat.Gid) == group && info.Mode()&0o060 != 0 {
			return nil
		}
	}
	if int(stat.Uid) != os.Geteuid() && stat.Uid != 0 {
		return fmt.Errorf("%s belongs to user %d, not to this one or root, and to no group that this user is in", path, stat.Uid)
	}
	return nil
}
