package sdktest_test

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/sdktest"
)

// destination is a loopback destination until the end of the test.
func destination(t *testing.T) *sdktest.HTTPDestination {
	t.Helper()
	d, err := sdktest.ListenHTTP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func config(t *testing.T, keys map[string]any) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// subject is a forwarder that posts to a destination of its own.
func subject(t *testing.T, newForwarder func(*slog.Logger) sdk.Forwarder) sdktest.Subject {
	t.Helper()
	d := destination(t)
	return sdktest.Subject{
		New: sdktest.InProcess(newForwarder), Config: config(t, map[string]any{"url": d.URL(), "token": "hunter2"}), Destination: d,
		Faulty: []sdktest.Faulty{{Name: "no url", Config: config(t, map[string]any{"token": "hunter2"}), Field: "url", Secrets: []string{"hunter2"}}},
	}
}

// every chooses all cases.
func every(string) bool { return true }

// run runs the chosen cases and returns the details of those that came out like
// that.
func run(t *testing.T, s sdktest.Subject, status sdktest.Status, chosen func(name string) bool) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, c := range sdktest.Cases() {
		if !chosen(c.Name) {
			continue
		}
		r := c.Run(t.Context(), s)
		if r.Case != c.Name || r.Took <= 0 {
			t.Errorf("%s gives %+v", c.Name, r)
		}
		if r.Status == status {
			out[c.Name] = r.Detail
		}
	}
	return out
}

// A forwarder that does everything right passes each case, and none is left out.
func TestGoodForwarder(t *testing.T) {
	t.Parallel()
	for name, newForwarder := range map[string]sdktest.Maker{"in process": sdktest.InProcess(newPoster), "over gRPC": sdktest.OverGRPC(newPoster)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := subject(t, newPoster)
			s.New = newForwarder
			want := make(map[string]string)
			for _, c := range sdktest.Cases() {
				want[c.Name] = ""
			}
			got := run(t, s, sdktest.Passed, every)
			for name := range got {
				got[name] = "" // what is worth knowing
			}
			if diff := cmp.Diff(want, got); diff != "" {
				for _, status := range []sdktest.Status{sdktest.Failed, sdktest.LeftOut} {
					t.Errorf("%s: %v", status, run(t, s, status, every))
				}
				t.Errorf("cases that pass (-want +got):\n%s", diff)
			}
		})
	}
}

// Without a destination, what needs one is left out and says so.
func TestWithoutDestination(t *testing.T) {
	t.Parallel()
	s := subject(t, newPoster)
	s.Destination = nil
	got := run(t, s, sdktest.LeftOut, every)
	for _, name := range []string{"order", "outcomes", "idempotency-key", "deadline", "cancellation", "drain", "lost-reply", "lossy-destination", "destination-gone"} {
		if !strings.Contains(got[name], "needs a destination") {
			t.Errorf("%s is left out because of %q", name, got[name])
		}
	}
	if failed := run(t, s, sdktest.Failed, every); len(failed) > 0 {
		t.Errorf("failed: %v", failed)
	}
}

func TestCasesAreNamed(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, c := range sdktest.Cases() {
		if c.Name == "" || strings.ContainsAny(c.Name, " _") || c.About == "" || seen[c.Name] {
			t.Errorf("%+v", c)
		}
		seen[c.Name] = true
	}
}
