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

	"github.com/stretchr/testify/require"
)

// newer is a store that was written by a later build.
type newer struct{ chat.Store }

const newerJSON = `{"id":"01890a5d-ac96-774b-bcce-b302099a8057","role":"user", "later":{"b":1.50,"a":"\u00e9"},"text":"hi"}`

func (newer) Get(_ context.Context, owner chat.Owner, id string, _ chat.Page) (chat.Conversation, []chat.StoredMessage, error) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.FixedZone("", 3600))
	return chat.Conversation{ID: id, Owner: owner, MessageCount: 7, Version: 7},
		[]chat.StoredMessage{{Seq: 7, State: chat.Complete, CreatedAt: at, JSON: []byte(newerJSON)}}, nil
}

func TestStoredMessagesPassUnread(t *testing.T) {
	s := openOver(t, newer{store.NewMemory(limits())}, agent.Echo{}, Edge{}, authtest.New())
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/chat/conversations/"+messageID, http.NoBody)
	request.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, "alice", nil))
	answer := httptest.NewRecorder() // the contract of this build does not know it
	s.server.ServeHTTP(answer, request)
	require.Equal(t, 200, answer.Code)
	require.Contains(t, answer.Body.String(), `"messages":[{"seq":7,"state":"complete","createdAt":"2026-01-02T02:04:05.678Z",`+newerJSON[1:]+`]`)
}

func TestTimesHaveMillisecondsInUTC(t *testing.T) {
	for text, at := range map[string]time.Time{
		`"2026-01-02T03:04:05.678Z"`: time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC),
		`"2026-01-02T03:04:05.000Z"`: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		`"2025-12-31T23:00:00.010Z"`: time.Date(2026, 1, 1, 1, 0, 0, 10_000_000, time.FixedZone("", 7200)),
		`"0001-01-01T00:00:00.000Z"`: {},
	} {
		require.Equal(t, text, string(appendTime(nil, at)))
	}
}

func TestWordsOfCallersAreEscaped(t *testing.T) {
	s := open(t)
	words := "\"\\/\b\f\n\r\t\x01é<&>\u2028😀"
	a := s.send("POST", "/api/chat/start", "alice", `{"title":"\"\\\/\b\f\n\r\t\u0001\u00e9<&>\u2028\ud83d\ude00","metadata":{"k\"":"\"\\"}}`)
	require.Equal(t, 201, a.status, a.text)
	conversation := a.body["conversation"].(map[string]any)
	require.Equal(t, words, conversation["title"])
	require.Equal(t, map[string]any{"k\"": "\"\\"}, conversation["metadata"])
	conversation["lastMessage"] = nil // which only list shows
	require.Equal(t, conversation, s.send("POST", "/api/chat/list-conversations", "alice", `{}`).body["conversations"].([]any)[0])

	id := conversation["id"].(string)
	a = s.send("POST", "/api/chat/send", "alice", `{"conversationId":"`+id+`","text":"\"\\\/\b\f\n\r\t\u0001\u00e9<&>\u2028\ud83d\ude00"}`)
	require.Equal(t, 200, a.status, a.text)
	listed := s.send("POST", "/api/chat/list-conversations", "alice", `{}`).body["conversations"].([]any)[0].(map[string]any)
	require.Equal(t, map[string]any{"role": "assistant", "text": words}, listed["lastMessage"])
}

// recorder counts writes.
type recorder struct {
	*httptest.ResponseRecorder
	writes int
}

func (r *recorder) Write(b []byte) (int, error) {
	r.writes++
	return r.ResponseRecorder.Write(b)
}

func TestAnAnswerIsOneWriteOfAKnownLength(t *testing.T) {
	s := open(t)
	id := s.start("alice")
	for range 2 {
		text := strings.Repeat("x", 10_000)
		require.Equal(t, 200, s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":%q}`, id, text)).status)
	}
	for _, row := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/api/chat/start", `{}`, 201},
		{"POST", "/api/chat/send", fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id), 200},
		{"GET", "/api/chat/conversations/" + id, "", 200},
		{"POST", "/api/chat/list-conversations", `{}`, 200},
		{"GET", "/health", "", 200},
		{"POST", "/api/chat/start", `{`, 400},
		{"GET", "/nothing", "", 404},
	} {
		r := httptest.NewRequestWithContext(t.Context(), row.method, row.path, strings.NewReader(row.body))
		r.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, "alice", nil))
		r.Header.Set("Content-Type", "application/json")
		w := &recorder{ResponseRecorder: httptest.NewRecorder()}
		s.server.ServeHTTP(w, r)
		require.Equal(t, row.status, w.Code, w.Body.String())
		require.Equal(t, 1, w.writes, row.path)
		require.Equal(t, fmt.Sprint(w.Body.Len()), w.Header().Get("Content-Length"), row.path)
	}
}
