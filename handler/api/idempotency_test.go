package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"chatkeep/handler/agent"
	"chatkeep/handler/auth/authtest"

	"github.com/stretchr/testify/require"
)

const messageID = "01890a5d-ac96-774b-bcce-b302099a8057"

func TestARepeatedRequestIsDoneOnce(t *testing.T) {
	s, _ := openOnRedis(t, authtest.New())
	for name, key := range map[string]string{"short": "k", "long": strings.Repeat("~", 255), "quoted": `"8e03978e-40d5"`} {
		t.Run(name, func(t *testing.T) {
			header := "Idempotency-Key: " + key
			first := s.send("POST", "/api/chat/start", "alice", `{"title":"Trip","metadata":{"a":"1","b":"2"}}`, header)
			require.Equal(t, http.StatusCreated, first.status, first.text)
			require.Empty(t, first.header.Get(replayedHeader))
			again := s.send("POST", "/api/chat/start", "alice", `{ "metadata":{"b":"2","a":"1"}, "title":"\u0054rip" }`, header)
			requireReplay(t, first, again)
			require.Equal(t, first.header.Get("Location"), again.header.Get("Location"))
			requireProblem(t, s.send("POST", "/api/chat/start", "alice", `{"title":"Trap"}`, header), 422, "idempotency_key_reused")
			requireProblem(t, s.send("POST", "/api/chat/start", "alice", "", header), 422, "idempotency_key_reused")

			id := first.body["conversationId"]
			body := fmt.Sprintf(`{"conversationId":%q,"text":"hi","value":{"a":1,"b":[]}}`, id)
			requireProblem(t, s.send("POST", "/api/chat/send", "alice", body, header), 422, "idempotency_key_reused")
			sent := s.send("POST", "/api/chat/send", "alice", body, "Idempotency-Key: send"+key[:min(len(key), 200)])
			require.Equal(t, http.StatusOK, sent.status, sent.text)
			again = s.send("POST", "/api/chat/send", "alice",
				fmt.Sprintf(`{"value":{"b":[ ],"a":1},"text":"hi","conversationId":%q}`, id), "Idempotency-Key: send"+key[:min(len(key), 200)])
			requireReplay(t, sent, again)
			got := s.send("GET", "/api/chat/conversations/"+id.(string), "alice", "")
			require.Len(t, got.body["messages"], 2)

			mine := s.send("POST", "/api/chat/start", "bob", `{"title":"Trip","metadata":{"a":"1","b":"2"}}`, header)
			require.Equal(t, http.StatusCreated, mine.status, mine.text)
			require.Empty(t, mine.header.Get(replayedHeader), "a key is not its owner's alone")
			require.NotEqual(t, id, mine.body["conversationId"])
		})
	}
	require.Len(t, s.send("POST", "/api/chat/list-conversations", "alice", `{}`).body["conversations"], 3)
}

func TestAMessageIDIsAKey(t *testing.T) {
	s, _ := openOnRedis(t, authtest.New())
	id, other := s.start("alice"), s.start("alice")
	body := fmt.Sprintf(`{"conversationId":%q,"text":"hi","messageId":%q}`, id, messageID)
	sent := s.send("POST", "/api/chat/send", "alice", body)
	require.Equal(t, http.StatusOK, sent.status, sent.text)
	require.Equal(t, messageID, sent.body["message"].(map[string]any)["id"])
	requireReplay(t, sent, s.send("POST", "/api/chat/send", "alice", body))
	requireReplay(t, sent, s.send("POST", "/api/chat/send", "alice", body, "Idempotency-Key: new"))
	for _, another := range []string{
		fmt.Sprintf(`{"conversationId":%q,"text":"hi","messageId":%q}`, other, messageID),
		fmt.Sprintf(`{"conversationId":%q,"text":"ho","messageId":%q}`, id, messageID),
		fmt.Sprintf(`{"conversationId":%q,"text":"hi","value":{},"messageId":%q}`, id, messageID),
	} {
		requireProblem(t, s.send("POST", "/api/chat/send", "alice", another), 422, "idempotency_key_reused")
	}
	mine := s.send("POST", "/api/chat/send", "bob",
		fmt.Sprintf(`{"conversationId":%q,"text":"hi","messageId":%q}`, s.start("bob"), messageID))
	require.Equal(t, http.StatusOK, mine.status, "another user's message id stands in the way")
	require.Empty(t, mine.header.Get(replayedHeader))
	requireProblem(t, s.send("POST", "/api/chat/send", "bob", body), 404, "not_found")
}

func TestAFailureIsRepeated(t *testing.T) {
	s := openWith(t, moody{})
	id := s.start("alice")
	for text, want := range map[string]struct {
		status int
		code   string
	}{"fail": {502, "agent_failed"}, "hang": {504, "agent_timeout"}} {
		body := fmt.Sprintf(`{"conversationId":%q,"text":%q}`, id, text)
		first := s.send("POST", "/api/chat/send", "alice", body, "Idempotency-Key: "+text)
		requireProblem(t, first, want.status, want.code)
		require.Empty(t, first.header.Get(replayedHeader))
		logged := s.log.Len()
		again := s.send("POST", "/api/chat/send", "alice", body, "Idempotency-Key: "+text)
		requireProblem(t, again, want.status, want.code)
		require.Equal(t, "true", again.header.Get(replayedHeader))
		require.Equal(t, logged, s.log.Len(), "one failure was logged twice")
	}
	got := s.send("GET", "/api/chat/conversations/"+id, "alice", "")
	require.Len(t, got.body["messages"], 2)
}

