package api

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"
	"chatkeep/handler/telemetry"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// answered makes a request without a network: when it returns, the request has been counted. Headers come as "Name: value".
func (s *service) answered(method, path, user, body string, headers ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), method, path, strings.NewReader(body))
	if user != "" {
		r.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, user, nil))
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	s.server.ServeHTTP(w, r)
	return w
}

func TestRequestsAreCounted(t *testing.T) {
	tight := limits()
	tight.Conversations, tight.TurnsPerMinute = 2, 5
	s := openOver(t, store.NewMemory(tight), agent.Echo{}, Edge{}, authtest.New())
	const conversation = "/api/chat/conversations/{conversationId}"
	at := func(path string) string { return strings.Replace(path, "{conversationId}", messageID, 1) }
	for _, row := range []struct {
		method, path, user, body string
		headers                  []string
		want                     telemetry.Request
	}{
		{"POST", "/api/chat/start", "alice", "", []string{"Idempotency-Key: k"}, telemetry.Request{Method: "POST", Route: "/api/chat/start", Status: 201, Waits: true}},
		{"POST", "/api/chat/start", "alice", "", []string{"Idempotency-Key: k"}, telemetry.Request{Method: "POST", Route: "/api/chat/start", Status: 201, Waits: true}},
		{"POST", "/api/chat/start", "", "", nil, telemetry.Request{Method: "POST", Route: "/api/chat/start", Status: 401, Waits: true}},
		{"POST", "/api/chat/send", "alice", "{", nil, telemetry.Request{Method: "POST", Route: "/api/chat/send", Status: 400, Waits: true}},
		{"GET", at(conversation), "alice", "", nil, telemetry.Request{Method: "GET", Route: conversation, Status: 404}},
		{"HEAD", at(conversation), "alice", "", nil, telemetry.Request{Method: "HEAD", Route: conversation, Status: 404}},
		{"BREW", at(conversation), "alice", "", nil, telemetry.Request{Method: "_OTHER", Route: conversation, Status: 405}},
		{"GET", "/alice", "", "", nil, telemetry.Request{Method: "GET", Status: 404}},
		{"GET", "/api//chat", "", "", nil, telemetry.Request{Method: "GET", Status: 404}},
		{"GET", "/health", "", "", nil, telemetry.Request{Method: "GET", Route: "/health", Status: 200, Probe: true}},
		{"GET", "/", "", "", nil, telemetry.Request{Method: "GET", Route: "/{$}", Status: 200, Probe: true}},
		{"POST", "/api/chat/start", "alice", "", nil, telemetry.Request{Method: "POST", Route: "/api/chat/start", Status: 201, Waits: true}},
		{"POST", "/api/chat/start", "alice", "", nil, telemetry.Request{Method: "POST", Route: "/api/chat/start", Status: 409, Waits: true}},
	} {
		before := s.recorder.Figures().Requests[row.want]
		s.answered(row.method, row.path, row.user, row.body, row.headers...)
		after := s.recorder.Figures().Requests[row.want]
		require.Equal(t, before.Count()+1, after.Count(), "%s %s", row.method, row.path)
	}
	f := s.recorder.Figures()
	require.EqualValues(t, 1, f.Replays)
	require.EqualValues(t, 1, f.QuotaRefusals)
	require.Zero(t, f.RateLimited)
	bob := "bob"
	id := s.start(bob)
	for range 6 {
		s.answered("POST", "/api/chat/send", bob, fmt.Sprintf(`{"conversationId":%q,"text":"x"}`, id))
	}
	require.Positive(t, s.recorder.RateLimited.Load())
}

// A request for whose answer nobody waits has no status.
func TestARequestWithoutAnAnswerIsCounted(t *testing.T) {
	s := open(t)
	gone, leave := context.WithCancel(t.Context())
	leave()
	r := httptest.NewRequestWithContext(gone, http.MethodPost, "/api/chat/start", http.NoBody)
	r.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, "alice", nil))
	s.server.ServeHTTP(httptest.NewRecorder(), r)
	require.EqualValues(t, 1, s.recorder.Figures().Requests[telemetry.Request{Method: "POST", Route: "/api/chat/start", Waits: true}].Count())
}

