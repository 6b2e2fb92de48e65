package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/require"
)

// fault is something wrong between the caller and the program, and the line by which scripts/smoke.sh must say so.
type fault struct {
	line    string
	request func(r *http.Request)
	answer  func(r *http.Response)
}

// TestSmoke runs scripts/smoke.sh against the program behind the played host, with a Front Door before it that does what ours is
// deployed to do: it passes, and with each fault it fails with that fault's line.
func TestSmoke(t *testing.T) {
	const frontDoorID = "0f7d3b1e-5a52-4ee2-9a0c-3b8f4f6d2b11"
	d := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr, "FRONT_DOOR_ID="+frontDoorID)
	origin, err := url.Parse(d.host.URL)
	require.NoError(t, err)
	frontDoor := func(t *testing.T, f fault) string {
		t.Helper()
		server := httptest.NewServer(&httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(origin)
				r.Out.Header.Set("X-Azure-FDID", frontDoorID)
				if f.request != nil {
					f.request(r.Out)
				}
			},
			ModifyResponse: func(r *http.Response) error {
				r.Header.Set("X-Azure-Ref", "20261124T000000Z-1")
				r.Header.Set("X-Cache", "CONFIG_NOCACHE")
				r.Header.Set("Strict-Transport-Security", "max-age=31536000")
				if f.answer != nil {
					f.answer(r)
				}
				return nil
			},
		})
		t.Cleanup(server.Close)
		return server.URL
	}

	token := func(user string) string { return d.issuer.Token(authtest.LocalTenant, user, nil) }
	alice, bob := token("alice"), token("bob")
	smoke := func(t *testing.T, address, origin, token, other string) (string, error) {
		t.Helper()
		command := exec.CommandContext(t.Context(), "../scripts/smoke.sh", address)
		command.Env = []string{"PATH=" + os.Getenv("PATH"), "TOKEN=" + token, "OTHER_TOKEN=" + other, "ORIGIN_URL=" + origin, "FRONT_DOOR=yes"}
		output, err := command.CombinedOutput()
		if token != "" {
			require.NotContains(t, string(output), token, "it shows the token")
		}
		return string(output), err
	}

	good := frontDoor(t, fault{})
	output, err := smoke(t, good, d.host.URL, alice, bob)
	require.NoError(t, err, output)
	require.Contains(t, output, "\n20 passed, 0 failed\n")
	require.NotContains(t, output, "–", "something was left out")

	at := func(r *http.Request, method, path string) bool {
		return r.Method == method && strings.HasPrefix(r.URL.Path, path)
	}
	is := func(r *http.Response, method, path string, status int) bool {
		return at(r.Request, method, path) && r.StatusCode == status
	}
	for name, f := range map[string]fault{
		"the store cannot be reached": {line: "health: the API reaches its store", answer: func(r *http.Response) {
			if at(r.Request, "GET", "/health") {
				replace(r, http.StatusServiceUnavailable, `"healthy"`, `"unhealthy"`)
			}
		}},
		"HEAD is refused": {line: "health: answers HEAD", answer: func(r *http.Response) {
			if at(r.Request, "HEAD", "/health") {
				r.StatusCode = http.StatusMethodNotAllowed
			}
		}},
		"there is no challenge": {line: "no token: refused", answer: func(r *http.Response) { r.Header.Del("WWW-Authenticate") }},
		"a broken token is taken": {line: "a token with a broken signature", request: func(r *http.Request) {
			if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "+alice) {
				r.Header.Set("Authorization", "Bearer "+alice)
			}
		}},
		"no conversation can be made": {line: "start: makes a conversation", answer: func(r *http.Response) {
			if is(r, "POST", "/api/chat/start", http.StatusCreated) {
				replace(r, http.StatusServiceUnavailable, `"conversationId"`, `"none"`)
			}
		}},
		"nobody answers": {line: "send: keeps a message", answer: func(r *http.Response) {
			if is(r, "POST", "/api/chat/send", http.StatusOK) {
				replace(r, r.StatusCode, `"assistant"`, `"nobody"`)
			}
		}},
		"the text is another": {line: "get: the message is there", answer: func(r *http.Response) {
			if at(r.Request, "GET", "/api/chat/conversations/") {
				replace(r, r.StatusCode, `smoke `, `other `)
			}
		}},
		"a message is lost": {line: "get: the turn is complete", answer: func(r *http.Response) {
			if at(r.Request, "GET", "/api/chat/conversations/") {
				replace(r, r.StatusCode, `"messageCount":2`, `"messageCount":1`)
			}
		}},
		"an answer may be kept": {line: "get: nobody on the way", answer: func(r *http.Response) { r.Header.Set("Cache-Control", "public") }},
		"a request has no name": {line: "get: the request can be found again", answer: func(r *http.Response) { r.Header.Del("X-Request-Id") }},
		"the list forgets": {line: "list: has the conversation", answer: func(r *http.Response) {
			if at(r.Request, "POST", "/api/chat/list-conversations") {
				replace(r, r.StatusCode, `"id":"`, `"id":"x`)
			}
		}},
		"foreign ids are answered": {line: "a foreign id: get", answer: func(r *http.Response) {
			if r.StatusCode == http.StatusNotFound {
				r.StatusCode = http.StatusOK
			}
		}},
		"another user sees it": {line: "another user: cannot get", request: func(r *http.Request) {
			if r.Header.Get("Authorization") == "Bearer "+bob {
				r.Header.Set("Authorization", "Bearer "+alice)
			}
		}},
		"HTTPS is not insisted on": {line: "Front Door: insists on HTTPS", answer: func(r *http.Response) { r.Header.Del("Strict-Transport-Security") }},
		"a cache answers":          {line: "Front Door: did not answer from a cache", answer: func(r *http.Response) { r.Header.Set("X-Cache", "TCP_HIT") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output, err := smoke(t, frontDoor(t, f), d.host.URL, alice, bob)
			require.Error(t, err, output)
			require.Contains(t, "\n"+output, "\nFAIL  "+f.line)
		})
	}

	for name, c := range map[string]struct{ address, origin, token, other, says string }{
		"an app that answers everybody": {good, good, alice, bob, "FAIL  past Front Door"},
		"a token of a stranger":         {good, d.host.URL, authtest.New().Token(authtest.LocalTenant, "alice", nil), bob, "FAIL  start"},
		"no Front Door":                 {d.host.URL, d.host.URL, alice, bob, "FAIL"},
		"nobody there":                  {"http://127.0.0.1:1", d.host.URL, alice, bob, "no answer"},
		"no token":                      {good, d.host.URL, "", bob, "Usage: scripts/smoke.sh URL TOKEN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output, err := smoke(t, c.address, c.origin, c.token, c.other)
			require.Error(t, err, output)
			require.Contains(t, output, c.says)
		})
	}
}

// replace gives an answer another status, and another text in its body.
func replace(r *http.Response, status int, text, other string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	body = bytes.ReplaceAll(body, []byte(text), []byte(other))
	r.StatusCode, r.Body, r.ContentLength = status, io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
}
