package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/auth"
	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/chat"
	"chatkeep/handler/contract"
	"chatkeep/handler/redistest"
	"chatkeep/handler/store"
	"chatkeep/handler/telemetry"

	"github.com/stretchr/testify/require"
)

const tenant = authtest.LocalTenant

// service is the whole API on memory, with an issuer of its own.
type service struct {
	t      testing.TB
	url    string
	server *Server
	issuer *authtest.Issuer
	log    *bytes.Buffer

	recorder *telemetry.Recorder
}

func open(t *testing.T) *service {
	t.Helper()
	return openWith(t, agent.Echo{})
}

func openWith(t *testing.T, a chat.Agent) *service {
	t.Helper()
	return openBehind(t, a, Edge{})
}

func openBehind(t *testing.T, a chat.Agent, edge Edge) *service {
	t.Helper()
	few := limits()
	few.Messages, few.Conversations = 6, 50
	return openOver(t, store.NewMemory(few), a, edge, authtest.New())
}

// limits are far away.
func limits() chat.Limits {
	return chat.Limits{
		TTL: time.Hour, Messages: 1000, Conversations: 1000, Bytes: 1 << 30, TurnsPerMinute: 1_000_000, IdempotencyRecords: 1000,
	}
}

func openOver(t testing.TB, conversations chat.Store, a chat.Agent, edge Edge, issuer *authtest.Issuer) *service {
	t.Helper()
	return openSet(t, conversations, a, edge, issuer, settings)
}

func openSet(t testing.TB, conversations chat.Store, a chat.Agent, edge Edge, issuer *authtest.Issuer, settings chat.Settings) *service {
	t.Helper()
	s := &service{t: t, issuer: issuer, log: &bytes.Buffer{}, recorder: &telemetry.Recorder{}}
	settings.Recorder = s.recorder
	keys := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(keys, issuer.KeySet(), 0o600))
	log := slog.New(slog.NewJSONHandler(s.log, nil))
	config := auth.Config{Issuer: issuer.Name, Audiences: []string{issuer.Audience}, KeysURL: keys, Scope: authtest.Scope}
	if strings.Contains(issuer.Name, "{tenantid}") {
		config.Tenants = []string{tenant}
	}
	about := About{Store: "memory", Version: "test"}
	conversing := chat.NewService(conversations, a, settings, log)
	s.server = New(conversing, auth.New(config, log), about, edge, Limits{Requests: 32, UIBody: 1 << 20, Call: time.Minute, Stream: time.Minute}, s.recorder, log)
	server := httptest.NewServer(s.server)
	t.Cleanup(func() {
		server.Close()
		conversing.Close(context.Background())
		for _, personal := range []string{"eyJ", "alice", "bob", tenant, "secret"} { // whatever the test was about
			require.NotContains(t, s.log.String(), personal, "the log tells of a token, a person or a text")
		}
	})
	s.url = server.URL
	return s
}

var settings = chat.Settings{Context: 10, ContextBytes: 256 << 10, AgentTimeout: 100 * time.Millisecond, TurnWait: 50 * time.Millisecond, TurnLease: 30 * time.Second, IdempotencyTTL: time.Hour}

// answer is a response with its body read.
type answer struct {
	status int
	header http.Header
	text   string
	body   map[string]any
}

// send makes a request as a user; nobody sends no token. Headers come as "Name: value".
func (s *service) send(method, path, user, body string, headers ...string) answer {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	if user != nobody {
		request.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, user, nil))
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(s.t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	require.NoError(s.t, contract.Load(s.t).Check(request, []byte(body), response, text))
	a := answer{status: response.StatusCode, header: response.Header, text: string(text)}
	if len(text) > 0 && text[0] != '[' {
		require.NoError(s.t, json.Unmarshal(text, &a.body), "%s", text)
	}
	return a
}

const nobody = ""

func (s *service) start(user string) string {
	s.t.Helper()
	a := s.send("POST", "/api/chat/start", user, "")
	require.Equal(s.t, 201, a.status, a.text)
	return a.body["conversationId"].(string)
}

