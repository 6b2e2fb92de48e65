package api

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"chatkeep/handler/auth/authtest"

	"github.com/stretchr/testify/require"
)

func TestDelete(t *testing.T) {
	s, redisServer := openOnRedis(t, authtest.New())
	id, other := s.start("alice"), s.start("alice")
	path := "/api/chat/conversations/"
	requireProblem(t, s.send("DELETE", path+id, "bob", ""), 404, "not_found")
	requireProblem(t, s.send("DELETE", path+"x", "alice", ""), 400, "invalid_request")
	requireProblem(t, s.send("DELETE", path+id, "alice", "", "Idempotency-Key: a,b"), 400, "invalid_request")
	require.Equal(t, 200, s.send("GET", path+id, "alice", "").status)

	a := s.send("DELETE", path+strings.ToUpper(id), "alice", "")
	require.Equal(t, 204, a.status, a.text)
	require.Empty(t, a.text)
	require.Empty(t, a.header.Get("Content-Type"))
	requireProblem(t, s.send("DELETE", path+id, "alice", ""), 404, "not_found")
	requireProblem(t, s.send("GET", path+id, "alice", ""), 404, "not_found")
	requireProblem(t, s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"x"}`, id)), 404, "not_found")
	require.Empty(t, redisServer.CLI("keys", "*"+id))
	require.Equal(t, 200, s.send("GET", path+other, "alice", "").status)
}

func TestADeletionWithAKeyIsRepeatedSafely(t *testing.T) {
	s := open(t)
	id, other := s.start("alice"), s.start("alice")
	path, key := "/api/chat/conversations/", "Idempotency-Key: once"
	require.Empty(t, s.send("DELETE", path+id, "alice", "", key).header.Get("Idempotency-Replayed"))
	a := s.send("DELETE", path+id, "alice", "", key)
	require.Equal(t, 204, a.status)
	require.Equal(t, "true", a.header.Get("Idempotency-Replayed"))
	requireProblem(t, s.send("DELETE", path+other, "alice", "", key), 422, "idempotency_key_reused")
	requireProblem(t, s.send("POST", "/api/chat/start", "alice", "", key), 422, "idempotency_key_reused")
	requireProblem(t, s.send("DELETE", path+id, "bob", "", key), 404, "not_found")
	require.Equal(t, 200, s.send("GET", path+other, "alice", "").status)
}

// A send whose conversation is deleted under it is told so, and leaves nothing.
func TestSendsWhoseConversationIsDeleted(t *testing.T) {
	s, redisServer := openOnRedis(t, authtest.New())
	for range 10 {
		id := s.start("alice")
		var all sync.WaitGroup
		answers := make(chan answer, 8)
		for range cap(answers) {
			all.Go(func() {
				answers <- s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"x"}`, id))
			})
		}
		for range 2 {
			all.Go(func() { s.send("DELETE", "/api/chat/conversations/"+id, "alice", "") })
		}
		all.Wait()
		close(answers)
		for a := range answers {
			require.Contains(t, []int{200, 404, 409}, a.status, a.text)
		}
		require.Empty(t, redisServer.CLI("keys", "*"+id))
		require.Equal(t, "[]", fmt.Sprint(s.send("POST", "/api/chat/list-conversations", "alice", `{}`).body["conversations"]))
	}
}
