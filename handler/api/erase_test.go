package api

import (
	"fmt"
	"testing"

	"chatkeep/handler/auth/authtest"

	"github.com/stretchr/testify/require"
)

func TestErase(t *testing.T) {
	s, redisServer := openOnRedis(t, authtest.New())
	kept := s.start("bob")
	var ids []string
	for range 60 {
		ids = append(ids, s.start("alice"))
	}
	s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"x"}`, ids[0]), "Idempotency-Key: one")
	s.send("POST", "/api/chat/start", "alice", "", "Idempotency-Key: two")
	requireProblem(t, s.send("DELETE", "/api/chat/conversations", "alice", "", "Idempotency-Key: a,b"), 400, "invalid_request")
	requireProblem(t, s.send("DELETE", "/api/chat/conversations", nobody, ""), 401, "unauthenticated")
	for _, deleted := range []int{61, 0} {
		a := s.send("DELETE", "/api/chat/conversations", "alice", "")
		require.Equal(t, 200, a.status, a.text)
		require.Equal(t, fmt.Sprintf("{\"deleted\":%d,\"keysRemaining\":0}\n", deleted), a.text)
	}
	require.Equal(t, []any{}, s.send("POST", "/api/chat/list-conversations", "alice", `{}`).body["conversations"])
	require.Equal(t, 200, s.send("GET", "/api/chat/conversations/"+kept, "bob", "").status)
	s.send("DELETE", "/api/chat/conversations", "bob", "")
	require.Empty(t, redisServer.CLI("keys", "*"))
}
