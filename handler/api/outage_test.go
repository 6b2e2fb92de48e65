package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/auth"
	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/require"
)

func TestAnOutageIsAFewLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := outage{code: "store_unavailable", log: slog.New(slog.NewJSONHandler(&log, nil))}
		fail := func(times int, pause time.Duration) {
			for range times {
				o.failed(t.Context(), errors.New("no route to redis"))
				time.Sleep(pause)
			}
		}
		lines := func(want ...string) {
			t.Helper()
			all := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
			require.Len(t, all, len(want), log.String())
			for i, part := range want {
				require.Contains(t, all[i], part)
			}
			log.Reset()
		}
		o.succeeded()
		require.Empty(t, log.String())
		fail(15_000, 10*time.Millisecond) // 150 s
		lines(
			`"level":"ERROR","msg":"requests fail","code":"store_unavailable","requests":1,"err":"no route to redis"`,
			`"msg":"requests still fail","code":"store_unavailable","requests":6001`,
			`"msg":"requests still fail","code":"store_unavailable","requests":12001`,
		)
		o.succeeded()
		o.succeeded()
		lines(`"level":"INFO","msg":"requests succeed again","code":"store_unavailable","requests":15000,"afterMs":149990`)

		time.Sleep(2 * time.Minute)
		fail(1, 0)
		o.succeeded()
		lines(`"requests":1`, `"requests":1`)

		for range 5_000 { // 50 s in which every second request fails
			fail(1, 10*time.Millisecond)
			o.succeeded()
		}
		lines(`"requests":1`)
		time.Sleep(10 * time.Second)
		o.succeeded()
		lines(`"requests":5000`)
	})
}

// flaky is a store that is down at times.
type flaky struct {
	chat.Store
	down bool
}

func (f *flaky) Start(ctx context.Context, owner chat.Owner, s chat.Start) (chat.Conversation, error) {
	if f.down {
		return chat.Conversation{}, fmt.Errorf("redis: start: %w", chat.ErrUnavailable)
	}
	return f.Store.Start(ctx, owner, s)
}

func (f *flaky) Ping(ctx context.Context) (chat.Health, error) {
	if f.down {
		return chat.Health{}, chat.ErrUnavailable
	}
	return f.Store.Ping(ctx)
}

// Requests that fail for the same reason are counted, not written a line each.
func TestRequestsThatFailAlikeAreCounted(t *testing.T) {
	down := &flaky{Store: store.NewMemory(limits())}
	s := openOver(t, down, agent.Echo{}, Edge{}, authtest.New())
	lines := func() []string {
		defer s.log.Reset()
		return strings.Split(strings.TrimSuffix(s.log.String(), "\n"), "\n")
	}
	down.down = true
	for range 20 {
		requireProblem(t, s.send("POST", "/api/chat/start", "alice", ""), 503, "store_unavailable")
	}
	require.Len(t, lines(), 1)
	for range 20 {
		require.Equal(t, 503, s.send("GET", "/health", nobody, "").status)
	}
	unhealthy := lines()
	require.Len(t, unhealthy, 1)
	require.Contains(t, unhealthy[0], `"msg":"requests fail","code":"unhealthy"`)
	down.down = false
	s.start("alice")
	ended := lines()
	require.Len(t, ended, 1)
	require.Contains(t, ended[0], `"msg":"requests succeed again","code":"store_unavailable","requests":20`)
	require.Equal(t, 200, s.send("GET", "/health", nobody, "").status)
	require.Contains(t, lines()[0], `"code":"unhealthy","requests":20`)

	working := s.server.auth
	s.server.auth = auth.New(auth.Config{Issuer: s.issuer.Name, Audiences: []string{s.issuer.Audience}, KeysURL: "/nowhere", Scope: authtest.Scope},
		slog.New(slog.DiscardHandler))
	for range 20 {
		requireProblem(t, s.send("POST", "/api/chat/start", "alice", ""), 503, "identity_unavailable")
	}
	began := lines()
	require.Len(t, began, 1)
	require.Contains(t, began[0], `"msg":"requests fail","code":"identity_unavailable"`)
	s.server.auth = working
	s.start("alice")
	require.Contains(t, lines()[0], `"msg":"requests succeed again","code":"identity_unavailable","requests":20`)
}
