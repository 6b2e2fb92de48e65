package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/hosttest"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/require"
)

// What one caller can do to the handler through the host: hold on to calls. The host's times and CALL_MAX are short. A call that outlives
// functionTimeout costs everybody the process.
const (
	attackers   = 500              // connections at once, of each kind
	hostGivesUp = 10 * time.Second // functionTimeout; 2 s later it kills
	hostIdle    = 5 * time.Second  // without a byte
	callMax     = 3 * time.Second
	holdOn      = hostGivesUp + 3*time.Second

	// The host notices a closed connection when it has written 8 KiB to it. The pieces are rare, for they are many.
	piece      = 4 << 10
	pieceEvery = time.Second
)

// attacks are what an attacker does on each of its connections, which then stay open until holdOn has passed.
var attacks = map[string][]func(*attacker){
	"slow uploads": {
		func(a *attacker) { a.upload(a.token) },
		func(a *attacker) { a.upload("") },
		func(a *attacker) { a.stop("Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n") },
		func(a *attacker) { a.stop("Content-Length: 1000\r\n\r\n{") },
	},
	"slow readers": {
		func(a *attacker) { a.read("/api/chat/conversations/"+a.conversation+"?limit=1000", 100) },
		func(a *attacker) { a.read("/api/chat/export", 100) },
		func(a *attacker) { a.read("/api/chat/export", 0) },
		func(a *attacker) { a.read("/api/chat/export", 50_000) }, // enough for whoever waits for a piece, and too little for the whole
	},
}

type attacker struct {
	conn         *net.TCPConn
	token        string // a line of headers
	conversation string // of some megabytes
}

// upload sends a body without a length, and without an end.
func (a *attacker) upload(token string) {
	_, err := fmt.Fprintf(a.conn, "POST /api/chat/send HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", token)
	for err == nil {
		_, err = fmt.Fprintf(a.conn, "%x\r\n%s\r\n", piece, strings.Repeat(" ", piece))
		time.Sleep(pieceEvery)
	}
}

// stop begins an upload.
func (a *attacker) stop(begin string) {
	_, _ = fmt.Fprintf(a.conn, "POST /api/chat/start HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\n%s", a.token, begin)
}

// read asks for much, and takes little of it, in bytes a second.
func (a *attacker) read(path string, rate int) {
	_ = a.conn.SetReadBuffer(max(4<<10, rate))
	_, err := fmt.Fprintf(a.conn, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, a.token)
	for err == nil && rate > 0 {
		time.Sleep(time.Second)
		_, err = io.ReadFull(a.conn, make([]byte, rate))
	}
}

// hasty is the script root with another functionTimeout.
func hasty(t *testing.T) string {
	t.Helper()
	dist := t.TempDir()
	require.NoError(t, os.CopyFS(dist, os.DirFS(packaged(t))))
	require.NoError(t, os.Chmod(filepath.Join(dist, "handler"), 0o755))
	path := filepath.Join(dist, "host.json")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var host map[string]any
	require.NoError(t, json.Unmarshal(text, &host))
	host["functionTimeout"] = fmt.Sprintf("00:00:%02.0f", hostGivesUp.Seconds())
	text, err = json.Marshal(host)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return dist
}

