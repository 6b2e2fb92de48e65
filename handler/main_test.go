package main

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/tls"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/chat"
	"chatkeep/handler/contract"
	"chatkeep/handler/hosttest"
	"chatkeep/handler/redistest"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// The built program behind the played host, over a real Redis.

var (
	packing sync.Once
	dist    string
)

// packaged is the script root, packaged once for all tests.
func packaged(t testing.TB) string {
	packing.Do(func() { dist = hosttest.Package(t) })
	return dist
}

func TestMain(m *testing.M) {
	code := m.Run()
	if dist != "" {
		_ = os.RemoveAll(filepath.Dir(dist))
	}
	os.Exit(code)
}

// deployment is a host with the handler, an issuer, and the Redis they use.
type deployment struct {
	t      *testing.T
	host   *hosttest.Host
	issuer *authtest.Issuer
	env    []string
}

func deploy(t *testing.T, env ...string) *deployment {
	t.Helper()
	return deployOn(t, func(t testing.TB, env ...string) *hosttest.Host { return hosttest.Start(t, packaged(t), env...) }, env...)
}

// deployOn is deploy on another host, or of another script root.
func deployOn(t *testing.T, start func(testing.TB, ...string) *hosttest.Host, env ...string) *deployment {
	t.Helper()
	d := &deployment{t: t, issuer: authtest.New()}
	keys := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(keys, d.issuer.KeySet(), 0o600))
	d.env = append([]string{"AUTH_ISSUER=" + d.issuer.Name, "AUTH_AUDIENCE=" + d.issuer.Audience, "AUTH_JWKS_URL=" + keys, "MAX_TURNS_PER_MINUTE=1000000", "MAX_CONCURRENT_REQUESTS_PER_USER=1000"}, env...)
	d.host = start(t, d.env...)
	t.Cleanup(func() { // whatever the test was about
		for _, line := range append(d.host.Stdout(), d.host.Stderr()...) {
			for _, personal := range []string{"eyJ", "alice", "bob", authtest.LocalTenant, "Hello"} {
				assert.NotContains(t, line, personal, "the log tells of a token, a person or a text")
			}
		}
	})
	return d
}

// reply is an answer; its fields are those of any of the functions.
type reply struct {
	status         int
	header         http.Header
	text           string
	ConversationID string `json:"conversationId"`
	Conversation   struct {
		MessageCount int
		Status       string
	}
	Conversations                    []struct{ ID string }
	Message                          struct{ ID, Text, State string }
	Messages                         []message
	HasMore                          bool
	Code, Status, Store, RedisStatus string
}

type message struct {
	Seq               int
	Role, Text, State string
}

