package relay_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pimrelay/pimrelay/plugins"
	"github.com/pimrelay/pimrelay/relay"
	"github.com/pimrelay/pimrelay/relay/admin"
	"github.com/pimrelay/pimrelay/relay/internal/testplugin"
	"github.com/pimrelay/pimrelay/relay/pluginhost"
	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/serve"
)

// isolatedMarker makes the test binary serve a built-in forwarder.
const isolatedMarker = "be-a-built-in"

// quick keeps the tests of failing plugins short.
var quick = pluginhost.Pace{Look: 20 * time.Millisecond, Ask: 200 * time.Millisecond, Patience: 1500 * time.Millisecond, Again: 20 * time.Millisecond, MaxAgain: 500 * time.Millisecond}

func TestMain(m *testing.M) {
	testplugin.Main()
	if len(os.Args) == 3 && os.Args[1] == isolatedMarker {
		serve.Main(func(logger *slog.Logger) sdk.Forwarder {
			forwarder, _ := plugins.Builtin(os.Args[2], logger)
			return forwarder
		})
	}
	os.Exit(m.Run())
}

// pluginLane is a forwarder called plug with the test plugin, started in that
// way; lane and config are further keys.
func pluginLane(way, lane, config string) string {
	return fmt.Sprintf("  plug: {command: [%q, %q, %q], retry: {initial: 20ms, max: 200ms}%s, config: {out: \"{dir}/out\"%s}}\n",
		testplugin.Command(way)[0], testplugin.Command(way)[1], way, lane, config)
}

// post sends that many events, e-0 and so on, all of which must be accepted.
func (d *daemon) postMany(events int) {
	d.t.Helper()
	for n := range events {
		body := cloudEvent("e-" + strconv.Itoa(n))
		if got := d.post("/hooks/catalog", body, signed(body)); got != 200 {
			d.t.Fatalf("event %d was answered %d", n, got)
		}
	}
}

// delivered counts how often each event was delivered.
func (d *daemon) delivered() map[string]int {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(d.dir, "out"))
	if err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	counts := make(map[string]int)
	for _, id := range strings.Fields(string(data)) {
		counts[id]++
	}
	return counts
}

// plug is the lane with the plugin.
func (d *daemon) plug() admin.Forwarder {
	d.t.Helper()
	for _, f := range d.Status().Forwarders {
		if f.Name == "plug" {
			return f
		}
	}
	d.t.Fatal("no forwarder plug")
	return admin.Forwarder{}
}

func gone(pid int) bool { return syscall.Kill(pid, 0) != nil }

