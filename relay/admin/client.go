package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"
	"time"
)

// NotRunningError says that no daemon answers on the socket.
type NotRunningError struct{ Dir string }

func (e *NotRunningError) Error() string {
	return fmt.Sprintf("no pimrelay is running on data_dir %s: start it with `pimrelay run`, or name its configuration file with -c", e.Dir)
}

// answerBytes bounds what the client reads of an answer.
const answerBytes = 64 << 20

// Client talks to the daemon that runs on a data directory.
type Client struct {
	dir  string
	http *http.Client
}

// NewClient makes a client for the daemon on dir.
func NewClient(dir string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", filepath.Join(dir, SocketName))
	}
	return &Client{dir: dir, http: &http.Client{Timeout: Patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Status asks for the daemon's status. It returns a *NotRunningError if there
// is no daemon.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/status", nil)
}

// Reload makes the daemon read its configuration file anew.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	return call[Reloaded](ctx, c, http.MethodPost, "/reload", nil)
}

// PauseForwarder makes a forwarder's lane stand still until it is resumed or the
// daemon is started anew.
func (c *Client) PauseForwarder(ctx context.Context, name string) (ForwarderPaused, error) {
	return call[ForwarderPaused](ctx, c, http.MethodPost, "/forwarders/"+url.PathEscape(name)+"/pause", nil)
}

// ResumeForwarder makes it go on.
func (c *Client) ResumeForwarder(ctx context.Context, name string) (ForwarderPaused, error) {
	return call[ForwarderPaused](ctx, c, http.MethodPost, "/forwarders/"+url.PathEscape(name)+"/resume", nil)
}

// DeadLetters lists dead letters, the newest first.
func (c *Client) DeadLetters(ctx context.Context, q DeadLetterQuery) ([]DeadLetter, error) {
	return call[[]DeadLetter](ctx, c, http.MethodPost, "/dead-letters/search", q)
}

// DeadLetter returns one dead letter with its event.
func (c *Client) DeadLetter(ctx context.Context, number int64) (DeadLetterDetail, error) {
	return call[DeadLetterDetail](ctx, c, http.MethodGet, fmt.Sprintf("/dead-letters/%d", number), nil)
}

// RetryDeadLetters makes the events due again.
func (c *Client) RetryDeadLetters(ctx context.Context, q DeadLetterQuery) (Count, error) {
	return call[Count](ctx, c, http.MethodPost, "/dead-letters/retry", q)
}

// DiscardDeadLetters deletes dead letters.
func (c *Client) DiscardDeadLetters(ctx context.Context, q DeadLetterQuery) (Count, error) {
	return call[Count](ctx, c, http.MethodPost, "/dead-letters/discard", q)
}

// Replay makes stored events due again for a forwarder.
func (c *Client) Replay(ctx context.Context, q ReplayQuery) (Count, error) {
	return call[Count](ctx, c, http.MethodPost, "/replay", q)
}

// call is Client.call with the type of the answer.
func call[A any](ctx context.Context, c *Client, method, path string, body any) (A, error) {
	var answer A
	err := c.call(ctx, method, path, body, &answer)
	return answer, err
}

// call sends body, if it is not nil, and reads the answer into into.
func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	var sent io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("ask the daemon: %w", err)
		}
		sent = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://pimrelay"+path, sent)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return &NotRunningError{Dir: c.dir}
	}
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var refused failure
		if json.Unmarshal(answer, &refused) == nil && refused.Error != "" {
			return errors.New(refused.Error)
		}
		return fmt.Errorf("ask the daemon: %s answered %s", path, resp.Status)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("ask the daemon: %s: %w", path, err)
	}
	return nil
}
