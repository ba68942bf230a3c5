package relay_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pimrelay/pimrelay/relay/admin"
)

// A person finds what was rejected, mends the destination, and sends it again;
// replays what is stored; and makes a forwarder stand still.
func TestDeadLettersReplayAndPause(t *testing.T) {
	t.Parallel()
	var mended atomic.Bool
	arrived := make(chan string, 100)
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if bytes.Contains(body, []byte(`"bad`)) && !mended.Load() {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, "sku is missing")
			return
		}
		arrived <- r.Header.Get("Idempotency-Key")
	}))
	defer sink.Close()
	dir := t.TempDir()
	d := start(t, dir, manual+`
  shop: {plugin: http, order_by: event.entity, config: {url: "`+sink.URL+`"}}
`)
	client, ctx := admin.NewClient(filepath.Join(dir, "data")), t.Context()
	for _, id := range []string{"good", "bad1", "bad2"} {
		if got := d.post("/hooks/catalog", cloudEvent(id), signed(cloudEvent(id))); got != 200 {
			t.Fatalf("%s answered %d", id, got)
		}
	}
	if got := <-arrived; got != "good" {
		t.Fatalf("%s arrived", got)
	}
	var letters []admin.DeadLetter
	eventually(t, "both are dead letters", func() bool {
		var err error
		if letters, err = client.DeadLetters(ctx, admin.DeadLetterQuery{Forwarder: "shop", Reason: "422"}); err != nil {
			t.Fatal(err)
		}
		return len(letters) == 2
	})
	detail, err := client.DeadLetter(ctx, letters[1].Number)
	if err != nil || detail.Answer != "sku is missing" || detail.Body != string(cloudEvent("bad1")) && detail.Body != string(cloudEvent("bad2")) {
		t.Errorf("detail %+v, %v", detail, err)
	}
	if _, err := client.DeadLetter(ctx, 999); err == nil || !strings.Contains(err.Error(), "dead letter 999") {
		t.Errorf("one that is not there: %v", err)
	}

	mended.Store(true)
	if n, err := client.RetryDeadLetters(ctx, admin.DeadLetterQuery{Numbers: []int64{letters[0].Number}}); err != nil || n.Count != 1 {
		t.Errorf("retry: %+v, %v", n, err)
	}
	if got := <-arrived; got != letters[0].ID {
		t.Errorf("%s arrived, want %s", got, letters[0].ID)
	}
	if n, err := client.DiscardDeadLetters(ctx, admin.DeadLetterQuery{Forwarder: "shop"}); err != nil || n.Count != 1 {
		t.Errorf("discard: %+v, %v", n, err)
	}
	eventually(t, "no dead letters", func() bool { return d.Status().Forwarders[0].DeadLetters == 0 })

	if _, err := client.PauseForwarder(ctx, "shop"); err != nil {
		t.Fatal(err)
	}
	if n, err := client.Replay(ctx, admin.ReplayQuery{Forwarder: "shop", IDs: []string{"good"}}); err != nil || n.Count != 1 {
		t.Errorf("replay: %+v, %v", n, err)
	}
	d.post("/hooks/catalog", cloudEvent("new"), signed(cloudEvent("new")))
	if f := d.Status().Forwarders[0]; !f.Paused || f.Backlog != 2 || len(arrived) > 0 {
		t.Errorf("while paused: %+v, %d arrived", f, len(arrived))
	}
	if _, err := d.Reload(ctx); err != nil { // a reload does not end a pause
		t.Fatal(err)
	}
	if _, err := client.ResumeForwarder(ctx, "shop"); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{<-arrived: true, <-arrived: true}
	if !got["good"] || !got["new"] {
		t.Errorf("after the pause: %v", got)
	}
	if _, err := client.PauseForwarder(ctx, "nobody"); err == nil || !strings.Contains(err.Error(), `forwarder "nobody": not known, there are shop`) {
		t.Errorf("another forwarder: %v", err)
	}
}

// A forwarder under another name goes on at its place.
func TestRenamedForwarder(t *testing.T) {
	t.Parallel()
	dir, s := t.TempDir(), newSink(t)
	s.set(503)
	lane := func(name, more string) string {
		return manual + "  " + name + ": {plugin: http, retry: {initial: 50ms, max: 100ms}, config: {url: \"" + s.URL + "\"}" + more + "}\n"
	}
	d := start(t, dir, lane("old", ""))
	for _, id := range []string{"1", "2", "3"} {
		d.post("/hooks/catalog", cloudEvent(id), signed(cloudEvent(id)))
	}
	<-s.arrived
	if err := d.PauseForwarder("old", true); err != nil {
		t.Fatal(err)
	}
	d.write(lane("new", ", renamed_from: old"))
	changes, err := d.Reload(t.Context())
	if err != nil || len(changes) != 2 {
		t.Fatalf("%v, %v", changes, err)
	}
	s.set(200)
	if f := d.Status().Forwarders; len(f) != 1 || !f[0].Paused || f[0].Backlog != 3 {
		t.Errorf("the pause did not come along: %+v", f)
	}
	if err := d.PauseForwarder("new", false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all arrive", func() bool { return len(s.got()) == 3 })
	if f := d.Status().Forwarders; len(f) != 1 || f[0].Name != "new" {
		t.Errorf("forwarders %+v", f)
	}
}
