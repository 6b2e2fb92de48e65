package api

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

func TestAQueryThatCannotBeReadIsRefused(t *testing.T) {
	s := openWith(t, agent.Echo{})
	id := s.start("alice")
	for _, route := range []struct{ method, path, body string }{
		{"GET", "/api/chat/conversations/" + id, ""},
		{"HEAD", "/api/chat/conversations/" + id, ""},
		{"POST", "/api/chat/start", "{}"},
		{"POST", "/api/chat/send", "{}"},
		{"POST", "/api/chat/list-conversations", "{}"},
		{"GET", "/health", ""},
		{"GET", "/", ""},
	} {
		for query, name := range map[string]string{
			"limit=5%":                       "limit",
			"limit=1;before=2":               "limit",
			"limit=2&amp;before=3":           "amp",
			"a=1&limit=%zz":                  "limit",
			"=%":                             "query",
			"%=1":                            "%",
			"limit":                          "",
			"limit=%ff":                      "",
			"&&":                             "",
			"unknown=1&other":                "",
			"a=%" + strings.Repeat("é", 300): "a",
			"%" + strings.Repeat("%C3%A9", 300) + "=1": "%" + strings.Repeat("%C3%A9", 300)[:199],
		} {
			a := s.send(route.method, route.path+"?"+query, "alice", route.body)
			if name == "" {
				require.NotContains(t, a.text, "percent-encoded", "%s?%s", route.path, query)
				continue
			}
			require.Equal(t, 400, a.status, "%s %s?%s: %s", route.method, route.path, query, a.text)
			if route.method != "HEAD" {
				requireProblem(t, a, 400, "invalid_request")
				require.Equal(t, name, a.body["errors"].([]any)[0].(map[string]any)["path"])
			}
		}
	}
}

func TestHeadersThatMayBeGivenOnce(t *testing.T) {
	s := open(t)
	for _, name := range []string{"Idempotency-Key", "Content-Type"} {
		request, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/api/chat/start", strings.NewReader(`{}`))
		require.NoError(t, err)
		request.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, "alice", nil))
		request.Header.Set("Content-Type", "application/json")
		request.Header[name] = []string{"application/json", "application/json"}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		_ = response.Body.Close()
		require.Equal(t, 400, response.StatusCode, name)
	}
}

func TestTheAgentGetsTheCaller(t *testing.T) {
	seen := make(chan chat.Caller, 1)
	s := openWith(t, witness{seen: seen})
	id := s.start("alice")
	s.send("POST", "/api/chat/send", "alice", `{"conversationId":"`+id+`","text":"x"}`)
	select {
	case got := <-seen:
		require.Equal(t, "alice", got.Owner.UserID)
		require.Equal(t, tenant, got.Owner.TenantID)
		require.NotEmpty(t, got.ObjectID)
		require.Regexp(t, `^eyJ`, string(got.Token))
	case <-time.After(10 * time.Second):
		t.Fatal("the agent was not asked")
	}
}

// witness is an agent that tells who asks.
type witness struct {
	agent.Echo
	seen chan<- chat.Caller
}

func (w witness) Answer(ctx context.Context, caller chat.Caller, q chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	w.seen <- caller
	return w.Echo.Answer(ctx, caller, q, emit)
}