func (d *deployment) call(method, path, user, body string) (reply, error) {
	request, err := http.NewRequestWithContext(d.t.Context(), method, d.host.URL+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if user != "" {
		request.Header.Set("Authorization", "Bearer "+d.issuer.Token(authtest.LocalTenant, user, nil))
	}
	if body != "" { // the type alone makes the host take a request for one with a body
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil {
		err = contract.Load(d.t).Check(request, []byte(body), response, text)
	}
	r := reply{status: response.StatusCode, header: response.Header, text: string(text)}
	if err == nil && len(text) > 0 {
		var numbers struct{ Status any }
		_ = json.Unmarshal(text, &numbers)
		if _, isNumber := numbers.Status.(float64); isNumber { // a problem's status is the HTTP status
			text = bytes.Replace(text, fmt.Appendf(nil, `"status":%d,`, r.status), nil, 1)
		}
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

// must is call with an expected status.
func (d *deployment) must(status int, method, path, user, body string) reply {
	d.t.Helper()
	r, err := d.call(method, path, user, body)
	require.NoError(d.t, err)
	require.Equal(d.t, status, r.status, r.text)
	return r
}

func (d *deployment) start(user string) string {
	d.t.Helper()
	return d.must(201, "POST", "/api/chat/start", user, `{"title":"e2e"}`).ConversationID
}

// history is all messages of a conversation, page by page.
func (d *deployment) history(id, user string) []message {
	d.t.Helper()
	var all []message
	for path := "/api/chat/conversations/" + id + "?limit=1000"; ; {
		r := d.must(200, "GET", path, user, "")
		all = append(r.Messages, all...)
		if !r.HasMore {
			return all
		}
		path = fmt.Sprintf("/api/chat/conversations/%s?limit=1000&before=%d", id, all[0].Seq)
	}
}

func said(id, text string) string { return fmt.Sprintf(`{"conversationId":%q,"text":%q}`, id, text) }

func TestEndToEnd(t *testing.T) {
	redisServer := redistest.Start(t)
	d := deploy(t, "REDIS_URL=redis://"+redisServer.Addr)

	id := d.start("alice")
	t.Run("send", func(t *testing.T) {
		r := d.must(200, "POST", "/api/chat/send", "alice", said(id, "Hello"))
		require.Equal(t, "complete", r.Message.State)
		require.Equal(t, "Hello", r.Messages[0].Text)
		require.Len(t, r.header.Get("X-Request-Id"), 36, "the host's invocation id")
		require.Equal(t, "invalid_request", d.must(400, "POST", "/api/chat/send", "alice", said(id, "")).Code)
		require.Equal(t, "not_found", d.must(404, "POST", "/api/chat/send", "bob", said(id, "x")).Code)
		require.Equal(t, "unauthenticated", d.must(401, "POST", "/api/chat/send", "", said(id, "x")).Code)
		require.Equal(t, "payload_too_large", d.must(413, "POST", "/api/chat/send", "alice", said(id, strings.Repeat("x", 1<<20))).Code)
	})
	t.Run("get", func(t *testing.T) {
		r := d.must(200, "GET", "/api/chat/conversations/"+id, "alice", "")
		require.Len(t, r.Messages, 2)
		require.Equal(t, "not_found", d.must(404, "GET", "/api/chat/conversations/"+id, "bob", "").Code)
		require.Equal(t, "invalid_request", d.must(400, "GET", "/api/chat/conversations/"+id+"?limit=0", "alice", "").Code)
		require.Equal(t, "invalid_request", d.must(400, "GET", "/api/chat/conversations/a%2Fb", "alice", "").Code)
	})
	t.Run("list-conversations", func(t *testing.T) {
		require.Equal(t, []struct{ ID string }{{id}}, d.must(200, "POST", "/api/chat/list-conversations", "alice", `{}`).Conversations)
		require.Empty(t, d.must(200, "POST", "/api/chat/list-conversations", "bob", `{}`).Conversations)
		require.Equal(t, "invalid_request", d.must(400, "POST", "/api/chat/list-conversations", "alice", `{"cursor":"x"}`).Code)
	})
	t.Run("start", func(t *testing.T) {
		require.Equal(t, "invalid_request", d.must(400, "POST", "/api/chat/start", "alice", `{"x":1}`).Code)
		require.Equal(t, "unauthenticated", d.must(401, "POST", "/api/chat/start", "", ``).Code)
	})
	t.Run("health", func(t *testing.T) {
		r := d.must(200, "GET", "/health", "", "")
		require.Equal(t, "redis", r.Store)
		require.Equal(t, "connected", r.RedisStatus)
		require.NotContains(t, r.text, "127.0.0.1")
	})
	t.Run("two Authorization headers", func(t *testing.T) {
		request, err := http.NewRequestWithContext(t.Context(), "POST", d.host.URL+"/api/chat/start", nil)
		require.NoError(t, err)
		token := "Bearer " + d.issuer.Token(authtest.LocalTenant, "alice", nil)
		request.Header["Authorization"] = []string{token, token}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		_ = response.Body.Close()
		require.Equal(t, 401, response.StatusCode)
	})
	for _, n := range []int{50, 500} {
		t.Run(fmt.Sprintf("%d parallel sends to one conversation", n), func(t *testing.T) {
			busy := d.start("alice")
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() {
					r, err := d.call("POST", "/api/chat/send", "alice", said(busy, fmt.Sprint(i)))
					if assert.NoError(t, err) {
						assert.Equal(t, 200, r.status, r.text)
					}
				})
			}
			all.Wait()
			r := d.must(200, "GET", "/api/chat/conversations/"+busy+"?limit=1000", "alice", "")
			require.Len(t, r.Messages, 2*n)
			for i, m := range r.Messages {
				require.Equal(t, i+1, m.Seq)
				require.Equal(t, []string{"user", "assistant"}[i%2], m.Role)
				require.Equal(t, r.Messages[i-i%2].Text, m.Text)
			}
		})
	}
	t.Run("conversations survive the handler's sudden end", func(t *testing.T) {
		d.host.Signal(syscall.SIGKILL)
		require.Eventually(t, func() bool { // the host answers 500 until it has seen the end
			r, err := d.call("GET", "/api/chat/conversations/"+id, "alice", "")
			return err == nil && r.status == 200 && len(r.Messages) == 2
		}, 10*time.Second, 10*time.Millisecond)
		require.Equal(t, []int{-1}, d.host.Exits())
	})
	require.Contains(t, strings.Join(d.host.Stdout(), "\n"), `"msg":"started"`)
	require.Empty(t, d.host.Stderr())
}

func TestStartUpDoesNotTouchRedis(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	var connections atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_ = conn.Close()
		}
	}()
	d := deploy(t, "REDIS_URL=redis://"+listener.Addr().String())
	d.must(401, "POST", "/api/chat/start", "", "")
	require.Zero(t, connections.Load())
	d.must(503, "POST", "/api/chat/start", "alice", "")
	require.Positive(t, connections.Load())
}

