package api

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

func (p *places) owners() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.taken)
}

// One owner has so many requests in progress, whatever they do; another has as many.
func TestRequestsOfOneOwnerInProgress(t *testing.T) {
	s := open(t)
	s.server.requests = newPlaces(3)
	handled, held := make(chan struct{}, 2), make(chan struct{})
	finish := sync.OnceFunc(func() { close(held) })
	defer finish() // when the test fails, too
	s.serve("/hold", func(w *response) error {
		handled <- struct{}{}
		<-held
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	s.serve("/large", func(w *response) error {
		handled <- struct{}{}
		_, _ = w.Write(make([]byte, 64<<20))
		return nil
	})
	id := s.start("alice")
	get := func(user string) answer { return s.send("GET", "/api/chat/conversations/"+id, user, "") }
	dial := func(request string, header ...any) net.Conn {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		require.NoError(t, err)
		_, err = fmt.Fprintf(conn, request+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n", s.issuer.Token(tenant, "alice", nil))
		require.NoError(t, err)
		_, err = fmt.Fprint(conn, header...)
		require.NoError(t, err)
		return conn
	}

	var all sync.WaitGroup
	all.Go(func() { s.send("GET", "/hold", "alice", "") })
	<-handled
	uploading := dial("POST /api/chat/start", "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	taken := func() int {
		s.server.requests.mu.Lock()
		defer s.server.requests.mu.Unlock()
		return s.server.requests.taken[chat.Owner{TenantID: tenant, UserID: "alice"}]
	}
	require.Eventually(t, func() bool { return taken() == 2 }, 10*time.Second, time.Millisecond, "a body that is awaited does not count")
	require.Equal(t, 200, get("alice").status)
	downloading := dial("GET /large", "\r\n")
	require.Eventually(t, func() bool { return taken() == 3 }, 10*time.Second, time.Millisecond)
	<-handled
	refused := get("alice")
	requireProblem(t, refused, 429, "rate_limited")
	require.Equal(t, "1", refused.header.Get("Retry-After"))
	require.Empty(t, refused.header.Get("RateLimit"), "that is of turns")
	requireProblem(t, s.send("POST", "/api/chat/start", "alice", ""), 429, "rate_limited")
	require.Equal(t, 404, get("bob").status, "another owner is refused")
	require.Equal(t, 200, s.send("GET", "/health", "alice", "").status)

	require.NoError(t, downloading.Close())
	require.Eventually(t, func() bool { return get("alice").status == 200 }, 10*time.Second, time.Millisecond)
	require.NoError(t, uploading.Close())
	finish()
	all.Wait()
	require.Eventually(t, func() bool { return s.server.requests.owners() == 0 }, 10*time.Second, time.Millisecond, "an owner without requests is remembered")
	require.NotContains(t, s.log.String(), "429")
}

// Whatever comes of a request, its place is free afterwards.
func TestAPlaceIsLeft(t *testing.T) {
	s := open(t)
	s.server.requests = newPlaces(1)
	s.serve("/boom", func(*response) error { panic("boom") })
	for _, request := range [][2]string{
		{"GET", "/boom"}, {"GET", "/api/chat/conversations/x"}, {"POST", "/api/chat/send"}, {"POST", "/api/chat/start"},
	} {
		for range 3 {
			require.NotEqual(t, 429, s.send(request[0], request[1], "alice", "").status, request)
		}
	}
	require.Eventually(t, func() bool { return s.server.requests.owners() == 0 }, 10*time.Second, time.Millisecond)
}
