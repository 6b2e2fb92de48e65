// Package torture breaks everything around two handlers while clients use them, and keeps books about every message.
package torture

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/hosttest"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/require"
)

// The handlers' times: short, so that much happens.
const (
	turnLease    = time.Second
	agentTimeout = 2 * time.Second
	turnWait     = time.Second
	redisTimeout = turnLease / 3   // the longest that the handler takes
	longestStop  = 3 * time.Second // of a process
	recovery     = 6 * time.Second // after the last fault

	// What an answer may take: waiting for the turn, the agent, three calls of Redis, and a process that is stopped meanwhile or
	// restarted; the rest is the machine's.
	longestAnswer = turnWait + agentTimeout + 3*redisTimeout + longestStop + 10*time.Second
)

// world is two handlers behind one address, each on its own link, over one Redis with a replica.
type world struct {
	t      *testing.T
	seed   uint64
	random *rand.Rand // of the faults; the clients have their own
	issuer *authtest.Issuer
	dist   string
	env    []string
	url    string // the one address
	client *http.Client
	links  [2]*redistest.Link

	master, replica *redistest.Server

	mu    sync.Mutex
	hosts [2]*hosttest.Host
	next  int // whose turn it is

	books *books
}

// altered is the handler with edits.
func altered(t *testing.T, edits []hosttest.Edit) string {
	t.Helper()
	dist := hosttest.PackageEdited(t, commanded(t), edits...)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(dist)) })
	return dist
}

// plain is the handler with an agent that does what a text commands, built once for all tests.
func plain(t *testing.T) string {
	t.Helper()
	plainOnce.Do(func() { plainDist = hosttest.PackageEdited(t, commanded(t)) })
	require.NotEmpty(t, plainDist, "another test could not build it")
	return plainDist
}

var (
	plainOnce sync.Once
	plainDist string
)

func TestMain(m *testing.M) {
	code := m.Run()
	if plainDist != "" {
		_ = os.RemoveAll(filepath.Dir(plainDist))
	}
	os.Exit(code)
}

// commanded has the agent do what a text commands.
func commanded(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("testdata/agent.go.txt")
	require.NoError(t, err)
	return map[string]string{"agent/echo.go": string(text)}
}

func newWorld(t *testing.T, dist string, seed uint64) *world {
	t.Helper()
	return newWorldAt(t, nil, dist, seed)
}

// newWorldAt is newWorld with servers of Redis under a clock.
func newWorldAt(t *testing.T, clock *redistest.Clock, dist string, seed uint64) *world {
	t.Helper()
	w := &world{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), issuer: authtest.New(), dist: dist, books: newBooks()}
	durable := []string{"--appendonly", "yes", "--appendfsync", "always"}
	w.master = clock.Start(t, durable...)
	w.replica = clock.StartReplica(t, w.master, durable...)
	keys := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(keys, w.issuer.KeySet(), 0o600))
	w.env = []string{
		"AUTH_ISSUER=" + w.issuer.Name, "AUTH_AUDIENCE=" + w.issuer.Audience, "AUTH_JWKS_URL=" + keys, "MAX_TURNS_PER_MINUTE=1000000", "MAX_CONCURRENT_REQUESTS_PER_USER=1000",
		fmt.Sprint("TURN_LEASE=", turnLease), fmt.Sprint("TURN_WAIT=", turnWait), fmt.Sprint("AGENT_TIMEOUT=", agentTimeout),
		fmt.Sprint("REDIS_TIMEOUT=", redisTimeout), "REDIS_DIAL_TIMEOUT=1s", "REDIS_TTL=3600", "IDEMPOTENCY_TTL=3600",
	}
	for i := range w.links {
		w.links[i] = redistest.NewLink(t, w.master.Addr)
		w.hosts[i] = w.host(i)
	}
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(w.pick()) },
		ErrorHandler: func(rw http.ResponseWriter, _ *http.Request, _ error) { rw.WriteHeader(http.StatusBadGateway) },
		ErrorLog:     quiet,
	})
	t.Cleanup(front.Close)
	w.url = front.URL
	w.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}}
	t.Cleanup(w.client.CloseIdleConnections)
	return w
}

func (w *world) host(i int) *hosttest.Host {
	return hosttest.Start(w.t, w.dist, append([]string{"REDIS_URL=redis://" + w.links[i].Addr}, w.env...)...)
}

// pick is the handler that gets the next request.
func (w *world) pick() *url.URL {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	u, err := url.Parse(w.hosts[w.next%len(w.hosts)].URL)
	if err != nil {
		panic(err)
	}
	return u
}

// answer is what came back; status 0 means nothing did.
type answer struct {
	status int
	header http.Header
	text   string
	took   time.Duration

	ConversationID string       `json:"conversationId"`
	Code           string       `json:"code"`
	Conversation   conversation `json:"conversation"`
	Message        message      `json:"message"`
	Messages       []message    `json:"messages"`
	HasMore        bool         `json:"hasMore"`

	Conversations []conversation `json:"conversations"`
	NextCursor    string         `json:"nextCursor"`
}

type conversation struct {
	ID           string `json:"id"`
	Title        string `json:"title"`
	MessageCount int64  `json:"messageCount"`
	Version      int64  `json:"version"`
	UpdatedAt    string `json:"updatedAt"`
}

