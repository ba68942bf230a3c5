package simulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hook is a destination nothing is sent to.
const hook = "https://hook.example.com/in"

func TestCallerIsChecked(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	good := map[string]string{"X-PIM-URL": testURL + "/", "X-PIM-TOKEN": p.token, "X-PIM-CLIENT-ID": "demo-client"}
	tests := map[string]struct {
		header, value string
		status        int
	}{
		"good":               {"x-pim-url", "https://PIM.example.com", 200},
		"plain http":         {"X-PIM-URL", "http://pim.example.com", 200},
		"other PIM":          {"X-PIM-URL", "https://other.example.com", 401},
		"below the PIM":      {"X-PIM-URL", testURL + "/api", 401},
		"no PIM":             {"X-PIM-URL", "", 401},
		"PIM without scheme": {"X-PIM-URL", "pim.example.com", 401},
		"bearer":             {"X-PIM-TOKEN", "Bearer " + p.token, 401},
		"no token":           {"X-PIM-TOKEN", "", 401},
		"other client":       {"X-PIM-CLIENT-ID", "other", 401},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			req := httptest.NewRequest("GET", testURL+subscribers, nil)
			for name, value := range good {
				req.Header.Set(name, value)
			}
			req.Header.Set(tt.header, tt.value)
			rec := httptest.NewRecorder()
			p.sim.ServeHTTP(rec, req)
			if rec.Code != tt.status {
				t.Errorf("%d %s, want %d", rec.Code, rec.Body, tt.status)
			}
			if tt.status == 401 && !strings.HasPrefix(rec.Body.String(), `{"errors":[{"message":"`) {
				t.Errorf("error body %s", rec.Body)
			}
		})
	}
}

func TestPIMURLOption(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{PIMURL: "https://acme.cloud.akeneo.com/"})
	if status, _ := p.call("GET", subscribers, ""); status != 401 {
		t.Errorf("the request's own address: %d, want 401", status)
	}
	req := httptest.NewRequest("GET", testURL+subscribers, nil)
	req.Header.Set("X-PIM-URL", "https://acme.cloud.akeneo.com")
	req.Header.Set("X-PIM-TOKEN", p.token)
	req.Header.Set("X-PIM-CLIENT-ID", "demo-client")
	rec := httptest.NewRecorder()
	p.sim.ServeHTTP(rec, req)
	if rec.Code != 200 {
		t.Errorf("the PIM's URL: %d %s", rec.Code, rec.Body)
	}
}

