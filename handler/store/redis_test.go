package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func connect(t *testing.T, c Connection) redis.UniversalClient {
	t.Helper()
	c.Network = "tcp"
	c.DialTimeout, c.CommandTimeout, c.PoolTimeout, c.PoolSize = 5*time.Second, time.Second, time.Second, 10
	client := NewClient(c)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func openRedis(t *testing.T, addr string) *world {
	t.Helper()
	return &world{Store: newRedis(t, connect(t, Connection{Addr: addr}), limits, time.Second), t: t, owner: someone()}
}

func TestDigestKeepsOwnersApart(t *testing.T) {
	for owner, want := range map[chat.Owner]string{
		{TenantID: "72f988bf-86f1-41af-91ab-2d7cd011db47", UserID: "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ"}: "ORU-fQY9IP_fk20aXDGqQX7gUKg8kV-VojtBo5JUq4M",
		{TenantID: "t", UserID: "a:b"}: "ZJ6ZlvAzp90JPyXXfR1OWQO8d8hvJYz-x-LOHrcOEY8",
		{TenantID: "t:a", UserID: "b"}: "BUzJzEGcxWdddUZeP8XbrBG8wHRG9nt61G8xBxMde4A",
	} {
		require.Equal(t, want, digest(owner))
	}
	seen := map[string]chat.Owner{}
	parts := []string{"", "a", "b", "ab", "a}", "{a", ":", "a:b", "\x00", "\x00\x00\x00\x01a", "é", strings.Repeat("a", 255)}
	for _, tenant := range parts {
		for _, user := range parts {
			owner := chat.Owner{TenantID: tenant, UserID: user}
			d := digest(owner)
			require.NotContains(t, seen, d, "%q meets %q", owner, seen[d])
			require.Regexp(t, `^[A-Za-z0-9_-]{43}$`, d)
			seen[d] = owner
		}
	}
}

func TestEveryKeyHasTheOwnersTagAndNothingPersonal(t *testing.T) {
	owner := chat.Owner{TenantID: "tenant", UserID: "alice@example.com}{"}
	for _, key := range append(conversationKeys(owner, "id"), guardKeys(owner, guardNamed("key:alice@example.com"))...) {
		require.True(t, strings.HasPrefix(key, "chat:{"+digest(owner)+"}:"), key)
		require.Equal(t, 1, strings.Count(key, "{"))
		require.NotContains(t, key, "alice")
		require.NotContains(t, key, "tenant")
	}
}

// What Redis keeps is a format on disk; a change of it must be meant.
func TestFormat(t *testing.T) {
	server := redistest.Start(t)
	w := openRedis(t, server.Addr)
	w.owner = chat.Owner{TenantID: "t", UserID: "u"}
	id := "01890a5d-ac96-774b-bcce-b302099a8057"
	_, err := w.Start(t.Context(), w.owner, chat.Start{
		Conversation: chat.Conversation{ID: id, ObjectID: "o", Title: "Trip", Metadata: map[string]string{"b": "2", "a": "1"}},
		AgentRef:     "ref", Now: t0,
	})
	require.NoError(t, err)
	b := begin("token", "Hi", t0.Add(time.Second))
	b.Message.ID = "01890a5d-ac96-774b-bcce-b302099a8058"
	b.Guards[0].Name = "key:k"
	_, err = w.Begin(t.Context(), w.owner, id, b)
	require.NoError(t, err)

	tag := "chat:{" + digest(w.owner) + "}:"
	got, err := connect(t, Connection{Addr: server.Addr}).HGetAll(t.Context(), tag+"c:"+id).Result()
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"owner": `["t","u"]`, "external": "", "status": "active", "count": "1", "version": "2", "ref": "ref",
		"record":  `{"title":"Trip","metadata":{"a":"1","b":"2"},"objectId":"o","createdAt":1767323045678}`,
		"updated": "1767323046678", "accessed": "1767323046678", "expires": "1767326646678",
		"turn": "token", "lease": "1767323076678", "asked": "1",
	}, got)
	guard, err := connect(t, Connection{Addr: server.Addr}).HGetAll(t.Context(), tag+"i:"+digestOf("key:k")).Result()
	require.NoError(t, err)
	require.Equal(t, map[string]string{"request": "request", "turn": "token", "asked": "1", "replies": "0", "failure": ""}, guard)
	require.Equal(t, `["pending",1767323046678,{"id":"01890a5d-ac96-774b-bcce-b302099a8058","role":"user","kind":"text","text":"Hi"}]`,
		server.CLI("lindex", tag+"m:"+id, "0"))
}

