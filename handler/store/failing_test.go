package store

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/logs"
	"chatkeep/handler/redistest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What happens when Redis hangs, dies, fails over, forgets or is full.

// defaults are the budgets that the program has unless it is told otherwise.
func defaults(addr string) Connection {
	return Connection{
		Network: "tcp", Addr: addr, PoolSize: 20,
		DialTimeout: 5 * time.Second, CommandTimeout: time.Second, PoolTimeout: time.Second,
	}
}

// openWith opens a store as the program does: with a client for calls and one for health.
func openWith(t testing.TB, c Connection, o Options, log *slog.Logger) (*world, *Redis) {
	t.Helper()
	client, health := NewClient(c), NewClient(c.ForHealth())
	t.Cleanup(func() { _, _ = client.Close(), health.Close() })
	r := NewRedis(client, health, o, log)
	t.Cleanup(r.Close)
	w := &world{Store: r, owner: someone()}
	if tt, ok := t.(*testing.T); ok {
		w.t = tt
	}
	return w, r
}

// hung are the ways in which a Redis does not answer and does not refuse.
var hung = map[string]func(t testing.TB) (addr string){
	"a paused process": func(t testing.TB) string {
		server := redistest.Start(t)
		server.Pause()
		t.Cleanup(server.Resume)
		return server.Addr
	},
	"a silent port": func(t testing.TB) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { _ = listener.Close() })
		return listener.Addr().String()
	},
	"30 s of latency": func(t testing.TB) string {
		link := redistest.NewLink(t, redistest.Start(t).Addr)
		link.Delay(30 * time.Second)
		return link.Addr
	},
}

const callers = 200

// call has parallel callers get something once each, and returns how long each took, in order. All must fail.
func call(t testing.TB, w *world) []time.Duration {
	took := make([]time.Duration, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			asked := time.Now()
			_, _, err := w.Get(t.Context(), w.owner, newID(), page)
			took[i] = time.Since(asked)
			assert.ErrorIs(t, err, chat.ErrUnavailable)
		})
	}
	all.Wait()
	slices.Sort(took)
	return took
}

func TestAHungRedisHoldsNobody(t *testing.T) {
	for name, hang := range hung {
		t.Run(name, func(t *testing.T) {
			w, r := openWith(t, defaults(hang(t)), Options{Limits: limits, Timeout: time.Second}, slog.New(slog.DiscardHandler))
			before := runtime.NumGoroutine()
			first := call(t, w)
			require.Less(t, first[callers*99/100], 5*time.Second) // 1.25 s on a machine that is not loaded, see BenchmarkHung
			require.Eventually(t, func() bool { return r.breaker.admit() != nil }, 10*time.Second, time.Millisecond)
			for range 5 {
				call(t, w)
				require.LessOrEqual(t, r.client.PoolStats().TotalConns, uint32(20))
				require.Less(t, runtime.NumGoroutine(), before+callers, "goroutines pile up")
			}
		})
	}
}

// BenchmarkHung measures how long 200 parallel callers wait for a Redis that hangs, the slowest 1 % left out: before, and after it is
// known.
func BenchmarkHung(b *testing.B) {
	for name, hang := range hung {
		b.Run(name, func(b *testing.B) {
			addr := hang(b)
			for b.Loop() {
				w, r := openWith(b, defaults(addr), Options{Limits: limits, Timeout: time.Second}, slog.New(slog.DiscardHandler))
				first := call(b, w)
				require.Eventually(b, func() bool { return r.breaker.admit() != nil }, 10*time.Second, time.Millisecond)
				then := call(b, w)
				b.ReportMetric(float64(first[callers*99/100].Milliseconds()), "ms-p99-first")
				b.ReportMetric(float64(then[callers*99/100].Microseconds())/1000, "ms-p99-then")
			}
		})
	}
}