// withMember sets a member, deep in a JSON object, and gives the new text.
func withMember(t *testing.T, object, path string, value any) string {
	t.Helper()
	var root map[string]any
	if err := json.Unmarshal([]byte(object), &root); err != nil {
		t.Fatal(err)
	}
	at, steps := root, strings.Split(path, ".")
	for _, step := range steps[:len(steps)-1] {
		if at[step] == nil {
			at[step] = map[string]any{}
		}
		at = at[step].(map[string]any)
	}
	if last := steps[len(steps)-1]; value == absent {
		delete(at, last)
	} else {
		at[last] = value
	}
	text, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// absent removes a member.
const absent = "\x00absent"

func TestSubscriberValidation(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	good := `{"name":"n","contact":{"technical_email":"ops@example.com","notification_channels":["email","webhook"],
		"notification_webhook_url":"https://hook.example.com/n","notification_webhook_secret":"0123456789abcdef"}}`
	path := subscribers + "/" + p.must(201, "POST", subscribers, good)
	_, shown := p.call("GET", path, "")
	if strings.Contains(shown, "0123456789abcdef") || strings.Contains(shown, "secret") {
		t.Errorf("the notification secret is shown: %s", shown)
	}
	for member, values := range map[string][]any{
		"name":                                {"", absent, 1, nil},
		"contact":                             {absent, "x", []int{}},
		"contact.technical_email":             {absent, "", "ops", "Ops <ops@example.com>"},
		"contact.notification_channels":       {[]string{"sms"}, "email"},
		"contact.notification_webhook_url":    {absent, "", "http://hook.example.com", "https://", "::"},
		"contact.notification_webhook_secret": {absent, "", strings.Repeat("x", 15), strings.Repeat("x", 257)},
	} {
		for _, value := range values {
			body := withMember(t, good, member, value)
			if status, answer := p.call("POST", subscribers, body); status != 400 || !strings.HasPrefix(answer, `{"errors":[{"message":"`) {
				t.Errorf("%s = %v: %d %s, want 400", member, value, status, answer)
			}
		}
	}
	for _, body := range []string{"", "x", "null", "[]", good + good} {
		if status, answer := p.call("POST", subscribers, body); status != 400 {
			t.Errorf("body %q: %d %s, want 400", body, status, answer)
		}
	}
}

func TestSubscriberPatchIsPartial(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	path := p.subscriber()
	p.must(200, "PATCH", path, `{"name":"renamed"}`)
	p.must(200, "PATCH", path, `{"contact":{"notification_channels":["webhook"],"notification_webhook_url":"https://hook.example.com","notification_webhook_secret":"0123456789abcdef"}}`)
	_, shown := p.call("GET", path, "")
	for _, part := range []string{`"name":"renamed"`, `"technical_email":"ops@example.com"`, `"notification_channels":["webhook"]`} {
		if !strings.Contains(shown, part) {
			t.Errorf("%s lacks %s", shown, part)
		}
	}
	p.must(200, "PATCH", path, `{"contact":{"notification_channels":[]}}`)
	if _, shown := p.call("GET", path, ""); strings.Contains(shown, "notification_channels") {
		t.Errorf("[] must reset the channels: %s", shown)
	}
	if status, _ := p.call("PATCH", path, `{"name":""}`); status != 400 {
		t.Errorf("an empty name: %d, want 400", status)
	}
	if _, shown := p.call("GET", path, ""); !strings.Contains(shown, "renamed") {
		t.Errorf("a refused PATCH changed something: %s", shown)
	}
}

func TestSubscriptionValidation(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 422} {
		p := newPlatform(t, Options{Readings: Readings{ValidationStatus: status}})
		path := p.subscriber() + "/subscriptions"
		good := withMember(t, subscriptionJSON(hook, updated), "config.headers", map[string]string{"X-Api-Key": "secret value"})
		p.must(201, "POST", path, good)
		p.must(201, "POST", path, withMember(t, good, "config.secret.secondary", ""))
		p.must(201, "POST", path, withMember(t, good, "subject", testURL+"/"))
		six := map[string]string{}
		for i := range 6 {
			six[fmt.Sprint("X-", i)] = ""
		}
		for member, values := range map[string][]any{
			"source":                  {absent, "", "benchmark"},
			"type":                    {absent, "", "kafka", "pubsub"},
			"subject":                 {"https://other.example.com"},
			"events":                  {absent, []string{}, nil, "x", []string{"com.akeneo.pim.v1.product.*"}, []string{updated, updated}, []string{"com.akeneo.pim.v1.unheard-of"}},
			"config":                  {absent, nil, "x"},
			"config.url":              {absent, "", "http://hook.example.com", "https://", "https://a:b@hook.example.com", "https://hook.example.com/#x", "hook.example.com", "::"},
			"config.secret":           {absent, nil},
			"config.secret.primary":   {absent, "", "***redacted***", strings.Repeat("x", 15), strings.Repeat("é", 257)},
			"config.secret.secondary": {nil, "***redacted***", strings.Repeat("x", 257)},
			"config.headers": {six, map[string]string{"Host": "x"}, map[string]string{"x-akeneo-signature-extra": "x"}, map[string]string{"authorization": "x"},
				map[string]string{"X_Y": "x"}, map[string]string{"": "x"}, map[string]string{strings.Repeat("x", 129): "x"},
				map[string]string{"X-Y": "é"}, map[string]string{"X-Y": "a\nb"}, map[string]string{"X-Y": strings.Repeat("x", 257)}},
			"filter":                  {strings.Repeat("x", 501), 1},
			"send_product_identifier": {"yes"},
			"options":                 {[]int{}, "x"},
		} {
			for _, value := range values {
				got, answer := p.call("POST", path, withMember(t, good, member, value))
				if got != status || !strings.HasPrefix(answer, `{"errors":[{"message":"`) {
					t.Errorf("%s = %v: %d %s, want %d", member, value, got, answer, status)
				}
			}
		}
	}
}