func TestEveryKeyExpiresAndTheIndexShrinks(t *testing.T) {
	server := redistest.Start(t)
	w := openRedis(t, server.Addr)
	early := w.start(t0)
	late := w.start(t0.Add(30 * time.Minute))
	w.turn(early, "x", t0)
	w.turn(late, "x", t0.Add(30*time.Minute))
	keys := strings.Fields(server.CLI("keys", "*"))
	require.Len(t, keys, 10, "4 of the owner, for nothing is completed or archived, 2 of each conversation, and a guard of each turn")
	for _, key := range keys {
		ttl, err := strconv.Atoi(server.CLI("pttl", key))
		require.NoError(t, err)
		require.Positive(t, ttl, key)
		require.LessOrEqual(t, ttl, int(limits.TTL.Milliseconds()), key)
	}
	tag := "chat:{" + digest(w.owner) + "}:"
	require.Equal(t, "2", server.CLI("zcard", tag+"idx"))
	require.Equal(t, []string{late}, w.list(t0.Add(limits.TTL)))
	for _, key := range []string{"exp", "idx", "idx:active"} {
		require.Equal(t, "1", server.CLI("zcard", tag+key), key)
	}
	require.Equal(t, "1", server.CLI("hlen", tag+"sum"))
	require.Empty(t, w.list(t0.Add(2*limits.TTL)))
	require.Equal(t, "6", server.CLI("dbsize"), "only the conversations' own keys and the guards wait for their end")
}

// The server's own clock ends a conversation that nobody asks for again.
func TestExpiryByTheServer(t *testing.T) {
	server := redistest.Start(t)
	w := &world{t: t, owner: someone(), Store: newRedis(t,
		connect(t, Connection{Addr: server.Addr}), chat.Limits{TTL: 200 * time.Millisecond, Messages: 10, Conversations: 10}, time.Second)}
	id := w.start(time.Now())
	w.turn(id, "x", time.Now())
	require.Eventually(t, func() bool { return server.CLI("dbsize") == "0" }, 10*time.Second, 20*time.Millisecond)
}

func TestRoundTrips(t *testing.T) {
	server := redistest.Start(t)
	w := openRedis(t, server.Addr)
	w.turn(w.start(t0), "loads the scripts", t0)
	w.list(t0)
	id := w.start(t0)
	w.get(id, t0)
	calls := func() int {
		total := 0
		for _, match := range regexp.MustCompile(`cmdstat_(\w+):calls=(\d+)`).FindAllStringSubmatch(server.CLI("info", "commandstats"), -1) {
			if match[1] == "evalsha" || match[1] == "eval" || match[1] == "ping" {
				n, err := strconv.Atoi(match[2])
				require.NoError(t, err)
				total += n
			}
		}
		return total
	}
	for name, row := range map[string]struct {
		trips int
		do    func()
	}{
		"start": {1, func() { w.start(t0) }},
		"send":  {2, func() { w.turn(id, "x", t0) }},
		"get":   {1, func() { w.get(id, t0) }},
		"list":  {1, func() { w.list(t0) }},
		"health": {1, func() {
			for range 10 { // within a second
				_, err := w.Ping(t.Context())
				require.NoError(t, err)
			}
		}},
	} {
		before := calls()
		row.do()
		require.Equal(t, row.trips, calls()-before, name)
	}
}

