package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"chatkeep/handler/agent"
	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/require"
)

// export asks for alice's export, which the test reads.
func (s *service) export(method string) (status int, header http.Header, body io.Reader) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.url+"/api/chat/export", nil)
	require.NoError(s.t, err)
	request.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, "alice", nil))
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = response.Body.Close() })
	return response.StatusCode, response.Header, response.Body
}

func TestExport(t *testing.T) {
	s, _ := openOnRedis(t, authtest.New())
	s.start("bob")
	want := map[string][]string{}
	for i := range 3 {
		id := s.send("POST", "/api/chat/start", "alice", fmt.Sprintf(`{"title":"<%d>","metadata":{"a":"b"}}`, i)).body["conversationId"].(string)
		for range i {
			require.Equal(t, 200, s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"x","value":{"n":1}}`, id)).status)
		}
		want[id] = nil
	}
	status, header, body := s.export("GET")
	require.Equal(t, 200, status)
	require.Equal(t, "application/x-ndjson", header.Get("Content-Type"))
	require.Equal(t, "no-store", header.Get("Cache-Control"))
	text, err := io.ReadAll(body)
	require.NoError(t, err)
	lines := strings.Split(string(text), "\n")
	require.Empty(t, lines[len(lines)-1], "the last line ends too")
	require.JSONEq(t, `{"type":"end","conversations":3,"messages":6,"damaged":0}`, lines[len(lines)-2])
	var current string
	seen := map[string]string{}
	for _, line := range lines[:len(lines)-2] {
		var it struct{ Type, ID string }
		require.NoError(t, json.Unmarshal([]byte(line), &it), line)
		own := "{" + strings.TrimPrefix(line, fmt.Sprintf(`{"type":%q,`, it.Type))
		switch it.Type {
		case "conversation":
			current = it.ID
			seen[current] = own
		case "message":
			want[current] = append(want[current], own)
		default:
			require.Fail(t, line)
		}
	}
	for id, messages := range want {
		a := s.send("GET", "/api/chat/conversations/"+id, "alice", "")
		require.Equal(t, fmt.Sprintf(`{"conversation":%s,"messages":[%s],"hasMore":false}`, seen[id], strings.Join(messages, ","))+"\n", a.text)
	}

	status, header, _ = s.export("HEAD")
	require.Equal(t, 200, status)
	require.Equal(t, "application/x-ndjson", header.Get("Content-Type"))
	requireProblem(t, s.send("GET", "/api/chat/export", nobody, ""), 401, "unauthenticated")
	require.JSONEq(t, `{"type":"end","conversations":0,"messages":0,"damaged":0}`, s.send("GET", "/api/chat/export", "carol", "").text)
}

// failing is a store that cannot list, or get, when it is told so.
type failing struct {
	chat.Store
	list, get error
}

func (f *failing) List(ctx context.Context, owner chat.Owner, l chat.List) ([]chat.Conversation, *chat.Cursor, error) {
	conversations, next, err := f.Store.List(ctx, owner, l)
	if f.list != nil {
		err = f.list
	}
	return conversations, next, err
}

func (f *failing) Get(ctx context.Context, owner chat.Owner, id string, p chat.Page) (chat.Conversation, []chat.StoredMessage, error) {
	if f.get != nil && p.Before > 1001 {
		return chat.Conversation{}, nil, f.get
	}
	return f.Store.Get(ctx, owner, id, p)
}

// manyMessages starts a conversation with messages of 1 KB that share their text.
func manyMessages(t *testing.T, conversations chat.Store, n int) {
	t.Helper()
	message := []byte(`{"id":"01890a5d-ac96-774b-bcce-b302099a8057","role":"assistant","kind":"text","text":"` + strings.Repeat("x", 1000) + `"}`)
	messages := make([][]byte, n)
	for i := range messages {
		messages[i] = message
	}
	_, err := conversations.Start(t.Context(), chat.Owner{TenantID: tenant, UserID: "alice"}, chat.Start{
		Conversation: chat.Conversation{ID: "01890a5d-ac96-774b-bcce-b302099a8058"}, Messages: messages,
	})
	require.NoError(t, err)
}

// A file that was cut shows: the connection breaks, and the last line is missing.
func TestAnExportThatIsCutShows(t *testing.T) {
	f := &failing{Store: store.NewMemory(limits())}
	s := openOver(t, f, agent.Echo{}, Edge{}, authtest.New())
	manyMessages(t, f.Store, 2000)
	f.get = chat.ErrUnavailable
	_, _, body := s.export("GET")
	text, err := io.ReadAll(body)
	require.Error(t, err)
	require.NotContains(t, string(text[max(0, len(text)-100):]), `"type":"end"`)
	require.Contains(t, s.log.String(), "store_unavailable")

	f.list = chat.ErrUnavailable
	a := s.send("GET", "/api/chat/export", "alice", "")
	requireProblem(t, a, 503, "store_unavailable")
	require.Empty(t, a.header.Get("Content-Disposition"))
}

func TestAnExportNeedsLittleMemory(t *testing.T) {
	memory := store.NewMemory(limits())
	s := openOver(t, memory, agent.Echo{}, Edge{}, authtest.New())
	const messages = 100_000
	manyMessages(t, memory, messages)
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	_, _, body := s.export("GET")
	lines := bufio.NewReaderSize(body, 16<<10)
	var last string
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			require.Equal(t, messages+2, n)
			break
		}
		require.NoError(t, err)
		last = line
		if n%10_000 == 5_000 {
			require.Less(t, live(), before+16<<20, "line %d", n)
		}
	}
	require.JSONEq(t, fmt.Sprintf(`{"type":"end","conversations":1,"messages":%d,"damaged":0}`, messages), last)
}
