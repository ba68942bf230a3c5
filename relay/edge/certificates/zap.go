package certificates

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger lets certmagic log to slog. It is talkative and does not know what an
// operator of the relay cares about, so its errors are warnings and all else is
// for debugging; what matters is logged from its events.
func zapLogger(log *slog.Logger) *zap.Logger { return zap.New(&zapCore{log: log}) }

// zapCore is a zapcore.Core that writes to slog.
type zapCore struct{ log *slog.Logger }

func lowered(l zapcore.Level) slog.Level {
	if l >= zapcore.ErrorLevel {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (c *zapCore) Enabled(l zapcore.Level) bool {
	return c.log.Enabled(context.Background(), lowered(l))
}

func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{log: c.log.With(attributes(fields)...)}
}

func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := lowered(e.Level)
	if e.Message == "could not get certificate from issuer" || slices.ContainsFunc(fields, ended) {
		level = slog.LevelDebug // its event is logged, or the daemon ends
	}
	c.log.Log(context.Background(), level, "acme: "+e.Message, attributes(fields)...)
	return nil
}

// ended reports whether the field is the error of something that was told to
// end. certmagic does not wrap it.
func ended(f zapcore.Field) bool {
	err, ok := f.Interface.(error)
	return ok && (errors.Is(err, context.Canceled) || strings.HasSuffix(err.Error(), context.Canceled.Error()))
}

func (*zapCore) Sync() error { return nil }

// attributes are the fields with slog's habits: an error's key is err.
func attributes(fields []zapcore.Field) []any {
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(encoder)
	}
	var all []any
	for key, value := range encoder.Fields {
		if key == "error" {
			key = "err"
		}
		all = append(all, slog.Any(key, value))
	}
	return all
}