// requireProblem checks that an answer is a problem as RFC 9457 and the README describe it.
func requireProblem(t testing.TB, a answer, status int, code string) {
	t.Helper()
	require.Equal(t, status, a.status, a.text)
	require.Equal(t, "application/problem+json", a.header.Get("Content-Type"))
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
	require.Equal(t, code, a.body["code"])
	require.Equal(t, "urn:chatkeep:problem:"+code, a.body["type"])
	require.Equal(t, http.StatusText(status), a.body["title"])
	require.InDelta(t, status, a.body["status"], 0)
	require.NotEmpty(t, a.body["detail"])
	require.NotEmpty(t, a.body["requestId"])
	require.Equal(t, a.header.Get("X-Request-Id"), a.body["requestId"])
}

func TestConversation(t *testing.T) {
	s := open(t)
	began := time.Now().Add(-time.Second)
	a := s.send("POST", "/api/chat/start", "alice", `{"title":"Trip","metadata":{"color":"blue"}}`)
	require.Equal(t, 201, a.status, a.text)
	id := a.body["conversationId"].(string)
	require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, id)
	require.Equal(t, "/api/chat/conversations/"+id, a.header.Get("Location"))
	require.Equal(t, []any{}, a.body["messages"])
	c := a.body["conversation"].(map[string]any)
	for name, want := range map[string]any{
		"id": id, "externalId": "", "title": "Trip", "status": "active", "metadata": map[string]any{"color": "blue"},
		"messageCount": 0.0, "userId": "alice", "tenantId": tenant, "version": 1.0,
	} {
		require.Equal(t, want, c[name], name)
	}
	require.Len(t, c, 13)
	for _, name := range []string{"createdAt", "updatedAt", "lastAccessedAt", "expiresAt"} {
		require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, c[name])
	}
	created, err := time.Parse(time.RFC3339, c["createdAt"].(string))
	require.NoError(t, err)
	require.WithinRange(t, created, began, time.Now())

	a = s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"Hi <b>"}`, id))
	require.Equal(t, 200, a.status, a.text)
	question := a.body["message"].(map[string]any)
	require.Equal(t, "complete", question["state"])
	require.InDelta(t, 1, question["seq"], 0)
	reply := a.body["messages"].([]any)[0].(map[string]any)
	require.Equal(t, "Hi <b>", reply["text"])
	require.Equal(t, question["id"], reply["inReplyTo"])
	require.Equal(t, "assistant", reply["role"])

	a = s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"value":{"n":12345678901234567890,"a":[]}}`, id))
	require.Equal(t, 200, a.status, a.text)
	require.Contains(t, a.text, `"value":{"n":12345678901234567890,"a":[]}`)

	all := s.send("GET", "/api/chat/conversations/"+id, "alice", "")
	require.Equal(t, 200, all.status)
	require.Len(t, all.body["messages"], 4)
	require.Equal(t, false, all.body["hasMore"])
	require.Equal(t, `W/"5"`, all.header.Get("ETag"))
	page := s.send("GET", "/api/chat/conversations/"+id+"?limit=2&before=4", "alice", "")
	require.Len(t, page.body["messages"], 2)
	require.InDelta(t, 2, page.body["messages"].([]any)[0].(map[string]any)["seq"], 0)
	require.Equal(t, true, page.body["hasMore"])

	a = s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"three"}`, id))
	require.Equal(t, 200, a.status)
	a = s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"four"}`, id))
	requireProblem(t, a, 409, "conversation_full")
}