func TestRedisKilledUnderLoad(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	d := deploy(t, "REDIS_URL=redis://"+server.Addr)
	ids := []string{d.start("alice"), d.start("alice"), d.start("alice"), d.start("alice")}
	acknowledged := make([][]string, len(ids))
	sent := make([]map[string]bool, len(ids))
	var down atomic.Bool
	var refused, wrong atomic.Int64
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i, id := range ids {
		sent[i] = map[string]bool{}
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				text := fmt.Sprintf("%d-%d", i, n)
				sent[i][text] = true
				began := time.Now()
				r, err := d.call("POST", "/api/chat/send", "alice", said(id, text))
				switch {
				case err != nil:
					assert.NoError(t, err)
					return
				case r.status == 200:
					acknowledged[i] = append(acknowledged[i], text)
				case r.status == 503 && r.Code == "store_unavailable" && r.header.Get("Retry-After") != "" && !strings.Contains(r.text, "127.0.0.1"):
					refused.Add(1)
					assert.Less(t, time.Since(began), 5*time.Second)
				case r.status == 409 && r.Code == "turn_in_progress": // the outage left a turn, which its lease will end
				default:
					wrong.Add(1)
					t.Log(r.status, r.text)
				}
				if down.Load() {
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
	waitFor := func(what string, ok func() bool) {
		t.Helper()
		require.Eventually(t, ok, 20*time.Second, 5*time.Millisecond, what)
	}
	time.Sleep(300 * time.Millisecond) // of load
	down.Store(true)
	server.Kill()
	waitFor("503s", func() bool { return refused.Load() >= 8 })
	r := d.must(503, "GET", "/health", "", "")
	require.Equal(t, "unhealthy", r.Status)
	require.NotContains(t, r.text, "127.0.0.1")
	require.Contains(t, strings.Join(d.host.Stdout(), "\n"), "connection refused", "the log names the cause")
	server.Restart()
	back := time.Now()
	waitFor("the service is back", func() bool {
		r, err := d.call("POST", "/api/chat/start", "bob", "")
		return err == nil && r.status == 201
	})
	t.Logf("back %v after Redis", time.Since(back))
	require.Less(t, time.Since(back), time.Second)
	down.Store(false)
	time.Sleep(300 * time.Millisecond)
	close(stop)
	all.Wait()

	for _, line := range d.host.Stdout() {
		if strings.Contains(line, `"code":"internal"`) {
			t.Log(line)
		}
	}
	require.Zero(t, wrong.Load())
	require.Empty(t, d.host.Exits(), "the handler restarted")
	require.Empty(t, d.host.Stderr())
	require.NotEmpty(t, d.host.Stdout())
	for i, id := range ids {
		stored := map[string]int{}
		for n, m := range d.history(id, "alice") {
			require.Equal(t, n+1, m.Seq)
			if m.Role == "user" {
				require.True(t, sent[i][m.Text], "%q was never sent", m.Text)
				stored[m.Text]++
			}
		}
		for _, text := range acknowledged[i] {
			require.Equal(t, 1, stored[text], "%q was acknowledged", text)
		}
	}
}

func TestRedisOverTLSAndCluster(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 0)
	d := deploy(t, "REDIS_URL=redis://"+cluster.Addrs[0], "REDIS_CLUSTER=true")
	for i := range 10 { // users on every node
		user := fmt.Sprint("user", i)
		d.must(200, "POST", "/api/chat/send", user, said(d.start(user), "x"))
	}
	secure := redistest.StartTLS(t)
	_, port, err := net.SplitHostPort(secure.Addr)
	require.NoError(t, err)
	d = deploy(t, "REDIS_URL=rediss://localhost:"+port)
	d.must(503, "POST", "/api/chat/start", "alice", "") // a certificate that nobody vouches for
	require.Contains(t, strings.Join(d.host.Stdout(), "\n"), "needs an operator")
	d = deploy(t, "REDIS_URL=rediss://localhost:"+port, "SSL_CERT_FILE="+secure.CAFile)
	d.must(201, "POST", "/api/chat/start", "alice", "")
}

func TestRedisWithoutAPassword(t *testing.T) {
	server := redistest.StartTLS(t)
	server.CLI("acl", "setuser", "object", "on", "~*", "+@all", ">token")
	server.CLI("acl", "setuser", "default", "off") // the last command without a name
	asked := make(chan string, 100)
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Query().Get("client_id")
		_, _ = fmt.Fprintf(w, `{"access_token":"token","expires_on":"%d","token_type":"Bearer"}`, time.Now().Add(24*time.Hour).Unix())
	}))
	defer endpoint.Close()
	_, port, err := net.SplitHostPort(server.Addr)
	require.NoError(t, err)
	d := deploy(t, "REDIS_AUTH=entra", "REDIS_HOSTNAME=localhost", "REDIS_PORT="+port, "REDIS_USERNAME=object", "AZURE_CLIENT_ID=client",
		"SSL_CERT_FILE="+server.CAFile, "IDENTITY_ENDPOINT="+endpoint.URL+"/MSI/token", "IDENTITY_HEADER=secret")
	require.Empty(t, asked, "it asked before it was needed")
	d.must(200, "POST", "/api/chat/send", "alice", said(d.start("alice"), "x"))
	require.Equal(t, "client", <-asked)
	require.Empty(t, d.host.Stderr())
}