func TestAttacksThroughTheHost(t *testing.T) {
	dist := hasty(t)
	for name, kinds := range attacks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			impatient := func(t testing.TB, env ...string) *hosttest.Host {
				return hosttest.StartImpatient(t, dist, hostIdle, env...)
			}
			d := deployOn(t, impatient, "REDIS_URL=redis://"+redistest.Start(t).Addr, fmt.Sprint("CALL_MAX=", callMax), "AGENT_TIMEOUT=1s", "TURN_WAIT=1s",
				"MAX_CONCURRENT_REQUESTS_PER_USER=32") // as by default
			id := d.start("attacker")
			for range 100 { // more than the buffers of the connections hold
				d.must(200, "POST", "/api/chat/send", "attacker", said(id, strings.Repeat("x", 32_000)))
			}
			bystander := d.start("bystander")
			token := "Authorization: Bearer " + d.issuer.Token(authtest.LocalTenant, "attacker", nil) + "\r\n"

			began := time.Now()
			var working sync.WaitGroup
			defer working.Wait() // when all connections are closed
			for range attackers {
				for _, do := range kinds {
					conn, err := net.Dial("tcp", strings.TrimPrefix(d.host.URL, "http://"))
					require.NoError(t, err)
					defer func() { _ = conn.Close() }()
					working.Go(func() { do(&attacker{conn: conn.(*net.TCPConn), token: token, conversation: id}) })
				}
			}
			var slowest time.Duration
			asked := 0
			for ; time.Since(began) < holdOn; time.Sleep(20 * time.Millisecond) {
				asks := time.Now()
				d.must(200, "POST", "/api/chat/send", "bystander", said(bystander, "Hello"))
				slowest = max(slowest, time.Since(asks))
				asked++
			}
			t.Logf("%d kinds, %d of each: the longest call took %v; the handler had %d MB; the bystander's slowest of %d took %v", len(kinds), attackers,
				d.host.LongestCall().Round(100*time.Millisecond), memoryOf(t, d.host.PID())>>20, asked, slowest.Round(time.Millisecond))
			require.Empty(t, d.host.Exits(), "the host killed the handler")
			require.Empty(t, d.host.Stderr())
		})
	}
}

// What a reader leaves untaken is not held for it when the call is over, but for a little, and what its own system has.
func TestAnAnswerThatIsNotTakenIsNotHeld(t *testing.T) {
	t.Parallel()
	d := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr, "CALL_MAX=2s", "AGENT_TIMEOUT=1s", "TURN_WAIT=1s", "MAX_CONCURRENT_REQUESTS_PER_USER=1")
	id := d.start("alice")
	for range 100 {
		d.must(200, "POST", "/api/chat/send", "alice", said(id, strings.Repeat("x", 32_000)))
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(d.host.HandlerURL(), "http://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "GET /api/chat/export HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", d.issuer.Token(authtest.LocalTenant, "alice", nil))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 1)) // the call has begun
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		r, err := d.call("GET", "/api/chat/conversations/"+id, "alice", "")
		return err == nil && r.status == 200 // the caller's one place is free, so the call is over
	}, time.Minute, 20*time.Millisecond)
	held, err := io.Copy(io.Discard, conn)
	t.Logf("%d KB are held after the call", held>>10)
	require.Less(t, held, int64(512<<10), "%v", err)
}

// memoryOf is the most that a process had of memory, in bytes.
func memoryOf(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	require.NotNil(t, peak)
	kilobytes, err := strconv.ParseInt(string(peak[1]), 10, 64)
	require.NoError(t, err)
	return kilobytes << 10
}

// panicking has a request panic where its header X-Panic says: in its route, in the store or in the agent.
var panicking = []hosttest.Edit{
	{File: "api/api.go", Old: "\treturn handle(w, r)\n", New: `	place := r.Header.Get("X-Panic")
	if place == "route" {
		panic("Hello")
	}
	return handle(w, r.WithContext(context.WithValue(r.Context(), "X-Panic", place)))
`},
	{File: "store/redis.go", Old: "args ...any) (reply []string, err error) {\n", New: `args ...any) (reply []string, err error) {
	if ctx.Value("X-Panic") == "store" {
		panic("Hello")
	}
`},
	{File: "agent/echo.go", Old: "(context.Context, chat.Caller, string) (chat.Reply, error) {\n", New: `(ctx context.Context, _ chat.Caller, _ string) (chat.Reply, error) {
	if ctx.Value("X-Panic") == "agent" {
		panic("Hello")
	}
`},
	{File: "agent/echo.go", Old: "Answer(ctx context.Context, _ chat.Caller, q chat.Question, emit func(chat.Event)) (chat.Reply, error) {\n", New: `Answer(ctx context.Context, _ chat.Caller, q chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	if ctx.Value("X-Panic") == "agent" {
		panic(q.Message.Text)
	}
`},
}

