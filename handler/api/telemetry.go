package api

import (
	"context"
	"net/http"
	"time"

	"chatkeep/handler/auth"
	"chatkeep/handler/telemetry"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// waiting are the routes whose requests take as long as an agent, or a reader, takes.
var waiting = map[string]bool{
	"/api/chat/start": true, "/api/chat/send": true, "/api/chat/ui": true, "/api/chat/export": true,
	"/api/chat/conversations/{conversationId}/stream": true, "/api/chat/ui/{conversationId}/stream": true,
}

// probed are the routes that probes ask, not callers.
var probed = map[string]bool{"/health": true, "/{$}": true}

// trace begins the span of a request, in the trace of its caller. Where spans are not recorded, it costs nothing.
func (s *Server) trace(r *http.Request) (context.Context, trace.Span) {
	if s.recorder.Tracer == nil {
		return r.Context(), nil
	}
	ctx := r.Context()
	if r.Header.Get("Traceparent") != "" {
		caller := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(r.Header)))
		ctx = trace.ContextWithRemoteSpanContext(ctx, caller.WithTraceState(trace.TraceState{})) // which may tell anything
	}
	return s.recorder.Tracer.Start(ctx, knownMethod(r.Method), trace.WithSpanKind(trace.SpanKindServer))
}

// verify returns the user whom the bearer token names.
func (s *Server) verify(r *http.Request) (auth.User, error) {
	ctx, span := telemetry.Begin(r.Context(), "verify token", trace.SpanKindInternal)
	user, err := s.auth.User(ctx, r.Header)
	if err != nil && span.IsRecording() {
		telemetry.End(span, problemOf(err).Code)
	} else {
		span.End()
	}
	return user, err
}

// record counts a request that has been answered, and ends its span.
func (s *Server) record(w *response, r *http.Request, span trace.Span, took time.Duration) {
	kind := telemetry.Request{
		Method: knownMethod(r.Method), Route: r.Pattern, Status: w.status, Waits: waiting[r.Pattern], Probe: probed[r.Pattern],
	}
	if kind.Route == "/" { // nothing
		kind.Route = ""
	}
	s.recorder.Request(kind, took)
	switch w.code {
	case "rate_limited":
		s.recorder.RateLimited.Add(1)
	case "quota_exceeded", "too_many_conversations":
		s.recorder.QuotaRefusals.Add(1)
	}
	if w.Header().Get(replayedHeader) != "" {
		s.recorder.Replays.Add(1)
	}
	if span != nil {
		if span.IsRecording() {
			describe(span, kind, w)
		}
		span.End()
	}
}

// describe says of a span which request it is of: its route and never its path, which holds ids.
func describe(span trace.Span, kind telemetry.Request, w *response) {
	span.SetAttributes(
		attribute.String("http.request.method", kind.Method), attribute.String("url.scheme", "http"),
		attribute.String("chatkeep.request.id", w.Header().Get("X-Request-Id")),
	)
	if kind.Route != "" {
		span.SetName(kind.Method + " " + kind.Route)
		span.SetAttributes(attribute.String("http.route", kind.Route))
	}
	if kind.Status != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", kind.Status))
	}
	if w.code != "" {
		span.SetAttributes(attribute.String("error.type", w.code))
	}
	if kind.Status >= 500 {
		span.SetStatus(codes.Error, "")
	}
}

// knownMethod keeps methods that callers make up out of figures and spans.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	default:
		return "_OTHER"
	}
}