func TestList(t *testing.T) {
	s := open(t)
	want := map[string]bool{}
	for range 23 {
		want[s.start("alice")] = true
	}
	s.start("bob")
	seen := map[string]bool{}
	body := `{"limit":10}`
	for _, n := range []int{10, 10, 3} {
		a := s.send("POST", "/api/chat/list-conversations", "alice", body)
		require.Equal(t, 200, a.status, a.text)
		require.Len(t, a.body["conversations"], n)
		for _, c := range a.body["conversations"].([]any) {
			seen[c.(map[string]any)["id"].(string)] = true
			require.NotContains(t, c, "messages")
		}
		require.Equal(t, n == 10, a.body["hasMore"])
		if n == 10 {
			body = fmt.Sprintf(`{"limit":10,"cursor":%q}`, a.body["nextCursor"])
		} else {
			require.Nil(t, a.body["nextCursor"])
		}
	}
	require.Equal(t, want, seen)
	for status, n := range map[string]int{"active": 20, "completed": 0, "archived": 0} {
		a := s.send("POST", "/api/chat/list-conversations", "alice", fmt.Sprintf(`{"status":%q}`, status))
		require.Len(t, a.body["conversations"], n, status)
	}

	cursor := s.send("POST", "/api/chat/list-conversations", "alice", `{"limit":1}`).body["nextCursor"].(string)
	for name, bad := range map[string]string{
		"cut": cursor[:len(cursor)-1], "longer": cursor + "A", "changed": "B" + cursor[1:], "padded": cursor + "=", "empty": "",
		"with a line end": cursor[:20] + "\\n" + cursor[20:], "other alphabet": "+" + cursor[1:],
	} {
		a := s.send("POST", "/api/chat/list-conversations", "alice", fmt.Sprintf(`{"cursor":"%s"}`, bad))
		requireProblem(t, a, 400, "invalid_request")
		require.Contains(t, a.text, `"path":"cursor"`, name)
	}
	for user, body := range map[string]string{"bob": `{"cursor":%q}`, "alice": `{"cursor":%q,"status":"active"}`} {
		requireProblem(t, s.send("POST", "/api/chat/list-conversations", user, fmt.Sprintf(body, cursor)), 400, "invalid_request")
	}
}

