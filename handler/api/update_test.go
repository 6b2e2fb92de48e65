package api

import (
	"fmt"
	"strings"
	"testing"

	"chatkeep/handler/auth/authtest"

	"github.com/stretchr/testify/require"
)

func TestUpdate(t *testing.T) {
	s, _ := openOnRedis(t, authtest.New())
	id := s.send("POST", "/api/chat/start", "alice", `{"title":"old","metadata":{"a":"1","b":"2"}}`).body["conversationId"].(string)
	path := "/api/chat/conversations/" + id
	a := s.send("PATCH", path, "alice", `{"title":"new","metadata":{"a":null,"c":"3"},"status":"completed"}`)
	require.Equal(t, 200, a.status, a.text)
	require.Equal(t, `W/"2"`, a.header.Get("ETag"))
	c := a.body["conversation"].(map[string]any)
	require.Equal(t, "new", c["title"])
	require.Equal(t, "completed", c["status"])
	require.Equal(t, map[string]any{"b": "2", "c": "3"}, c["metadata"])
	got := s.send("GET", path, "alice", "")
	require.Equal(t, c["version"], got.body["conversation"].(map[string]any)["version"])
	require.Equal(t, 304, s.send("GET", path, "alice", "", "If-None-Match: "+a.header.Get("ETag")).status)
	requireProblem(t, s.send("POST", "/api/chat/send", "alice", fmt.Sprintf(`{"conversationId":%q,"text":"x"}`, id)), 409, "conversation_closed")

	merge := "Content-Type: application/merge-patch+json"
	a = s.send("PATCH", path, "alice", `{"title":null,"metadata":null}`, merge)
	require.Equal(t, 200, a.status, a.text)
	c = a.body["conversation"].(map[string]any)
	require.Empty(t, c["title"])
	require.Empty(t, c["metadata"])
	require.Equal(t, "completed", c["status"])
	a = s.send("PATCH", path, "alice", `{}`, "Content-Type: Application/Merge-Patch+JSON; charset=utf-8")
	require.Equal(t, `W/"3"`, a.header.Get("ETag"), "nothing is no change")

	a = s.send("PATCH", path, "alice", `{}`, "Content-Type: application/json-patch+json")
	requireProblem(t, a, 415, "unsupported_media_type")
	require.Equal(t, "application/json, application/merge-patch+json", a.header.Get("Accept-Patch"))
	requireProblem(t, s.send("POST", "/api/chat/start", "alice", `{}`, merge), 415, "unsupported_media_type")
	requireProblem(t, s.send("PATCH", path, "bob", `{"title":"mine"}`), 404, "not_found")
	require.Equal(t, 200, s.send("PATCH", path, "alice", `{"status":"archived"}`).status)
	requireProblem(t, s.send("PATCH", path, "alice", `{"status":"completed"}`), 409, "invalid_transition")
	require.Equal(t, 200, s.send("PATCH", path, "alice", `{"status":"active"}`).status)
}

func TestBadUpdatesChangeNothing(t *testing.T) {
	s := open(t)
	id := s.start("alice")
	path := "/api/chat/conversations/" + id
	for name, row := range map[string]struct{ body, field string }{
		"null":                    {`null`, "body"},
		"an array":                {`[]`, "body"},
		"an unknown member":       {`{"messageCount":3}`, "messageCount"},
		"a member twice":          {`{"title":"a","title":"b"}`, "title"},
		"a title of a type":       {`{"title":7}`, "title"},
		"metadata of a type":      {`{"metadata":"x"}`, "metadata"},
		"a pair of a type":        {`{"metadata":{"a":1}}`, "metadata.a"},
		"a pair twice":            {`{"metadata":{"a":"1","a":"2"}}`, "metadata.a"},
		"an empty key":            {`{"metadata":{"":"1"}}`, "metadata"},
		"a status of a type":      {`{"status":1}`, "status"},
		"no status":               {`{"status":null}`, "status"},
		"an empty status":         {`{"status":""}`, "status"},
		"an unknown status":       {`{"status":"deleted"}`, "status"},
		"a title that is long":    {`{"title":"` + strings.Repeat("x", 201) + `"}`, "title"},
		"a title that is no text": {`{"title":"\ud800"}`, "title"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.send("PATCH", path, "alice", row.body)
			requireProblem(t, a, 400, "invalid_request")
			problem := a.body["errors"].([]any)[0].(map[string]any)
			require.Equal(t, row.field, problem["path"], a.text)
			if strings.HasSuffix(name, "of a type") && row.field != "metadata" {
				require.Equal(t, "must be a string", problem["message"])
			}
		})
	}
	requireProblem(t, s.send("PATCH", path, "alice", `{"title":"x"}`, "Idempotency-Key: a b"), 400, "invalid_request")
	requireProblem(t, s.send("PATCH", path, "alice", ""), 415, "unsupported_media_type")
	require.Equal(t, `W/"1"`, s.send("GET", path, "alice", "").header.Get("ETag"))
}

func TestIfMatch(t *testing.T) {
	s := open(t)
	path := "/api/chat/conversations/" + s.start("alice")
	version := 1
	for _, row := range []struct {
		tags   string
		status int
	}{
		{`W/"%d"`, 200}, {`"%d"`, 200}, {`*`, 200}, {`"99", W/"%d"`, 200}, {`W/"99"`, 412}, {`"99"`, 412}, {`"x"`, 412}, {`%d`, 412},
	} {
		tags := row.tags
		if strings.Contains(tags, "%d") {
			tags = fmt.Sprintf(tags, version)
		}
		a := s.send("PATCH", path, "alice", fmt.Sprintf(`{"title":"%d"}`, version), "If-Match: "+tags)
		require.Equal(t, row.status, a.status, tags)
		if row.status == 200 {
			version++
			require.Equal(t, fmt.Sprintf(`W/"%d"`, version), a.header.Get("ETag"))
		} else {
			requireProblem(t, a, 412, "version_mismatch")
		}
	}
	requireProblem(t, s.send("PATCH", "/api/chat/conversations/"+messageID, "alice", `{}`, "If-Match: *"), 404, "not_found")
}

func TestAnUpdateWithAKeyIsRepeatedSafely(t *testing.T) {
	s := open(t)
	id := s.start("alice")
	path, key := "/api/chat/conversations/"+id, "Idempotency-Key: once"
	body := `{"title":"mine","metadata":{"a":"1","b":null}}`
	a := s.send("PATCH", path, "alice", body, key)
	require.Equal(t, 200, a.status)
	require.Empty(t, a.header.Get("Idempotency-Replayed"))
	later := s.send("PATCH", path, "alice", `{"title":"later"}`)
	a = s.send("PATCH", path, "alice", `{"metadata":{"b":null, "a":"1"}, "title":"\u006dine"}`, key)
	require.Equal(t, 200, a.status, a.text)
	require.Equal(t, "true", a.header.Get("Idempotency-Replayed"))
	require.Equal(t, later.text, a.text)
	for _, another := range []string{`{"title":"mine"}`, `{"title":"mine","metadata":{"a":"1","b":""}}`, `{"title":"mine","metadata":null}`} {
		requireProblem(t, s.send("PATCH", path, "alice", another, key), 422, "idempotency_key_reused")
	}
	requireProblem(t, s.send("PATCH", path, "alice", body, key, `If-Match: W/"1"`), 422, "idempotency_key_reused")
	requireProblem(t, s.send("PATCH", "/api/chat/conversations/"+s.start("alice"), "alice", body, key), 422, "idempotency_key_reused")
	requireProblem(t, s.send("DELETE", path, "alice", "", key), 422, "idempotency_key_reused")
}