type message struct {
	ID        string `json:"id"`
	Seq       int64  `json:"seq"`
	Role      string `json:"role"`
	Text      string `json:"text"`
	InReplyTo string `json:"inReplyTo"`
	State     string `json:"state"`
}

// call makes a request as a user. An answer that is not the handler's own (the host's, the front's) has no code.
func (w *world) call(ctx context.Context, u *user, method, path string, body any, headers ...string) answer {
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, w.url+path, strings.NewReader(string(text)))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+u.token)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	asked := time.Now()
	response, err := w.client.Do(request)
	if err != nil {
		return answer{took: time.Since(asked)}
	}
	defer func() { _ = response.Body.Close() }()
	all, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{took: time.Since(asked)}
	}
	a := answer{status: response.StatusCode, header: response.Header, text: string(all), took: time.Since(asked)}
	if json.Valid(all) {
		var problem struct {
			Code string `json:"code"`
		}
		if a.status >= 400 {
			_ = json.Unmarshal(all, &problem)
			a.Code = problem.Code
		} else {
			_ = json.Unmarshal(all, &a)
		}
	}
	w.books.look(u, method+" "+path, a)
	return a
}

// fault is one way to break things; it heals before it returns.
type fault struct {
	name string
	do   func(*world)
}

// pause lets a fault last.
func (w *world) pause(least, most time.Duration) {
	time.Sleep(least + time.Duration(w.random.Int64N(int64(most-least))))
}

func (w *world) link() *redistest.Link { return w.links[w.random.IntN(len(w.links))] }

// kill kills a handler. The host starts it again; after its third death another host takes over.
func (w *world) kill() {
	i := w.random.IntN(len(w.hosts))
	w.mu.Lock()
	h := w.hosts[i]
	w.mu.Unlock()
	if len(h.Exits()) < 2 {
		h.Signal(syscall.SIGKILL)
		return
	}
	w.checkExits(h)
	fresh := w.host(i)
	w.mu.Lock()
	w.hosts[i] = fresh
	w.mu.Unlock()
	h.Stop()
}

// checkExits looks whether a handler has ended otherwise than by the signals that it was sent.
func (w *world) checkExits(h *hosttest.Host) {
	for _, code := range h.Exits() {
		if code != -1 {
			w.books.violation("6: a handler ended by itself, with exit code %d", code)
		}
	}
}

func (w *world) checkAllExits() {
	for _, h := range w.hosts {
		w.checkExits(h)
	}
}

func (w *world) freeze(least, most time.Duration) {
	w.mu.Lock()
	h := w.hosts[w.random.IntN(len(w.hosts))]
	w.mu.Unlock()
	h.Signal(syscall.SIGSTOP)
	w.pause(least, most)
	h.Signal(syscall.SIGCONT)
}

// failOver makes the replica the master without losing a write (FAILOVER waits until it has all), as a planned fail-over does.
func (w *world) failOver() {
	if !strings.Contains(w.master.CLI("info", "replication"), "state=online") {
		return // still copying after an earlier fault
	}
	host, port, _ := strings.Cut(w.replica.Addr, ":")
	w.master.CLI("failover", "to", host, port, "timeout", "5000")
	end := time.Now().Add(8 * time.Second)
	for !strings.Contains(w.replica.CLI("role"), "master\n") && time.Now().Before(end) {
		time.Sleep(5 * time.Millisecond)
	}
	if strings.HasPrefix(w.replica.CLI("role"), "master") {
		w.master, w.replica = w.replica, w.master
	}
	for _, l := range w.links {
		l.Lead(w.master.Addr)
	}
}

var faults = []fault{
	{"handler killed", (*world).kill},
	{"handler stopped", func(w *world) { w.freeze(100*time.Millisecond, longestStop) }},
	{"Redis killed", func(w *world) { w.master.Kill(); w.pause(50*time.Millisecond, time.Second); w.master.Restart() }},
	{"Redis stopped", func(w *world) {
		w.master.Pause()
		w.pause(100*time.Millisecond, longestStop)
		w.master.Resume()
	}},
	{"link cut", func(w *world) {
		l := w.link()
		l.Cut(true)
		w.pause(50*time.Millisecond, 1500*time.Millisecond)
		l.Cut(false)
	}},
	{"link slow", func(w *world) {
		l := w.link()
		l.Delay(time.Duration(20+w.random.IntN(400)) * time.Millisecond)
		w.pause(200*time.Millisecond, 1500*time.Millisecond)
		l.Delay(0)
	}},
	{"replies lost", func(w *world) {
		for range 10 {
			w.link().Lose(2)
			w.pause(5*time.Millisecond, 60*time.Millisecond)
		}
		for _, l := range w.links {
			l.Lose(0)
		}
	}},
	{"answers lost", func(w *world) {
		for range 5 { // the host sends again what it may, and answers 500 to the rest
			w.mu.Lock()
			h := w.hosts[w.random.IntN(len(w.hosts))]
			w.mu.Unlock()
			h.LoseAnswers(1 + w.random.IntN(6))
			w.pause(5*time.Millisecond, 60*time.Millisecond)
			h.LoseAnswers(0)
		}
	}},
	{"scripts flushed", func(w *world) { w.master.CLI("script", "flush") }},
	{"fail-over", (*world).failOver},
}