func TestBadInputChangesNothing(t *testing.T) {
	s := open(t)
	id := s.start("alice")
	before := s.send("POST", "/api/chat/list-conversations", "alice", `{}`)
	send := func(rest string) string { return fmt.Sprintf(`{"conversationId":%q,%s}`, id, rest) }
	deep := strings.Repeat(`{"a":`, 5000) + `1` + strings.Repeat(`}`, 5000)
	var pairs []string
	for i := range 17 {
		pairs = append(pairs, fmt.Sprintf(`"k%d":""`, i))
	}
	for _, row := range []struct {
		name, path, body string
		status           int
		field            string // of the first error, for status 400
	}{
		{"empty", "send", "", 415, ""},
		{"null", "send", `null`, 400, "body"},
		{"an array", "send", `[]`, 400, "body"},
		{"a string", "start", `"x"`, 400, "body"},
		{"not JSON", "start", `{`, 400, "body"},
		{"trailing data", "start", `{} {}`, 400, "body"},
		{"unknown field", "start", `{"titel":"x"}`, 400, "titel"},
		{"another case", "start", `{"Title":"x"}`, 400, "Title"},
		{"repeated field", "start", `{"title":"x","title":"y"}`, 400, "title"},
		{"repeated by an escape", "start", `{"title":"x","\u0074itle":"y"}`, 400, "title"},
		{"wrong type", "start", `{"title":1}`, 400, "title"},
		{"wrong type inside", "start", `{"metadata":{"a":1}}`, 400, "metadata.a"},
		{"null inside", "start", `{"metadata":{"a":null}}`, 400, "metadata.a"},
		{"long title", "start", `{"title":"` + strings.Repeat("é", 201) + `"}`, 400, "title"},
		{"NUL in a title", "start", `{"title":"\u0000"}`, 400, "title"},
		{"too many pairs", "start", `{"metadata":{` + strings.Join(pairs, ",") + `}}`, 400, "metadata"},
		{"empty key", "start", `{"metadata":{"":"x"}}`, 400, "metadata"},
		{"long key", "start", `{"metadata":{"` + strings.Repeat("k", 65) + `":"x"}}`, 400, "metadata"},
		{"long value", "start", `{"metadata":{"k":"` + strings.Repeat("v", 513) + `"}}`, 400, "metadata.k"},
		{"nothing said", "send", send(`"text":""`), 400, "text"},
		{"text missing", "send", fmt.Sprintf(`{"conversationId":%q}`, id), 400, "text"},
		{"text too long", "send", send(`"text":"` + strings.Repeat("x", 32_769) + `"`), 400, "text"},
		{"text too long in bytes", "send", send(`"text":"` + strings.Repeat("é", 16_385) + `"`), 400, "text"},
		{"NUL in a text", "send", send(`"text":"a\u0000"`), 400, "text"},
		{"invalid UTF-8", "send", send("\"text\":\"a\xff\""), 400, "text"},
		{"half a surrogate pair", "send", send(`"text":"\ud800"`), 400, "text"},
		{"value a string", "send", send(`"value":"x"`), 400, "value"},
		{"value an array", "send", send(`"value":[]`), 400, "value"},
		{"nothing but nulls", "send", send(`"text":null,"value":null`), 400, "text"},
		{"value too deep", "send", send(`"value":` + deep), 400, "value"},
		{"id missing", "send", `{"text":"x"}`, 400, "conversationId"},
		{"id with braces", "send", `{"conversationId":"{x}","text":"x"}`, 400, "conversationId"},
		{"id with colons", "send", `{"conversationId":"a:b","text":"x"}`, 400, "conversationId"},
		{"id null", "send", `{"conversationId":null,"text":"x"}`, 400, "conversationId"},
		{"endless id", "send", `{"conversationId":"` + strings.Repeat("a", 300) + `","text":"x"}`, 400, "conversationId"},
		{"1 MB", "send", send(`"text":"` + strings.Repeat("x", 1<<20) + `"`), 413, ""},
		{"limit 0", "list-conversations", `{"limit":0}`, 400, "limit"},
		{"limit -1", "list-conversations", `{"limit":-1}`, 400, "limit"},
		{"limit 101", "list-conversations", `{"limit":101}`, 400, "limit"},
		{"limit 1e9", "list-conversations", `{"limit":1e9}`, 400, "limit"},
		{"limit 1.5", "list-conversations", `{"limit":1.5}`, 400, "limit"},
		{"limit x", "list-conversations", `{"limit":"x"}`, 400, "limit"},
		{"no status", "list-conversations", `{"status":""}`, 400, "status"},
		{"unknown status", "list-conversations", `{"status":"gone"}`, 400, "status"},
		{"empty list body", "list-conversations", "", 415, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := s.send("POST", "/api/chat/"+row.path, "alice", row.body)
			code := map[int]string{400: "invalid_request", 413: "payload_too_large", 415: "unsupported_media_type"}[row.status]
			requireProblem(t, a, row.status, code)
			if row.status == 400 {
				require.Equal(t, row.field, a.body["errors"].([]any)[0].(map[string]any)["path"], a.text)
			}
		})
	}
	for name, row := range map[string]struct {
		method, path, body, header string
		status                     int
	}{
		"limit 0":                    {"GET", "/api/chat/conversations/" + id + "?limit=0", "", "", 400},
		"limit 1001":                 {"GET", "/api/chat/conversations/" + id + "?limit=1001", "", "", 400},
		"limit empty":                {"GET", "/api/chat/conversations/" + id + "?limit=", "", "", 400},
		"limit twice":                {"GET", "/api/chat/conversations/" + id + "?limit=1&limit=2", "", "", 400},
		"before 0":                   {"GET", "/api/chat/conversations/" + id + "?before=0", "", "", 400},
		"before -1":                  {"GET", "/api/chat/conversations/" + id + "?before=-1", "", "", 400},
		"before abc":                 {"GET", "/api/chat/conversations/" + id + "?before=abc", "", "", 400},
		"id with an escaped slash":   {"GET", "/api/chat/conversations/a%2fb", "", "", 400},
		"id with escaped dots":       {"GET", "/api/chat/conversations/%2e%2e", "", "", 404},
		"no id":                      {"GET", "/api/chat/conversations/", "", "", 404},
		"double slash":               {"GET", "/api/chat//conversations/" + id, "", "", 404},
		"dots":                       {"GET", "/api/x/../chat/conversations/" + id, "", "", 404},
		"slash at the end":           {"GET", "/api/chat/conversations/" + id + "/", "", "", 404},
		"unknown path":               {"GET", "/api/chat/nothing", "", "", 404},
		"another case":               {"POST", "/API/chat/start", "", "", 404},
		"unknown conversation":       {"GET", "/api/chat/conversations/01890a5d-ac96-774b-bcce-b302099a8057", "", "", 404},
		"another's conversation":     {"GET", "/api/chat/conversations/" + s.start("bob"), "", "", 404},
		"wrong method":               {"PUT", "/api/chat/conversations/" + id, "", "", 405},
		"wrong method for start":     {"GET", "/api/chat/start", "", "", 405},
		"form":                       {"POST", "/api/chat/start", "title=x", "Content-Type: application/x-www-form-urlencoded", 415},
		"text":                       {"POST", "/api/chat/start", `{}`, "Content-Type: text/plain", 415},
		"broken content type":        {"POST", "/api/chat/start", `{}`, "Content-Type: ;", 415},
		"empty body":                 {"POST", "/api/chat/send", "", "Content-Type: application/json", 400},
		"body that says null":        {"POST", "/api/chat/list-conversations", "null", "", 400},
		"body of spaces is not JSON": {"POST", "/api/chat/start", " ", "", 400},
	} {
		t.Run("request/"+name, func(t *testing.T) {
			var headers []string
			if row.header != "" {
				headers = append(headers, row.header)
			}
			a := s.send(row.method, row.path, "alice", row.body, headers...)
			code := map[int]string{400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}[row.status]
			requireProblem(t, a, row.status, code)
			if row.status == 405 {
				require.Regexp(t, `^(GET, HEAD, PATCH, DELETE|POST)$`, a.header.Get("Allow"))
			}
		})
	}
	after := s.send("POST", "/api/chat/list-conversations", "alice", `{}`)
	require.Equal(t, before.text, after.text)
	require.Empty(t, s.log.String(), "a 4xx was logged")
}