func TestAThousandRequestsLeaveNothing(t *testing.T) {
	server := redistest.Start(t)
	d := deploy(t, "REDIS_URL=redis://"+server.Addr, "REDIS_POOL_SIZE=10")
	id := d.start("alice")
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 50 {
				r, err := d.call("GET", "/api/chat/conversations/"+id, "alice", "")
				if assert.NoError(t, err) {
					assert.Equal(t, 200, r.status)
				}
			}
		})
	}
	all.Wait()
	clients, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(strings.Split(server.CLI("info", "clients"), "\n")[1], "connected_clients:")))
	require.NoError(t, err)
	require.LessOrEqual(t, clients, 11, "10 in the pool and redis-cli")
}

func TestRunLeavesNoGoroutine(t *testing.T) {
	server := redistest.Start(t)
	before := goleak.IgnoreCurrent()
	issuer := authtest.New()
	keys := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(keys, issuer.KeySet(), 0o600))
	port := freePort(t)
	env := map[string]string{
		"AUTH_ISSUER": issuer.Name, "AUTH_AUDIENCE": issuer.Audience, "AUTH_JWKS_URL": keys,
		"REDIS_URL": "redis://" + server.Addr, "FUNCTIONS_CUSTOMHANDLER_PORT": port, "MAX_TURNS_PER_MINUTE": "1000",
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, func(name string) string { return env[name] }, io.Discard) }()
	client := &http.Client{Transport: &http.Transport{}}
	for range 1000 {
		request, err := http.NewRequestWithContext(t.Context(), "POST", "http://127.0.0.1:"+port+"/api/chat/start", nil)
		require.NoError(t, err)
		request.Header.Set("Authorization", "Bearer "+issuer.Token(authtest.LocalTenant, "alice", nil))
		require.Eventually(t, func() bool {
			response, err := client.Do(request)
			if err == nil {
				_ = response.Body.Close()
			}
			return err == nil && response.StatusCode == 201
		}, 10*time.Second, 5*time.Millisecond)
	}
	client.CloseIdleConnections()
	cancel()
	require.NoError(t, <-done)
	goleak.VerifyNone(t, before)
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return port
}

