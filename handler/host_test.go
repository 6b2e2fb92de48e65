package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/hosttest"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asked is a request to a route, and what comes back through the host. {id} is the caller's conversation, {gone} one that was deleted.
type asked struct {
	request string // method and path
	body    string
	headers string // name: value, one a line
	status  int
	code    string // of a problem
}

const (
	stranger = "Authorization: " // nobody
	tooBig   = 1 << 20           // bytes, below the host's limit and above ours
)

// conformance is what HTTP asks of each route, in this order.
var conformance = []asked{
	{"POST /api/chat/start", `{"title":"Trip","metadata":{"a":"b"}}`, "", 201, ""},
	{"POST /api/chat/start", `{"title":"Trip"}`, "Idempotency-Key: k", 201, ""},
	{"POST /api/chat/start", `{"title":"Trip"}`, "Idempotency-Key: k", 201, ""},
	{"POST /api/chat/start", `{"title":"Rome"}`, "Idempotency-Key: k", 422, "idempotency_key_reused"},
	{"POST /api/chat/start", ``, "", 201, ""},
	{"POST /api/chat/start", `{"titel":"Trip"}`, "", 400, "invalid_request"},
	{"POST /api/chat/start", `{"title":`, "", 400, "invalid_request"},
	{"POST /api/chat/start", `{}`, "Content-Type: text/plain", 415, "unsupported_media_type"},
	{"POST /api/chat/start", `{}`, "Content-Encoding: gzip", 415, "unsupported_media_type"},
	{"POST /api/chat/start", `{}`, "Idempotency-Key: a\nIdempotency-Key: b", 400, "invalid_request"},
	{"POST /api/chat/start", `{}`, stranger, 401, "unauthenticated"},
	{"POST /api/chat/start?a=%zz", `{}`, "", 201, ""}, // the host makes a percent of it
	{"POST /api/chat/start?a;b", `{}`, "", 400, "invalid_request"},
	{"POST /api/chat/start", strings.Repeat(" ", tooBig), "", 413, "payload_too_large"},
	{"GET /api/chat/start", ``, "", 404, ""},
	{"POST /api/chat/start/", `{}`, "", 404, "not_found"},
	{"POST /API/CHAT/START", `{}`, "", 404, "not_found"},

	{"POST /api/chat/send", `{"conversationId":"{id}","text":"hi"}`, "", 200, ""},
	{"POST /api/chat/send", `{"conversationId":"{id}","text":"hi"}`, "Idempotency-Key: s", 200, ""},
	{"POST /api/chat/send", `{"conversationId":"{id}","text":"hi"}`, "Idempotency-Key: s", 200, ""},
	{"POST /api/chat/send", `{"conversationId":"{id}","text":""}`, "", 400, "invalid_request"},
	{"POST /api/chat/send", ``, "", 415, "unsupported_media_type"},
	{"POST /api/chat/send", ``, "Content-Type: application/json", 400, "invalid_request"},
	{"POST /api/chat/send", `{"conversationId":"00000000-0000-7000-8000-000000000000","text":"hi"}`, "", 404, "not_found"},
	{"POST /api/chat/send", `{"conversationId":"{id}","text":"hi"}`, stranger, 401, "unauthenticated"},
	{"DELETE /api/chat/send", ``, "", 404, ""},
	{"POST /api/chat/send", `{"conversationId":"{id}","text":"hi"}`, "Accept: text/event-stream", 200, ""},
	{"POST /api/chat/send", `{"conversationId":"{id}","text":"hi"}`, "Accept: text/event-stream\nIdempotency-Key: s", 200, ""},
	{"POST /api/chat/send", `{"conversationId":"{id}","text":""}`, "Accept: text/event-stream", 400, "invalid_request"},

	{"GET /api/chat/conversations/{id}/stream", ``, "", 204, ""},
	{"GET /api/chat/conversations/{id}/stream", ``, "Last-Event-ID: 1-1", 200, ""},
	{"HEAD /api/chat/conversations/{id}/stream", ``, "Last-Event-ID: 1-1", 200, ""},
	{"GET /api/chat/conversations/{id}/stream?after=1-1", ``, "", 200, ""},
	{"GET /api/chat/conversations/{id}/stream?after=9-1", ``, "", 204, ""},
	{"GET /api/chat/conversations/{id}/stream", ``, "Last-Event-ID: x", 400, "invalid_request"},
	{"GET /api/chat/conversations/{id}/stream?follow=1", ``, "", 400, "invalid_request"},
	{"GET /api/chat/conversations/00000000-0000-7000-8000-000000000000/stream", ``, "", 404, "not_found"},
	{"GET /api/chat/conversations/{id}/stream", ``, stranger, 401, "unauthenticated"},
	{"POST /api/chat/conversations/{id}/stream", `{}`, "", 404, ""},

	{"POST /api/chat/conversations/{id}/cancel", ``, "", 200, ""},
	{"POST /api/chat/conversations/{id}/cancel", `{}`, "Idempotency-Key: c", 200, ""},
	{"POST /api/chat/conversations/{id}/cancel", `{"messageId":7}`, "", 400, "invalid_request"},
	{"POST /api/chat/conversations/00000000-0000-7000-8000-000000000000/cancel", ``, "", 404, "not_found"},
	{"POST /api/chat/conversations/{id}/cancel", ``, stranger, 401, "unauthenticated"},
	{"GET /api/chat/conversations/{id}/cancel", ``, "", 404, ""},

	{"POST /api/chat/ui", `{"id":"{id}","messages":[{"id":"m","role":"user","parts":[{"type":"text","text":"hi"}]}]}`, "", 200, ""},
	{"POST /api/chat/ui", `{"id":"{id}","messages":[{"id":"m","role":"user","parts":[{"type":"text","text":"hi"}]}]}`, "Accept: */*", 200, ""},
	{"POST /api/chat/ui", `{"id":"{id}","messages":[{"id":"m","role":"user","parts":[{"type":"text","text":"an edit"}]}]}`, "", 422, "idempotency_key_reused"},
	{"POST /api/chat/ui", `{"id":"{id}","trigger":"regenerate-message"}`, "", 409, "turn_complete"},
	{"POST /api/chat/ui", `{"id":"{id}","messages":[]}`, "", 400, "invalid_request"},
	{"POST /api/chat/ui", `{"id":"{id}","messages":[{"id":"m","role":"user","parts":[{"type":"file"}]}]}`, "", 400, "invalid_request"},
	{"POST /api/chat/ui", ``, "", 415, "unsupported_media_type"},
	{"POST /api/chat/ui", `{"id":"00000000-0000-7000-8000-000000000000","trigger":"regenerate-message"}`, "", 404, "not_found"},
	{"POST /api/chat/ui", `{"id":"{id}","trigger":"regenerate-message"}`, stranger, 401, "unauthenticated"},
	{"GET /api/chat/ui", ``, "", 404, ""},

	{"GET /api/chat/ui/{id}", ``, "", 200, ""},
	{"HEAD /api/chat/ui/{id}", ``, "", 200, ""},
	{"GET /api/chat/ui/{id}?limit=3", ``, "", 200, ""},
	{"GET /api/chat/ui/{id}?limit=0", ``, "", 400, "invalid_request"},
	{"GET /api/chat/ui/00000000-0000-7000-8000-000000000000", ``, "", 404, "not_found"},
	{"GET /api/chat/ui/{id}", ``, stranger, 401, "unauthenticated"},
	{"DELETE /api/chat/ui/{id}", ``, "", 404, ""},

	{"GET /api/chat/ui/{id}/stream", ``, "", 204, ""},
	{"HEAD /api/chat/ui/{id}/stream", ``, "", 204, ""},
	{"GET /api/chat/ui/x/stream", ``, "", 400, "invalid_request"},
	{"GET /api/chat/ui/00000000-0000-7000-8000-000000000000/stream", ``, "", 404, "not_found"},
	{"GET /api/chat/ui/{id}/stream", ``, stranger, 401, "unauthenticated"},
	{"POST /api/chat/ui/{id}/stream", `{}`, "", 404, ""},

	{"GET /api/chat/conversations/{id}", ``, "", 200, ""},
	{"GET /api/chat/conversations/{id}?limit=1", ``, "", 200, ""},
	{"HEAD /api/chat/conversations/{id}", ``, "", 200, ""},
	{"GET /api/chat/conversations/{id}", ``, "If-None-Match: {etag}", 304, ""},
	{"HEAD /api/chat/conversations/{id}", ``, "If-None-Match: {etag}", 304, ""},
	{"GET /api/chat/conversations/{id}", ``, "If-None-Match: \"other\"", 200, ""},
	{"GET /api/chat/conversations/{id}?limit=0", ``, "", 400, "invalid_request"},
	{"GET /api/chat/conversations/a%2Fb", ``, "", 400, "invalid_request"},
	{"GET /api/chat/conversations/00000000-0000-7000-8000-000000000000", ``, "", 404, "not_found"},
	{"HEAD /api/chat/conversations/00000000-0000-7000-8000-000000000000", ``, "", 404, ""},
	{"GET /api/chat/conversations/{id}", ``, stranger, 401, "unauthenticated"},
	{"POST /api/chat/conversations/{id}", `{}`, "", 404, ""},

	{"PATCH /api/chat/conversations/{id}", `{"title":"Rome"}`, "If-Match: {etag}", 200, ""},
	{"PATCH /api/chat/conversations/{id}", `{"title":"Oslo"}`, "If-Match: \"1\"", 412, "version_mismatch"},
	{"PATCH /api/chat/conversations/{id}", `{"title":"Oslo"}`, "Content-Type: application/merge-patch+json", 200, ""},
	{"PATCH /api/chat/conversations/{id}", `{"id":"x"}`, "", 400, "invalid_request"},
	{"PATCH /api/chat/conversations/{id}", ``, "", 415, "unsupported_media_type"},

	{"POST /api/chat/list-conversations", `{}`, "", 200, ""},
	{"POST /api/chat/list-conversations", `{"limit":1}`, "", 200, ""},
	{"POST /api/chat/list-conversations", `{"cursor":"x"}`, "", 400, "invalid_request"},
	{"POST /api/chat/list-conversations", `{}`, stranger, 401, "unauthenticated"},
	{"GET /api/chat/list-conversations", ``, "", 404, ""},

	{"GET /api/chat/export", ``, "", 200, ""},
	{"HEAD /api/chat/export", ``, "", 200, ""},
	{"GET /api/chat/export", ``, stranger, 401, "unauthenticated"},
	{"PUT /api/chat/export", `{}`, "", 404, ""},

	{"DELETE /api/chat/conversations/{id}", ``, "Idempotency-Key: d", 204, ""},
	{"DELETE /api/chat/conversations/{id}", ``, "Idempotency-Key: d", 204, ""},
	{"DELETE /api/chat/conversations/{id}", ``, "", 404, "not_found"},
	{"DELETE /api/chat/conversations/x", ``, "", 400, "invalid_request"},
	{"GET /api/chat/conversations/{id}", ``, "", 404, "not_found"},
	{"DELETE /api/chat/conversations", ``, stranger, 401, "unauthenticated"},
	{"DELETE /api/chat/conversations", ``, "", 200, ""},
	{"GET /api/chat/conversations", ``, "", 404, ""},
	{"POST /api/chat/list-conversations", `{}`, "", 200, ""},

	{"GET /health", ``, "", 200, ""},
	{"HEAD /health", ``, "", 200, ""},
	{"POST /health", `{}`, "", 404, ""},
	{"GET /nothing", ``, "", 404, ""},
}