func TestTheBreakerOpensAndClosesByItself(t *testing.T) {
	for name, c := range map[string]struct {
		fail, heal func(*redistest.Server)
		cause      string
	}{
		"hung":   {(*redistest.Server).Pause, (*redistest.Server).Resume, "deadline exceeded"},
		"killed": {(*redistest.Server).Kill, (*redistest.Server).Restart, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			var log safeBuffer
			server := redistest.Start(t)
			w, r := openWith(t, defaults(server.Addr), Options{Limits: limits, Timeout: 300 * time.Millisecond}, slog.New(slog.NewJSONHandler(&log, nil)))
			id := w.start()
			c.fail(server)
			for range breakerFailures {
				_, _, err := w.Get(t.Context(), w.owner, id, page)
				require.ErrorIs(t, err, chat.ErrUnavailable)
				require.NotErrorIs(t, err, errDown)
			}
			require.Eventually(t, func() bool { return r.breaker.admit() != nil }, 10*time.Second, time.Millisecond)
			_, _, err := w.Get(t.Context(), w.owner, id, page)
			require.ErrorIs(t, err, chat.ErrUnavailable)
			require.ErrorIs(t, err, errDown)
			require.ErrorContains(t, err, notExecuted)
			require.ErrorContains(t, err, c.cause, "it does not tell why")

			c.heal(server)
			healed := time.Now()
			require.Eventually(t, func() bool { return r.breaker.admit() == nil }, 10*time.Second, time.Millisecond, "it needs traffic to notice")
			t.Logf("noticed after %v", time.Since(healed))
			_, _, err = w.Get(t.Context(), w.owner, id, page)
			require.NotErrorIs(t, err, chat.ErrUnavailable)
			require.Eventually(t, func() bool {
				return strings.Count(log.String(), "redis recovered") == 1
			}, 10*time.Second, time.Millisecond)
			require.Equal(t, 1, strings.Count(log.String(), "redis is down, calls fail at once"))
			require.Equal(t, 2, strings.Count(log.String(), "\n"))
		})
	}
}

// What holds Redis now and then fails the calls behind it, but Redis is not down: the probe, which has a budget of its own, says so.
func TestASlowScriptIsNoOutage(t *testing.T) {
	var log safeBuffer
	server := redistest.Start(t)
	w, r := openWith(t, defaults(server.Addr), Options{Limits: limits, Timeout: 50 * time.Millisecond}, slog.New(slog.NewJSONHandler(&log, nil)))
	id := w.start()
	slow := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = slow.Close() })
	const hold = `local t = redis.call('TIME') local ends = t[1] * 1000000 + t[2] + 80000
repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] > ends`
	failures := 0
	for range 3 * breakerFailures {
		held := make(chan error, 1)
		go func() { held <- slow.Eval(t.Context(), hold, nil).Err() }()
		time.Sleep(10 * time.Millisecond) // it holds Redis by then
		if _, _, err := w.Get(t.Context(), w.owner, id, page); err != nil {
			require.ErrorIs(t, err, chat.ErrUnavailable)
			require.NotErrorIs(t, err, errDown)
			failures++
		}
		require.ErrorIs(t, <-held, redis.Nil)
	}
	require.Greater(t, failures, breakerFailures, "nothing was slow")
	require.NoError(t, r.breaker.admit())
	require.NotContains(t, log.String(), "redis is down")
}

func TestRefusalsAndLeavingCallersOpenNoBreaker(t *testing.T) {
	server := redistest.Start(t)
	w, r := openWith(t, defaults(server.Addr), Options{Limits: limits, Timeout: time.Second}, slog.New(slog.DiscardHandler))
	server.CLI("replicaof", "127.0.0.1", "1")
	for range 2 * breakerFailures {
		_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
		require.ErrorIs(t, err, chat.ErrUnavailable)
		require.NotErrorIs(t, err, errDown)
		w.list()
	}
	require.False(t, r.breaker.probing)
}

// safeBuffer is a log that can be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// untilBack repeats a turn until it succeeds, and returns how long that took. What fails must say that the store is unavailable.
func untilBack(t *testing.T, w *world, id string) time.Duration {
	t.Helper()
	began := time.Now()
	for time.Since(began) < 30*time.Second {
		b := begin(newID(), "after")
		_, err := w.Begin(t.Context(), w.owner, id, b)
		if err == nil {
			return time.Since(began)
		}
		require.ErrorIs(t, err, chat.ErrUnavailable)
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("it did not come back")
	return 0
}

// awaitReplica waits until the replica has all that the master has now.
func awaitReplica(t *testing.T, master, replica *redistest.Server) {
	t.Helper()
	offset := func(s *redistest.Server) int {
		match := regexp.MustCompile(`master_repl_offset:(\d+)`).FindStringSubmatch(s.CLI("info", "replication"))
		n, err := strconv.Atoi(match[1])
		require.NoError(t, err)
		return n
	}
	want := offset(master)
	require.Eventually(t, func() bool { return offset(replica) >= want }, 10*time.Second, 10*time.Millisecond)
}

func TestSentinelFailsOver(t *testing.T) {
	master := redistest.Start(t)
	replica := redistest.StartReplica(t, master)
	c := defaults(redistest.StartSentinel(t, master).Addr)
	c.Sentinel = redistest.SentinelMaster
	w, _ := openWith(t, c, Options{Limits: limits, Timeout: time.Second}, slog.New(slog.DiscardHandler))
	id := w.start()
	w.turn(id, "before")
	awaitReplica(t, master, replica)
	master.Kill()
	took := untilBack(t, w, id)
	t.Logf("back after %v", took)
	require.Less(t, took, 15*time.Second) // 6 s on a machine that is not loaded
	_, messages := w.get(id)
	require.Equal(t, []string{"before complete", "re before complete", "after pending"}, texts(messages))
}

func TestAClusterFailsOver(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 1)
	c := defaults(cluster.Addrs[0])
	c.Cluster = true
	w, r := openWith(t, c, Options{Limits: limits, Timeout: time.Second, Replicas: 1}, slog.New(slog.DiscardHandler))
	clusterClient := r.client.(*redis.ClusterClient)
	require.Eventually(t, func() bool { // a fresh replica takes some seconds until it may take over
		w.owner = someone()
		_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
		return err == nil
	}, 30*time.Second, 50*time.Millisecond)
	id := w.start()
	w.turn(id, "before")
	master, err := clusterClient.MasterForKey(t.Context(), ownerKeys(w.owner)[0])
	require.NoError(t, err)
	r.options.Replicas = 0 // the new master has none
	for _, server := range cluster.Servers {
		if server.Addr == master.Options().Addr {
			server.Kill()
		}
	}
	took := untilBack(t, w, id)
	t.Logf("back after %v", took)
	require.Less(t, took, 15*time.Second) // 6 s on a machine that is not loaded
	_, messages := w.get(id)
	require.Equal(t, []string{"before complete", "re before complete", "after pending"}, texts(messages))
}