func TestEnds(t *testing.T) {
	t.Run("under the host a signal restarts it uncounted", func(t *testing.T) {
		d := deploy(t)
		for range 4 { // more often than the host forgives errors
			exits := len(d.host.Exits())
			d.host.Signal(syscall.SIGTERM)
			require.Eventually(t, func() bool { return len(d.host.Exits()) > exits }, 10*time.Second, 5*time.Millisecond)
			require.Equal(t, "memory", d.must(200, "GET", "/health", "", "").Store)
		}
		require.Equal(t, []int{200, 200, 200, 200}, d.host.Exits())
		require.Contains(t, d.host.Stdout()[0], "REDIS_URL not set. Using in-memory store. Data will be lost on restart.")
		require.Empty(t, d.host.Stderr())
	})
	t.Run("a second signal ends it at once", func(t *testing.T) {
		d := deploy(t, "SHUTDOWN_GRACE=10m")
		// It takes a while until the program reads the request; a signal before that ends it well, and the host starts it again.
		endsAtOnce := func() bool {
			body, writer := io.Pipe() // a request that does not come to its end
			defer func() { _ = writer.Close() }()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.host.URL+"/api/chat/start", body)
			require.NoError(t, err)
			request.Header.Set("Authorization", "Bearer "+d.issuer.Token(authtest.LocalTenant, "alice", nil))
			request.Header.Set("Content-Type", "application/json")
			go func() {
				if response, err := http.DefaultClient.Do(request); err == nil {
					_ = response.Body.Close()
				}
			}()
			_, err = writer.Write([]byte(`{"title":`))
			require.NoError(t, err)
			exits := len(d.host.Exits())
			d.host.Signal(syscall.SIGTERM)
			time.Sleep(200 * time.Millisecond) // it would have ended
			if len(d.host.Exits()) > exits {
				return false
			}
			d.host.Signal(syscall.SIGTERM)
			require.Eventually(t, func() bool { return len(d.host.Exits()) > exits }, 10*time.Second, 5*time.Millisecond)
			return d.host.Exits()[exits] == -1
		}
		for attempt := 1; !endsAtOnce(); attempt++ {
			require.Less(t, attempt, 50)
		}
		require.Equal(t, "memory", d.must(200, "GET", "/health", "", "").Store)
	})
	t.Run("by hand a signal ends it well, and an error does not", func(t *testing.T) {
		require.Equal(t, 0, exitCode(nil, func(string) string { return "" }))
		require.Equal(t, 200, exitCode(nil, func(string) string { return "7071" }))
		require.Equal(t, 1, exitCode(io.EOF, func(string) string { return "7071" }))
	})
}