// Each route speaks HTTP through the played host, and through the host's own forwarding part, where there is one, as its contract says; and both
// give their callers the same.
func TestTheRoutesSpeakHTTPThroughTheHost(t *testing.T) {
	const limit = "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT=1114112"
	server := redistest.Start(t)
	d := deploy(t, "REDIS_URL=redis://"+server.Addr, limit)
	played := d.conform(t, d.host.URL, "first-caller")
	for i, a := range conformance {
		problem := regexp.MustCompile(`"code":"(\w+)"`).FindStringSubmatch(played[i])
		assert.Contains(t, played[i], fmt.Sprintf("%s\n%d\n", a.request, a.status))
		assert.Equal(t, a.code, cmp.Or(strings.Join(problem[min(1, len(problem)):], ""), ""), played[i])
	}
	t.Run("the forwarder does the same", func(t *testing.T) {
		forwarded := d.conform(t, hosttest.StartForwarder(t, packaged(t), d.host.HandlerURL(), nil, limit), "second-caller")
		for i := range conformance {
			require.Equal(t, forwarded[i], played[i])
		}
	})
	require.Empty(t, d.host.Exits())
}

// A stream that lasts a minute, of an agent that says a word every 20 s, comes word by word through the played host and through the host's own
// forwarding part, and shows meanwhile that it lives.
func TestAStreamOfAMinute(t *testing.T) {
	t.Parallel()
	const between = 20500 * time.Millisecond // two words, in which two heartbeats come
	d := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr, "AGENT_ECHO_DELAY="+between.String())
	streams := func(t *testing.T, url string) *sync.WaitGroup {
		t.Helper()
		var all sync.WaitGroup
		for path, body := range map[string]string{
			"/api/chat/send": `{"conversationId":%q,"text":"one two three four"}`,
			"/api/chat/ui":   `{"id":%q,"messages":[{"id":"m","role":"user","parts":[{"type":"text","text":"one two three four"}]}]}`,
		} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, strings.NewReader(fmt.Sprintf(body, d.start("alice"))))
			require.NoError(t, err)
			request.Header.Set("Authorization", "Bearer "+d.issuer.Token(authtest.LocalTenant, "alice", nil))
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Accept", "text/event-stream")
			all.Go(func() {
				began := time.Now()
				told, lasted, err := words(request)
				assert.NoError(t, err, path)
				assert.Equal(t, []string{"one ", ": hb", "two ", ": hb", "three ", ": hb", "four"}, told, path)
				assert.Greater(t, time.Since(began), time.Minute, path)
				assert.Greater(t, lasted, 2*between, "%s: the beginning came with the end", path)
			})
		}
		return &all
	}
	played := streams(t, d.host.URL)
	t.Run("the forwarder does the same", func(t *testing.T) {
		streams(t, hosttest.StartForwarder(t, packaged(t), d.host.HandlerURL(), nil)).Wait()
	})
	played.Wait()
}

