package relay_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/relay/admin"
)

const archive = `
  archive: {plugin: file, config: {path: "{dir}/events.jsonl"}}
`

func names(d *daemon) []string {
	var all []string
	for _, f := range d.Status().Forwarders {
		all = append(all, f.Name)
	}
	return all
}

// A reload changes what has changed, and nothing is refused or lost meanwhile.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	dir, s := t.TempDir(), newSink(t)
	sinkLane := func(limit int) string {
		return fmt.Sprintf("  sink: {plugin: http, max_in_flight: %d, config: {url: %q}}\n", limit, s.URL)
	}
	d := start(t, dir, manual+archive+sinkLane(2))
	var sent, refused atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for worker := range 4 {
		load.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				body := cloudEvent(fmt.Sprintf("%d-%d", worker, n))
				if d.post("/hooks/catalog", body, signed(body)) != 200 {
					refused.Add(1)
				}
				sent.Add(1)
			}
		})
	}
	const extra = `  extra: {plugin: file, start_from: beginning, config: {path: "{dir}/extra.jsonl"}}
`
	for _, step := range []struct {
		forwarders string
		changes    []string
		names      []string
	}{
		{archive + sinkLane(5), []string{"forwarder sink changed"}, []string{"archive", "sink"}},
		{archive + sinkLane(5) + extra, []string{"forwarder extra added"}, []string{"archive", "extra", "sink"}},
		{archive + sinkLane(5) + extra, nil, []string{"archive", "extra", "sink"}},
		{archive + sinkLane(1), []string{"forwarder extra removed", "forwarder sink changed"}, []string{"archive", "sink"}},
		{archive + sinkLane(8) + extra, []string{"forwarder extra added", "forwarder sink changed"}, []string{"archive", "extra", "sink"}},
	} {
		d.write(manual + step.forwarders)
		changes, err := d.Reload(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(changes)
		if diff := cmp.Diff(step.changes, changes); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(step.names, names(d)); diff != "" {
			t.Errorf("forwarders (-want +got):\n%s", diff)
		}
	}
	close(stop)
	load.Wait()
	if refused.Load() > 0 || sent.Load() == 0 {
		t.Errorf("%d of %d deliveries were refused", refused.Load(), sent.Load())
	}
	eventually(t, "everything is delivered", func() bool {
		return !slices.ContainsFunc(d.Status().Forwarders, func(f admin.Forwarder) bool { return f.Backlog > 0 })
	})
	d.stop()
	if got := len(s.got()); got != int(sent.Load()) {
		t.Errorf("the sink has %d of %d", got, sent.Load())
	}
	for _, file := range []string{"events.jsonl", "extra.jsonl"} {
		if got := len(lines(read(t, filepath.Join(dir, file)))); got != int(sent.Load()) {
			t.Errorf("%s has %d of %d", file, got, sent.Load())
		}
	}
}

// What cannot be loaded leaves everything as it was, and says so.
func TestReloadKeepsTheLastGoodConfiguration(t *testing.T) {
	t.Parallel()
	d := start(t, t.TempDir(), manual+archive)
	for name, tt := range map[string]struct{ yaml, want string }{
		"unknown key":        {manual + archive + "bogus: 1\n", `unknown key "bogus"`},
		"wrong plugin":       {manual + archive + "  x: {plugin: file}\n", "forwarders.x.config.path"},
		"needs a restart":    {strings.Replace(manual, "/data", "/other", 1) + archive, "data_dir changed, which needs a restart"},
		"another address":    {strings.Replace(manual, "{address}", "127.0.0.1:1", 1) + archive, "listen.address changed"},
		"empty file":         {"", "empty"},
		"telemetry switched": {strings.Replace(manual, `"127.0.0.1:0"`, `""`, 1) + archive, "telemetry.address changed"},
	} {
		d.write(tt.yaml)
		if _, err := d.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		if w := d.Status().Warnings; len(w) != 1 || w[0].Key != "reload" {
			t.Errorf("%s: warnings %+v", name, w)
		}
	}
	body := cloudEvent("1")
	if got := d.post("/hooks/catalog", body, signed(body)); got != 200 {
		t.Errorf("answered %d", got)
	}
	d.write(manual + archive)
	if _, err := d.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	if w := d.Status().Warnings; len(w) != 0 {
		t.Errorf("after a good reload: warnings %+v", w)
	}
}

// The platform goes on for some minutes with the secret and the path that it
// knows.
func TestReloadKeepsAcceptingWhatThePlatformStillUses(t *testing.T) {
	t.Parallel()
	d := start(t, t.TempDir(), manual+archive)
	d.write(strings.NewReplacer("secrets: {primary: "+secret+"}", "path: /new\n    secrets: {primary: another-secret-0123456789}").Replace(manual) + archive)
	changes, err := d.Reload(t.Context())
	if err != nil || !slices.Equal(changes, []string{"source catalog changed"}) {
		t.Fatalf("%v, %v", changes, err)
	}
	for name, tt := range map[string]struct{ path, secret string }{
		"as before":       {"/hooks/catalog", secret},
		"the new path":    {"/new", secret},
		"the new secret":  {"/hooks/catalog", "another-secret-0123456789"},
		"both of the new": {"/new", "another-secret-0123456789"},
	} {
		body := cloudEvent(name)
		if got := d.post(tt.path, body, signedWith(tt.secret, body)); got != 200 {
			t.Errorf("%s: answered %d", name, got)
		}
	}
	body := cloudEvent("x")
	if got := d.post("/new", body, signedWith("a-third-secret-0123456789", body)); got != 429 {
		t.Errorf("a secret that was never configured: answered %d", got)
	}
}

// A source under another name goes on at its path, with what the platform knows.
func TestRenamedSourceAcceptsTheOldSecret(t *testing.T) {
	t.Parallel()
	d := start(t, t.TempDir(), manual+archive)
	d.write(strings.NewReplacer("catalog:", "products:", "secrets: {primary: "+secret+"}", "path: /hooks/catalog\n    secrets: {primary: another-secret-0123456789}").Replace(manual) + archive)
	if _, err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, known := range []string{secret, "another-secret-0123456789"} {
		body := cloudEvent(known)
		if got := d.post("/hooks/catalog", body, signedWith(known, body)); got != 200 {
			t.Errorf("signed with %s: answered %d", known, got)
		}
	}
}

// The file is watched: nobody has to say that it has changed.
func TestReloadWhenTheFileChanges(t *testing.T) {
	t.Parallel()
	d := start(t, t.TempDir(), manual+archive)
	d.write(manual + archive + "  more: {plugin: file, config: {path: \"{dir}/more.jsonl\"}}\n")
	eventually(t, "the new forwarder is there", func() bool { return slices.Equal(names(d), []string{"archive", "more"}) })
}
