package pluginhost

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// checkFiles looks whether the files of a command are those that were meant.
// Whoever can write to them can run what they like as the relay's user, so they
// must not be everybody's to write.
func checkFiles(p Process) error {
	if err := checkFile(p.Command[0], p.Checksum, true); err != nil {
		return err
	}
	for _, file := range slices.Sorted(maps.Keys(p.Files)) {
		if err := checkFile(file, p.Files[file], false); err != nil {
			return err
		}
	}
	return nil
}

func checkFile(path, checksum string, executable bool) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file", path)
	case executable && info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable: chmod +x it, or name its interpreter first", path)
	case info.Mode()&0o002 != 0:
		return fmt.Errorf("%s can be written by every user of this machine: chmod o-w it", path)
	case checksum == "":
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return err
	}
	if found := "sha256:" + hex.EncodeToString(hash.Sum(nil)); !strings.EqualFold(found, checksum) {
		return fmt.Errorf("%s is not the file that was declared: its checksum is %s, the configuration says %s", path, found, checksum)
	}
	return nil
}