// words are those of a stream of either encoding, with one heartbeat where some came between them; it lasted from the first word to its end.
func words(request *http.Request) (told []string, lasted time.Duration, err error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = response.Body.Close() }()
	var first time.Time
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		data, _ := strings.CutPrefix(lines.Text(), "data: ")
		var delta struct{ MessageID, Text, Delta string }
		_ = json.Unmarshal([]byte(data), &delta) // of what is none, nothing
		switch {
		case delta.MessageID != "" && delta.Text != "", delta.Delta != "":
			if len(told) == 0 {
				first = time.Now()
			}
			told = append(told, cmp.Or(delta.Delta, delta.Text))
		case lines.Text() == ": hb" && len(told) > 0 && told[len(told)-1] != ": hb":
			told = append(told, ": hb")
		}
	}
	return told, time.Since(first), lines.Err()
}

var (
	delta  = regexp.MustCompile("id: .*\nevent: delta\ndata: .*\n\n") // of which an answer that comes at once may have none
	newID  = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	moment = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z|"nextCursor":"[^"]*"|"(uptimeSeconds|latencyMs|[a-zA-Z]*(Ms|Seconds))":[0-9.]+`)
)

// conform asks everything as a new user, and returns each request with its answer, in which ids and times are told by their order and not at all.
func (d *deployment) conform(t *testing.T, url, user string) []string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	var id, etag string
	names := make(map[string]string)
	lengths := make(map[string]int64)
	tellsNothing := func(text string) string {
		text = delta.ReplaceAllString(text, "")
		text = newID.ReplaceAllStringFunc(text, func(id string) string {
			if names[id] == "" {
				names[id] = fmt.Sprintf("id %d", len(names))
			}
			return names[id]
		})
		return moment.ReplaceAllString(strings.ReplaceAll(text, user, "the caller"), "now")
	}
	var answers []string
	for _, a := range conformance {
		known := strings.NewReplacer("{id}", id, "{etag}", etag)
		method, path, _ := strings.Cut(a.request, " ")
		request, err := http.NewRequestWithContext(t.Context(), method, url+known.Replace(path), strings.NewReader(known.Replace(a.body)))
		require.NoError(t, err)
		request.Header.Set("Authorization", "Bearer "+d.issuer.Token(authtest.LocalTenant, user, nil))
		if a.body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
		fresh := make(http.Header)
		for line := range strings.SplitSeq(known.Replace(a.headers), "\n") {
			if name, value, ok := strings.Cut(line, ":"); ok {
				fresh.Add(name, strings.TrimSpace(value))
			}
		}
		maps.Copy(request.Header, fresh)
		response, err := client.Do(request)
		require.NoError(t, err, a.request)
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err, a.request)
		_ = response.Body.Close()
		if id == "" {
			id = newID.FindString(string(text))
		}
		if method == http.MethodHead && response.StatusCode == http.StatusOK && id != "" && strings.Contains(request.URL.Path, id) {
			require.Equal(t, lengths[path], response.ContentLength, "HEAD tells another length than GET")
		}
		lengths[path] = response.ContentLength
		etag = cmp.Or(response.Header.Get("ETag"), etag)
		var out strings.Builder
		fmt.Fprintf(&out, "%d\n", response.StatusCode)
		for _, name := range []string{"Date", "Server"} {
			response.Header.Del(name)
		}
		if moment.Match(text) || response.Request.Method == http.MethodHead {
			fmt.Fprintf(&out, "long: %t\n", response.ContentLength > 0)
			response.Header.Del("Content-Length") // times have different numbers of digits
		}
		_ = response.Header.Write(&out)
		answers = append(answers, a.request+"\n"+tellsNothing(out.String()+string(text)))
	}
	return answers
}