// Whatever a plugin does, no event is lost: each of 60 is delivered or a dead
// letter, and the lane never takes the plugin's failures for its destination's.
func TestPluginsThatMisbehave(t *testing.T) {
	t.Parallel()
	const events = 60
	const batches = ", batch: {max_events: 20, max_wait: 50ms}"
	for _, test := range []struct {
		name, way, lane, config string
		// dead is the event that becomes a dead letter, for that reason;
		// failing says that the plugin must have failed.
		dead, reason string
		failing      bool
		repeats      bool // events may arrive twice
	}{
		{name: "none", way: testplugin.Good},
		{name: "prints before the handshake", way: testplugin.Chatty},
		{name: "ends at one event", way: testplugin.Good, config: ", exit: e-33", dead: "e-33", reason: "fatal error: this event is too much for me", failing: true, repeats: true},
		{name: "ends at one event of a batch", way: testplugin.Good, lane: batches, config: ", exit: e-33, batch: 50", dead: "e-33", reason: "3 times with this event alone in its hands: it ended with exit status 3", failing: true, repeats: true},
		{name: "ends after a delivery", way: testplugin.Good, lane: batches, config: ", exit_after: e-33, batch: 50", failing: true, repeats: true},
		{name: "hangs at one event", way: testplugin.Good, lane: ", timeout: 300ms", config: ", hang: e-33", dead: "e-33", reason: "alone in its hands: it did not answer within 1.5s", failing: true, repeats: true},
		{name: "panics at one event", way: testplugin.Good, lane: batches, config: ", panic: e-33, batch: 50"},
		{name: "gives too few outcomes", way: testplugin.Good, lane: batches, config: ", few: e-33, batch: 50"},
		{name: "ignores a deadline", way: testplugin.Good, lane: ", timeout: 300ms", config: ", deaf: e-33", repeats: true},
		{name: "leaks memory", way: testplugin.Good, lane: ", process: {max_memory: 160MiB}", config: ", leak: 4MiB, slow: 10ms", failing: true},
		{name: "sends 5 MiB back", way: testplugin.Good, lane: batches, config: ", answer: 256KiB, batch: 20"},
		{name: "does not end when it is told to", way: testplugin.Stubborn},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := start(t, t.TempDir(), manual+pluginLane(test.way, test.lane, test.config))
			d.postMany(events)
			eventually(t, "nothing waits", func() bool { return d.plug().Backlog == 0 })
			f, got := d.plug(), d.delivered()
			for n := range events {
				id := "e-" + strconv.Itoa(n)
				switch times := got[id]; {
				case id == test.dead && times > 0:
					t.Errorf("%s should be a dead letter and was delivered", id)
				case id != test.dead && times == 0:
					t.Errorf("%s is lost", id)
				case times > 1 && !test.repeats:
					t.Errorf("%s was delivered %d times", id, times)
				}
			}
			if f.Breaker != "closed" {
				t.Errorf("the breaker is %s: %s", f.Breaker, f.BreakerReason)
			}
			if failed := f.Process.Reason != ""; failed != test.failing {
				t.Errorf("the plugin: %+v", f.Process)
			}
			checkDead(t, d, test.dead, test.reason)
			pid := f.Process.PID
			d.stop()
			if pid != 0 && !gone(pid) {
				t.Errorf("process %d is still there", pid)
			}
		})
	}
}

// checkDead expects one dead letter, or none if id is empty.
func checkDead(t *testing.T, d *daemon, id, reason string) {
	t.Helper()
	var letters []admin.DeadLetter
	eventually(t, "the dead letter is on disk", func() (there bool) {
		var err error
		if letters, err = d.DeadLetters(t.Context(), admin.DeadLetterQuery{}); err != nil {
			t.Fatal(err)
		}
		return id == "" || len(letters) > 0
	})
	switch {
	case id == "" && len(letters) > 0:
		t.Errorf("dead letters %+v, want none", letters)
	case id != "" && (len(letters) != 1 || letters[0].ID != id || !strings.Contains(letters[0].Reason, reason)):
		t.Errorf("dead letters %+v, want %s because of %q", letters, id, reason)
	}
}

