package api

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/auth/authtest/attack"
	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"
	"chatkeep/handler/store"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// What those get who are not, or not provably, the owner: over a real Redis, whose command log shows what was touched.

func openOnRedis(t *testing.T, issuer *authtest.Issuer) (*service, *redistest.Server) {
	t.Helper()
	server := redistest.Start(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = client.Close() })
	conversations := store.NewRedis(client, client, store.Options{Limits: limits(), Timeout: 5 * time.Second}, slog.New(slog.DiscardHandler))
	t.Cleanup(conversations.Close)
	return openOver(t, conversations, agent.Echo{}, Edge{}, issuer), server
}

// executed is how many scripts of each kind a server has executed; every store call is one.
func executed(t *testing.T, server *redistest.Server) []string {
	t.Helper()
	return regexp.MustCompile(`cmdstat_eval(sha)?:calls=\d+`).FindAllString(server.CLI("info", "commandstats"), -1)
}

func TestAttacks(t *testing.T) {
	issuer, attacks := attack.All("http://127.0.0.1:1/")
	s, redisServer := openOnRedis(t, issuer)
	rows := map[int]bool{}
	before := executed(t, redisServer)
	for _, attack := range attacks {
		rows[attack.Row] = true
		if attack.Status == http.StatusOK {
			continue
		}
		t.Run(fmt.Sprintf("%d/%s", attack.Row, attack.Name), func(t *testing.T) {
			request := httptest.NewRequestWithContext(t.Context(), "POST", "/api/chat/list-conversations", strings.NewReader(`{}`))
			request.Header = attack.Header.Clone()
			request.Header.Set("Content-Type", "application/json")
			recorder := httptest.NewRecorder()
			s.server.ServeHTTP(recorder, request)
			require.Equal(t, attack.Status, recorder.Code, recorder.Body.String())
			require.Equal(t, attack.Challenge, recorder.Header().Get("WWW-Authenticate"))
			require.Equal(t, "application/problem+json", recorder.Header().Get("Content-Type"))
			for _, value := range attack.Header.Values("Authorization") {
				if _, token, _ := strings.Cut(value, " "); len(token) > 20 {
					require.NotContains(t, recorder.Body.String(), token)
				}
			}
		})
	}
	require.Equal(t, before, executed(t, redisServer), "a refused request reached Redis")
	require.Empty(t, s.log.String(), "a refused request was logged")
	t.Logf("%d attacks of %d kinds", len(attacks), len(rows))

	for _, attack := range attacks {
		if attack.Status != http.StatusOK {
			continue
		}
		request := httptest.NewRequestWithContext(t.Context(), "POST", "/api/chat/start", nil)
		request.Header = attack.Header.Clone()
		recorder := httptest.NewRecorder()
		s.server.ServeHTTP(recorder, request)
		require.Equal(t, http.StatusCreated, recorder.Code, attack.Name)
		require.Contains(t, recorder.Body.String(), fmt.Sprintf(`"userId":%q,"tenantId":%q`, attack.Subject, tenant), attack.Name)
	}
}