func TestAWriteWaitsForReplicas(t *testing.T) {
	master := redistest.Start(t)
	replica := redistest.StartReplica(t, master)
	c := defaults(master.Addr)
	c.CommandTimeout = 20 * time.Second
	w, r := openWith(t, c, Options{Limits: limits, Timeout: 20 * time.Second, Replicas: 1}, slog.New(slog.DiscardHandler))
	id := w.start()
	w.turn(id, "before")
	master.CLI("script", "flush")
	w.turn(id, "without scripts")
	require.Equal(t, master.CLI("dbsize"), replica.CLI("dbsize"), "it did not wait")

	replica.Pause()
	b := begin("token", "question")
	r.options.Timeout = time.Second
	_, err := w.Begin(t.Context(), w.owner, id, b)
	require.ErrorIs(t, err, chat.ErrUnavailable)
	require.ErrorContains(t, err, unknown)
	r.options.Timeout = 20 * time.Second
	_, messages := w.get(id) // reads go on
	require.Len(t, messages, 5)
	replica.Resume()
	_, err = w.Begin(t.Context(), w.owner, id, b)
	require.NoError(t, err, "the repeated write did not find itself")
	_, messages = w.get(id)
	require.Len(t, messages, 5)
}

func TestReadsGoOnWithoutWrites(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		refuse func(*redistest.Server)
		allow  func(*redistest.Server)
		class  string
	}{
		"out of memory": {
			[]string{"--maxmemory-policy", "noeviction"},
			func(s *redistest.Server) { s.CLI("config", "set", "maxmemory", "1") },
			func(s *redistest.Server) { s.CLI("config", "set", "maxmemory", "0") },
			operator,
		},
		"a replica": {
			nil,
			func(s *redistest.Server) { s.CLI("replicaof", "127.0.0.1", "1") },
			func(s *redistest.Server) { s.CLI("replicaof", "no", "one") },
			notExecuted,
		},
		"too few replicas": {
			nil,
			func(s *redistest.Server) { s.CLI("config", "set", "min-replicas-to-write", "1") },
			func(s *redistest.Server) { s.CLI("config", "set", "min-replicas-to-write", "0") },
			notExecuted,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, server := openFrozen(t, c.args...)
			expiring := w.start()
			w.turn(expiring, "has bytes to give back")
			w.sleep(gone - lease)
			id := w.start()
			w.turn(id, "before")
			w.begin(id, begin("token", "question"))
			before, _ := w.get(id)
			require.Equal(t, []string{id, expiring}, w.list())
			c.refuse(server)
			for range 3 {
				w.sleep(lease)
				_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
				require.ErrorIs(t, err, chat.ErrUnavailable)
				require.ErrorContains(t, err, c.class)
				w.refuse(id, begin("another", "question"), chat.ErrUnavailable)
				_, err = w.Update(t.Context(), w.owner, id, chat.Update{Title: new("changed")})
				require.ErrorIs(t, err, chat.ErrUnavailable)
				got, messages := w.get(id)
				require.Equal(t, []string{"before complete", "re before complete", "question pending"}, texts(messages))
				require.Equal(t, before, got)
				require.Equal(t, []string{id}, w.list())
			}
			c.allow(server)
			require.Eventually(t, func() bool {
				_, messages, err := w.Get(t.Context(), w.owner, id, page)
				return err == nil && messages[2].State == chat.Failed
			}, 10*time.Second, 10*time.Millisecond, "the dead turn never ends")
		})
	}
}

