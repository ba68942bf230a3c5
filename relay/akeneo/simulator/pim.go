package simulator

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Lives of the PIM's tokens, in platform time.
const (
	accessTokenLife  = time.Hour
	refreshTokenLife = 14 * 24 * time.Hour
)

// maxTokenBody is the size limit of the token route.
const maxTokenBody = 8 << 10

// tokens are the tokens issued and when they expire. Simulator.mu guards them.
type tokens struct {
	access, refresh map[string]time.Time
}

// issue makes a new pair and forgets what has expired.
func (t *tokens) issue(now time.Time) (access, refresh string) {
	expired := func(_ string, until time.Time) bool { return !now.Before(until) }
	maps.DeleteFunc(t.access, expired)
	maps.DeleteFunc(t.refresh, expired)
	access, refresh = newToken(), newToken()
	t.access[access] = now.Add(accessTokenLife)
	t.refresh[refresh] = now.Add(refreshTokenLife)
	return access, refresh
}

// accepts says whether an access token is valid, and for how long.
func (t *tokens) accepts(access string, now time.Time) (left time.Duration, ok bool) {
	until, ok := t.access[access]
	return until.Sub(now), ok && now.Before(until)
}

// spend uses up a refresh token: it works once.
func (t *tokens) spend(refresh string, now time.Time) bool {
	until, ok := t.refresh[refresh]
	delete(t.refresh, refresh)
	return ok && now.Before(until)
}

// pimError is an error as the PIM's routes write it.
type pimError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// grant is the body of a request for tokens.
type grant struct {
	Type         string `json:"grant_type"`
	Username     string `json:"username"`
	Password     string `json:"password"`
	RefreshToken string `json:"refresh_token"`
}

// grantResponse is the answer with tokens.
type grantResponse struct {
	AccessToken  string  `json:"access_token"`
	ExpiresIn    int     `json:"expires_in"`
	TokenType    string  `json:"token_type"`
	Scope        *string `json:"scope"`
	RefreshToken string  `json:"refresh_token"`
}

// serveToken is POST /api/oauth/v1/token.
func (s *Simulator) serveToken(w http.ResponseWriter, r *http.Request) {
	g, refused := readGrant(w, r)
	if refused == nil {
		refused = s.checkGrant(r, g)
	}
	if refused != nil {
		writeJSON(w, refused.Code, refused)
		return
	}
	s.mu.Lock()
	access, refresh := s.tokens.issue(s.clock.now())
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, grantResponse{
		AccessToken: access, ExpiresIn: int(accessTokenLife.Seconds()), TokenType: "bearer", RefreshToken: refresh,
	})
}

// readGrant reads JSON or a form.
func readGrant(w http.ResponseWriter, r *http.Request) (grant, *pimError) {
	const jsonType, formType = "application/json", "application/x-www-form-urlencoded"
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if mediaType != jsonType && mediaType != formType {
		return grant{}, &pimError{http.StatusUnsupportedMediaType,
			fmt.Sprintf("The content type %q is not accepted: use %q or %q.", r.Header.Get("Content-Type"), jsonType, formType)}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTokenBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return grant{}, &pimError{http.StatusRequestEntityTooLarge, "Request content exceeded the maximum allowed size"}
	}
	if err != nil {
		return grant{}, &pimError{http.StatusBadRequest, "The body could not be read"}
	}
	if mediaType == formType {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return grant{}, &pimError{http.StatusBadRequest, "Invalid form received"}
		}
		return grant{form.Get("grant_type"), form.Get("username"), form.Get("password"), form.Get("refresh_token")}, nil
	}
	var g grant
	if err := json.Unmarshal(body, &g); err != nil {
		// A member of the wrong type is a missing parameter, not bad JSON.
		if mismatch := (*json.UnmarshalTypeError)(nil); errors.As(err, &mismatch) {
			return grant{}, nil
		}
		return grant{}, &pimError{http.StatusBadRequest, "Invalid json message received"}
	}
	return g, nil
}

// checkGrant decides about a grant: wrong credentials are 422 here, never 401.
func (s *Simulator) checkGrant(r *http.Request, g grant) *pimError {
	refuse := func(message string) *pimError { return &pimError{http.StatusUnprocessableEntity, message} }
	switch {
	case g.Type == "", g.Type == "password" && (g.Username == "" || g.Password == ""):
		return refuse(`Parameter "grant_type", "username" or "password" is missing or empty`)
	case g.Type == "authorization_code" || g.Type == "client_credentials":
		return refuse("This grant type is not authorized for this client")
	case g.Type != "password" && g.Type != "refresh_token":
		return refuse(`Parameter "grant_type", "username" or "password" is not valid`)
	}
	want := s.opts.Connection
	id, secret, ok := r.BasicAuth()
	if !ok || !same(id, want.ClientID) || !same(secret, want.ClientSecret) {
		return refuse("No client fits the client id and secret in the Authorization header")
	}
	if g.Type == "password" {
		if !same(g.Username, want.Username) || !same(g.Password, want.Password) {
			return refuse("No user found for the given username and password")
		}
		return nil
	}
	if g.RefreshToken == "" {
		return refuse(`Parameter "refresh_token" is missing or empty`)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tokens.spend(g.RefreshToken, s.clock.now()) {
		return refuse("Refresh token is invalid or has expired")
	}
	return nil
}

// serveTokenInfo is GET /api/rest/v1/token-info. The route is not documented;
// the fields of its answer are ours.
func (s *Simulator) serveTokenInfo(w http.ResponseWriter, r *http.Request) {
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer {
		writeJSON(w, http.StatusUnauthorized, pimError{http.StatusUnauthorized, "Authentication is required"})
		return
	}
	s.mu.Lock()
	left, ok := s.tokens.accepts(token, s.clock.now())
	s.mu.Unlock()
	if !ok {
		writeJSON(w, http.StatusUnauthorized, pimError{http.StatusUnauthorized, "The access token provided is invalid."})
		return
	}
	writeJSON(w, http.StatusOK, struct {
		ClientID  string `json:"client_id"`
		ExpiresIn int    `json:"expires_in"`
	}{s.opts.Connection.ClientID, int(left.Seconds())})
}

// same compares secrets in constant time.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
