package simulator

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// maxBody is the largest body that the platform's and the control routes read.
const maxBody = 1 << 20

// refusal is an error of the Management API.
type refusal struct {
	status   int
	messages []string
}

func (r *refusal) Error() string { return strings.Join(r.messages, "; ") }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, []string{fmt.Sprintf(format, args...)}}
}

// newRoutes gives the PIM's, the platform's and the control routes.
func (s *Simulator) newRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/oauth/v1/token", s.serveToken)
	mux.HandleFunc("GET /api/rest/v1/token-info", s.serveTokenInfo)

	const subscribers, subscriptions = "/api/v1/subscribers", "/api/v1/subscribers/{subscriber}/subscriptions"
	for pattern, op := range map[string]operation{
		"POST " + subscribers:                               s.createSubscriber,
		"GET " + subscribers:                                s.listSubscribers,
		"GET " + subscribers + "/{subscriber}":              s.showSubscriber,
		"PATCH " + subscribers + "/{subscriber}":            s.changeSubscriber,
		"DELETE " + subscribers + "/{subscriber}":           s.deleteSubscriber,
		"POST " + subscriptions:                             s.createSubscription,
		"GET " + subscriptions:                              s.listSubscriptions,
		"GET " + subscriptions + "/{subscription}":          s.showSubscription,
		"PATCH " + subscriptions + "/{subscription}":        s.changeSubscription,
		"DELETE " + subscriptions + "/{subscription}":       s.deleteSubscription,
		"POST " + subscriptions + "/{subscription}/suspend": s.suspendSubscription,
		"POST " + subscriptions + "/{subscription}/resume":  s.resumeSubscription,
		"GET /api/v1/logs":                                  s.listLogs,
		"/api/v1/":                                          noRoute,
	} {
		mux.Handle(pattern, s.authenticated(op))
	}
	mux.HandleFunc("POST /simulator/events", s.serveFire)
	mux.HandleFunc("GET /simulator/report", s.serveReport)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusNotFound, pimError{http.StatusNotFound, "No route found for " + r.Method + " " + r.URL.Path})
	})
	return mux
}

// operation is one call of the Management API: it gives the status and body of
// a success, or an error. It runs with Simulator.mu held.
type operation func(c *call) (status int, body any, err error)

// call is a request whose sender is known.
type call struct {
	*http.Request
	body   []byte
	pimURL string // as the client wrote it
}

func noRoute(c *call) (int, any, error) {
	return 0, nil, refuse(http.StatusNotFound, "no such route: %s %s", c.Method, c.URL.Path)
}

// authenticated reads a request, has the operation done and answers.
func (s *Simulator) authenticated(op operation) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			writeRefusal(w, refuse(http.StatusBadRequest, "the body could not be read, or is above %d bytes", maxBody))
			return
		}
		c := &call{Request: r, body: body, pimURL: r.Header.Get("X-PIM-URL")}

		status, answer, err := s.perform(op, c)
		if err != nil {
			writeRefusal(w, err)
			return
		}
		writeJSON(w, status, answer)
	})
}

// perform runs an operation for a caller who may.
func (s *Simulator) perform(op operation, c *call) (int, any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.identify(c.Request); err != nil {
		return 0, nil, err
	}
	return op(c)
}

// identify checks the three headers of the caller. Whatever is wrong with them
// is the same 401, as on the platform.
func (s *Simulator) identify(r *http.Request) error {
	_, valid := s.tokens.accepts(r.Header.Get("X-PIM-TOKEN"), s.clock.now())
	if !valid || r.Header.Get("X-PIM-CLIENT-ID") != s.opts.Connection.ClientID || !s.isPIM(r, r.Header.Get("X-PIM-URL")) {
		return refuse(http.StatusUnauthorized, "the PIM, the client id and the token do not belong together, or the token has expired")
	}
	return nil
}

// isPIM reports whether a URL names this PIM.
func (s *Simulator) isPIM(r *http.Request, named string) bool {
	u, err := url.Parse(named)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return false
	}
	if s.opts.PIMURL != "" {
		return normalised(named) == normalised(s.opts.PIMURL)
	}
	return normalised(named) == u.Scheme+"://"+strings.ToLower(r.Host)
}

// normalised makes PIM URLs comparable: they are written with and without a
// trailing slash.
func normalised(pimURL string) string {
	u, err := url.Parse(pimURL)
	if err != nil {
		return pimURL
	}
	return strings.ToLower(u.Scheme) + "://" + strings.ToLower(u.Host) + strings.TrimRight(u.Path, "/")
}

// decode reads a JSON body into a payload.
func (c *call) decode(into any, status int) error {
	if mediaType, _, _ := mime.ParseMediaType(c.Header.Get("Content-Type")); mediaType != "application/json" {
		return refuse(status, "the content type must be application/json (got %q)", c.Header.Get("Content-Type"))
	}
	if err := json.Unmarshal(c.body, into); err != nil {
		return refuse(status, "the body is not the JSON expected here: %v", err)
	}
	return nil
}

// list writes an empty list as the options ask.
func (s *Simulator) list(views any, n int) (int, any, error) {
	if n == 0 && s.opts.Readings.NullLists {
		return http.StatusOK, nil, nil
	}
	return http.StatusOK, views, nil
}

// subscriberOf finds the subscriber in the path.
func (s *Simulator) subscriberOf(c *call) (*subscriber, error) {
	id := c.PathValue("subscriber")
	for _, sub := range s.subscribers {
		if sub.id == id && sub.status != statusDeleted {
			return sub, nil
		}
	}
	return nil, refuse(http.StatusNotFound, "there is no subscriber %q", id)
}

// subscriptionOf finds the subscription in the path.
func (s *Simulator) subscriptionOf(c *call) (*subscription, error) {
	owner, err := s.subscriberOf(c)
	if err != nil {
		return nil, err
	}
	id := c.PathValue("subscription")
	i := slices.IndexFunc(s.subscriptions, func(sub *subscription) bool {
		return sub.id == id && sub.subscriber == owner && sub.status != statusDeleted
	})
	if i < 0 {
		return nil, refuse(http.StatusNotFound, "subscriber %q has no subscription %q", owner.id, id)
	}
	return s.subscriptions[i], nil
}

// live gives the subscriptions of a subscriber that are not deleted.
func (s *Simulator) live(owner *subscriber) []*subscription {
	var list []*subscription
	for _, sub := range s.subscriptions {
		if sub.subscriber == owner && sub.status != statusDeleted {
			list = append(list, sub)
		}
	}
	return list
}

// writeRefusal writes an error of the Management API.
func writeRefusal(w http.ResponseWriter, err error) {
	type message struct {
		Message string `json:"message"`
	}
	var body struct {
		Errors []message `json:"errors"`
	}
	r := err.(*refusal) // operations refuse and know no other error
	for _, m := range r.messages {
		body.Errors = append(body.Errors, message{m})
	}
	writeJSON(w, r.status, body)
}

// writeJSON writes an answer.
func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	// An error means that the client is gone: nobody is left to tell.
	_ = enc.Encode(body)
}
