package edge

import (
	"log"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// newSeldom keeps one kind of message from flooding the log, whoever sends the
// requests that cause it: the first few are logged, then one every 10 s. The
// metrics count them all.
func newSeldom() *rate.Sometimes {
	return &rate.Sometimes{First: 5, Interval: 10 * time.Second}
}

// httpLog is where net/http writes what it has to say: broken TLS handshakes
// and requests, mostly of port scanners.
type httpLog struct {
	logger *slog.Logger
	seldom *rate.Sometimes
}

func newHTTPLog(logger *slog.Logger) *log.Logger {
	return log.New(&httpLog{logger: logger, seldom: newSeldom()}, "", 0)
}

func (l *httpLog) Write(line []byte) (int, error) {
	l.seldom.Do(func() { l.logger.Debug("http server", "err", strings.TrimSpace(string(line))) })
	return len(line), nil
}

// shorten cuts what a client chose to a length that a log can bear.
func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
