package pluginhost

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// linesPerSecond and linesAtOnce bound what a process may put into the
	// relay's log.
	linesPerSecond = 20
	linesAtOnce    = 200
	// longestLine is how much of a line is kept, longestWords of the last one
	// in a message about the end of the process.
	longestLine  = 4 << 10
	longestWords = 300
)

// allowance bounds what a plugin's processes, one after the other, put into the
// log.
type allowance struct {
	mu      sync.Mutex
	limiter *rate.Limiter // guarded by mu, as below
	dropped int
}

func newAllowance() *allowance {
	return &allowance{limiter: rate.NewLimiter(linesPerSecond, linesAtOnce)}
}

// take reports whether another line may be logged, and how many were left out
// before it.
func (a *allowance) take(now time.Time) (ok bool, dropped int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.limiter.AllowN(now, 1) {
		a.dropped++
		return false, 0
	}
	dropped, a.dropped = a.dropped, 0
	return true, dropped
}

// output takes what a process prints and puts it into the log. Its streams may
// be written to concurrently.
type output struct {
	logger    *slog.Logger
	allowance *allowance
	redact    func(string) string

	mu    sync.Mutex // guards what follows
	words string     // the last line that was no informational log record
	first string     // of a panic or fatal error, which counts more
}

func newOutput(logger *slog.Logger, a *allowance, redact func(string) string) *output {
	return &output{logger: logger, allowance: a, redact: redact}
}

// lastWords are the line that says best why the process has ended, or nothing.
func (o *output) lastWords() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	words := o.words
	if o.first != "" {
		words = o.first
	}
	return strings.ToValidUTF8(words[:min(len(words), longestWords)], "")
}

// stream makes a writer of one of the process's streams.
func (o *output) stream(name string) *stream { return &stream{output: o, name: name} }

// stream cuts what is written to it into lines.
type stream struct {
	*output
	name string

	mu      sync.Mutex
	partial []byte // guarded by mu: a line whose end has not come, without what is too long
}

// Write never fails: a process must not be held up by its log.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := p
	for {
		line, after, found := bytes.Cut(rest, []byte{'\n'})
		s.partial = append(s.partial, line[:min(len(line), longestLine-len(s.partial))]...)
		if !found {
			return len(p), nil
		}
		s.line(s.name, strings.ToValidUTF8(strings.TrimRight(string(s.partial), "\r"), "\uFFFD"))
		s.partial, rest = s.partial[:0], after
	}
}

// line logs one line.
func (o *output) line(stream, line string) {
	if strings.TrimSpace(line) == "" {
		return
	}
	ending := strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")
	ok, dropped := o.allowance.take(time.Now())
	if dropped > 0 {
		o.logger.Warn("plugin output left out: there was too much", "lines", dropped)
	}
	if !ok && !ending {
		return // unread: reading costs more than writing
	}
	level, message, attributes := parse(line, o.redact)
	line = o.redact(line)
	plain := message == ""
	if plain {
		message, attributes = "plugin output", []any{"stream", stream, "line", line}
	}
	if ending {
		level = slog.LevelError
	}
	o.remember(line, ending, level > slog.LevelInfo || plain && !strings.HasPrefix(line, "\t"))
	if o.logger.Enabled(context.Background(), level) {
		o.logger.Log(context.Background(), level, message, attributes...)
	}
}

// remember keeps what may be the process's last words.
func (o *output) remember(line string, ending, telling bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case ending && o.first == "":
		o.first = line
	case telling:
		o.words = line
	}
}

// parse reads a log record in JSON, as slog, hclog and others write them, with
// its attributes; those of the record itself are left out. Anything else has no
// message.
func parse(line string, redact func(string) string) (slog.Level, string, []any) {
	var record map[string]any
	if line[0] != '{' || json.Unmarshal([]byte(line), &record) != nil {
		return slog.LevelInfo, "", nil
	}
	level, message := slog.LevelInfo, ""
	for _, key := range []string{"msg", "message", "@message"} {
		if text, ok := record[key].(string); ok && message == "" {
			message = redact(text)
		}
		delete(record, key)
	}
	for _, key := range []string{"level", "@level"} {
		switch value := record[key].(type) {
		case string:
			level = levelOf(value)
		case float64: // pino's numbers: 20 debug, 30 info, 40 warn, 50 error
			level = slog.Level(int(min(max(value, 10), 60)/10)*4 - 12)
		}
		delete(record, key)
	}
	for _, key := range []string{"time", "timestamp", "@timestamp", "@module", "forwarder", "plugin", "pid"} {
		delete(record, key) // the relay's own record has them
	}
	var attributes []any
	for _, key := range slices.Sorted(maps.Keys(record)) {
		attributes = append(attributes, slog.String(key, redact(fmt.Sprint(record[key]))))
	}
	return level, message, attributes
}

func levelOf(text string) slog.Level {
	var level slog.Level
	switch strings.ToLower(text) {
	case "trace":
		return slog.LevelDebug
	case "warning":
		return slog.LevelWarn
	case "fatal", "panic", "critical":
		return slog.LevelError
	}
	if level.UnmarshalText([]byte(text)) != nil {
		return slog.LevelInfo
	}
	return level
}