func TestBodiesThatAreFine(t *testing.T) {
	s := open(t)
	id := s.start("alice")
	for name, body := range map[string]string{
		"the longest text": fmt.Sprintf(`{"conversationId":%q,"text":%q}`, id, strings.Repeat("x", 32_768)),
		"value with text":  fmt.Sprintf(`{"conversationId":%q,"text":"x","value":{"a":{"b":[null]}}}`, id),
	} {
		require.Equal(t, 200, s.send("POST", "/api/chat/send", "alice", body).status, name)
	}
	a := s.send("POST", "/api/chat/start", "alice", `{}`, "Content-Type: Application/JSON; charset=utf-8")
	require.Equal(t, 201, a.status)

	request, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/api/chat/start", io.NopCloser(strings.NewReader(`{"title":"in chunks"}`)))
	require.NoError(t, err)
	request.ContentLength = -1
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, "alice", nil))
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	_ = response.Body.Close()
	require.Equal(t, 201, response.StatusCode)
}

// moody answers as the text says.
type moody struct{ agent.Echo }

func (moody) Answer(ctx context.Context, _ chat.Caller, q chat.Question, _ func(chat.Event)) (chat.Reply, error) {
	switch q.Message.Text {
	case "fail":
		return chat.Reply{}, errors.New("the agent's own words")
	case "panic":
		panic("the agent's own words")
	default:
		<-ctx.Done()
		return chat.Reply{}, ctx.Err()
	}
}

func TestFailuresOfTheAgent(t *testing.T) {
	s := openWith(t, moody{})
	say := func(id, text string) answer {
		return s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":%q}`, id, text))
	}
	id := s.start("alice")
	for _, row := range []struct {
		text   string
		status int
		code   string
	}{{"fail", 502, "agent_failed"}, {"wait", 504, "agent_timeout"}, {"panic", 502, "agent_failed"}} {
		a := say(id, row.text)
		requireProblem(t, a, row.status, row.code)
		require.NotContains(t, a.text, "own words")
	}
	var states []any
	for _, m := range s.send("GET", "/api/chat/conversations/"+id, "alice", "").body["messages"].([]any) {
		states = append(states, m.(map[string]any)["state"])
	}
	require.Equal(t, []any{"failed", "failed", "failed"}, states)
	require.Equal(t, 3, strings.Count(s.log.String(), `"msg":"request failed"`))
}