func TestTheEdgeUnderTheHost(t *testing.T) {
	const id = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
	d := deploy(t, "FRONT_DOOR_ID="+id, "CORS_ORIGINS=https://chat.example.com")
	require.Equal(t, "forbidden", d.must(403, "POST", "/api/chat/start", "alice", "").Code)
	d.must(200, "GET", "/health", "", "")
	request, err := http.NewRequestWithContext(t.Context(), "POST", d.host.URL+"/api/chat/start", nil)
	require.NoError(t, err)
	request.Header.Set("X-Azure-FDID", id)
	request.Header.Set("Origin", "https://chat.example.com")
	request.Header.Set("Authorization", "Bearer "+d.issuer.Token(authtest.LocalTenant, "alice", nil))
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	_ = response.Body.Close()
	require.Equal(t, 201, response.StatusCode)
	for name := range response.Header {
		require.NotContains(t, name, "Access-Control", "the platform answers for CORS; two answers break browsers")
	}
	require.Contains(t, strings.Join(d.host.Stdout(), "\n"), "CORS_ORIGINS is ignored")
}

func TestTheLogSaysWhyACallerWasRefusedWhenAsked(t *testing.T) {
	for _, level := range []string{"info", "debug"} {
		d := deploy(t, "LOG_LEVEL="+level)
		d.issuer.Audience = "another"
		id := d.must(401, "POST", "/api/chat/start", "alice", "").header.Get("X-Request-Id")
		told := func() bool {
			log := strings.Join(d.host.Stdout(), "\n")
			return strings.Contains(log, "aud is not this API") && strings.Contains(log, id)
		}
		if level == "debug" {
			require.Eventually(t, told, 10*time.Second, 5*time.Millisecond)
		} else {
			d.must(200, "GET", "/health", "", "")
			require.False(t, told())
		}
	}
}

func TestRunningRequestsFinishAtTheEnd(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	begun, finish := make(chan struct{}), make(chan struct{})
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		_, _ = io.WriteString(w, "finished")
	})}
	ctx, end := context.WithCancel(t.Context())
	service := chat.NewService(store.NewMemory(chat.Limits{}), agent.Echo{}, chat.Settings{TurnLease: time.Minute}, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- serve(ctx, server, listener, service, time.Minute, slog.New(slog.DiscardHandler)) }()
	answered := make(chan string, 1)
	go func() {
		response, err := http.Get("http://" + listener.Addr().String())
		if !assert.NoError(t, err) {
			return
		}
		text, err := io.ReadAll(response.Body)
		assert.NoError(t, err)
		_ = response.Body.Close()
		answered <- string(text)
	}()
	<-begun
	end()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, 10*time.Second, 5*time.Millisecond, "it still takes requests")
	close(finish)
	require.Equal(t, "finished", <-answered)
	require.NoError(t, <-served)
}

func TestTheBinaryIsStaticAndSmall(t *testing.T) {
	path := filepath.Join(packaged(t), "handler")
	file, err := elf.Open(path)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	for _, p := range file.Progs {
		require.NotEqual(t, elf.PT_INTERP, p.Type, "it needs a dynamic linker")
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(20<<20))
	require.Equal(t, os.FileMode(0o755), info.Mode().Perm())
}