// The scripts call only what Redis 6.0 knows, and touch only what they were given.
func TestScriptsUseOldCommandsAndGivenKeys(t *testing.T) {
	known := map[string]bool{
		"HSET": true, "HMGET": true, "HDEL": true, "ZADD": true, "ZREM": true, "ZSCORE": true, "ZCARD": true, "ZREVRANGE": true,
		"ZRANGEBYSCORE": true, "ZREVRANGEBYSCORE": true, "LLEN": true, "LINDEX": true, "LSET": true, "LRANGE": true, "RPUSH": true,
		"PEXPIRE": true, "DEL": true, "HGET": true,
	}
	files, err := filepath.Glob("*.lua")
	require.NoError(t, err)
	require.Len(t, files, 8)
	call := regexp.MustCompile(`redis\.call\('(\w+)', ([^,)]+)`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, strings.Count(string(text), "redis.call("), len(call.FindAllString(string(text), -1)), file)
		for _, match := range call.FindAllStringSubmatch(string(text), -1) {
			require.True(t, known[match[1]], "%s: %s", file, match[1])
			require.Regexp(t, `^(KEYS\[.*|key|index)$`, match[2], "%s: %s", file, match[0])
		}
		require.NotRegexp(t, `'(GT|LT|BYSCORE|BYLEX|REV|GET)'`, string(text), file)
	}
}

// The client repeats a command whose reply was lost. Each script then finds its own first execution.
func TestALostReplyIsNoSecondEffect(t *testing.T) {
	server := redistest.Start(t)
	link := redistest.NewLink(t, server.Addr)
	direct, through := openRedis(t, server.Addr), openRedis(t, link.Addr)
	through.owner = direct.owner
	direct.turn(direct.start(t0), "loads the scripts", t0)
	executed := func() int {
		match := regexp.MustCompile(`cmdstat_evalsha:calls=(\d+)`).FindStringSubmatch(server.CLI("info", "commandstats"))
		n, err := strconv.Atoi(match[1])
		require.NoError(t, err)
		return n
	}
	id := newID()
	guard, b := guardNamed("key"), begin("token", "question", t0)
	_, _, err := direct.Claim(t.Context(), direct.owner, chat.Claim{Guard: guard, Token: "loads the script", Now: t0})
	require.NoError(t, err)
	for _, call := range []struct {
		script string
		do     func() error
	}{
		{"claim", func() error {
			_, _, err := through.Claim(t.Context(), through.owner, chat.Claim{Guard: guard, Token: "token", Lease: lease, Now: t0})
			return err
		}},
		{"start", func() error {
			_, err := through.Start(t.Context(), through.owner, chat.Start{
				Conversation: chat.Conversation{ID: id}, Messages: []chat.Message{answer("hi")}, Guard: &guard, Token: "token", Now: t0,
			})
			return err
		}},
		{"begin", func() error {
			_, err := through.Begin(t.Context(), through.owner, id, b)
			return err
		}},
		{"renew", func() error { return through.Renew(t.Context(), through.owner, id, "token", t0, lease) }},
		{"finish", func() error {
			_, err := through.Finish(t.Context(), through.owner, id, chat.Finish{
				Token: "token", Guards: b.Guards, State: chat.Complete, Replies: []chat.Message{answer("answer")}, Now: t0,
			})
			return err
		}},
		{"begin again", func() error {
			again := b
			again.Token = "another"
			turn, err := through.Begin(t.Context(), through.owner, id, again)
			if err == nil && !turn.Over {
				return errors.New("not recognised")
			}
			return err
		}},
		{"get", func() error {
			_, _, err := through.Get(t.Context(), through.owner, id, page(t0))
			return err
		}},
		{"list", func() error {
			_, _, err := through.List(t.Context(), through.owner, chat.List{Limit: 10, Now: t0})
			return err
		}},
	} {
		through.list(t0) // a connection stands, so that the next reply is the script's
		before := executed()
		link.Lose(1)
		require.NoError(t, call.do(), call.script)
		require.Zero(t, link.ToLose(), "%s: no reply was lost", call.script)
		require.GreaterOrEqual(t, executed()-before, 2, "%s was not repeated", call.script)
	}
	c, messages := direct.get(id, t0)
	require.Equal(t, []string{"hi complete", "question complete", "answer complete"}, texts(messages))
	require.Equal(t, int64(3), c.Version)
}

