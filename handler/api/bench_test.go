package api

import (
	"bytes"
	"fmt"
	"io"
	"math"
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

// What a request costs this program, without the network and Redis.
func BenchmarkServe(b *testing.B) {
	for _, row := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"start", "POST", "/api/chat/start", `{"title":"Trip to Rome","metadata":{"source":"web"}}`, 201},
		{"send", "POST", "/api/chat/send", `{"conversationId":%q,"text":"Hello, how are you today?"}`, 200},
		{"get-50", "GET", "/api/chat/conversations/%s?limit=50", "", 200},
		{"list-20", "POST", "/api/chat/list-conversations", `{"limit":20}`, 200},
	} {
		b.Run(row.name, func(b *testing.B) {
			s := openOver(b, store.NewMemory(endless()), agent.Echo{}, Edge{}, authtest.New())
			id := s.start("alice")
			for range 25 {
				text := strings.Repeat("some words ", 20)
				require.Equal(b, 200, s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":%q}`, id, text)).status)
				s.send("POST", "/api/chat/start", "alice", `{"title":"Trip to Rome","metadata":{"source":"web"}}`)
			}
			path, body := strings.Replace(row.path, "%s", id, 1), []byte(strings.Replace(row.body, "%q", `"`+id+`"`, 1))
			r := httptest.NewRequestWithContext(b.Context(), row.method, path, http.NoBody)
			r.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, "alice", nil))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-Azure-Functions-InvocationId", messageID)
			w := &discard{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				if len(body) > 0 {
					r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
				}
				clear(w.header)
				s.server.ServeHTTP(w, r)
			}
			require.Equal(b, row.status, w.status)
		})
	}
}

func endless() chat.Limits {
	endless := limits()
	endless.Messages, endless.Conversations, endless.Bytes, endless.TurnsPerMinute = math.MaxInt32, math.MaxInt32, math.MaxInt64, math.MaxInt32
	return endless
}

// discard is where an answer goes that nobody reads.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header              { return d.header }
func (d *discard) WriteHeader(status int)           { d.status = status }
func (d *discard) SetWriteDeadline(time.Time) error { return nil }
func (d *discard) SetReadDeadline(time.Time) error  { return nil }
func (d *discard) Write(b []byte) (int, error)      { return len(b), nil }
