package api

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"chatkeep/handler/agent"
	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/require"
)

// readCounter counts the messages that are read.
type readCounter struct {
	chat.Store
	messages atomic.Int64
}

func (c *readCounter) Get(ctx context.Context, owner chat.Owner, id string, p chat.Page) (chat.Conversation, []chat.StoredMessage, error) {
	conversation, messages, err := c.Store.Get(ctx, owner, id, p)
	c.messages.Add(int64(len(messages)))
	return conversation, messages, err
}

func openCounting(t *testing.T) (*service, *readCounter, string) {
	t.Helper()
	reads := &readCounter{Store: store.NewMemory(limits())}
	s := openOver(t, reads, agent.Echo{}, Edge{}, authtest.New())
	id := s.start("alice")
	for range 2 {
		require.Equal(t, 200, s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)).status)
	}
	return s, reads, "/api/chat/conversations/" + id
}

func TestWhatTheCallerHasIsNotSentAgain(t *testing.T) {
	s, reads, path := openCounting(t)
	for _, row := range []struct {
		tags   string
		status int
	}{
		{`W/"5"`, 304},
		{`"5"`, 304},
		{`*`, 304},
		{`W/"4", W/"5"`, 304},
		{`"4","5"`, 304},
		{`"a", W/"5"`, 304},
		{`W/"5", "5"`, 304},
		{`W/"4"`, 200},
		{`"4", "6"`, 200},
		{`"a"`, 200},
		{`5`, 200},
		{`"05"`, 200},
		{`"+5"`, 200},
		{`"-1"`, 200},
		{`"99999999999999999999"`, 200},
		{`w/"5"`, 200},
		{`"5`, 200},
		{``, 200},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			reads.messages.Store(0)
			a := s.send(method, path, "alice", "", "If-None-Match: "+row.tags)
			require.Equal(t, row.status, a.status, "%s %s", method, row.tags)
			require.Equal(t, `W/"5"`, a.header.Get("ETag"))
			if row.status == 304 {
				require.Empty(t, a.text)
				require.Zero(t, reads.messages.Load(), "messages were read for a 304 to %s", row.tags)
			} else {
				require.Equal(t, int64(4), reads.messages.Load())
			}
		}
	}
	for _, tags := range []string{`*`, `"5"`, `"4", "5"`} {
		header := "If-None-Match: " + tags
		requireProblem(t, s.send("GET", path+"?limit=1001", "alice", "", header), 400, "invalid_request")
		requireProblem(t, s.send("GET", "/api/chat/conversations/"+messageID, "alice", "", header), 404, "not_found")
		requireProblem(t, s.send("GET", path, "bob", "", header), 404, "not_found")
	}
}

func TestPagesOfMessages(t *testing.T) {
	s, _, path := openCounting(t)
	for query, want := range map[string]struct {
		seqs    []float64
		hasMore bool
	}{
		"":                    {[]float64{1, 2, 3, 4}, false},
		"?limit=1000":         {[]float64{1, 2, 3, 4}, false},
		"?limit=2":            {[]float64{3, 4}, true},
		"?limit=2&before=3":   {[]float64{1, 2}, false},
		"?before=1":           {[]float64{}, false},
		"?before=9&other=%20": {[]float64{1, 2, 3, 4}, false},
	} {
		a := s.send("GET", path+query, "alice", "")
		require.Equal(t, 200, a.status, a.text)
		seqs := []float64{}
		for _, m := range a.body["messages"].([]any) {
			seqs = append(seqs, m.(map[string]any)["seq"].(float64))
		}
		require.Equal(t, want.seqs, seqs, query)
		require.Equal(t, want.hasMore, a.body["hasMore"], query)
	}
}

// HEAD has the status and the headers of GET, and no body, wherever GET is.
func TestHeadIsGetWithoutABody(t *testing.T) {
	s, _, path := openCounting(t)
	for _, row := range []struct {
		path, user, header string
		status             int
	}{
		{path, "alice", "", 200},
		{path + "?limit=1", "alice", "", 200},
		{path, "alice", `If-None-Match: W/"5"`, 304},
		{path, "bob", "", 404},
		{path, nobody, "", 401},
		{path + "?limit=x", "alice", "", 400},
		{"/health?live=1", nobody, "", 200},
		{"/", nobody, "", 200},
		{"/nothing", nobody, "", 404},
		{"/api/chat/start", "alice", "", 405},
	} {
		headers := []string{"X-Azure-Functions-InvocationId: same"}
		if row.header != "" {
			headers = append(headers, row.header)
		}
		get, head := s.send("GET", row.path, row.user, "", headers...), s.send("HEAD", row.path, row.user, "", headers...)
		require.Equal(t, row.status, get.status, row.path)
		require.Equal(t, row.status, head.status, row.path)
		require.Empty(t, head.text)
		for _, a := range []answer{get, head} {
			a.header.Del("Date")
		}
		require.Equal(t, get.header, head.header, row.path)
		if row.status != 304 && row.path != "/" {
			require.Equal(t, fmt.Sprint(len(get.text)), head.header.Get("Content-Length"), row.path)
		}
	}
}

func TestIdsInUpperCaseAreTheSame(t *testing.T) {
	s, _, path := openCounting(t)
	id := path[strings.LastIndex(path, "/")+1:]
	upper := strings.ToUpper(id)
	require.Equal(t, 200, s.send("GET", "/api/chat/conversations/"+upper, "alice", "").status)
	send := func(id, messageID string) answer {
		return s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"messageId":%q,"text":"x"}`, id, messageID))
	}
	first := send(upper, strings.ToUpper(messageID))
	require.Equal(t, 200, first.status, first.text)
	require.Equal(t, id, first.body["conversationId"])
	require.Equal(t, messageID, first.body["message"].(map[string]any)["id"])
	requireReplay(t, first, send(id, messageID))
}