// The routes that are told apart are routes.
func TestToldRoutesExist(t *testing.T) {
	s := open(t)
	patterns := make(map[string]bool)
	for _, r := range s.server.routes() {
		patterns[r.path] = true
	}
	for _, told := range []map[string]bool{waiting, probed} {
		for path := range told {
			require.True(t, patterns[path], path)
		}
	}
}

// tracing is a service whose spans end in a list.
func tracing(t *testing.T, a chat.Agent) (*service, *tracetest.SpanRecorder) {
	s := openWith(t, a)
	spans := tracetest.NewSpanRecorder()
	s.recorder.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	return s, spans
}

func attributesOf(span sdktrace.ReadOnlySpan) map[string]string {
	all := make(map[string]string)
	for _, a := range span.Attributes() {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

func TestRequestsHaveSpans(t *testing.T) {
	s, spans := tracing(t, agent.Echo{})
	const traceID, callerID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	caller := "traceparent: 00-" + traceID + "-" + callerID
	for name, row := range map[string]struct {
		headers []string
		parent  string // empty: none
		spans   int
	}{
		"the caller's trace":               {[]string{caller + "-01", "tracestate: k=alice"}, callerID, 2},
		"the caller's trace, not recorded": {[]string{caller + "-00"}, "", 0},
		"no trace":                         {nil, "", 2},
		"a broken trace":                   {[]string{"traceparent: garbage"}, "", 2},
		"a trace of nobody":                {[]string{"traceparent: 00-00000000000000000000000000000000-" + callerID + "-01"}, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			spans.Reset()
			w := s.answered("GET", "/api/chat/conversations/"+messageID, "alice", "", row.headers...)
			require.Equal(t, 404, w.Code)
			ended := spans.Ended()
			require.Len(t, ended, row.spans)
			if row.spans == 0 {
				return
			}
			token, whole := ended[0], ended[1]
			require.Equal(t, "verify token", token.Name())
			require.Empty(t, token.Attributes())
			require.Equal(t, whole.SpanContext().SpanID(), token.Parent().SpanID())
			require.Equal(t, row.parent != "", whole.Parent().IsValid())
			if row.parent != "" {
				require.Equal(t, callerID, whole.Parent().SpanID().String())
				require.Equal(t, traceID, whole.SpanContext().TraceID().String())
			}
			require.Zero(t, whole.SpanContext().TraceState().Len())
			require.Equal(t, "GET /api/chat/conversations/{conversationId}", whole.Name())
			require.Equal(t, trace.SpanKindServer, whole.SpanKind())
			require.Equal(t, codes.Unset, whole.Status().Code, "a 404 is the caller's")
			require.Equal(t, map[string]string{
				"http.request.method": "GET", "http.route": "/api/chat/conversations/{conversationId}", "http.response.status_code": "404",
				"url.scheme": "http", "error.type": "not_found", "chatkeep.request.id": w.Header().Get("X-Request-Id"),
			}, attributesOf(whole))
		})
	}
}

func TestFailuresAreInSpans(t *testing.T) {
	s, spans := tracing(t, agent.Echo{})
	s.answered("POST", "/api/chat/start", "", "")
	token, whole := spans.Ended()[0], spans.Ended()[1]
	require.Equal(t, map[string]string{"error.type": "unauthenticated"}, attributesOf(token))
	require.Equal(t, codes.Error, token.Status().Code)
	require.Equal(t, "unauthenticated", attributesOf(whole)["error.type"])
	require.Equal(t, codes.Unset, whole.Status().Code)

	s.server.chat = nil // a bug
	spans.Reset()
	require.Equal(t, 500, s.answered("POST", "/api/chat/start", "alice", "").Code)
	whole = spans.Ended()[1]
	require.Equal(t, "internal", attributesOf(whole)["error.type"])
	require.Equal(t, codes.Error, whole.Status().Code)
	s.log.Reset()
}

// Without a collector a request pays nothing for spans.
func TestNoSpansAllocateNothing(t *testing.T) {
	s := open(t)
	s.answered("GET", "/health", "", "")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/health", http.NoBody)
	r.Pattern = "/health"
	w := &response{ResponseWriter: httptest.NewRecorder(), status: 200}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		_, span := s.server.trace(r)
		s.server.record(w, r, span, time.Millisecond)
	}))
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		_, span := telemetry.Begin(ctx, "verify token", trace.SpanKindInternal)
		span.End()
	}))
}
