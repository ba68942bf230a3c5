package pluginhost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/relay/internal/testplugin"
	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/serve"
)

// hostMarker makes the test binary a relay, as far as plugins can tell.
const hostMarker = "be-a-host"

func TestMain(m *testing.M) {
	testplugin.Main()
	if len(os.Args) == 3 && os.Args[1] == hostMarker {
		host(os.Args[2])
	}
	os.Exit(m.Run())
}

// host starts a plugin, prints its process number and waits to be killed.
func host(directory string) {
	p := New(process(testplugin.Good), Options{Name: "plug", Directory: directory, Logger: slog.New(slog.DiscardHandler)})
	err := p.Configure(context.Background(), json.RawMessage(`{"out": "/dev/null"}`))
	if err == nil {
		err = p.Started(context.Background())
	}
	fmt.Println(p.Status().PID, err)
	select {}
}

// quick keeps the tests short.
var quick = Pace{Look: 10 * time.Millisecond, Ask: 100 * time.Millisecond, Patience: 2 * time.Second, Again: 20 * time.Millisecond, MaxAgain: 200 * time.Millisecond}

func process(way string) Process {
	var p Process
	p.SetDefaults()
	p.Command = testplugin.Command(way)
	p.Limits.StartTimeout = time.Minute
	return p
}

// logs is a log that tests can look into.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start starts a plugin whose out file is in the returned directory.
func start(t *testing.T, p Process, config string) (*Plugin, *logs, string) {
	t.Helper()
	directory, log := t.TempDir(), &logs{}
	sockets, err := os.MkdirTemp("", "pimrelay-test-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	plugin := New(p, Options{Name: "plug", Directory: sockets, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Pace: quick})
	raw := fmt.Sprintf(`{"out": %q%s}`, filepath.Join(directory, "out"), config)
	if err := plugin.Configure(t.Context(), json.RawMessage(raw)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = plugin.Close(ctx)
	})
	return plugin, log, directory
}

// running is start, and waits until the plugin runs.
func running(t *testing.T, p Process, config string) (*Plugin, *logs, string) {
	t.Helper()
	plugin, log, directory := start(t, p, config)
	if err := plugin.Started(t.Context()); err != nil {
		t.Fatal(err)
	}
	return plugin, log, directory
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out: %s", what)
		}
	}
}

func events(ids ...string) []sdk.Event {
	all := make([]sdk.Event, len(ids))
	for i, id := range ids {
		body := fmt.Appendf(nil, `{"id":%q}`, id)
		all[i] = sdk.Event{ID: id, Type: "com.akeneo.pim.v1.product.updated", Body: body, Payload: body, ContentType: "application/json", Attempt: 1}
	}
	return all
}

func deliver(t *testing.T, p *Plugin, ids ...string) []sdk.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return p.Deliver(ctx, events(ids...))
}