// Every route of the table that needs a user, tried by those who are not the owner. A new route joins by existing.
func TestNobodyReachesAnothersConversation(t *testing.T) {
	s, redisServer := openOnRedis(t, authtest.New())
	id, second := s.start("alice"), s.start("alice")
	secret := "a secret of alice"
	require.Equal(t, 200, s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":%q}`, id, secret)).status)
	mine := s.send("GET", "/api/chat/conversations/"+id, "alice", "")
	cursor := s.send("POST", "/api/chat/list-conversations", "alice", `{"limit":1}`).body["nextCursor"].(string)
	tag := regexp.MustCompile(`chat:\{.*?\}`).FindString(redisServer.CLI("keys", "*"))
	require.NotEmpty(t, tag)
	seen := monitor(t, redisServer)

	missing := "01890a5d-ac96-774b-bcce-b302099a8057"
	strangers := map[string]string{
		"another user":                    s.issuer.Token(tenant, "bob", nil),
		"the same user of another tenant": s.issuer.Token("bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee", "alice", nil),
		"an expired token":                s.issuer.Token(tenant, "alice", map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
		"another issuer's token":          authtest.New().Token(tenant, "alice", nil),
		"no token":                        "",
	}
	anonymous := map[string]bool{"health": true, "openapi": true, "": true}
	bodies := map[string]func(id string) string{ // where the usual one would not be read
		"ui": func(id string) string {
			return fmt.Sprintf(`{"id":%q,"messages":[{"id":"m","role":"user","parts":[{"type":"text","text":"x"}]}]}`, id)
		},
		"update": func(string) string { return `{"title":"mine"}` },
		"list-conversations": func(id string) string {
			if id == missing {
				return `{"cursor":"missing"}`
			}
			return fmt.Sprintf(`{"cursor":%q}`, cursor)
		},
	}
	theirs := map[string]bool{"erase": true, "export": true} // what they reach without naming it is their own
	for _, route := range s.server.routes() {
		if anonymous[route.name] {
			continue
		}
		for _, method := range route.methods() {
			for name, token := range strangers {
				t.Run(route.name+"/"+method+"/"+name, func(t *testing.T) {
					ask := func(id string) answer {
						header := []string{"X-Azure-Functions-InvocationId: same"}
						if token != "" {
							header = append(header, "Authorization: Bearer "+token)
						}
						body := fmt.Sprintf(`{"conversationId":%q,"text":"x"}`, id)
						if other, ok := bodies[route.name]; ok {
							body = other(id)
						}
						return s.send(method, strings.ReplaceAll(route.path, "{conversationId}", id), nobody, body, header...)
					}
					foreign, absent := ask(id), ask(missing)
					if !theirs[route.name] {
						require.GreaterOrEqual(t, foreign.status, 400)
					}
					require.Equal(t, absent.status, foreign.status)
					require.Equal(t, absent.text, foreign.text)
					require.NotContains(t, foreign.text, secret)
					if strings.Contains(name, "token") {
						require.Equal(t, 401, foreign.status)
						require.NotEmpty(t, foreign.header.Get("WWW-Authenticate"))
					}
				})
			}
		}
	}
	for name, token := range strangers {
		if !strings.Contains(name, "token") {
			a := s.send("POST", "/api/chat/list-conversations", nobody, `{}`, "Authorization: Bearer "+token)
			require.Equal(t, []any{}, a.body["conversations"], name)
		}
	}
	redisServer.CLI("echo", "the end")
	require.Eventually(t, func() bool { return strings.Contains(seen(), "the end") }, 10*time.Second, 5*time.Millisecond)
	require.Contains(t, seen(), "chat:{", "the log shows nothing at all")
	require.NotContains(t, seen(), tag, "a stranger's request touched a key of the owner")

	require.Equal(t, mine.body["messages"], s.send("GET", "/api/chat/conversations/"+id, "alice", "").body["messages"])
	require.Equal(t, 200, s.send("GET", "/api/chat/conversations/"+second, "alice", "").status)
}

// monitor returns what the server's command log has shown so far.
func monitor(t *testing.T, server *redistest.Server) func() string {
	t.Helper()
	conn, err := net.Dial("tcp", server.Addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write([]byte("MONITOR\r\n"))
	require.NoError(t, err)
	lines := bufio.NewReaderSize(conn, 1<<20)
	first, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "+OK\r\n", first)
	var mu sync.Mutex
	var log strings.Builder
	go func() {
		for {
			line, err := lines.ReadString('\n')
			mu.Lock()
			log.WriteString(line)
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return log.String()
	}
}

// Another's conversation must take as long as one that does not exist; compare the two.
func BenchmarkForeignOrMissing(b *testing.B) {
	server := redistest.Start(b)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	b.Cleanup(func() { _ = client.Close() })
	conversations := store.NewRedis(client, client, store.Options{Limits: limits(), Timeout: 5 * time.Second}, slog.New(slog.DiscardHandler))
	b.Cleanup(conversations.Close)
	alice, bob := chat.Owner{TenantID: "t", UserID: "alice"}, chat.Owner{TenantID: "t", UserID: "bob"}
	id, missing := "01890a5d-ac96-774b-bcce-b302099a8058", "01890a5d-ac96-774b-bcce-b302099a8057"
	_, err := conversations.Start(b.Context(), alice, chat.Start{Conversation: chat.Conversation{ID: id}})
	require.NoError(b, err)
	for name, id := range map[string]string{"foreign": id, "missing": missing} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, _, err := conversations.Get(b.Context(), bob, id, chat.Page{Limit: 100})
				require.ErrorIs(b, err, chat.ErrNotFound)
			}
		})
	}
}