func TestBadKeysChangeNothing(t *testing.T) {
	s := openWith(t, agent.Echo{})
	id := s.start("alice")
	body := fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)
	for name, key := range map[string]string{
		"empty": "", "too long": strings.Repeat("k", 256), "with a space": "a b", "not ASCII": "schlüssel", "with a control": "a\tb",
		"two, joined by a proxy": "a, b", "two, joined without a space": "a,b",
	} {
		t.Run(name, func(t *testing.T) {
			for path, body := range map[string]string{"/api/chat/send": body, "/api/chat/start": ""} {
				refused := s.send("POST", path, "alice", body, "Idempotency-Key: "+key)
				requireProblem(t, refused, 400, "invalid_request")
				require.Contains(t, refused.text, `"path":"Idempotency-Key"`)
			}
		})
	}
	for _, messageID := range []string{"", "1"} {
		refused := s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"hi","messageId":%q}`, id, messageID))
		requireProblem(t, refused, 400, "invalid_request")
		require.Contains(t, refused.text, `"path":"messageId"`)
	}
	require.Empty(t, s.send("GET", "/api/chat/conversations/"+id, "alice", "").body["messages"])
	require.Len(t, s.send("POST", "/api/chat/list-conversations", "alice", `{}`).body["conversations"], 1)
}

func requireReplay(t *testing.T, first, again answer) {
	t.Helper()
	require.Equal(t, first.status, again.status, again.text)
	require.Equal(t, first.text, again.text)
	require.Equal(t, "true", again.header.Get(replayedHeader))
}

// What is asked tells requests apart, however it is written; a part never runs into the next.
func TestFingerprints(t *testing.T) {
	start := func(body string) string {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", "k")
		req, err := decode[startRequest](&response{ResponseWriter: httptest.NewRecorder(), request: r}, r, true)
		require.NoError(t, err)
		opening, err := req.opening(r)
		require.NoError(t, err)
		return opening.Idempotency.Fingerprint
	}
	send := func(body string) string {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", "k")
		req, err := decode[sendRequest](&response{ResponseWriter: httptest.NewRecorder(), request: r}, r, false)
		require.NoError(t, err)
		input, err := req.input(r)
		require.NoError(t, err)
		return input.Idempotency.Fingerprint
	}
	for _, same := range [][2]string{
		{``, `{}`},
		{`{}`, `{"title":null,"metadata":null}`},
		{`{"title":"Trip"}`, ` { "title" : "\u0054rip" } `},
		{`{"metadata":{"a":"1","b":"2"}}`, `{"metadata":{"b":"2","a":"1"}}`},
	} {
		require.Equal(t, start(same[0]), start(same[1]), "%s, %s", same[0], same[1])
	}
	for _, same := range [][2]string{
		{`{"text":"a","value":{"a":[1,{"b":1,"c":"é"}]}}`, `{"value":{ "a" : [1, {"c":"\u00e9","b":1}]},"text":"a"}`},
		{`{"conversationId":"ABCDEF"}`, `{"conversationId":"abcdef","text":null,"value":null,"messageId":null}`},
	} {
		require.Equal(t, send(same[0]), send(same[1]), "%s, %s", same[0], same[1])
	}
	seen := map[string]string{}
	for _, body := range []string{
		`{}`, `{"title":"a"}`, `{"title":"ab"}`, `{"metadata":{"a":""}}`, `{"metadata":{"":"a"}}`, `{"title":"a","metadata":{"b":"c"}}`,
		`{"metadata":{"ab":"c"}}`, `{"metadata":{"a":"bc"}}`, `{"metadata":{"a":"b","c":""}}`, `{"metadata":{"a":"","b":"c"}}`,
	} {
		digest := start(body)
		require.Empty(t, seen[digest], body)
		seen[digest] = body
	}
	for _, body := range []string{
		`{}`, `{"conversationId":"a"}`, `{"messageId":"a"}`, `{"text":"a"}`, `{"text":""}`, `{"value":{}}`, `{"text":"{}"}`, `{"text":"","value":{}}`,
		`{"value":{"a":1}}`, `{"value":{"a":1.0}}`, `{"value":{"a":"1"}}`, `{"value":{"a":[1,2]}}`, `{"value":{"a":[2,1]}}`,
		`{"value":{"a":12345678901234567890}}`, `{"value":{"a":12345678901234567891}}`, `{"conversationId":"ab","text":"c"}`, `{"conversationId":"a","text":"bc"}`,
	} {
		digest := send(body)
		require.Empty(t, seen[digest], body)
		seen[digest] = body
	}
}

func TestOnlyWhatMayBeRepeatedIsDigested(t *testing.T) {
	id := messageID
	for _, row := range []struct {
		key       string
		messageID *string
		digested  bool
	}{{"", nil, false}, {"k", nil, true}, {"", &id, true}, {"k", &id, true}} {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/", nil)
		if row.key != "" {
			r.Header.Set("Idempotency-Key", row.key)
		}
		input, err := sendRequest{MessageID: row.messageID}.input(r)
		require.NoError(t, err)
		require.Equal(t, row.digested, input.Idempotency.Fingerprint != "")
		opening, err := startRequest{}.opening(r)
		require.NoError(t, err)
		require.Equal(t, row.key != "", opening.Idempotency.Fingerprint != "")
	}
}
