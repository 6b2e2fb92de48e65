// Package logs gives the lines of the log one shape, which docs/operations.md states.
package logs

import (
	"context"
	"io"
	"log/slog"
)

// New returns a log that writes a JSON object a line. A line that belongs to a request has its requestId and traceId, and one with an error as err has
// its cause.
func New(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(shape{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})})
}

// Request is what a request is found by.
type Request struct {
	ID      string
	TraceID string // of W3C Trace Context; empty: it has none
}

type requestKey struct{}

// With returns a context whose lines belong to the request.
func With(ctx context.Context, r Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// shape is a slog.Handler that completes each line.
type shape struct{ slog.Handler }

// Handle implements slog.Handler.
func (s shape) Handle(ctx context.Context, line slog.Record) error {
	whole := slog.NewRecord(line.Time, line.Level, line.Message, line.PC)
	if r, ok := ctx.Value(requestKey{}).(Request); ok {
		whole.AddAttrs(slog.String("requestId", r.ID))
		if r.TraceID != "" {
			whole.AddAttrs(slog.String("traceId", r.TraceID))
		}
	}
	line.Attrs(func(a slog.Attr) bool {
		whole.AddAttrs(a)
		if err, ok := a.Value.Any().(error); ok && a.Key == "err" {
			whole.AddAttrs(slog.String("cause", string(CauseOf(err))))
		}
		return true
	})
	return s.Handler.Handle(ctx, whole)
}

// WithAttrs implements slog.Handler.
func (s shape) WithAttrs(attrs []slog.Attr) slog.Handler { return shape{s.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (s shape) WithGroup(name string) slog.Handler { return shape{s.Handler.WithGroup(name)} }