func TestDelivers(t *testing.T) {
	t.Parallel()
	p, _, directory := running(t, process(testplugin.Good), `, "batch": 10`)
	if got := deliver(t, p, "a", "b", "c"); len(got) != 3 || got[2].Result != sdk.ResultDelivered {
		t.Errorf("%+v", got)
	}
	out, err := os.ReadFile(filepath.Join(directory, "out"))
	if err != nil || string(out) != "a\nb\nc\n" {
		t.Errorf("%q, %v", out, err)
	}
	if err := p.Health(t.Context()); err != nil {
		t.Error(err)
	}
	s := p.Status()
	if !s.Up || s.PID == 0 || s.Description.Name != "test" || s.Description.Version != "0.1" || !s.Description.Health || !s.Description.KeepsOrder || p.BatchLimits() != (sdk.BatchLimits{Events: 10}) {
		t.Errorf("%+v", s)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if syscall.Kill(s.PID, 0) == nil {
		t.Error("the process is still there")
	}
	if _, err := os.Stat(filepath.Join(directory, "out.closed")); err != nil {
		t.Errorf("the forwarder was not closed: %v", err)
	}
	if left, err := os.ReadDir(p.Directory); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What keeps a plugin from starting is said so that a person can mend it.
func TestStartErrors(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(directory, name)
		if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	command := func(words ...string) Process {
		p := process(testplugin.Good)
		p.Command = words
		return p
	}
	changed := func(change func(*Process)) Process {
		p := process(testplugin.Good)
		change(&p)
		return p
	}
	short := func(p Process) Process {
		p.Limits.StartTimeout = 300 * time.Millisecond
		return p
	}
	zero := "sha256:" + strings.Repeat("0", 64)
	for name, test := range map[string]struct {
		process Process
		config  string
		want    string
	}{
		"missing":        {command("/nowhere/plugin"), "", "stat /nowhere/plugin: no such file or directory"},
		"directory":      {command(directory), "", "is no file"},
		"not executable": {command(write("data", "x", 0o600)), "", "is not executable: chmod +x it"},
		"writable":       {command(write("open", "x", 0o757)), "", "can be written by every user of this machine"},
		"no program":     {command(write("text", "\x7fno program", 0o700)), "", "exec format error"},
		"no plugin":      {command("/bin/echo", "hello"), "", "it ended before its handshake with exit status 0"},
		"ends":           {process(testplugin.Exits), "", "it ended before its handshake with exit status 3 (its last words: cannot find my destination's library)"},
		"silent":         {short(process(testplugin.Silent)), "", "no handshake within 300ms: is it a pimrelay plugin? If it needs longer, raise process.start_timeout"},
		"version":        {process(testplugin.Newer), "", "it speaks version 2 of the plugin contract, this relay speaks version 1"},
		"checksum":       {changed(func(p *Process) { p.Checksum = zero }), "", "is not the file that was declared: its checksum is sha256:"},
		"file":           {changed(func(p *Process) { p.Files = map[string]string{write("lib.js", "x", 0o600): zero} }), "", "lib.js is not the file that was declared"},
		"field":          {process(testplugin.Good), `, "secret": 7`, "secret: must be a string"},
		"unknown":        {process(testplugin.Good), `, "bach": 7`, `bach: unknown key, did you mean "batch"?`},
		"nobody serves":  {Process{Address: "unix:///nowhere/x.sock", Limits: Limits{StartTimeout: time.Second}}, "", "nobody serves /nowhere/x.sock: start the plugin with --listen unix:///nowhere/x.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, _, _ := start(t, test.process, test.config)
			err := p.Started(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v, want %q", err, test.want)
			}
			eventually(t, "it is down", func() bool { return p.Status().Failures > 0 })
			if down := p.Down(); !strings.Contains(down, "the plugin does not run") {
				t.Errorf("down: %q", down)
			}
			if outcomes, inHand, err := p.Attempt(t.Context(), events("a")); err == nil || inHand || outcomes != nil {
				t.Errorf("an attempt: %v, %v, %v", outcomes, inHand, err)
			}
		})
	}
}

// Nothing of the relay's environment reaches a plugin but what programs need.
func TestEnvironment(t *testing.T) {
	t.Setenv("PIM_PASSWORD", "the relay's own secret")
	t.Setenv("TZ", "Europe/Paris")
	limits := Limits{Environment: map[string]sdk.Secret{"TOKEN": "for the plugin", "PATH": "/opt/bin"}}
	got := environment(limits, slog.LevelWarn)
	for _, want := range []string{"TZ=Europe/Paris", "TOKEN=for the plugin", "PATH=/opt/bin", "PIMRELAY_PARENT=stdin", "PIMRELAY_LOG_LEVEL=warn"} {
		if !strings.Contains("\n"+strings.Join(got, "\n")+"\n", "\n"+want+"\n") {
			t.Errorf("%q is not in %q", want, got)
		}
	}
	// The process itself sees no more than that and the handshake's.
	p, _, _ := running(t, process(testplugin.Good), "")
	if runtime.GOOS != "linux" {
		return
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.Status().PID))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(environ, []byte("PIM_PASSWORD")) || !bytes.Contains(environ, []byte("PLUGIN_CLIENT_CERT=")) {
		t.Errorf("%q", environ)
	}
}

