package simulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// closeTimeout is how long Serve waits for answers under way when it ends.
const closeTimeout = 5 * time.Second

// Serve serves the routes at a listener and runs the deliveries until ctx ends.
// It closes the listener. An error is that of the listener, or Run's.
func (s *Simulator) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelWarn),
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		defer cancel() // without routes there is nothing to run for
		served <- server.Serve(listener)
	}()
	ran := s.Run(ctx)

	// ctx has ended, and answers under way are still to be written.
	closing, stop := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer stop()
	closed := server.Shutdown(closing)
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(fmt.Errorf("serve the simulator's routes: %w", err), ran)
	}
	return errors.Join(ran, closed)
}

// WriteGuide writes what a person needs to begin: the base URL, under which all
// routes are, the connection and the first three requests as commands for a
// shell. caFile is named to curl when it is not empty.
func (s *Simulator) WriteGuide(w io.Writer, baseURL, caFile string) error {
	curl := "curl --silent --show-error"
	if caFile != "" {
		curl += " --cacert " + shellQuote(caFile)
	}
	c := s.opts.Connection
	text := strings.NewReplacer(
		"{curl}", curl, "{base}", shellQuote(baseURL), "{delay}", s.opts.ActivationDelay.String(), "{speed}", fmt.Sprint(s.opts.Speed),
		"{id}", shellQuote(c.ClientID), "{secret}", shellQuote(c.ClientSecret),
		"{user}", shellQuote(c.Username), "{password}", shellQuote(c.Password),
	).Replace(guide)
	_, err := io.WriteString(w, text)
	return err
}

// guide is the text of WriteGuide.
const guide = `PIM and Event Platform, simulated, at one address.
A subscription takes effect after {delay} of platform time, at speed {speed}.

export TARGET_PIM_URL={base}
export EVENT_PLATFORM_URL={base}
export CLIENT_ID={id} CLIENT_SECRET={secret}
export API_USERNAME={user} API_PASSWORD={password}

# 1. a token, valid for an hour of platform time
export PIM_API_TOKEN=$({curl} "$TARGET_PIM_URL/api/oauth/v1/token" \
  --user "$CLIENT_ID:$CLIENT_SECRET" --header 'Content-Type: application/json' \
  --data '{"grant_type":"password","username":"'"$API_USERNAME"'","password":"'"$API_PASSWORD"'"}' \
  | sed 's/.*"access_token":"\([^"]*\)".*/\1/')

# 2. a subscriber
export SUBSCRIBER_ID=$({curl} "$EVENT_PLATFORM_URL/api/v1/subscribers" \
  --header "X-PIM-URL: $TARGET_PIM_URL" --header "X-PIM-TOKEN: $PIM_API_TOKEN" \
  --header "X-PIM-CLIENT-ID: $CLIENT_ID" --header 'Content-Type: application/json' \
  --data '{"name":"demo","contact":{"technical_email":"ops@example.com"}}' \
  | sed 's/^{"id":"\([^"]*\)".*/\1/')

# 3. a subscription: put in the URL of your destination
export DESTINATION_URL=https://localhost:8443/hooks/catalog
{curl} "$EVENT_PLATFORM_URL/api/v1/subscribers/$SUBSCRIBER_ID/subscriptions" \
  --header "X-PIM-URL: $TARGET_PIM_URL" --header "X-PIM-TOKEN: $PIM_API_TOKEN" \
  --header "X-PIM-CLIENT-ID: $CLIENT_ID" --header 'Content-Type: application/json' \
  --data '{"source":"pim","subject":"'"$TARGET_PIM_URL"'","type":"https",
    "events":["com.akeneo.pim.v1.product.updated"],
    "config":{"url":"'"$DESTINATION_URL"'","secret":{"primary":"a-demo-secret-of-32-characters!!"}}}'

# then let events happen, and look at what became of them
{curl} "$EVENT_PLATFORM_URL/simulator/events" --data '{"type":"com.akeneo.pim.v1.product.updated","count":10}'
{curl} "$EVENT_PLATFORM_URL/simulator/report"

`

// shellQuote makes a string one word for a POSIX shell, unchanged where nothing
// needs quotes.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+=,", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
