package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pimrelay/pimrelay/relay"
)

// doorIsOpen is what a server logs, in JSON, with its address, when it accepts
// connections.
const doorIsOpen = "the door is open"

const (
	// benchStart is how long a server may take until its door is open.
	benchStart = time.Minute
	// benchStop is how long a server may take to end in order.
	benchStop = time.Minute
)

// benchEnviron is the environment of the servers: without the variables that
// would override their configuration.
func benchEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, relay.EnvironmentPrefix) })
}

// benchProcess is this program, run once more as a server, so that its CPU and
// its memory are its own.
type benchProcess struct {
	cmd     *exec.Cmd
	started time.Time
	open    chan string   // receives the address when the door is open
	exited  chan struct{} // closed when the process has ended and its log is read
	last    []string      // the last lines of its log; read after exited
	err     error         // of the process; read after exited
}

// launch starts the program with these arguments. The caller must stop or kill
// it.
func launch(environ []string, args ...string) (*benchProcess, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program to run as a server: %w", err)
	}
	p := &benchProcess{cmd: exec.Command(program, args...), started: time.Now(), open: make(chan string, 1), exited: make(chan struct{})}
	p.cmd.Env = environ
	log, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the program as a server: %w", err)
	}
	go func() {
		defer close(p.exited)
		p.read(log)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// lastLines is how many lines of a server's log are kept.
const lastLines = 10

// read follows the log to its end.
func (p *benchProcess) read(log io.Reader) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct{ Msg, Address string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == doorIsOpen {
			select {
			case p.open <- line.Address:
			default:
			}
		}
		if p.last = append(p.last, lines.Text()); len(p.last) > lastLines {
			p.last = p.last[1:]
		}
	}
	_, _ = io.Copy(io.Discard, log) // after a line that is too long: the process must not wait for a reader
}

// opened waits for the door and returns its address.
func (p *benchProcess) opened(ctx context.Context) (address string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, benchStart, fmt.Errorf("the server did not open its door within %s", benchStart))
	defer cancel()
	select {
	case address := <-p.open:
		return address, nil
	case <-p.exited:
		return "", p.failure()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// failure says how a process ended that should not have.
func (p *benchProcess) failure() error {
	state := "exit status 0"
	if p.err != nil {
		state = p.err.Error()
	}
	return fmt.Errorf("the server ended (%s), its last words:\n%s", state, strings.Join(p.last, "\n"))
}

// stop ends the process in order, or after benchStop by force.
func (p *benchProcess) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
	case <-time.After(benchStop):
		p.kill()
		return fmt.Errorf("the server did not end within %s and was killed", benchStop)
	}
	if p.err != nil {
		return p.failure()
	}
	return nil
}

// kill ends the process at once, if it has not ended.
func (p *benchProcess) kill() {
	_ = p.cmd.Process.Kill() // an error says that it has ended
	<-p.exited
}

// usage is what a process has used.
type usage struct {
	cpu      time.Duration // user and system, since its start
	resident int64         // bytes of memory at the moment
}

// clockTick is the unit of CPU times in /proc, the same on every platform that
// Go runs on.
const clockTick = time.Second / 100

// usage reads what the process has used, and reports false where the operating
// system has no /proc.
func (p *benchProcess) usage() (usage, bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
	if err != nil {
		return usage{}, false
	}
	// The second field is the program's name in parentheses, and may hold
	// anything. See proc(5) for the numbers of the others.
	const user, system, resident = 14 - 3, 15 - 3, 24 - 3
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) <= resident {
		return usage{}, false
	}
	number := func(field int) int64 {
		n, _ := strconv.ParseInt(fields[field], 10, 64) // the kernel writes numbers
		return n
	}
	return usage{
		cpu:      time.Duration(number(user)+number(system)) * clockTick,
		resident: number(resident) * int64(os.Getpagesize()),
	}, true
}

// ownCPU is the CPU time that this process has used.
func ownCPU() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