func TestUnavailable(t *testing.T) {
	for name, row := range map[string]struct {
		class string
		spoil func(*testing.T, *redistest.Server)
		heal  func(*redistest.Server)
	}{
		"down": {notExecuted, func(_ *testing.T, s *redistest.Server) { s.Kill() }, (*redistest.Server).Restart},
		"hung": {unknown, func(_ *testing.T, s *redistest.Server) { s.Pause() }, (*redistest.Server).Resume},
		"read-only": {
			notExecuted,
			func(_ *testing.T, s *redistest.Server) { s.CLI("replicaof", "127.0.0.1", "1") },
			func(s *redistest.Server) { s.CLI("replicaof", "no", "one") },
		},
		"out of memory": {
			notExecuted + ", " + operator,
			func(_ *testing.T, s *redistest.Server) { s.CLI("config", "set", "maxmemory", "1") },
			func(s *redistest.Server) { s.CLI("config", "set", "maxmemory", "0") },
		},
		"refusing our credentials": {
			operator,
			func(_ *testing.T, s *redistest.Server) {
				s.CLI("config", "set", "requirepass", "secret")
				s.CLI("-a", "secret", "client", "kill", "type", "normal", "skipme", "yes")
			},
			func(s *redistest.Server) { s.CLI("-a", "secret", "config", "set", "requirepass", "") },
		},
		"forbidding our commands": {
			operator,
			func(_ *testing.T, s *redistest.Server) { s.CLI("acl", "setuser", "default", "-evalsha") },
			func(s *redistest.Server) { s.CLI("acl", "setuser", "default", "+evalsha") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			w := openRedis(t, server.Addr)
			id := w.start(t0)
			w.turn(id, "before", t0)
			row.spoil(t, server)
			for range 3 {
				began := time.Now()
				_, err := w.Begin(t.Context(), w.owner, id, begin(newID(), "meanwhile", t0))
				require.ErrorIs(t, err, chat.ErrUnavailable)
				require.ErrorContains(t, err, chat.ErrUnavailable.Error()+", "+row.class+": ")
				require.Less(t, time.Since(began), 5*time.Second)
			}
			if name != "out of memory" { // then reads go on
				_, _, err := w.Get(t.Context(), w.owner, id, page(t0))
				require.ErrorContains(t, err, chat.ErrUnavailable.Error()+", "+row.class+": ")
			}
			row.heal(server)
			if name == "down" {
				id = w.start(t0) // at once; it comes back empty
			}
			require.Eventually(t, func() bool {
				_, err := w.Begin(t.Context(), w.owner, id, begin("after", "after", t0.Add(lease)))
				return err == nil
			}, 10*time.Second, 20*time.Millisecond)
		})
	}
}

