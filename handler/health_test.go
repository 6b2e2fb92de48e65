package main

import (
	"strings"
	"testing"
	"time"

	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/require"
)

// Front Door's probes and the alerts ask /health: it says what callers get.
func TestHealthSaysWhatCallersGet(t *testing.T) {
	server := redistest.Start(t)
	d := deploy(t, "REDIS_URL=redis://"+server.Addr)
	id := d.start("alice")
	become := func(status int, name string) reply {
		t.Helper()
		var r reply
		require.Eventually(t, func() bool {
			var err error
			r, err = d.call("GET", "/health", "", "")
			return err == nil && r.status == status && r.Status == name
		}, 10*time.Second, 20*time.Millisecond, name)
		return r
	}
	require.NotContains(t, become(200, "healthy").text, "warning")

	server.CLI("config", "set", "min-replicas-to-write", "1")
	r := become(200, "degraded")
	require.Contains(t, r.text, `"warning":"Conversations can be read, but not changed: too few replicas`)
	require.Equal(t, "connected", r.RedisStatus)
	d.must(200, "GET", "/api/chat/conversations/"+id, "alice", "")
	d.must(200, "POST", "/api/chat/list-conversations", "alice", `{}`)
	require.Equal(t, "store_unavailable", d.must(503, "POST", "/api/chat/send", "alice", said(id, "x")).Code)
	require.Equal(t, "store_unavailable", d.must(503, "POST", "/api/chat/start", "alice", `{}`).Code)
	server.CLI("config", "set", "min-replicas-to-write", "0")
	become(200, "healthy")
	d.must(200, "POST", "/api/chat/send", "alice", said(id, "x"))

	server.CLI("acl", "setuser", "default", "-evalsha", "-eval")
	r = become(503, "unhealthy")
	require.Equal(t, "unavailable", r.RedisStatus)
	require.NotContains(t, r.text, "warning")
	require.NotContains(t, r.text, "NOPERM", "a stranger may ask")
	require.Equal(t, "store_unavailable", d.must(503, "GET", "/api/chat/conversations/"+id, "alice", "").Code)
	require.Equal(t, "store_unavailable", d.must(503, "POST", "/api/chat/send", "alice", said(id, "x")).Code)
	require.Contains(t, strings.Join(d.host.Stdout(), "\n"), "NOPERM", "the log names the cause")
	server.CLI("acl", "setuser", "default", "+evalsha", "+eval")
	become(200, "healthy")
	d.must(200, "POST", "/api/chat/send", "alice", said(id, "x"))
}
