package api

import (
	"slices"
	"strings"
	"testing"

	"chatkeep/handler/agent"

	"github.com/stretchr/testify/require"
)

func TestCORS(t *testing.T) {
	ours := "https://chat.example.com"
	s := openBehind(t, agent.Echo{}, Edge{Origins: []string{ours}})
	preflight := func(origin string) answer {
		return s.send("OPTIONS", "/api/chat/send", nobody, "", "Origin: "+origin, "Access-Control-Request-Method: POST")
	}
	a := preflight(ours)
	require.Equal(t, 204, a.status)
	require.Equal(t, ours, a.header.Get("Access-Control-Allow-Origin"))
	for _, origin := range []string{"https://evil.example.com", ours + ".evil", "null", "http://chat.example.com"} {
		a := preflight(origin)
		require.Equal(t, 405, a.status, origin)
		require.Empty(t, a.header.Get("Access-Control-Allow-Origin"), origin)
		require.Equal(t, "Origin", a.header.Get("Vary"))
	}
	a = s.send("POST", "/api/chat/start", nobody, "", "Origin: "+ours)
	require.Equal(t, 401, a.status, "CORS is no identity")
	require.Equal(t, ours, a.header.Get("Access-Control-Allow-Origin"))

	for _, name := range []string{"RateLimit", "RateLimit-Policy", "Retry-After"} {
		require.Contains(t, strings.Split(a.header.Get("Access-Control-Expose-Headers"), ", "), name)
	}

	for name := range open(t).send("GET", "/health", nobody, "", "Origin: "+ours).header {
		require.NotContains(t, name, "Access-Control", "CORS is off where no origin is named")
	}
}

func TestAPreflightIsAnsweredFromTheRoutes(t *testing.T) {
	ours := "https://chat.example.com"
	s := openBehind(t, agent.Echo{}, Edge{Origins: []string{ours}})
	preflight := func(path string) answer {
		return s.send("OPTIONS", path, nobody, "", "Origin: "+ours, "Access-Control-Request-Method: POST")
	}
	every := []string{
		"Authorization", "Content-Type", "traceparent", "tracestate", "request-id", "request-context", "Last-Event-ID", "User-Agent",
	}
	for _, row := range []struct {
		path    string
		methods string
		headers []string
	}{
		{"/api/chat/start", "POST", []string{"Idempotency-Key"}},
		{"/api/chat/send", "POST", []string{"Idempotency-Key"}},
		{"/api/chat/conversations/" + messageID, "GET, HEAD, PATCH, DELETE", []string{"If-None-Match", "If-Match", "Idempotency-Key"}},
		{"/api/chat/conversations", "DELETE", []string{"Idempotency-Key"}},
		{"/api/chat/list-conversations", "POST", nil},
		{"/api/chat/export", "GET, HEAD", nil},
		{"/health", "GET, HEAD", nil},
	} {
		a := preflight(row.path)
		require.Equal(t, 204, a.status, row.path)
		require.Equal(t, row.methods, a.header.Get("Access-Control-Allow-Methods"), row.path)
		require.ElementsMatch(t, slices.Concat(every, row.headers), strings.Split(a.header.Get("Access-Control-Allow-Headers"), ", "), row.path)
		require.Equal(t, row.methods, s.send("PUT", row.path, nobody, "").header.Get("Allow"), row.path)
	}
	requireProblem(t, preflight("/api/chat/nothing"), 404, "not_found")
}
