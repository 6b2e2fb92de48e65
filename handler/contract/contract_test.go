package contract

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write handler/api/openapi.json")

// The service answers with JSON, and the contract is written in YAML.
func TestContractAsJSON(t *testing.T) {
	want, err := asJSON()
	require.NoError(t, err)
	want = append(want, '\n')
	path := filepath.Join(Root(), "handler/api/openapi.json")
	if *update {
		require.NoError(t, os.WriteFile(path, want, 0o644))
	}
	has, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(has), "go test ./handler/contract -run TestContractAsJSON -update")
}

// exchange is a request and its answer, as they are on the wire.
type exchange struct {
	method, path, sent string
	status             int
	header             []string // of the answer, "Name: value"
	got                string
}

func (e exchange) check(t *testing.T) error {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), e.method, e.path, http.NoBody)
	request.Header.Set("Authorization", "Bearer x")
	if e.sent != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	answer := &http.Response{StatusCode: e.status, Header: http.Header{}}
	for _, header := range e.header {
		name, value, _ := strings.Cut(header, ": ")
		answer.Header.Add(name, value)
	}
	return Load(t).Check(request, []byte(e.sent), answer, []byte(e.got))
}

// Of each kind of exchange a good one is let pass, and each way to be wrong is found.
func TestWhatTheContractDoesNotHaveIsFound(t *testing.T) {
	const (
		id      = "01890a5d-ac96-774b-bcce-b302099a8057"
		path    = "/api/chat/conversations/" + id
		message = `{"seq":1,"state":"complete","createdAt":"2026-11-25T09:00:01.000Z","id":"` + id + `","role":"user","kind":"text","text":"Hello"}`
		missing = `{"type":"urn:chatkeep:problem:not_found","title":"Not Found","status":404,"detail":"d","code":"not_found","requestId":"r"}`
	)
	headers := func(media string, more ...string) []string {
		return append([]string{"X-Request-Id: r", "Content-Type: " + media}, more...)
	}
	for name, c := range map[string]struct {
		good  exchange
		wrong map[string]func(e *exchange)
	}{
		"an answer": {
			exchange{"POST", "/api/chat/send", `{"conversationId":"` + id + `","text":"x"}`, 200, headers("application/json"), `{"conversationId":"` + id + `","message":` + message + `,"messages":[]}`},
			map[string]func(e *exchange){
				"a status":              func(e *exchange) { e.status = 202 },
				"a media type":          func(e *exchange) { e.header = headers("text/plain") },
				"a header":              func(e *exchange) { e.header = append(e.header, "X-New: 1") },
				"a header's value":      func(e *exchange) { e.header = append(e.header, "Idempotency-Replayed: yes") },
				"a member more":         func(e *exchange) { e.got = `{"new":1,` + e.got[1:] },
				"a member more, within": func(e *exchange) { e.got = strings.Replace(e.got, `"seq"`, `"new":1,"seq"`, 1) },
				"a member less":         func(e *exchange) { e.got = strings.Replace(e.got, `,"messages":[]`, "", 1) },
				"a member's type":       func(e *exchange) { e.got = strings.Replace(e.got, `"seq":1`, `"seq":"1"`, 1) },
				"a value":               func(e *exchange) { e.got = strings.Replace(e.got, `"user"`, `"system"`, 1) },
				"a time":                func(e *exchange) { e.got = strings.Replace(e.got, "09:00:01.000Z", "later", 1) },
				"no JSON":               func(e *exchange) { e.got = "x" },
				"no body":               func(e *exchange) { e.got = "" },
				"an accepted member":    func(e *exchange) { e.sent = `{"new":1,` + e.sent[1:] },
				"an accepted type":      func(e *exchange) { e.sent = strings.Replace(e.sent, `"x"`, "1", 1) },
				"an accepted length":    func(e *exchange) { e.sent = strings.Replace(e.sent, "x", strings.Repeat("x", 32769), 1) },
				"a method":              func(e *exchange) { e.method = "PUT" },
				"a path":                func(e *exchange) { e.path += "/new" },
			},
		},
		"a problem": {
			exchange{"GET", path, "", 404, headers("application/problem+json"), missing},
			map[string]func(e *exchange){
				"a code":           func(e *exchange) { e.got = strings.ReplaceAll(e.got, "not_found", "gone_away") },
				"another status's": func(e *exchange) { e.status = 500 },
				"a member more":    func(e *exchange) { e.got = `{"new":1,` + e.got[1:] },
				"a member less":    func(e *exchange) { e.got = strings.Replace(e.got, `"detail":"d",`, "", 1) },
				"a header":         func(e *exchange) { e.header = append(e.header, "Retry-After: 1") },
			},
		},
		"a problem of no operation": {
			exchange{"GET", "/api/none", "", 404, headers("application/problem+json"), missing},
			map[string]func(e *exchange){
				"a status":      func(e *exchange) { e.status = 409 },
				"a member more": func(e *exchange) { e.got = `{"new":1,` + e.got[1:] },
				"success":       func(e *exchange) { e.status = 200 },
			},
		},
		"nothing": {
			exchange{"DELETE", path, "", 204, []string{"X-Request-Id: r"}, ""},
			map[string]func(e *exchange){
				"a body": func(e *exchange) { e.got = "{}" },
			},
		},
		"HEAD": {
			exchange{"HEAD", path, "", 200, headers("application/json", `ETag: W/"1"`), ""},
			map[string]func(e *exchange){
				"a status": func(e *exchange) { e.status = 202 },
				"a header": func(e *exchange) { e.header = append(e.header, "X-New: 1") },
			},
		},
		"a tag": {
			exchange{"GET", path, "", 304, []string{"X-Request-Id: r", `ETag: W/"1"`}, ""},
			map[string]func(e *exchange){
				"a value": func(e *exchange) { e.header[1] = `ETag: "1"` },
				"no tag":  func(e *exchange) { e.header = e.header[:1] },
			},
		},
		"events": {
			exchange{"GET", path + "/stream", "", 200, headers("text/event-stream; charset=utf-8"), ": ok\n\nretry: 1000\n\nid: 1-2\nevent: delta\ndata: {\"messageId\":\"" + id + "\",\"text\":\"x\"}\n\n: hb\n\n"},
			map[string]func(e *exchange){
				"a kind":        func(e *exchange) { e.got = strings.Replace(e.got, "delta", "token", 1) },
				"an id":         func(e *exchange) { e.got = strings.Replace(e.got, "1-2", "1", 1) },
				"a field":       func(e *exchange) { e.got = strings.Replace(e.got, "event:", "new: 1\nevent:", 1) },
				"a member more": func(e *exchange) { e.got = strings.Replace(e.got, `"text"`, `"new":1,"text"`, 1) },
				"a member less": func(e *exchange) { e.got = strings.Replace(e.got, `,"text":"x"`, "", 1) },
				"no JSON":       func(e *exchange) { e.got = strings.Replace(e.got, `"x"}`, "", 1) },
			},
		},
		"lines": {
			exchange{"GET", "/api/chat/export", "", 200, headers("application/x-ndjson", "Content-Disposition: x"), `{"type":"message",` + message[1:] + "\n" + `{"type":"end","conversations":0,"messages":1,"damaged":0}` + "\n"},
			map[string]func(e *exchange){
				"a type":        func(e *exchange) { e.got = strings.Replace(e.got, `"type":"message"`, `"type":"new"`, 1) },
				"a member more": func(e *exchange) { e.got = strings.Replace(e.got, `"damaged"`, `"new":1,"damaged"`, 1) },
				"no JSON":       func(e *exchange) { e.got += "{" },
			},
		},
	} {
		require.NoError(t, c.good.check(t), name)
		for what, change := range c.wrong {
			wrong := c.good
			wrong.header = append([]string(nil), c.good.header...)
			change(&wrong)
			require.Error(t, wrong.check(t), "%s with %s", name, what)
		}
	}
}