func TestTooManyConversations(t *testing.T) {
	s := open(t)
	for range 50 {
		s.start("alice")
	}
	requireProblem(t, s.send("POST", "/api/chat/start", "alice", ""), 409, "too_many_conversations")
	s.start("bob")
}

func TestAuthorizationHeaders(t *testing.T) {
	s := open(t)
	good := s.issuer.Token(tenant, "alice", nil)
	for name, row := range map[string]struct {
		values    []string
		status    int
		challenge string
	}{
		"none":                      {nil, 401, `Bearer realm="api"`},
		"good":                      {[]string{"Bearer " + good}, 200, ""},
		"scheme in another case":    {[]string{"bEARER  " + good}, 200, ""},
		"another scheme":            {[]string{"Basic YTpi"}, 401, `Bearer realm="api"`},
		"two":                       {[]string{"Bearer " + good, "Bearer " + good}, 401, `Bearer error="invalid_token"`},
		"two joined by a proxy":     {[]string{"Bearer " + good + ", Bearer " + good}, 401, `Bearer error="invalid_token"`},
		"no token":                  {[]string{"Bearer"}, 400, `Bearer error="invalid_request"`},
		"not a token":               {[]string{"Bearer x"}, 401, `Bearer error="invalid_token"`},
		"too long":                  {[]string{"Bearer " + strings.Repeat("a", 8193)}, 400, `Bearer error="invalid_request"`},
		"an expired token":          {[]string{"Bearer " + s.issuer.Token(tenant, "alice", map[string]any{"exp": 1})}, 401, `Bearer error="invalid_token", error_description="The access token expired"`},
		"a token in the query only": {nil, 401, `Bearer realm="api"`},
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/api/chat/list-conversations?access_token="+good, strings.NewReader(`{}`))
			require.NoError(t, err)
			request.Header = http.Header{
				"Authorization": row.values, "Content-Type": {"application/json"},
				"X-Ms-Client-Principal-Id": {"alice"}, "X-Forwarded-User": {"alice"}, "Cookie": {"access_token=" + good},
			}
			response, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			_ = response.Body.Close()
			require.Equal(t, row.status, response.StatusCode)
			require.Equal(t, row.challenge, response.Header.Get("WWW-Authenticate"))
		})
	}
}

func TestHealthAndProbe(t *testing.T) {
	s := open(t)
	a := s.send("GET", "/health", nobody, "")
	require.Equal(t, 200, a.status)
	require.Equal(t, "healthy", a.body["status"])
	require.Equal(t, "memory", a.body["store"])
	require.Equal(t, "test", a.body["version"])
	require.Len(t, a.body, 6)
	a = s.send("HEAD", "/health", nobody, "")
	require.Equal(t, 200, a.status)
	require.Empty(t, a.text)
	a = s.send("GET", "/", nobody, "")
	require.Equal(t, 200, a.status)
	require.Empty(t, a.text)
	require.Empty(t, s.log.String())
}