// bodies are what a function that reads one is sent, so that it comes as far as the store and the agent.
var bodies = map[string]string{
	"start": `{"title":"Trip"}`, "send": `{"conversationId":"{conversationId}","text":"Hello"}`, "update": `{"title":"Rome"}`, "list-conversations": `{}`,
	"ui": `{"id":"{conversationId}","messages":[{"id":"m","role":"user","parts":[{"type":"text","text":"Hello"}]}]}`,
}

// TestAPanicOnEachRoute has each function panic in each place. The caller gets an answer, the host calls once, and nobody else notices.
func TestAPanicOnEachRoute(t *testing.T) {
	broken := hosttest.PackageEdited(t, nil, panicking...)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(broken)) })
	d := deployOn(t, func(t testing.TB, env ...string) *hosttest.Host { return hosttest.Start(t, broken, env...) }, "REDIS_URL=redis://"+redistest.Start(t).Addr)
	bystander := d.start("bystander")
	failed := func() int {
		n := 0
		for _, line := range d.host.Stdout() {
			if strings.Contains(line, `"msg":"request failed"`) {
				n++
			}
		}
		return n
	}
	expected := 0
	for _, f := range functionsOf(t) {
		for place, status := range map[string]int{"route": 500, "store": 500, "agent": 502} {
			if place == "store" && (f.name == "health" || f.name == "openapi") || place == "agent" && f.name != "start" && f.name != "send" {
				continue // which does not call it for this request
			}
			id := d.start("alice")
			request, err := http.NewRequestWithContext(t.Context(), f.method, d.host.URL+"/"+strings.ReplaceAll(f.route, "{conversationId}", id),
				strings.NewReader(strings.ReplaceAll(bodies[f.name], "{conversationId}", id)))
			require.NoError(t, err)
			request.Header.Set("Authorization", "Bearer "+d.issuer.Token(authtest.LocalTenant, "alice", nil))
			request.Header.Set("X-Panic", place)
			if bodies[f.name] != "" {
				request.Header.Set("Content-Type", "application/json")
			}
			answer, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			_ = answer.Body.Close()
			require.Equal(t, status, answer.StatusCode, "%s, a panic in the %s", f.name, place)
			expected++
			require.Eventually(t, func() bool { return failed() >= expected }, 10*time.Second, time.Millisecond, "%s, a panic in the %s is not told", f.name, place)
			require.Equal(t, expected, failed(), "%s, a panic in the %s: the handler was called again", f.name, place)
			d.must(200, "POST", "/api/chat/send", "bystander", said(bystander, "Hello"))
		}
	}

	id := d.start("alice") // and of a streamed send the answer has begun
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.host.URL+"/api/chat/send", strings.NewReader(said(id, "Hello")))
	require.NoError(t, err)
	for name, value := range map[string]string{
		"Authorization": "Bearer " + d.issuer.Token(authtest.LocalTenant, "alice", nil), "Content-Type": "application/json",
		"Accept": "text/event-stream", "X-Panic": "agent",
	} {
		request.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	events, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	require.NoError(t, err)
	require.Equal(t, 200, answer.StatusCode)
	require.Regexp(t, `(?s)event: error\ndata: [^\n]*"code":"agent_failed"[^\n]*\n\n$`, string(events))
	d.must(200, "POST", "/api/chat/send", "bystander", said(bystander, "Hello"))
	require.Empty(t, d.host.Exits())
}

type function struct{ name, method, route string }

// functionsOf are the functions as the host knows them.
func functionsOf(t *testing.T) []function {
	t.Helper()
	paths, err := filepath.Glob("../functions/*/function.json")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	var all []function
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var f struct {
			Bindings []struct {
				Methods []string
				Route   string
			}
		}
		require.NoError(t, json.Unmarshal(text, &f))
		all = append(all, function{filepath.Base(filepath.Dir(path)), strings.ToUpper(f.Bindings[0].Methods[0]), f.Bindings[0].Route})
	}
	return all
}