// A process that a relay started does not outlive it.
func TestNoOrphans(t *testing.T) {
	t.Parallel()
	directory, err := os.MkdirTemp("", "pimrelay-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(directory)
	cmd := exec.Command(os.Args[0], hostMarker, directory)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var problem string
	if _, err := fmt.Fscanln(stdout, &pid, &problem); err != nil || pid == 0 || problem != "<nil>" {
		t.Fatalf("pid %d, %s, %v", pid, problem, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	eventually(t, "the plugin has ended, too", func() bool { return hasEnded(pid) })
}

// hasEnded reports whether a process has gone, or is a zombie whose new parent has
// not looked yet.
func hasEnded(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && bytes.Contains(stat, []byte(") Z "))
}

// What a plugin has started ends with it.
func TestProcessGroup(t *testing.T) {
	t.Parallel()
	p, log, _ := running(t, process(testplugin.Parent), "")
	eventually(t, "the child is known", func() bool { return strings.Contains(log.String(), "child=") })
	_, after, _ := strings.Cut(log.String(), "child=")
	child, err := strconv.Atoi(strings.FieldsFunc(after, func(r rune) bool { return r < '0' || r > '9' })[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.Status().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child has ended", func() bool { return hasEnded(child) })
	eventually(t, "the plugin is back", func() bool { return p.Status().Up && p.Status().Failures == 1 })
}

// Closing waits for the deliveries in hand.
func TestCloseDrains(t *testing.T) {
	t.Parallel()
	p, _, directory := running(t, process(testplugin.Good), `, "slow": "300ms"`)
	outcomes := make(chan []sdk.Outcome)
	go func() { outcomes <- p.Deliver(context.Background(), events("a")) }()
	// The delivery is in the plugin's hands when another one is through.
	deliver(t, p, "b")
	go func() { outcomes <- p.Deliver(context.Background(), events("c")) }()
	if got := <-outcomes; got[0].Result != sdk.ResultDelivered {
		t.Errorf("%+v", got)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	got := <-outcomes
	out, err := os.ReadFile(filepath.Join(directory, "out"))
	if err != nil || strings.Contains(string(out), "c") != (got[0].Result == sdk.ResultDelivered) {
		t.Errorf("%q, %+v, %v", out, got, err)
	}
}

// Whatever a plugin prints becomes log, at its level, in bounds.
func TestOutputBecomesLog(t *testing.T) {
	t.Parallel()
	log := &logs{}
	o := newOutput(slog.New(slog.NewTextHandler(log, nil)), newAllowance(), strings.ToLower)
	s := o.stream("stderr")
	for _, part := range []string{
		"plain ", "WORDS\r\n\n", `{"time":"x","level":"warn","msg":"careful","port":8080}` + "\n",
		`{"@level":"error","@message":"as hclog does","@module":"m"}` + "\n", `{"level":50,"msg":"as pino does"}` + "\n",
		`{"level":"debug","msg":"not shown"}` + "\n", `{"no":"message"}` + "\n", "\xff\n", strings.Repeat("x", 3*longestLine) + "\n", "{broken\n",
	} {
		if n, err := s.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	got := log.String()
	for _, want := range []string{
		`level=INFO msg="plugin output" stream=stderr line="plain words"`, `level=WARN msg=careful port=8080`, `level=ERROR msg="as hclog does"`,
		`level=ERROR msg="as pino does"`, `line="{\"no\":\"message\"}"`, `line=` + strings.Repeat("x", longestLine) + "\n", `line={broken`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if strings.Contains(got, "not shown") {
		t.Errorf("debug in\n%s", got)
	}
	for range 10 * linesAtOnce {
		fmt.Fprintln(s, "noise")
	}
	if n := strings.Count(log.String(), "noise"); n > linesAtOnce+2*linesPerSecond {
		t.Errorf("%d lines of noise were logged", n)
	}
	fmt.Fprintln(s, "panic: because")
	fmt.Fprintln(s, "goroutine 1 [running]:")
	if words := o.lastWords(); words != "panic: because" {
		t.Errorf("last words %q", words)
	}
}

func FuzzOutput(f *testing.F) {
	f.Add([]byte(`{"level":"warn","msg":"m","a":{"b":[1]}}` + "\n"))
	f.Add([]byte(`{"level":1e300,"@message":"m"}` + "\nplain\r\n{\n"))
	f.Add([]byte(strings.Repeat("\x00", 10_000) + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := newOutput(slog.New(slog.DiscardHandler), newAllowance(), strings.ToLower)
		s := o.stream("stderr")
		if n, err := s.Write(data); n != len(data) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if words := o.lastWords(); len(words) > longestWords {
			t.Errorf("%d bytes of last words", len(words))
		}
	})
}

// A service that somebody else runs takes deliveries over its socket, may be
// restarted, and does not have to serve one relay only.
func TestService(t *testing.T) {
	t.Parallel()
	socket := serviceDirectory(t) + "/x.sock"
	stop := serveAt(t, socket, 0o600)
	service := Process{Address: "unix://" + socket, Limits: Limits{StartTimeout: 10 * time.Second}}
	p, _, directory := running(t, service, "")
	other, _, _ := running(t, service, "")
	if got := deliver(t, p, "a"); got[0].Result != sdk.ResultDelivered {
		t.Fatalf("%+v", got)
	}
	if err := other.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := deliver(t, p, "b"); got[0].Result != sdk.ResultDelivered {
		t.Errorf("after another lane has closed its forwarder: %+v", got)
	}
	stop()
	eventually(t, "it is down", func() bool { return p.Down() != "" })
	if _, inHand, err := p.Attempt(t.Context(), events("c")); err == nil || inHand {
		t.Errorf("in hand %v, %v", inHand, err)
	}
	serveAt(t, socket, 0o600)
	eventually(t, "it is back", func() bool { return p.Down() == "" })
	if got := deliver(t, p, "c"); got[0].Result != sdk.ResultDelivered {
		t.Errorf("%+v", got)
	}
	out, err := os.ReadFile(filepath.Join(directory, "out"))
	if diff := cmp.Diff("a\nb\nc\n", string(out)); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func serviceDirectory(t *testing.T) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "pimrelay-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	return directory
}

// serveAt serves the test plugin at a socket, until stop or the test's end.
func serveAt(t *testing.T, socket string, mode os.FileMode) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- serve.Service(ctx, testplugin.New, "unix://"+socket, mode, slog.New(slog.DiscardHandler))
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	eventually(t, "the socket is there", func() bool {
		conn, err := net.Dial("unix", socket)
		return err == nil && conn.Close() == nil
	})
	return stop
}

// A service that is told to stop finishes what it has in hand, and the relay lets
// it; it takes nothing new meanwhile, and makes no forwarder there.
func TestServiceThatStops(t *testing.T) {
	t.Parallel()
	socket := serviceDirectory(t) + "/x.sock"
	stop := serveAt(t, socket, 0o600)
	service := Process{Address: "unix://" + socket, Limits: Limits{StartTimeout: 10 * time.Second}}
	p, log, directory := running(t, service, `, "slow": "700ms"`)
	type result struct {
		outcomes []sdk.Outcome
		err      error
	}
	got := make(chan result, 1)
	go func() {
		outcomes, _, err := p.Attempt(context.Background(), events("a"))
		got <- result{outcomes, err}
	}()
	// What the service has in hand is in its hands when it says so.
	eventually(t, "the delivery has begun", func() bool { return testplugin.Begun(filepath.Join(directory, "out")) })
	stop()
	if r := <-got; r.err != nil || r.outcomes[0].Result != sdk.ResultDelivered {
		t.Errorf("%+v, %v\n%s", r.outcomes, r.err, log)
	}
	eventually(t, "it is known to have gone", func() bool { return p.Status().Failures > 0 })
	if n := strings.Count(log.String(), "plugin started"); n != 1 {
		t.Errorf("started %d times\n%s", n, log)
	}
}

// A socket that is replaced is looked at again before anything is sent to it.
func TestServiceReplaced(t *testing.T) {
	t.Parallel()
	socket := serviceDirectory(t) + "/x.sock"
	stop := serveAt(t, socket, 0o600)
	p, _, directory := running(t, Process{Address: "unix://" + socket, Limits: Limits{StartTimeout: 10 * time.Second}}, "")
	stop()
	serveAt(t, socket, 0o666)
	eventually(t, "it is not used", func() bool { return strings.Contains(p.Down(), "open to every user") })
	if _, inHand, err := p.Attempt(t.Context(), events("a")); err == nil || inHand {
		t.Errorf("in hand %v, %v", inHand, err)
	}
	if _, err := os.Stat(filepath.Join(directory, "out")); !os.IsNotExist(err) {
		t.Errorf("something was delivered: %v", err)
	}
}

// A plugin that stalls for a moment has not gone: what it had in hand is tried
// again, and nobody is suspected.
func TestStall(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only /proc tells when a process has stopped")
	}
	p, _, _ := running(t, process(testplugin.Good), "")
	pid := p.Status().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has stopped", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err == nil && bytes.Contains(stat, []byte(") T "))
	})
	// It goes on when it is suspended, but before it is given up.
	go func() {
		for p.Down() == "" {
			<-p.Changed()
		}
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	outcomes, inHand, err := p.Attempt(ctx, events("a"))
	if err != nil || inHand || len(outcomes) != 1 || outcomes[0].Result != sdk.ResultRetry {
		t.Errorf("%+v, in hand %v, %v", outcomes, inHand, err)
	}
	if s := p.Status(); !s.Up || s.Failures > 0 || s.PID != pid {
		t.Errorf("%+v", s)
	}
}

// A socket that others could have put there, or can listen at, is not used.
func TestServicePermissions(t *testing.T) {
	t.Parallel()
	directory := serviceDirectory(t)
	socket := filepath.Join(directory, "x.sock")
	serveAt(t, socket, 0o666)
	if err := checkSocket(socket); err == nil || !strings.Contains(err.Error(), "open to every user") {
		t.Errorf("%v", err)
	}
	if err := os.Chmod(socket, 0o660); err != nil {
		t.Fatal(err)
	}
	if err := checkSocket(socket); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(directory, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := checkSocket(socket); err == nil || !strings.Contains(err.Error(), "can put another socket in the place") {
		t.Errorf("%v", err)
	}
	if err := os.Chmod(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(socket, 4242, 4242); err != nil {
			t.Fatal(err)
		}
		if err := checkSocket(socket); err == nil || !strings.Contains(err.Error(), "belongs to user 4242") {
			t.Errorf("%v", err)
		}
	}
	if err := checkSocket(os.Args[0]); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("%v", err)
	}
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	for n, data := range []string{serviceDirectory(t), filepath.Join(t.TempDir(), strings.Repeat("long", 20))} {
		if err := os.MkdirAll(data, 0o700); err != nil {
			t.Fatal(err)
		}
		first, err := Directory(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(first, "stale"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Directory(data)
		if err != nil || n == 0 && again != first || len(again) > longestDirectory {
			t.Errorf("%q, %q, %v", first, again, err)
		}
		info, err := os.Stat(again)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", info, err)
		}
		if left, err := os.ReadDir(again); err != nil || len(left) > 0 {
			t.Errorf("left %v, %v", left, err)
		}
		if err := errors.Join(os.RemoveAll(again), os.RemoveAll(first)); err != nil {
			t.Error(err)
		}
	}
}

// What a plugin says shows none of its secrets, wherever they come up.
func TestSecretsAreRedacted(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-hunter2"
	service := process(testplugin.Good)
	service.Limits.Environment = map[string]sdk.Secret{"TOKEN": "token-of-the-environment"}
	p, log, _ := running(t, service, `, "secret": "`+secret+`", "tell": true`)
	got := deliver(t, p, "a")
	if got[0].Result != sdk.ResultRejected || got[0].Reason != "the secret is [redacted]" || got[0].Answer != "and TOKEN is [redacted]" {
		t.Errorf("%+v", got)
	}
	eventually(t, "the log", func() bool { return strings.Contains(log.String(), "it is [redacted]") })
	if text := log.String(); strings.Contains(text, secret) || strings.Contains(text, "token-of") {
		t.Errorf("a secret in\n%s", text)
	}
	if strings.Contains(log.String(), "never-shown") {
		t.Errorf("what the configuration refers to in\n%s", log)
	}
}

func TestRedactor(t *testing.T) {
	t.Parallel()
	const schema = `{"$ref": "#/$defs/all", "$defs": {
		"all": {"properties": {
			"headers": {"additionalProperties": {"writeOnly": true}}, "list": {"items": {"properties": {"key": {"writeOnly": true}}}},
			"whole": {"writeOnly": true}, "open": {}, "odd": true, "maybe": {"anyOf": [{"$ref": "#/$defs/secret"}, {"type": "null"}]}, "pin": {"writeOnly": true}, "pem": {"$ref": "#/$defs/secret"}}},
		"secret": {"type": "string", "writeOnly": true}}}`
	const config = `{"headers": {"A": "header-secret"}, "list": [{"key": "listed-secret"}], "whole": {"x": ["whole-secret"]}, "open": "no-secret-at-all",
		"more": "short", "odd": "odd-but-open", "maybe": "maybe-secret \"quoted\"", "pin": 1234567890123, "pem": "-----BEGIN KEY-----\nMIIEvQIBADAN\n"}`
	r := newRedactor(Limits{}, json.RawMessage(schema), json.RawMessage(config), func(s string) string { return strings.ReplaceAll(s, "from-env", redacted) })
	for text, want := range map[string]string{
		"header-secret listed-secret whole-secret no-secret-at-all short odd-but-open": "[redacted] [redacted] [redacted] no-secret-at-all short odd-but-open",
		`maybe-secret "quoted" {"msg":"maybe-secret \"quoted\""}`:                      `[redacted] {"msg":"[redacted]"}`,
		"pin 1234567890123, key MIIEvQIBADAN":                                          "pin [redacted], key [redacted]",
		"from-env":                                                                     "[redacted]",
	} {
		if got := r.text(text); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// Thirty levels that each refer to the next twice would take for ever.
	dag := `{"$defs":{`
	for i := range 30 {
		dag += fmt.Sprintf(`"d%d":{"anyOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]},`, i, i+1, i+1)
	}
	newRedactor(Limits{}, json.RawMessage(dag+`"d30":{}},"$ref":"#/$defs/d0"}`), json.RawMessage(config), nil)
}

// From the moment at which a plugin takes no calls it says why, so that its lane
// stands still instead of asking again and again while it is put away.
func TestDownFromTheFirstMoment(t *testing.T) {
	t.Parallel()
	p, _, _ := running(t, process(testplugin.Good), "")
	if err := syscall.Kill(p.Status().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for p.Status().Failures == 0 {
		if p.current.Load() == nil && p.Status().Failures == 0 {
			if p.Down() == "" {
				t.Fatal("it takes no calls and does not say so")
			}
		}
	}
}
