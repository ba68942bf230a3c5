package pluginhost

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// Process says which process a forwarder runs in, as a part of its section of
// the configuration file. Either Command or Address is set.
type Process struct {
	// Command is the executable, by its absolute path, and its arguments.
	Command []string `koanf:"command"`
	// Checksum is that of the executable, "sha256:" and 64 hexadecimal
	// digits; empty for no check. Files are the checksums of further files,
	// such as the script that an interpreter runs. They are checked before
	// each start.
	Checksum string            `koanf:"checksum"`
	Files    map[string]string `koanf:"files"`
	// Address is unix:///path of a service that is not started by the relay.
	Address string `koanf:"address"`
	Limits  Limits `koanf:"process"`
}

// Limits say what a process gets.
type Limits struct {
	// Environment is added to the few variables that every process gets.
	Environment map[string]sdk.Secret `koanf:"environment"`
	// MaxMemory is the resident memory at which the process is ended and
	// started again; 0 for no limit. Linux only.
	MaxMemory sdk.Size `koanf:"max_memory"`
	// StartTimeout is how long the process may take until it can be
	// configured.
	StartTimeout time.Duration `koanf:"start_timeout"`
}

// SetDefaults sets what a process has that says nothing else.
func (p *Process) SetDefaults() {
	*p = Process{Command: []string{}, Files: map[string]string{}, Limits: Limits{Environment: map[string]sdk.Secret{}, StartTimeout: 10 * time.Second}}
}

// External reports whether the forwarder is a third party's.
func (p *Process) External() bool { return len(p.Command) > 0 || p.Address != "" }

// Label is what the process is called in logs and tables.
func (p *Process) Label() string {
	if p.Address != "" {
		return p.Address
	}
	return filepath.Base(p.Command[0])
}

var (
	checksumPattern = regexp.MustCompile(`^sha256:[0-9a-fA-F]{64}$`)
	variablePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

const checksumProblem = `must be "sha256:" and 64 hexadecimal digits, as sha256sum prints them`

// Validate names everything that is wrong and can be seen without looking at
// the machine.
func (p *Process) Validate() sdk.Faults {
	var f sdk.Faults
	if len(p.Command) > 0 && !filepath.IsAbs(p.Command[0]) {
		f.Add("command", fmt.Sprintf("must begin with the absolute path of an executable (got %q)", p.Command[0]))
	}
	if p.Checksum != "" && !checksumPattern.MatchString(p.Checksum) {
		f.Add("checksum", checksumProblem)
	}
	for _, file := range slices.Sorted(maps.Keys(p.Files)) {
		if !filepath.IsAbs(file) {
			f.Add("files."+file, "must be an absolute path")
		}
		if !checksumPattern.MatchString(p.Files[file]) {
			f.Add("files."+file, checksumProblem)
		}
	}
	if len(p.Command) == 0 && (p.Checksum != "" || len(p.Files) > 0) {
		f.Add("checksum", "needs a command: it is that of the command's executable")
	}
	if path, ok := strings.CutPrefix(p.Address, "unix://"); p.Address != "" && (!ok || !filepath.IsAbs(path)) {
		f.Add("address", fmt.Sprintf("must be the absolute path of a Unix socket, such as unix:///run/x.sock (got %q)", p.Address))
	}
	if len(p.Command) > 0 && p.Address != "" {
		f.Add("address", "stands beside command: keep one, a service is not started by the relay")
	}
	return append(f, p.Limits.validate().Within("process")...)
}

func (l *Limits) validate() sdk.Faults {
	var f sdk.Faults
	for _, name := range slices.Sorted(maps.Keys(l.Environment)) {
		switch {
		case !variablePattern.MatchString(name):
			f.Add("environment."+name, "is no name of an environment variable")
		case strings.HasPrefix(name, "PLUGIN_") || strings.HasPrefix(name, "PIMRELAY_"):
			f.Add("environment."+name, "is reserved: the relay itself sets variables that begin like this")
		case strings.ContainsRune(string(l.Environment[name]), 0):
			f.Add("environment."+name, "must not contain a NUL byte")
		}
	}
	if l.MaxMemory != 0 && l.MaxMemory < 16<<20 {
		f.Add("max_memory", fmt.Sprintf("must be at least 16MiB, or 0B for no limit (got %s)", l.MaxMemory))
	}
	if l.MaxMemory != 0 && !measuresMemory {
		f.Add("max_memory", "is available on Linux only: use 0B")
	}
	if l.StartTimeout < 100*time.Millisecond || l.StartTimeout > 10*time.Minute {
		f.Add("start_timeout", fmt.Sprintf("must be from 100ms to 10m (got %s)", l.StartTimeout))
	}
	return f
}