// A plugin that is killed while it delivers loses nothing, and its lane shows
// nothing but the plugin's failure.
func TestPluginKilledWhileDelivering(t *testing.T) {
	t.Parallel()
	const events = 300
	d := start(t, t.TempDir(), manual+pluginLane(testplugin.Good, "", ", slow: 2ms"))
	for kill := range 4 {
		if kill > 0 {
			eventually(t, "it runs", func() bool { return d.plug().Process.Up })
			if err := syscall.Kill(d.plug().Process.PID, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
		for n := range events / 4 {
			body := cloudEvent("e-" + strconv.Itoa(kill*events/4+n))
			if got := d.post("/hooks/catalog", body, signed(body)); got != 200 {
				t.Errorf("answered %d", got)
			}
		}
	}
	eventually(t, "nothing waits", func() bool { return d.plug().Backlog == 0 })
	if got := len(d.delivered()); got != events {
		t.Errorf("%d of %d events have arrived", got, events)
	}
	if f := d.plug(); f.DeadLetters != 0 || f.Breaker != "closed" || !strings.Contains(f.Process.Reason, "killed") {
		t.Errorf("%+v, process %+v", f, f.Process)
	}
}

// A plugin that does not start, or answers nothing that is an answer, holds up
// its own lane and nothing else, and its events wait for a better one.
func TestPluginThatDoesNotWork(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ way, warning string }{
		{testplugin.Exits, "the plugin does not run"},
		{testplugin.Newer, "speaks version 2 of the plugin contract"},
		{testplugin.Garbage, "the plugin answered with an error"},
	} {
		t.Run(test.way, func(t *testing.T) {
			t.Parallel()
			const events = 25
			d := start(t, t.TempDir(), manual+archive+pluginLane(test.way, "", ""))
			d.postMany(events)
			eventually(t, "the warning", func() bool {
				for _, w := range d.Status().Warnings {
					if w.Key == "forwarders.plug" && strings.Contains(w.Message, test.warning) {
						return true
					}
				}
				return false
			})
			if f := d.plug(); f.Backlog != events || f.DeadLetters != 0 {
				t.Errorf("%+v", f)
			}
			d.write(manual + archive + pluginLane(testplugin.Good, "", ""))
			if _, err := d.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a better plugin delivers everything", func() bool { return len(d.delivered()) == events && d.plug().Backlog == 0 })
		})
	}
}

// A reload to a plugin that does not start, or refuses its configuration, is
// refused, and the former one goes on.
func TestReloadToAPluginThatDoesNotWork(t *testing.T) {
	t.Parallel()
	d := start(t, t.TempDir(), manual+pluginLane(testplugin.Good, "", ""))
	eventually(t, "it runs", func() bool { return d.plug().Process.Up })
	for _, test := range []struct{ lane, want string }{
		{pluginLane(testplugin.Exits, "", ""), `"plug": it ended before its handshake with exit status 3 (its last words: cannot find my destination's library)`},
		{pluginLane(testplugin.Good, "", ", bach: 3"), `bach: unknown key, did you mean "batch"?`},
		{pluginLane(testplugin.Silent, ", process: {start_timeout: 300ms}", ""), "no handshake within 300ms"},
	} {
		d.write(manual + test.lane)
		if _, err := d.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
	d.postMany(3)
	eventually(t, "the former plugin delivers", func() bool { return len(d.delivered()) == 3 })
}

// A built-in forwarder in a process of its own delivers as ever.
func TestIsolatedBuiltin(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	d := start(t, t.TempDir(), manual+fmt.Sprintf("  plug: {plugin: http, isolate: true, config: {url: %q, pass_signatures: true}}\n", s.URL))
	d.postMany(20)
	eventually(t, "all are delivered", func() bool { return len(s.got()) == 20 && d.plug().Backlog == 0 })
	for id, body := range s.got() {
		if string(body) != string(cloudEvent(id)) {
			t.Errorf("%s was altered on the way: %s", id, body)
		}
		if s.headers[id].Get("X-Akeneo-Signature-Primary") == "" {
			t.Errorf("%s has lost its signature", id)
		}
	}
	if p := d.plug().Process; p == nil || !p.Up || p.PID == os.Getpid() || p.Name != "http" {
		t.Errorf("%+v", p)
	}
}

// A plugin that somebody runs by hand, under a debugger for instance, takes the
// place of a forwarder's own; the door never notices that it comes and goes.
func TestAttach(t *testing.T) {
	t.Parallel()
	sockets, err := os.MkdirTemp("", "pimrelay-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	address := "unix://" + filepath.Join(sockets, "x.sock")
	d := startOn(t, listen(t), t.TempDir(), manual+pluginLane(testplugin.Exits, "", ""), func(o *relay.Options) { o.Attach = map[string]string{"plug": address} })
	d.postMany(5)
	if f := d.plug(); f.Backlog != 5 || f.Process.Up {
		t.Errorf("%+v, process %+v", f, f.Process)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- serve.Service(ctx, testplugin.New, address, 0o600, slog.New(slog.DiscardHandler))
	}()
	eventually(t, "all are delivered", func() bool { return len(d.delivered()) == 5 && d.plug().Backlog == 0 })
	d.stop()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A plugin that ends at every event, because its destination is away, costs no
// event: the backlog waits, the lane shows why, and with a better plugin
// everything arrives.
func TestPluginThatEndsAtEveryEvent(t *testing.T) {
	t.Parallel()
	const events = 12
	d := start(t, t.TempDir(), manual+pluginLane(testplugin.Good, "", fmt.Sprintf(", exit: %q", testplugin.Any)))
	d.postMany(events)
	eventually(t, "it has ended often enough", func() bool {
		ends, err := os.ReadFile(filepath.Join(d.dir, "out.ends"))
		return err == nil && strings.Count(string(ends), "\n") > 12
	})
	if f := d.plug(); f.Backlog != events || f.DeadLetters != 0 || f.Breaker != "closed" {
		t.Errorf("%+v", f)
	}
	checkDead(t, d, "", "")
	d.write(manual + pluginLane(testplugin.Good, "", ""))
	if _, err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "everything is delivered", func() bool { return len(d.delivered()) == events && d.plug().Backlog == 0 })
}

// A reload that waits for a plugin does not hold up the end of the relay.
func TestReloadDoesNotHoldUpTheEnd(t *testing.T) {
	t.Parallel()
	d := start(t, t.TempDir(), manual+pluginLane(testplugin.Good, "", ""))
	eventually(t, "it runs", func() bool { return d.plug().Process.Up })
	d.write(manual + pluginLane(testplugin.Silent, ", process: {start_timeout: 10m}", ""))
	reloaded := make(chan error, 1)
	go func() {
		_, err := d.Reload(context.Background())
		reloaded <- err
	}()
	began := time.Now()
	eventually(t, "the reload waits for the plugin", func() bool { return len(processes(t, testplugin.Silent)) > 0 })
	d.stop()
	if err := <-reloaded; err == nil {
		t.Error("the reload has succeeded")
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("the end took %s", took)
	}
}

// processes are the children of this one that are the test plugin, started in
// that way.
func processes(t *testing.T, way string) (pids []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		line, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(line), strings.Join(testplugin.Command(way), "\x00")) {
			pids = append(pids, file)
		}
	}
	return pids
}

// Whoever asks for it learns whether a plugin reaches its destination, and nobody
// else touches one.
func TestTryPlugins(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := &daemon{t: t, dir: dir}
	file := d.write(strings.ReplaceAll(manual, "{address}", "127.0.0.1:0") + pluginLane(testplugin.Good, "", ""))
	cfg, err := relay.Load(file, nil, plugins.Builtin)
	if err != nil {
		t.Fatal(err)
	}
	for _, health := range []bool{false, true} {
		reports, err := relay.TryPlugins(t.Context(), file, nil, cfg, nil, health)
		if err != nil || len(reports) != 1 || reports[0].Description.Name != "test" {
			t.Fatalf("%+v, %v", reports, err)
		}
		if told := reports[0].Health != nil; told != health {
			t.Errorf("asked %v: %v", health, reports[0].Health)
		}
	}
}

// A reload replaces a plugin by another one of the same name; the metrics are the
// new one's, whatever the former one does at its end.
func TestMetricsAfterAReload(t *testing.T) {
	t.Parallel()
	d := start(t, t.TempDir(), manual+pluginLane(testplugin.Good, "", ""))
	up := func() bool {
		resp, err := http.Get("http://" + d.Status().Telemetry + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(text), `pimrelay_pluginhost_up{forwarder="plug"} 1`)
	}
	eventually(t, "it is up", up)
	d.write(manual + pluginLane(testplugin.Good, ", max_in_flight: 2", ""))
	if _, err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new one is up", up)
}