// Errors that a real server gives only at moments that a test cannot choose.
func TestUnavailableByWhatItSays(t *testing.T) {
	for reply, class := range map[string]string{
		"LOADING Redis is loading the dataset in memory":                      notExecuted,
		"MASTERDOWN Link with MASTER is down":                                 notExecuted,
		"CLUSTERDOWN The cluster is down":                                     notExecuted,
		"TRYAGAIN Multiple keys request during rehashing of slot":             notExecuted,
		"NOREPLICAS Not enough good replicas to write.":                       notExecuted,
		"BUSY Redis is busy running a script.":                                notExecuted,
		"ERR max number of clients reached":                                   notExecuted,
		"MISCONF Redis is configured to save RDB snapshots":                   notExecuted + ", " + operator,
		"ERR Error running script: @user_script: 1: -OOM command not allowed": notExecuted + ", " + operator,
		"WRONGPASS invalid username-password pair":                            operator,
	} {
		w := openRedis(t, scripted(t, reply))
		_, err := w.Begin(t.Context(), w.owner, newID(), begin("x", "x", t0))
		require.ErrorIs(t, err, chat.ErrUnavailable, reply)
		require.ErrorContains(t, err, chat.ErrUnavailable.Error()+", "+class+": ", reply)
	}
	w := openRedis(t, scripted(t, "WRONGTYPE Operation against a key holding the wrong kind of value"))
	_, err := w.Begin(t.Context(), w.owner, newID(), begin("x", "x", t0))
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

// No function changes a status yet; the store minds it all the same.
func TestAClosedConversationTakesNoTurn(t *testing.T) {
	server := redistest.Start(t)
	w := openRedis(t, server.Addr)
	id := w.start(t0)
	server.CLI("hset", "chat:{"+digest(w.owner)+"}:c:"+id, "status", "completed")
	_, err := w.Begin(t.Context(), w.owner, id, begin("x", "x", t0))
	require.ErrorIs(t, err, chat.ErrClosed)

	memory := NewMemory(limits)
	c, err := memory.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: id}, Now: t0})
	require.NoError(t, err)
	memory.owners[w.owner][c.ID].Status = chat.Archived
	_, err = memory.Begin(t.Context(), w.owner, id, begin("x", "x", t0))
	require.ErrorIs(t, err, chat.ErrClosed)
	listed, _, err := memory.List(t.Context(), w.owner, chat.List{Status: chat.Archived, Limit: 10, Now: t0})
	require.NoError(t, err)
	require.Len(t, listed, 1)
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
	}{
		"silent":                      {Connection{Addr: silent.Addr().String()}, unknown},
		"a certificate of a stranger": {Connection{Addr: secure.Addr, TLS: strange}, operator},
	} {
		w := &world{Store: newRedis(t, connect(t, row.c), limits, time.Second), t: t, owner: someone()}
		_, err := w.Ping(t.Context())
		require.ErrorIs(t, err, chat.ErrUnavailable, name)
		require.ErrorContains(t, err, row.class, name)
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
						_, _, err := w.List(t.Context(), w.owner, chat.List{Limit: 1, Now: t0})
						assert.NoError(t, err)
					})
				}
				all.Wait()
				return client.PoolStats().IdleConns >= 8
			}, 10*time.Second, time.Millisecond)
			server.Kill()
			server.Restart()
			for range 10 {
				w.list(t0)
			}
		})
	}
}

func TestACallerThatLeftIsNoOutage(t *testing.T) {
	w := openRedis(t, redistest.Start(t).Addr)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := w.Get(ctx, w.owner, newID(), page(t0))
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, chat.ErrUnavailable)
}

func TestDamageIsLoud(t *testing.T) {
	server := redistest.Start(t)
	for name, spoil := range map[string]func(tag, id string){
		"messages are gone":     func(tag, id string) { server.CLI("del", tag+"m:"+id) },
		"a message is missing":  func(tag, id string) { server.CLI("rpop", tag+"m:"+id) },
		"a message is not one":  func(tag, id string) { server.CLI("lset", tag+"m:"+id, "0", "x") },
		"the record is not one": func(tag, id string) { server.CLI("hset", tag+"c:"+id, "record", "x") },
	} {
		t.Run(name, func(t *testing.T) {
			w := openRedis(t, server.Addr)
			id := w.start(t0)
			w.turn(id, "x", t0)
			spoil("chat:{"+digest(w.owner)+"}:", id)
			_, _, err := w.Get(t.Context(), w.owner, id, page(t0))
			require.ErrorIs(t, err, chat.ErrDamaged)
		})
	}
	t.Run("a conversation that lost its hash is gone from the list once it is asked for", func(t *testing.T) {
		w := openRedis(t, server.Addr)
		id := w.start(t0)
		server.CLI("del", "chat:{"+digest(w.owner)+"}:c:"+id)
		_, _, err := w.Get(t.Context(), w.owner, id, page(t0))
		require.ErrorIs(t, err, chat.ErrNotFound)
		require.Empty(t, w.list(t0))
	})
	t.Run("a conversation whose owner is another is not there", func(t *testing.T) {
		w := openRedis(t, server.Addr)
		id := w.start(t0)
		server.CLI("hset", "chat:{"+digest(w.owner)+"}:c:"+id, "owner", `["t","mallory"]`)
		_, _, err := w.Get(t.Context(), w.owner, id, page(t0))
		require.ErrorIs(t, err, chat.ErrNotFound)
		_, err = w.Begin(t.Context(), w.owner, id, begin("x", "x", t0))
		require.ErrorIs(t, err, chat.ErrNotFound)
	})
}