func TestHealthTellsOfTheStore(t *testing.T) {
	server := redistest.Start(t, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	client := store.NewClient(store.Connection{Network: "tcp", Addr: server.Addr, PoolSize: 1, DialTimeout: time.Second, CommandTimeout: time.Second})
	t.Cleanup(func() { _ = client.Close() })
	conversations := store.NewRedis(client, client, store.Options{Timeout: time.Second}, slog.New(slog.DiscardHandler))
	t.Cleanup(conversations.Close)
	s := openOver(t, conversations, agent.Echo{}, Edge{}, authtest.New())
	s.server.about.Store = "redis"
	a := s.send("GET", "/health", nobody, "")
	require.Equal(t, 200, a.status, "what works is not taken out of service")
	require.Equal(t, "degraded", a.body["status"])
	require.Contains(t, a.body["warning"], "allkeys-lru")
	require.Equal(t, "connected", a.body["redisStatus"])
	require.Positive(t, a.body["redisLatencyMs"])

	server.Kill()
	require.Eventually(t, func() bool { return s.send("GET", "/health", nobody, "").status == 503 }, 10*time.Second, 50*time.Millisecond)
	a = s.send("GET", "/health", nobody, "")
	require.Equal(t, 503, a.status)
	require.Equal(t, "unhealthy", a.body["status"])
	require.Equal(t, "unavailable", a.body["redisStatus"])
	a = s.send("HEAD", "/health", nobody, "")
	require.Equal(t, 503, a.status)
	require.Empty(t, a.text)
	for _, method := range []string{"GET", "HEAD"} {
		require.Equal(t, 200, s.send(method, "/health?live=1", nobody, "").status)
	}
	require.Equal(t, "alive", s.send("GET", "/health?live=1", nobody, "").body["status"])
	server.Restart()
	require.Eventually(t, func() bool { return s.send("HEAD", "/health", nobody, "").status == 200 }, 10*time.Second, 50*time.Millisecond)
}

func TestTheLogNamesCallersByADigest(t *testing.T) {
	s := openWith(t, moody{})
	for _, user := range []string{"alice", "alice", "bob"} {
		id := s.start(user)
		s.send("POST", "/api/chat/send", user, fmt.Sprintf(`{"conversationId":%q,"text":"fail"}`, id))
	}
	callers := regexp.MustCompile(`"caller":"([0-9a-f]{12})"`).FindAllStringSubmatch(s.log.String(), -1)
	require.Len(t, callers, 3)
	require.Equal(t, callers[0], callers[1])
	require.NotEqual(t, callers[0], callers[2])
	for _, personal := range []string{"alice", "bob", tenant} {
		require.NotContains(t, s.log.String(), personal)
	}
}

func TestTokensThatCannotBeCheckedNowAreNotRefused(t *testing.T) {
	s := open(t)
	down := auth.New(auth.Config{Issuer: s.issuer.Name, Audiences: []string{s.issuer.Audience}, KeysURL: "/nowhere", Scope: authtest.Scope},
		slog.New(slog.DiscardHandler))
	s.server.auth = down
	a := s.send("POST", "/api/chat/start", "alice", "")
	requireProblem(t, a, 503, "identity_unavailable")
	require.Equal(t, "5", a.header.Get("Retry-After"))
	require.Empty(t, a.header.Get("WWW-Authenticate"))
	require.NotContains(t, a.text, "nowhere")
}

func TestRequestIDIsTheHosts(t *testing.T) {
	s := open(t)
	id := "6f8b0a1c-8f3f-4c55-9d59-7f3f6cf4f5a1"
	require.Equal(t, id, s.send("GET", "/nothing", nobody, "", "X-Azure-Functions-InvocationId: "+id).body["requestId"])
	made := s.send("GET", "/nothing", nobody, "", "X-Azure-Functions-InvocationId: "+"<script>").body["requestId"]
	require.NotContains(t, made, "<")
}

// The table of routes and the functions' folders say the same. A method that function.json does not list never reaches us.
func TestRoutesAreTheFunctions(t *testing.T) {
	s := open(t)
	served := map[string]string{}
	for _, r := range s.server.routes() {
		if r.name != "" {
			served[r.name] = strings.Join(r.methods(), ",") + " " + r.path
			_, err := os.Stat(strings.ReplaceAll(r.name, "-", "_") + ".go")
			require.NoError(t, err, "a function has a file of its name")
		}
	}
	files, err := filepath.Glob("../../functions/*/function.json")
	require.NoError(t, err)
	declared := map[string]string{}
	for _, file := range files {
		var f struct {
			Bindings []struct {
				Methods []string
				Route   string
			}
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &f))
		trigger := f.Bindings[0]
		require.Equal(t, strings.ToLower(regexp.MustCompile(`\{.*?\}`).ReplaceAllString(trigger.Route, "")),
			regexp.MustCompile(`\{.*?\}`).ReplaceAllString(trigger.Route, ""))
		declared[filepath.Base(filepath.Dir(file))] = strings.ToUpper(strings.Join(trigger.Methods, ",")) + " /" + trigger.Route
	}
	require.Equal(t, declared, served)
}
