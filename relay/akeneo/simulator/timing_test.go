package simulator

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// timed runs a test in a bubble with its own clock, where an hour takes no time.
func timed(t *testing.T, opts Options, test func(t *testing.T, p *platform)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform(t, opts)
		stop := p.run()
		test(t, p)
		stop()
	})
}

func TestRetriesThenDrop(t *testing.T) {
	t.Parallel()
	for _, speed := range []float64{1, 60} {
		// One event has one attempt after the other, so nothing is shared.
		var attempts []time.Duration
		var start time.Time
		refusing := destination(func(*http.Request) (int, error) {
			attempts = append(attempts, time.Since(start))
			return 500, nil
		})
		timed(t, Options{Speed: speed, transport: refusing}, func(t *testing.T, p *platform) {
			p.subscribe(hook, updated)
			start = time.Now()
			p.fire(Firing{Type: updated})
			synctest.Wait()
			time.Sleep(24 * time.Hour)
			p.idle()
			var want []time.Duration
			for _, m := range []float64{0, 5, 15, 35} {
				want = append(want, time.Duration(m*float64(time.Minute)/speed))
			}
			if diff := cmp.Diff(want, attempts); diff != "" {
				t.Errorf("attempts at speed %v (-want +got):\n%s", speed, diff)
			}
			if diff := cmp.Diff(SubscriptionReport{Status: "active", Fired: 1, Sent: 1, Attempts: 4, Retried: 1, Dropped: 1,
				Answers: map[string]int{"500": 4}}, p.only()); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRetrySucceedsWithTheSameBytes(t *testing.T) {
	t.Parallel()
	timed(t, Options{KeepBodies: true, transport: answers(503, 400, 401, 200)}, func(t *testing.T, p *platform) {
		p.subscribe(hook, updated)
		p.fire(Firing{Type: updated})
		time.Sleep(35 * time.Minute)
		p.idle()
		if diff := cmp.Diff(SubscriptionReport{Status: "active", Fired: 1, Sent: 1, Attempts: 4, Acknowledged: 1, Retried: 1,
			Answers: map[string]int{"503": 1, "400": 1, "401": 1, "200": 1}}, p.only()); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		if got := p.sim.Acknowledged(); len(got) != 1 || got[0].Type != updated || !strings.Contains(string(got[0].Body), got[0].ID) {
			t.Errorf("acknowledged: %+v", got)
		}
	})
}

func TestThrottling(t *testing.T) {
	t.Parallel()
	t.Run("uses up retries", func(t *testing.T) {
		t.Parallel()
		timed(t, Options{transport: answers(429)}, func(t *testing.T, p *platform) {
			p.subscribe(hook, updated)
			p.fire(Firing{Type: updated, Count: 20})
			time.Sleep(10 * time.Hour)
			p.idle()
			want := SubscriptionReport{Status: "active", Fired: 20, Sent: 20, Attempts: 80, Retried: 20, Dropped: 20, Answers: map[string]int{"429": 80}}
			if diff := cmp.Diff(want, p.only()); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("keeps retries for an hour and then counts", func(t *testing.T) {
		t.Parallel()
		timed(t, Options{Readings: Readings{ThrottleKeepsRetries: true}, transport: answers(429)}, func(t *testing.T, p *platform) {
			p.subscribe(hook, updated)
			p.fire(Firing{Type: updated, Count: 10})
			time.Sleep(59 * time.Minute)
			if got := p.only(); got.Status != "active" || got.Waiting != 10 || got.Attempts < 300 {
				t.Errorf("after 59 minutes: %+v", got)
			}
			time.Sleep(5 * time.Minute)
			if got := p.only(); got.Status != "suspended" || got.Reason != "Success rate dropped below 90%" || got.Lost != 10 {
				t.Errorf("after more than an hour: %+v", got)
			}
		})
	})
}

func TestPaceFollowsAnswers(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex // guards times and code
	var times []time.Time
	code := 200
	sink := destination(func(*http.Request) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		times = append(times, time.Now())
		return code, nil
	})
	timed(t, Options{transport: sink}, func(t *testing.T, p *platform) {
		p.subscribe(hook, updated)
		p.fire(Firing{Type: updated, Count: 500})
		p.idle()
		mu.Lock()
		if gap := times[1].Sub(times[0]); gap > 100*time.Millisecond {
			t.Errorf("first gap %v, want at most 100ms", gap)
		}
		if gap := times[499].Sub(times[498]); gap != 10*time.Millisecond {
			t.Errorf("last gap %v, want 10ms", gap)
		}
		code, times = 429, nil
		mu.Unlock()
		p.fire(Firing{Type: updated, Count: 50})
		time.Sleep(4 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if gap := times[49].Sub(times[48]); gap != time.Second {
			t.Errorf("gap while throttled %v, want 1s", gap)
		}
	})
}

func TestSuspendsAtOnce(t *testing.T) {
	t.Parallel()
	for code, reason := range map[int]string{404: "Destination not found (404)", 302: "Destination redirected (302)", 308: "Destination redirected (308)"} {
		timed(t, Options{Pace: 1, transport: answers(500, code)}, func(t *testing.T, p *platform) {
			path := p.subscribe(hook, updated)
			p.fire(Firing{Type: updated, Count: 10})
			synctest.Wait()
			time.Sleep(2 * time.Second)
			p.idle()
			p.fire(Firing{Type: updated, Count: 5})
			want := SubscriptionReport{Status: "suspended", Reason: reason, Fired: 10, Sent: 2, Attempts: 2, Lost: 10, Missed: 5,
				Answers: map[string]int{"500": 1, fmt.Sprint(code): 1}}
			if diff := cmp.Diff(want, p.only()); diff != "" {
				t.Errorf("%d (-want +got):\n%s", code, diff)
			}
			if _, answer := p.call("GET", path, ""); !strings.Contains(answer, `"status":"suspended"`) {
				t.Errorf("%d: the API shows %s", code, answer)
			}
			if status, _ := p.call("POST", path+"/resume", ""); status != 202 {
				t.Errorf("%d: resume gave %d", code, status)
			}
		})
	}
}

func TestSuccessRateSuspends(t *testing.T) {
	t.Parallel()
	codes := append(make([]int, 0, 20), 200, 200, 200, 200, 200, 200, 200, 200, 500, 500, 200)
	timed(t, Options{Pace: 100, Concurrency: 1, transport: answers(codes...)}, func(t *testing.T, p *platform) {
		path := p.subscribe(hook, updated)
		p.fire(Firing{Type: updated, Count: 9})
		time.Sleep(time.Minute)
		if got := p.only(); got.Status != "active" {
			t.Errorf("1 of 9 failed: %+v", got)
		}
		p.fire(Firing{Type: updated})
		p.idle()
		if got := p.only(); got.Status != "suspended" || got.Lost != 2 || got.Acknowledged != 8 {
			t.Errorf("2 of 10 failed: %+v", got)
		}
		p.must(202, "POST", path+"/resume", "")
		p.fire(Firing{Type: updated})
		p.idle()
		if got := p.only(); got.Status != "active" || got.Acknowledged != 9 || got.Reason != "" {
			t.Errorf("after the resume: %+v", got)
		}
	})
}

func TestTimeoutIsOnTheWallClock(t *testing.T) {
	t.Parallel()
	hanging := destination(func(r *http.Request) (int, error) {
		<-r.Context().Done()
		return 0, r.Context().Err()
	})
	timed(t, Options{Speed: 3600, transport: hanging}, func(t *testing.T, p *platform) {
		p.subscribe(hook, updated)
		p.fire(Firing{Type: updated})
		time.Sleep(answerTimeout - time.Nanosecond)
		synctest.Wait()
		if got := p.only(); got.Attempts != 1 || len(got.Answers) != 0 {
			t.Errorf("before 5 s: %+v", got)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if diff := cmp.Diff(map[string]int{"destination_timeout": 1}, p.only().Answers); diff != "" {
			t.Errorf("answers after 5 s (-want +got):\n%s", diff)
		}
	})
}

func TestRunFinishesRequestsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		slow := destination(func(r *http.Request) (int, error) {
			select {
			case <-release:
				return 200, nil
			case <-r.Context().Done():
				return 0, r.Context().Err()
			}
		})
		p := newPlatform(t, Options{Pace: 1, transport: slow})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.sim.Run(ctx) }()
		p.subscribe(hook, updated)
		p.fire(Firing{Type: updated, Count: 10})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(release)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if got := p.only(); got.Sent != 1 || got.Acknowledged != 1 || got.Waiting != 9 {
			t.Errorf("after Run: %+v", got)
		}
		if err := p.sim.Idle(t.Context()); err != ErrStopped {
			t.Errorf("Idle after Run: %v, want ErrStopped", err)
		}
	})
}

func TestActivationDelay(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	urls := map[string]int{} // guarded by mu
	sink := destination(func(r *http.Request) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		urls[r.URL.Host]++
		return 200, nil
	})
	timed(t, Options{ActivationDelay: DefaultActivationDelay, Pace: 100, transport: sink}, func(t *testing.T, p *platform) {
		path := p.subscribe("https://old.example.com", updated)
		if fired := p.fire(Firing{Type: updated}); fired.Subscriptions != 0 {
			t.Errorf("before the activation: %+v", fired)
		}
		time.Sleep(DefaultActivationDelay)
		if fired := p.fire(Firing{Type: updated}); fired.Subscriptions != 1 {
			t.Errorf("after the activation: %+v", fired)
		}
		p.idle()
		p.must(200, "PATCH", path, `{"events":["`+deleted+`"],"config":{"url":"https://new.example.com","secret":{"primary":"`+secondarySecret+`"}}}`)
		p.fire(Firing{Type: updated})
		p.fire(Firing{Type: deleted}) // will be of its types, and is not yet
		p.idle()
		time.Sleep(DefaultActivationDelay)
		p.fire(Firing{Type: updated})
		p.fire(Firing{Type: deleted})
		p.idle()
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(map[string]int{"old.example.com": 2, "new.example.com": 1}, urls); diff != "" {
			t.Errorf("deliveries (-want +got):\n%s", diff)
		}
		if got := p.only(); got.Missed != 1 || got.Acknowledged != 3 {
			t.Errorf("report: %+v", got)
		}
	})
}

func TestFireWithRate(t *testing.T) {
	t.Parallel()
	timed(t, Options{Pace: 100, transport: answers(200)}, func(t *testing.T, p *platform) {
		p.subscribe(hook, samples.types...)
		start := time.Now()
		if fired := p.fire(Firing{Count: 50, Rate: 5}); fired != (Fired{50, 1}) {
			t.Errorf("fired %+v", fired)
		}
		p.idle()
		if took := time.Since(start); took < 9800*time.Millisecond || took > 10*time.Second {
			t.Errorf("50 events at 5/s took %v", took)
		}
		if got := p.only(); got.Acknowledged != 50 {
			t.Errorf("report: %+v", got)
		}
	})
}

func TestEveryTypeInTurn(t *testing.T) {
	t.Parallel()
	timed(t, Options{Pace: 100, KeepBodies: true, Concurrency: 1, transport: answers(200)}, func(t *testing.T, p *platform) {
		p.subscribe(hook, samples.types...)
		p.fire(Firing{Count: 20})
		p.fire(Firing{Count: 19})
		p.idle()
		var got []string
		for _, sent := range p.sim.Acknowledged() {
			var e struct{ Type string }
			if err := json.Unmarshal(sent.Body, &e); err != nil || e.Type != sent.Type {
				t.Errorf("body %s of type %s: %v", sent.Body, sent.Type, err)
			}
			got = append(got, e.Type)
		}
		if diff := cmp.Diff(samples.types, got); diff != "" {
			t.Errorf("types (-want +got):\n%s", diff)
		}
	})
}

func TestContinuousRate(t *testing.T) {
	t.Parallel()
	timed(t, Options{Rate: 2, Pace: 100, transport: answers(200)}, func(t *testing.T, p *platform) {
		p.subscribe(hook, samples.types...)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := p.sim.Report().Fired; got < 119 || got > 121 {
			t.Errorf("fired %d in a minute at 2/s", got)
		}
	})
}

func TestSuspensionByUser(t *testing.T) {
	t.Parallel()
	timed(t, Options{Pace: 1, transport: answers(500, 200)}, func(t *testing.T, p *platform) {
		path := p.subscribe(hook, updated)
		p.fire(Firing{Type: updated, Count: 10})
		synctest.Wait()
		time.Sleep(1500 * time.Millisecond) // one failed and waits for a retry, one is done
		p.must(202, "POST", path+"/suspend", "")
		p.fire(Firing{Type: updated})
		p.idle()
		p.must(202, "POST", path+"/resume", "")
		p.fire(Firing{Type: updated})
		p.idle()
		if diff := cmp.Diff(SubscriptionReport{Status: "active", Fired: 11, Sent: 3, Attempts: 3, Acknowledged: 2, Lost: 9, Missed: 1,
			Answers: map[string]int{"500": 1, "200": 2}}, p.only()); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		p.must(200, "DELETE", path, "")
		p.fire(Firing{Type: updated})
		if got := p.only(); got.Status != "deleted" || got.Fired != 11 || got.Missed != 1 {
			t.Errorf("deleted: %+v", got)
		}
	})
}

func TestErrorLogMerges(t *testing.T) {
	t.Parallel()
	timed(t, Options{Pace: 1, transport: answers(500, 500, 200)}, func(t *testing.T, p *platform) {
		p.subscribe(hook, updated)
		p.fire(Firing{Type: updated})
		time.Sleep(2 * time.Minute)
		p.fire(Firing{Type: updated})
		time.Sleep(10 * time.Minute)
		p.idle()
		_, text := p.call("GET", "/api/v1/logs?log_type=error", "")
		var answer struct{ Items []logEntry }
		if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Items) != 1 {
			t.Fatalf("error log: %v in %s", err, text)
		}
		e := answer.Items[0]
		if e.ErrorReason != "destination_failure" || e.ErrorCode != 500 || e.Operation != "failed_to_deliver_event" ||
			e.Documentation != "https://api.akeneo.com/event-platform/logs.html#destination_failure" {
			t.Errorf("entry: %+v", e)
		}
		if got := e.Timestamp.Sub(p.sim.subscriptions[0].created); got != 2*time.Minute {
			t.Errorf("the entry's time is %v after the start, want that of the second failure", got)
		}
	})
}
