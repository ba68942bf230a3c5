package sdktest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pimrelay/pimrelay/sdk/sdktest"
)

// send makes a request on a connection of its own.
func send(ctx context.Context, method, url, body string, header map[string]string) (status int, retryAfter string, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, response.Header.Get("Retry-After"), err
}

func TestHTTPDestinationRecognisesEvents(t *testing.T) {
	t.Parallel()
	one := `{"specversion":"1.0","id":"a"}`
	two := `{"specversion":"1.0","id":"b"}`
	for name, test := range map[string]struct {
		query, body string
		header      map[string]string
		want        []string
	}{
		"idempotency key":       {body: one, header: map[string]string{"Idempotency-Key": "k", "ce-id": "c"}, want: []string{"k"}},
		"encoded":               {header: map[string]string{"Idempotency-Key": "%C3%BC%20x"}, want: []string{"ü x"}},
		"quoted":                {header: map[string]string{"Idempotency-Key": `"k"`}, want: []string{"k"}},
		"ce-id":                 {body: one, header: map[string]string{"ce-id": "c"}, want: []string{"c"}},
		"structured CloudEvent": {body: one, want: []string{"a"}},
		"batch of CloudEvents":  {body: "[" + one + "," + two + "]", want: []string{"a", "b"}},
		"lines of CloudEvents":  {body: one + "\n" + two + "\n", want: []string{"a", "b"}},
		"mentioned in text":     {body: `{"text":"*updated*: sdktest-xy-0001, and sdktest-xy-0002-ü. Bye"}`, want: []string{"sdktest-xy-0001", "sdktest-xy-0002-ü"}},
		"mentioned in the URL":  {query: "?requestId=sdktest-xy-1&x=y", body: `{"text":"hello"}`, want: []string{"sdktest-xy-1"}},
		"nothing":               {body: `{"text":"hello"}`, want: []string{""}},
		"no event amid events":  {body: "[" + one + `,{"id":"b"}]`, want: []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := destination(t)
			if status, _, err := send(t.Context(), http.MethodPost, d.URL()+test.query, test.body, test.header); status != http.StatusOK || err != nil {
				t.Fatalf("answered %d, %v", status, err)
			}
			arrivals, err := d.Arrived()
			var got []string
			for _, a := range arrivals {
				got = append(got, a.Key)
			}
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Errorf("keys (-want +got), %v:\n%s", err, diff)
			}
		})
	}
}

func TestHTTPDestinationBehaves(t *testing.T) {
	t.Parallel()
	for behaviour, want := range map[sdktest.Behaviour]struct {
		status     int
		retryAfter string
		err        error
		arrived    int
	}{
		sdktest.Accept:      {status: 200, arrived: 1},
		sdktest.Slow:        {status: 200, arrived: 1},
		sdktest.Reject:      {status: 422},
		sdktest.Throttle:    {status: 429, retryAfter: "2"},
		sdktest.Fail:        {status: 503},
		sdktest.ResetBefore: {err: syscall.ECONNRESET},
		sdktest.ResetAfter:  {err: syscall.ECONNRESET, arrived: 1},
		sdktest.Gone:        {err: syscall.ECONNREFUSED},
	} {
		t.Run(behaviour.String(), func(t *testing.T) {
			t.Parallel()
			d := destination(t)
			if err := d.Behave(behaviour); err != nil {
				t.Fatal(err)
			}
			status, retryAfter, err := send(t.Context(), http.MethodPost, d.URL(), `{}`, nil)
			arrivals, _ := d.Arrived()
			if status != want.status || retryAfter != want.retryAfter || !errors.Is(err, want.err) || len(arrivals) != want.arrived {
				t.Errorf("answered %d, Retry-After %q, %v, and %d arrived", status, retryAfter, err, len(arrivals))
			}
			if err := d.Behave(sdktest.Accept); err != nil {
				t.Fatal(err)
			}
			if status, _, err := send(t.Context(), http.MethodPost, d.URL(), `{}`, nil); status != http.StatusOK || err != nil {
				t.Errorf("when it is well again: %d, %v", status, err)
			}
		})
	}
}

// A request that hangs takes nothing, and comes to its end with the destination.
func TestHTTPDestinationHangs(t *testing.T) {
	t.Parallel()
	d := destination(t)
	if err := d.Behave(sdktest.Hang); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if status, _, err := send(t.Context(), http.MethodPost, d.URL(), `{}`, nil); err == nil {
				t.Errorf("answered %d", status)
			}
		})
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if arrivals, err := d.Arrived(); len(arrivals) > 0 || err != nil {
		t.Errorf("%d arrived, %v", len(arrivals), err)
	}
}

func TestHTTPDestinationRejectsMarkedEvents(t *testing.T) {
	t.Parallel()
	d := destination(t)
	if err := d.Behave(sdktest.RejectMarked); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]int{"a": 200, "b-reject": 422, "c": 200} {
		if status, _, err := send(t.Context(), http.MethodPost, d.URL(), `{}`, map[string]string{"Idempotency-Key": key}); status != want || err != nil {
			t.Errorf("%s is answered with %d, %v", key, status, err)
		}
	}
	if status, _, err := send(t.Context(), http.MethodGet, d.URL(), "", nil); status != http.StatusOK || err != nil {
		t.Errorf("GET is answered with %d, %v", status, err)
	}
	arrivals, err := d.Arrived()
	sorted := cmpopts.SortSlices(func(a, b sdktest.Arrival) bool { return a.Key < b.Key })
	if diff := cmp.Diff([]sdktest.Arrival{{Key: "a", Payload: []byte("{}")}, {Key: "c", Payload: []byte("{}")}}, arrivals, sorted); diff != "" || err != nil {
		t.Errorf("arrived (-want +got), %v:\n%s", err, diff)
	}
}