func TestThePackageIsReproducible(t *testing.T) {
	first, err := os.ReadFile(packaged(t) + ".zip")
	require.NoError(t, err)
	again := hosttest.Package(t)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(again)) })
	second, err := os.ReadFile(again + ".zip")
	require.NoError(t, err)
	require.True(t, bytes.Equal(first, second), "equal sources give different bytes")
	require.Less(t, len(first), 12<<20)

	archive, err := zip.NewReader(bytes.NewReader(first), int64(len(first)))
	require.NoError(t, err)
	modes := make(map[string]os.FileMode)
	for _, file := range archive.File {
		modes[file.Name] = file.Mode()
	}
	require.Equal(t, os.FileMode(0o755), modes["handler"], "only on some plans the host makes it executable")
	require.Equal(t, os.FileMode(0o644), modes["host.json"])
	require.Equal(t, os.FileMode(0o644), modes["start/function.json"])
}

// The playground gives tokens away, so nothing of it is deployed. What is looked for is in what make run builds; the playground's test looks.
func TestThePackageHoldsNothingOfThePlayground(t *testing.T) {
	program, err := os.ReadFile(filepath.Join(packaged(t), "handler"))
	require.NoError(t, err)
	for _, of := range []string{"chatkeep/handler/playground.", "AdaptiveCards"} {
		require.False(t, bytes.Contains(program, []byte(of)), of)
	}
	archive, err := zip.OpenReader(packaged(t) + ".zip")
	require.NoError(t, err)
	defer func() { _ = archive.Close() }()
	for _, file := range archive.File {
		require.Contains(t, []string{"handler", "host.json", "function.json"}, filepath.Base(file.Name))
	}
}

// The README's example, as it stands there.
func TestReadmeExample(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	_, example, found := strings.Cut(string(readme), "```sh\n")
	require.True(t, found)
	example, _, _ = strings.Cut(example, "```")
	d := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr)
	command := exec.Command("bash", "-euc", example)
	command.Env = []string{
		"PATH=" + os.Getenv("PATH"), "URL=" + d.host.URL, "TOKEN=" + d.issuer.Token(authtest.LocalTenant, "alice", nil),
	}
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s", out)
	answers := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, answers, 4, "%s", out)
	require.Contains(t, answers[0], `"role":"assistant","kind":"text","text":"Hello"`)
	require.Contains(t, answers[1], `"hasMore":false`)
	require.Contains(t, answers[2], `"title":"Trip to Rome"`)
	require.Contains(t, answers[3], `"status":"healthy"`)
}

// The examples of docs/streaming.md, as they stand there.
func TestStreamingExamples(t *testing.T) {
	page, err := os.ReadFile("../docs/streaming.md")
	require.NoError(t, err)
	d := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr, "STREAM_MAX=1s")
	id := d.start("alice")
	var answers []string
	for rest := string(page); ; {
		_, example, found := strings.Cut(rest, "```sh\n")
		if !found {
			break
		}
		example, rest, _ = strings.Cut(example, "```")
		command := exec.CommandContext(t.Context(), "bash", "-euc", example)
		command.Env = []string{
			"PATH=" + os.Getenv("PATH"), "URL=" + d.host.URL, "ID=" + id, "TOKEN=" + d.issuer.Token(authtest.LocalTenant, "alice", nil),
		}
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s", out)
		answers = append(answers, string(out))
	}
	require.Len(t, answers, 4)
	sent, resumed, followed, cancelled := answers[0], answers[1], answers[2], answers[3]
	accepted, rest, found := strings.Cut(strings.TrimPrefix(sent, ": ok\n\nretry: 1000\n\n"), "\n\n")
	require.True(t, found, sent)
	require.Contains(t, accepted, "id: 1-1\nevent: message.accepted\ndata: {")
	require.Contains(t, rest, "id: 1-19999\nevent: done\ndata: {")
	require.Equal(t, ": ok\n\nretry: 1000\n\n"+rest, resumed)
	require.Equal(t, ": ok\n\nretry: 1000\n\n", followed, "nothing happened")
	require.JSONEq(t, `{"conversationId":"`+id+`","cancelled":false}`, cancelled)
}