// The cost of a turn does not depend on how long the conversation is.
func BenchmarkTurn(b *testing.B) {
	server := redistest.Start(b)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	b.Cleanup(func() { _ = client.Close() })
	many := chat.Limits{TTL: time.Hour, Messages: 10_000_000, Conversations: 10}
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprintf("after %d messages", n), func(b *testing.B) {
			s := newRedis(b, client, many, time.Minute)
			owner := someone()
			greeting := make([]chat.Message, n)
			for i := range greeting {
				greeting[i] = answer("x")
			}
			c, err := s.Start(b.Context(), owner, chat.Start{Conversation: chat.Conversation{ID: newID()}, Messages: greeting, Now: t0})
			require.NoError(b, err)
			for b.Loop() {
				token := newID()
				_, err := s.Begin(b.Context(), owner, c.ID, begin(token, "question", t0))
				require.NoError(b, err)
				_, err = s.Finish(b.Context(), owner, c.ID, chat.Finish{Token: token, State: chat.Complete, Replies: []chat.Message{answer("a")}, Now: t0})
				require.NoError(b, err)
			}
		})
	}
}

// BenchmarkMemory measures what conversations cost in Redis: one of 10 messages of about 500 bytes of text, with all that is kept beside
// it but the guards, which end soon; each further message of a long one; and a guard of a caller's key. docs/deploy.md has the figures.
func BenchmarkMemory(b *testing.B) {
	server := redistest.Start(b)
	client := NewClient(Connection{Network: "tcp", Addr: server.Addr, PoolSize: 1, DialTimeout: time.Second, CommandTimeout: time.Minute, PoolTimeout: time.Second})
	b.Cleanup(func() { _ = client.Close() })
	s := newRedis(b, client, chat.Limits{TTL: time.Hour, Messages: 1 << 40, Conversations: 1 << 40}, time.Minute)
	used := func(keys int) float64 {
		require.Eventually(b, func() bool { return server.CLI("dbsize") == strconv.Itoa(keys) }, time.Minute, time.Millisecond, "guards have not ended")
		match := regexp.MustCompile(`used_memory:(\d+)`).FindStringSubmatch(server.CLI("info", "memory"))
		n, err := strconv.ParseFloat(match[1], 64)
		require.NoError(b, err)
		return n
	}
	text := strings.Repeat("Chat text. ", 46)[:500]
	turns := func(owner chat.Owner, id string, n int, ttl time.Duration) {
		for range n {
			question := begin(newID(), text, t0)
			question.Context, question.Guards[0].TTL = 0, ttl
			_, err := s.Begin(b.Context(), owner, id, question)
			require.NoError(b, err)
			_, err = s.Finish(b.Context(), owner, id, chat.Finish{
				Token: question.Token, Guards: question.Guards, State: chat.Complete, Replies: []chat.Message{answer(text)}, Now: t0,
			})
			require.NoError(b, err)
		}
	}
	start := func(owner chat.Owner) string {
		c, err := s.Start(b.Context(), owner, chat.Start{Conversation: chat.Conversation{ID: newID(), Title: "Trip to Rome", ObjectID: newID()}, Now: t0})
		require.NoError(b, err)
		return c.ID
	}
	for b.Loop() {
		const users, conversations, messages = 20, 50, 2_000
		server.CLI("flushall")
		before := used(0)
		for range users {
			owner := someone()
			for range conversations {
				turns(owner, start(owner), 5, time.Millisecond)
			}
		}
		const keys = users * (4 + 2*conversations)
		b.ReportMetric((used(keys)-before)/users/conversations, "B/conversation")
		owner := someone()
		id := start(owner)
		before = used(keys + 5) // no message yet, so no list
		turns(owner, id, messages/2, time.Millisecond)
		short := used(keys+6) - before
		b.ReportMetric(short/messages, "B/message")
		turns(owner, id, messages/2, time.Hour)
		b.ReportMetric((used(keys+6+messages/2)-before-2*short)/(messages/2), "B/guard")
	}
}
