package store

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/logs"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUnavailable(t *testing.T) {
	for name, row := range map[string]struct {
		class string
		cause logs.Cause
		spoil func(*testing.T, *redistest.Server)
		heal  func(*redistest.Server)
	}{
		"down": {notExecuted, logs.Refused, func(_ *testing.T, s *redistest.Server) { s.Kill() }, (*redistest.Server).Restart},
		"hung": {unknown, logs.Timeout, func(_ *testing.T, s *redistest.Server) { s.Pause() }, (*redistest.Server).Resume},
		"read-only": {
			notExecuted, logs.ReadOnly,
			func(_ *testing.T, s *redistest.Server) { s.CLI("replicaof", "127.0.0.1", "1") },
			func(s *redistest.Server) { s.CLI("replicaof", "no", "one") },
		},
		"out of memory": {
			notExecuted + ", " + operator, logs.OOM,
			func(_ *testing.T, s *redistest.Server) { s.CLI("config", "set", "maxmemory", "1") },
			func(s *redistest.Server) { s.CLI("config", "set", "maxmemory", "0") },
		},
		"refusing our credentials": {
			operator, logs.Auth,
			func(_ *testing.T, s *redistest.Server) {
				s.CLI("config", "set", "requirepass", "secret")
				s.CLI("-a", "secret", "client", "kill", "type", "normal", "skipme", "yes")
			},
			func(s *redistest.Server) { s.CLI("-a", "secret", "config", "set", "requirepass", "") },
		},
		"forbidding our commands": {
			operator, logs.Auth,
			func(_ *testing.T, s *redistest.Server) { s.CLI("acl", "setuser", "default", "-evalsha") },
			func(s *redistest.Server) { s.CLI("acl", "setuser", "default", "+evalsha") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			w := openRedis(t, server.Addr)
			id := w.start()
			w.turn(id, "before")
			row.spoil(t, server)
			for range 3 {
				began := time.Now()
				b := begin(newID(), "meanwhile")
				b.Lease = time.Millisecond // it may be executed after all
				_, err := w.Begin(t.Context(), w.owner, id, b)
				require.ErrorIs(t, err, chat.ErrUnavailable)
				require.ErrorContains(t, err, chat.ErrUnavailable.Error()+", "+row.class+": ")
				require.Equal(t, row.cause, logs.CauseOf(err), "%v", err)
				require.Less(t, time.Since(began), 5*time.Second)
			}
			if name != "out of memory" && name != "read-only" { // then reads go on
				_, _, err := w.Get(t.Context(), w.owner, id, page)
				require.ErrorContains(t, err, chat.ErrUnavailable.Error()+", "+row.class+": ")
			}
			row.heal(server)
			if name == "down" {
				id = w.start() // at once; it comes back empty
			}
			require.Eventually(t, func() bool {
				_, err := w.Begin(t.Context(), w.owner, id, begin("after", "after"))
				return err == nil
			}, 10*time.Second, 20*time.Millisecond)
		})
	}
}

// Errors that a real server gives only at moments that a test cannot choose.
func TestUnavailableByWhatItSays(t *testing.T) {
	type told struct {
		class string
		cause logs.Cause
	}
	for reply, want := range map[string]told{
		"LOADING Redis is loading the dataset in memory":                      {notExecuted, logs.Loading},
		"MASTERDOWN Link with MASTER is down":                                 {notExecuted, logs.MasterDown},
		"CLUSTERDOWN The cluster is down":                                     {notExecuted, logs.ClusterDown},
		"TRYAGAIN Multiple keys request during rehashing of slot":             {notExecuted, logs.Moved},
		"NOREPLICAS Not enough good replicas to write.":                       {notExecuted, logs.NoReplicas},
		"BUSY Redis is busy running a script.":                                {notExecuted, logs.Busy},
		"ERR max number of clients reached":                                   {notExecuted, logs.MaxClients},
		"MISCONF Redis is configured to save RDB snapshots":                   {notExecuted + ", " + operator, logs.Misconf},
		"ERR Error running script: @user_script: 1: -OOM command not allowed": {notExecuted + ", " + operator, logs.OOM},
		"WRONGPASS invalid username-password pair":                            {operator, logs.Auth},
	} {
		w := openRedis(t, scripted(t, reply))
		_, err := w.Begin(t.Context(), w.owner, newID(), begin("x", "x"))
		require.ErrorIs(t, err, chat.ErrUnavailable, reply)
		require.ErrorContains(t, err, chat.ErrUnavailable.Error()+", "+want.class+": ", reply)
		require.Equal(t, want.cause, logs.CauseOf(err), reply)
	}
	w := openRedis(t, scripted(t, "WRONGTYPE Operation against a key holding the wrong kind of value"))
	_, err := w.Begin(t.Context(), w.owner, newID(), begin("x", "x"))
	require.Error(t, err)
	require.NotErrorIs(t, err, chat.ErrUnavailable, "a bug is no outage")
}

// scripted is the address of a server that answers every command with one error.
func scripted(t *testing.T, reply string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				buffer := make([]byte, 64<<10)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					if bytes.Contains(bytes.ToLower(buffer[:n]), []byte("hello")) { // of the handshake
						_, _ = conn.Write([]byte("-ERR unknown command\r\n"))
						continue
					}
					_, _ = conn.Write([]byte("-" + reply + "\r\n"))
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func TestUnavailableByTheAddress(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	secure := redistest.StartTLS(t)
	strange := secure.TLS.Clone()
	strange.RootCAs = nil
	for name, row := range map[string]struct {
		c     Connection
		class string
		cause logs.Cause
	}{
		"silent":                      {Connection{Addr: silent.Addr().String()}, unknown, logs.Timeout},
		"a certificate of a stranger": {Connection{Addr: secure.Addr, TLS: strange}, operator, logs.TLS},
	} {
		w := &world{Store: newRedis(t, connect(t, row.c), limits, time.Second), t: t, owner: someone()}
		_, err := w.Ping(t.Context())
		require.ErrorIs(t, err, chat.ErrUnavailable, name)
		require.ErrorContains(t, err, row.class, name)
		require.Equal(t, row.cause, logs.CauseOf(err), name)
	}
}

func TestARestartOfRedisCostsNoCall(t *testing.T) {
	for name, start := range map[string]func(testing.TB, ...string) *redistest.Server{"plain": redistest.Start, "TLS": redistest.StartTLS} {
		t.Run(name, func(t *testing.T) {
			server := start(t)
			client := connect(t, Connection{Addr: server.Addr, TLS: server.TLS})
			w := &world{Store: newRedis(t, client, limits, 5*time.Second), t: t, owner: someone()}
			require.Eventually(t, func() bool { // idle connections, more of them than a call has tries
				var all sync.WaitGroup
				for range 20 {
					all.Go(func() {
						_, _, err := w.List(t.Context(), w.owner, chat.List{Limit: 1})
						assert.NoError(t, err)
					})
				}
				all.Wait()
				return client.PoolStats().IdleConns >= 8
			}, 10*time.Second, time.Millisecond)
			server.Kill()
			server.Restart()
			for range 10 {
				w.list()
			}
		})
	}
}

func TestACallerThatLeftIsNoOutage(t *testing.T) {
	w := openRedis(t, redistest.Start(t).Addr)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := w.Get(ctx, w.owner, newID(), page)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, chat.ErrUnavailable)
}
