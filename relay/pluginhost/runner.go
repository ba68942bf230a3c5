package pluginhost

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// After its end, what a process has printed is still read for pipeGrace, because
// a child that it left behind may keep the pipes open for ever; the news of its
// end wait for wordsGrace for its last words.
const (
	pipeGrace  = time.Second
	wordsGrace = 100 * time.Millisecond
)

// runner is one process, as hashicorp/go-plugin starts and ends it. It differs
// from the library's own in three things: it is the head of a process group that
// ends with it, its standard input closes when the relay has gone, and whatever
// it prints before the handshake is log and does no harm.
type runner struct {
	cmd    *exec.Cmd
	output *output

	parent  *os.File // its other end is the process's standard input
	stdout  *io.PipeReader
	stderr  *os.File
	offered atomic.Pointer[string] // the contract's version in the handshake, once that has come

	mu     sync.Mutex // guards the start of cmd, and killed
	killed bool

	spoken chan struct{} // closed when its standard error has been read to the end
	silent chan struct{} // closed when the process has closed its standard output
	exited chan struct{} // closed when the process has ended
	err    error         // of its end; set before exited is closed
}

func newRunner(cmd *exec.Cmd, output *output) *runner {
	return &runner{cmd: cmd, output: output, spoken: make(chan struct{}), silent: make(chan struct{}), exited: make(chan struct{})}
}

// Start starts the process. It is called once.
func (r *runner) Start(context.Context) (err error) {
	var opened []*os.File
	pipe := func() (*os.File, *os.File) {
		read, write, pipeErr := os.Pipe()
		err = errors.Join(err, pipeErr)
		if pipeErr == nil {
			opened = append(opened, read, write)
		}
		return read, write
	}
	stdin, parent := pipe()
	outRead, outWrite := pipe()
	errRead, errWrite := pipe()
	if err == nil {
		r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = stdin, outWrite, errWrite
		err = r.begin()
	}
	if err != nil {
		for _, f := range opened {
			f.Close()
		}
		return err
	}
	for _, f := range []*os.File{stdin, outWrite, errWrite} {
		f.Close() // the process has them
	}
	filtered, lines := io.Pipe()
	r.parent, r.stdout, r.stderr = parent, filtered, errRead
	go r.filter(outRead, lines)
	go r.wait(outRead)
	return nil
}

// begin starts the process, unless it has been killed already.
func (r *runner) begin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.killed {
		return context.Canceled
	}
	ownGroup(r.cmd)
	return r.cmd.Start()
}

// wait waits for the end of the process, and ends what it has left behind.
func (r *runner) wait(stdout *os.File) {
	r.err = r.cmd.Wait()
	r.parent.Close()
	_ = killGroup(r.cmd) // as a rule nobody is left
	select {
	case <-r.spoken:
	case <-time.After(wordsGrace):
	}
	close(r.exited)
	time.AfterFunc(pipeGrace, func() {
		stdout.Close()
		r.stderr.Close()
	})
}

// handshakeLine is the library's handshake: its own version, the contract's,
// network, address, protocol, certificate.
var handshakeLine = regexp.MustCompile(`^\d+\|(\d+)\|(?:unix|tcp)\|[^|]+(?:\|.*)?$`)

// filter passes the handshake on, and takes everything else for log.
func (r *runner) filter(from io.Reader, to *io.PipeWriter) {
	defer to.Close()
	defer close(r.silent)
	log := r.output.stream("stdout")
	in := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		fields := handshakeLine.FindSubmatch(trim(line))
		if fields != nil && r.offered.Load() == nil {
			version := string(fields[1])
			r.offered.Store(&version)
			if _, err := to.Write(append(trim(line), '\n')); err != nil {
				return
			}
		} else {
			_, _ = log.Write(line) // never fails
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// trim is line without its end.
func trim(line []byte) []byte {
	for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
		line = line[:len(line)-1]
	}
	return line[:len(line):len(line)]
}

// version is the version of the contract that the process's handshake offered,
// or empty.
func (r *runner) version() string {
	if version := r.offered.Load(); version != nil {
		return *version
	}
	return ""
}

// Wait waits for the end of the process.
func (r *runner) Wait(context.Context) error {
	<-r.exited
	return r.err
}

// Kill ends the process and its group at once. One that has closed its standard
// output is about to end by itself, and gets the moment to say how.
func (r *runner) Kill(context.Context) error {
	select {
	case <-r.silent:
		select {
		case <-r.exited:
		case <-time.After(exitGrace):
		}
	default:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.exited:
		return nil // its number may be another's by now
	default:
	}
	r.killed = true
	if r.cmd.Process == nil {
		return nil
	}
	return killGroup(r.cmd)
}

// Stdout has the handshake.
func (r *runner) Stdout() io.ReadCloser { return r.stdout }

// Stderr is the process's.
func (r *runner) Stderr() io.ReadCloser { return &spoken{File: r.stderr, end: r.spoken} }

// spoken closes a channel at the end of a file.
type spoken struct {
	*os.File
	end  chan struct{}
	once sync.Once
}

func (s *spoken) Read(p []byte) (int, error) {
	n, err := s.File.Read(p)
	if err != nil {
		s.once.Do(func() { close(s.end) })
	}
	return n, err
}

// Name is the executable.
func (r *runner) Name() string { return r.cmd.Path }

// ID is the process id, or empty before the start.
func (r *runner) ID() string {
	if r.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(r.cmd.Process.Pid)
}

// Diagnose has nothing to add: launch explains.
func (r *runner) Diagnose(context.Context) string { return "" }

// PluginToHost says that plugin and host see the same file system.
func (r *runner) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin is the reverse.
func (r *runner) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}