func TestTLSNeverBelow12(t *testing.T) {
	c, err := readConfig(settings(map[string]string{"REDIS_HOSTNAME": "x.redis.cache.windows.net", "REDIS_PASSWORD": "p"}))
	require.NoError(t, err)
	require.Equal(t, uint16(tls.VersionTLS12), c.redis.TLS.MinVersion)
	require.Equal(t, "x.redis.cache.windows.net", c.redis.TLS.ServerName)
	require.Equal(t, "x.redis.cache.windows.net:6380", c.redis.Addr)
	require.Zero(t, c.redis.TLS.MaxVersion)
}

// The host sends a request without a body again and again when it gets no answer: 40 times, or 10 when it is a POST. The caller gets the
// answer of the last, and it has been done once.
func TestTheHostMayRepeatWhatHasNoBody(t *testing.T) {
	server := redistest.Start(t)
	const conversations = "/api/chat/conversations"
	for name, test := range map[string]struct {
		lost   int // answers
		repeat func(t *testing.T, d *deployment, user, id string)
	}{
		"start": {9, func(t *testing.T, d *deployment, user, id string) {
			made := d.must(201, "POST", "/api/chat/start", user, "").ConversationID
			require.Equal(t, []struct{ ID string }{{made}, {id}}, d.conversations(user))
			d.start(user)
			d.must(429, "POST", "/api/chat/start", user, "") // it was counted once
		}},
		"get": {39, func(_ *testing.T, d *deployment, user, id string) { d.must(200, "GET", conversations+"/"+id, user, "") }},
		"stream": {39, func(_ *testing.T, d *deployment, user, id string) {
			d.must(204, "GET", conversations+"/"+id+"/stream", user, "")
		}},
		"cancel": {9, func(_ *testing.T, d *deployment, user, id string) {
			d.must(200, "POST", conversations+"/"+id+"/cancel", user, "")
		}},
		"ui-history": {39, func(t *testing.T, d *deployment, user, id string) {
			r, _ := d.call("GET", "/api/chat/ui/"+id, user, "") // it is an array
			require.Equal(t, 200, r.status)
			require.Equal(t, "[]\n", r.text)
		}},
		"ui-stream": {39, func(_ *testing.T, d *deployment, user, id string) {
			d.must(204, "GET", "/api/chat/ui/"+id+"/stream", user, "")
		}},
		"health": {39, func(_ *testing.T, d *deployment, _, _ string) { d.must(200, "GET", "/health", "", "") }},
		"export": {39, func(t *testing.T, d *deployment, user, id string) {
			r, _ := d.call("GET", "/api/chat/export", user, "") // it is lines of JSON
			require.Equal(t, 200, r.status)
			lines := strings.Split(r.text, "\n")
			require.Contains(t, lines[0], id)
			require.Equal(t, []string{`{"type":"end","conversations":1,"messages":0,"damaged":0}`, ""}, lines[1:])
		}},
		"delete": {39, func(t *testing.T, d *deployment, user, id string) {
			a := d.must(204, "DELETE", conversations+"/"+id, user, "")
			require.Equal(t, "true", a.header.Get("Idempotency-Replayed"))
			d.must(404, "DELETE", conversations+"/"+id, user, "") // another call
			require.Empty(t, d.conversations(user))
		}},
		"erase": {39, func(t *testing.T, d *deployment, user, _ string) {
			require.Contains(t, d.must(200, "DELETE", conversations, user, "").text, `"keysRemaining":0`)
			require.Empty(t, d.conversations(user))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, "REDIS_URL=redis://"+server.Addr, "MAX_TURNS_PER_MINUTE=3")
			user := "caller-" + name
			id := d.start(user)
			d.host.LoseAnswers(test.lost)
			test.repeat(t, d, user, id)
			require.Empty(t, d.host.Exits())
		})
	}
}

func (d *deployment) conversations(user string) []struct{ ID string } {
	d.t.Helper()
	return d.must(200, "POST", "/api/chat/list-conversations", user, `{}`).Conversations
}