func TestContentTypeOfPayload(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	req := httptest.NewRequest("POST", testURL+subscribers, strings.NewReader(`{"name":"n","contact":{"technical_email":"ops@example.com"}}`))
	req.Header.Set("X-PIM-URL", testURL)
	req.Header.Set("X-PIM-TOKEN", p.token)
	req.Header.Set("X-PIM-CLIENT-ID", "demo-client")
	rec := httptest.NewRecorder()
	p.sim.ServeHTTP(rec, req)
	if rec.Code != 400 || !strings.Contains(rec.Body.String(), "application/json") {
		t.Errorf("no content type: %d %s, want 400", rec.Code, rec.Body)
	}
}

func TestSubscriptionShown(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	path := p.subscriber() + "/subscriptions"
	one := path + "/" + p.must(201, "POST", path, `{"source":"pim","type":"https","events":["`+updated+`"],"filter":"not user=\"x\"",
		"send_product_identifier":true,"options":{"a":1},"config":{"url":"`+hook+`","headers":{"X-Key":"hidden"},"secret":{"primary":"`+primarySecret+`","secondary":""}}}`)
	_, text := p.call("GET", one, "")
	var got map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"id", "subscriber_id", "created_at", "updated_at"} {
		if got[name] == "" {
			t.Errorf("%s is empty in %s", name, text)
		}
		delete(got, name)
	}
	want := map[string]any{
		"config": map[string]any{"url": hook, "headers": map[string]any{"X-Key": redacted}, "secret": map[string]any{"primary": redacted}},
		"events": []any{updated}, "filter": `not user="x"`, "send_product_identifier": true, "options": map[string]any{"a": 1.0},
		"source": "pim", "subject": testURL, "status": "active", "type": "https",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("subscription (-want +got):\n%s", diff)
	}
	p.must(200, "PATCH", one, `{"filter":"","send_product_identifier":false}`)
	_, text = p.call("GET", one, "")
	if strings.Contains(text, `"filter"`) || !strings.Contains(text, `"send_product_identifier":false`) {
		t.Errorf("after the PATCH: %s", text)
	}
}