func TestEvictionIsWarnedOf(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		warn string
	}{
		"no limit":          {nil, ""},
		"noeviction":        {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "noeviction"}, ""},
		"Azure's own start": {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"}, "volatile-lru"},
	} {
		t.Run(name, func(t *testing.T) {
			var log safeBuffer
			server := redistest.Start(t, c.args...)
			_, r := openWith(t, defaults(server.Addr), Options{Limits: limits, Timeout: time.Second}, slog.New(slog.NewJSONHandler(&log, nil)))
			for range 3 {
				r.monitor.at, r.monitor.asked = time.Time{}, time.Time{} // seconds later
				health, err := r.Ping(t.Context())
				require.NoError(t, err)
				require.Positive(t, health.Latency)
				require.Equal(t, c.warn != "", health.Warning != "")
				require.Contains(t, health.Warning, c.warn)
			}
			require.Equal(t, c.warn != "", log.String() != "")
			require.LessOrEqual(t, strings.Count(log.String(), "\n"), 1, "it warns more than once")

			server.CLI("config", "set", "maxmemory-policy", "noeviction")
			r.monitor.at, r.monitor.asked = time.Time{}, time.Now().Add(-infoEvery)
			health, err := r.Ping(t.Context())
			require.NoError(t, err)
			require.Empty(t, health.Warning, "it is not looked at again")
		})
	}
}

func TestHealthNeverWaitsBehindCalls(t *testing.T) {
	server := redistest.Start(t)
	c := defaults(server.Addr)
	c.PoolSize, c.CommandTimeout = 1, time.Minute
	_, r := openWith(t, c, Options{Limits: limits, Timeout: time.Second}, slog.New(slog.DiscardHandler))
	blocked := make(chan error, 1)
	go func() { blocked <- r.client.BLPop(t.Context(), time.Minute, "never").Err() }()
	require.Eventually(t, func() bool { return strings.Contains(server.CLI("client", "list"), "cmd=blpop") }, 10*time.Second, time.Millisecond)
	_, _, err := r.List(t.Context(), someone(), chat.List{Limit: 1})
	require.ErrorIs(t, err, chat.ErrUnavailable, "the pool is not saturated")
	_, err = r.Ping(t.Context())
	require.NoError(t, err)
	server.CLI("rpush", "never", "x")
	require.NoError(t, <-blocked)
}

// Each budget ends a wait of its own.
func TestBudgets(t *testing.T) {
	const short = 100 * time.Millisecond
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	paused := redistest.Start(t)
	paused.Pause()
	t.Cleanup(paused.Resume)
	for name, row := range map[string]struct {
		addr  string
		set   func(*Connection, *Options)
		class string
		cause logs.Cause
	}{
		"for a connection": {silent.Addr().String(), func(c *Connection, _ *Options) {
			c.TLS, c.DialTimeout = &tls.Config{MinVersion: tls.VersionTLS12}, short
		}, "", logs.Timeout},
		"for one reply":         {paused.Addr, func(c *Connection, _ *Options) { c.CommandTimeout = short }, unknown, logs.Timeout},
		"for a call":            {paused.Addr, func(_ *Connection, o *Options) { o.Timeout = short }, unknown, logs.Timeout},
		"for a free connection": {paused.Addr, func(c *Connection, _ *Options) { c.PoolTimeout, c.PoolSize = short, 1 }, notExecuted, logs.Pool},
	} {
		t.Run(name, func(t *testing.T) {
			c, o := defaults(row.addr), Options{Limits: limits, Timeout: time.Minute}
			c.DialTimeout, c.CommandTimeout, c.PoolTimeout = time.Minute, time.Minute, time.Minute
			row.set(&c, &o)
			w, r := openWith(t, c, o, slog.New(slog.DiscardHandler))
			if c.PoolSize == 1 {
				ctx, leave := context.WithCancel(t.Context())
				var holds sync.WaitGroup
				holds.Go(func() { _ = r.client.Ping(ctx).Err() })
				t.Cleanup(func() { leave(); _ = r.client.Close(); holds.Wait() })
				require.Eventually(t, func() bool { return r.client.PoolStats().TotalConns == 1 }, 10*time.Second, time.Millisecond)
			}
			began := time.Now()
			_, _, err := w.Get(t.Context(), w.owner, newID(), page)
			require.ErrorIs(t, err, chat.ErrUnavailable)
			require.ErrorContains(t, err, row.class)
			require.Equal(t, row.cause, logs.CauseOf(err), "%v", err)
			require.GreaterOrEqual(t, time.Since(began), short)
			require.Less(t, time.Since(began), 20*time.Second)
		})
	}
}