func TestPatchConfig(t *testing.T) {
	t.Parallel()
	const onlyURL = `{"config":{"url":"https://new.example.com"}}`
	strict := newPlatform(t, Options{})
	if status, answer := strict.call("PATCH", strict.subscribe(hook, updated), onlyURL); status != 400 || !strings.Contains(answer, "config.secret.primary") {
		t.Errorf("replacing: %d %s, want 400", status, answer)
	}
	merging := newPlatform(t, Options{Readings: Readings{PatchMerges: true}})
	path := merging.subscribe(hook, updated)
	merging.must(200, "PATCH", path, `{"config":{"headers":{"X-A":"1"}}}`)
	merging.must(200, "PATCH", path, `{"config":{"headers":{"X-B":"2"}}}`)
	merging.must(200, "PATCH", path, onlyURL)
	set := merging.sim.subscriptions[0].declared
	if set.url != "https://new.example.com" || set.primary != primarySecret || len(set.headers) != 2 {
		t.Errorf("merged settings: %+v", *set)
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	path := p.subscribe(hook, updated)
	owner := path[:strings.Index(path, "/subscriptions")]
	for i, step := range []struct {
		method, path string
		status       int
	}{
		{"POST", path + "/resume", 409},
		{"POST", path + "/suspend", 202},
		{"POST", path + "/suspend", 409},
		{"POST", path + "/resume", 202},
		{"DELETE", path, 200},
		{"DELETE", path, 404},
		{"GET", path, 404},
		{"PATCH", path, 404},
		{"POST", path + "/suspend", 404},
		{"POST", path + "/resume", 404},
		{"GET", owner + "/subscriptions", 200},
		{"DELETE", owner, 200},
		{"DELETE", owner, 404},
		{"GET", owner, 404},
		{"PATCH", owner, 404},
		{"GET", owner + "/subscriptions", 404},
		{"POST", owner + "/subscriptions", 404},
		{"GET", subscribers, 200},
		{"GET", "/api/v1/subscriptions", 404},
		{"PUT", subscribers, 404},
	} {
		if status, answer := p.call(step.method, step.path, ""); status != step.status {
			t.Errorf("step %d, %s %s: %d %s, want %d", i, step.method, step.path, status, answer, step.status)
		}
	}
}

func TestEmptyLists(t *testing.T) {
	t.Parallel()
	for null, want := range map[bool][2]string{false: {"[]", `{"items":[]}`}, true: {"null", `{"items":null}`}} {
		p := newPlatform(t, Options{Readings: Readings{NullLists: null}})
		if _, got := p.call("GET", subscribers, ""); got != want[0] {
			t.Errorf("subscribers: %s, want %s", got, want[0])
		}
		if _, got := p.call("GET", p.subscriber()+"/subscriptions", ""); got != want[0] {
			t.Errorf("subscriptions: %s, want %s", got, want[0])
		}
		if _, got := p.call("GET", "/api/v1/logs", ""); got != want[1] {
			t.Errorf("logs: %s, want %s", got, want[1])
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	var owner string
	for range maxSubscribers {
		owner = p.subscriber()
	}
	if status, _ := p.call("POST", subscribers, `{"name":"n","contact":{"technical_email":"ops@example.com"}}`); status != 409 {
		t.Errorf("21st subscriber: %d, want 409", status)
	}
	for range maxSubscriptions {
		p.must(201, "POST", owner+"/subscriptions", subscriptionJSON(hook, updated))
	}
	status, answer := p.call("POST", owner+"/subscriptions", subscriptionJSON(hook, updated))
	if status != 409 {
		t.Errorf("21st subscription: %d %s, want 409", status, answer)
	}
	p.must(200, "DELETE", owner, "")
	p.must(200, "GET", p.subscriber(), "")
}

func TestLogs(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	path := p.subscribe(hook, updated)
	p.must(200, "PATCH", path, `{"config":{"url":"`+hook+`","secret":{"primary":"`+secondarySecret+`"},"headers":{"X-Key":"hidden"}}}`)
	p.must(202, "POST", path+"/suspend", "")
	p.must(202, "POST", path+"/resume", "")
	p.must(200, "DELETE", path, "")
	operations := func(query string) []string {
		t.Helper()
		status, text := p.call("GET", "/api/v1/logs"+query, "")
		if status != 200 {
			t.Fatalf("%s: %d %s", query, status, text)
		}
		if strings.Contains(text, primarySecret) || strings.Contains(text, secondarySecret) || strings.Contains(text, "hidden") {
			t.Errorf("a secret is in the log: %s", text)
		}
		var answer struct{ Items []struct{ Operation string } }
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			t.Fatal(err)
		}
		names := []string{}
		for _, item := range answer.Items {
			names = append(names, item.Operation)
		}
		return names
	}
	want := []string{"subscription_created", "subscription_updated", "subscription_suspended_by_the_user", "subscription_resumed", "subscription_deleted"}
	reversed := slices.Clone(want)
	slices.Reverse(reversed)
	id := path[strings.LastIndex(path, "/")+1:]
	for query, want := range map[string][]string{
		"":                                  reversed,
		"?order=desc&limit=2":               reversed[:2],
		"?order=asc&log_type=action":        want,
		"?log_type=error":                   {},
		"?subscription_id=" + id:            reversed,
		"?subscription_id=nothing&limit=10": {},
	} {
		if diff := cmp.Diff(want, operations(query)); diff != "" {
			t.Errorf("logs%s (-want +got):\n%s", query, diff)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=x", "?order=up", "?log_type=x"} {
		if status, _ := p.call("GET", "/api/v1/logs"+query, ""); status != 400 {
			t.Errorf("logs%s: %d, want 400", query, status)
		}
	}
}

func TestControlRoutes(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, Options{})
	p.subscribe(hook, updated, deleted)
	post := func(body string) (int, string) {
		rec := httptest.NewRecorder()
		p.sim.ServeHTTP(rec, httptest.NewRequest("POST", testURL+"/simulator/events", strings.NewReader(body)))
		return rec.Code, strings.TrimSpace(rec.Body.String())
	}
	for body, want := range map[string]string{
		`{"type":"` + updated + `"}`: `{"fired":1,"subscriptions":1}`,
		`{"type":"` + updated + `","count":3,"data":{"product":{"uuid":"x"}}}`: `{"fired":3,"subscriptions":1}`,
		`{"type":"com.akeneo.pim.v1.family.created","count":2,"data":{}}`:      `{"fired":2,"subscriptions":0}`,
		`{"count":39,"data":null}`: `{"fired":39,"subscriptions":1}`,
	} {
		if status, got := post(body); status != 202 || got != want {
			t.Errorf("%s: %d %s, want 202 %s", body, status, got, want)
		}
	}
	for _, body := range []string{
		``, `x`, `{"type":"nothing"}`, `{"count":-1}`, `{"count":1000001}`, `{"rate":-1}`, `{"data":{"a":1}}`,
		`{"type":"` + updated + `","data":[]}`, `{"type":"` + updated + `","data":"x"}`,
	} {
		if status, got := post(body); status != 400 {
			t.Errorf("%s: %d %s, want 400", body, status, got)
		}
	}
	rec := httptest.NewRecorder()
	p.sim.ServeHTTP(rec, httptest.NewRequest("GET", testURL+"/simulator/report", nil))
	var report Report
	if err := json.Unmarshal(rec.Body.Bytes(), &report); err != nil || rec.Code != 200 {
		t.Fatalf("report: %d %s", rec.Code, rec.Body)
	}
	if sub := report.Subscriptions[0]; report.Fired != 45 || sub.Fired != 6 || sub.Waiting != 6 || sub.URL != hook {
		t.Errorf("report: %s", rec.Body)
	}
	rec = httptest.NewRecorder()
	p.sim.ServeHTTP(rec, httptest.NewRequest("GET", testURL+"/nothing", nil))
	if rec.Code != 404 {
		t.Errorf("unknown route: %d", rec.Code)
	}
}

// FuzzManagementAPI sends arbitrary bodies to every route that reads one: the
// simulator refuses or accepts, and what it accepted it can show and send.
func FuzzManagementAPI(f *testing.F) {
	f.Add([]byte(subscriptionJSON(hook, updated)))
	f.Add([]byte(`{"name":"n","contact":{"technical_email":"ops@example.com"}}`))
	f.Add([]byte(`{"type":"` + updated + `","data":{"product":{"identifier":1}}}`))
	f.Add([]byte(`{"config":{"secret":null,"headers":{"A":null}},"options":null}`))
	f.Add([]byte(`{"grant_type":"password","username":"demo-user","password":"demo-password"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		p := newPlatform(t, Options{})
		owner := p.subscriber()
		parent := owner + "/subscriptions"
		one := parent + "/" + p.must(201, "POST", parent, subscriptionJSON(hook, slices.Collect(maps.Keys(samples.byType))...))
		for path, method := range map[string]string{
			subscribers: "POST", owner: "PATCH", parent: "POST", one: "PATCH", "/simulator/events": "POST", "/api/oauth/v1/token": "POST",
		} {
			if status, answer := p.call(method, path, string(body)); status >= 500 {
				t.Errorf("%s %s: %d %s", method, path, status, answer)
			}
		}
		p.must(200, "GET", parent, "")
		for _, sub := range p.sim.subscriptions {
			for _, it := range sub.outbox.queue {
				if sent := it.body(sub.id, true); !json.Valid(sent) {
					t.Fatalf("sent %s", sent)
				}
			}
		}
	})
}
