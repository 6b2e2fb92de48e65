package store

import (
	"errors"
	"fmt"
	"log/slog"
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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// trouble is a fault of Redis that a test begins and ends.
type trouble struct {
	clock      *redistest.Clock
	server     *redistest.Server
	begin, end func()
}

// command returns a trouble that one command begins and another ends.
func command(bad, good string) func(*testing.T) trouble {
	return func(t *testing.T) trouble {
		clock := redistest.NewClock(t)
		server := clock.Start(t)
		return trouble{
			clock, server,
			func() { server.CLI(strings.Fields(bad)...) },
			func() { server.CLI(strings.Fields(good)...) },
		}
	}
}

// outOfMemory fills a server beyond its maxmemory.
func outOfMemory(t *testing.T) trouble {
	clock := redistest.NewClock(t)
	server := clock.Start(t, "--maxmemory", "20mb", "--maxmemory-policy", "noeviction")
	return trouble{
		clock, server,
		func() { server.CLI("setrange", "filler", "30000000", "x") },
		func() { server.CLI("del", "filler") },
	}
}

// withoutReplica has a server lose its only replica.
func withoutReplica(t *testing.T) trouble {
	clock := redistest.NewClock(t)
	server := clock.Start(t)
	replica := clock.StartReplica(t, server)
	host, port, err := net.SplitHostPort(server.Addr)
	require.NoError(t, err)
	return trouble{
		clock, server, replica.Kill,
		func() {
			replica.Restart()
			replica.CLI("replicaof", host, port)
		},
	}
}

// failingSave has a server fail to save, because its file is a directory.
func failingSave(t *testing.T) trouble {
	clock := redistest.NewClock(t)
	dir := t.TempDir()
	server := clock.Start(t, "--save", "3600 1000000", "--dir", dir)
	file := filepath.Join(dir, "dump.rdb")
	save := func(outcome string) {
		require.Eventually(t, func() bool {
			info := server.CLI("info", "persistence")
			if strings.Contains(info, "rdb_last_bgsave_status:"+outcome) {
				return true
			}
			if strings.Contains(info, "rdb_bgsave_in_progress:0") {
				server.CLI("bgsave")
			}
			return false
		}, 20*time.Second, 50*time.Millisecond)
	}
	return trouble{
		clock, server,
		func() {
			require.NoError(t, os.MkdirAll(filepath.Join(file, "in the way"), 0o700))
			save("err")
		},
		func() {
			require.NoError(t, os.RemoveAll(file))
			save("ok")
		},
	}
}

// replicaWithoutData is a replica that has lost its master and serves nothing until it is back.
func replicaWithoutData(t *testing.T) trouble {
	clock := redistest.NewClock(t)
	server := clock.Start(t, "--replica-serve-stale-data", "no")
	return trouble{
		clock, server,
		func() { server.CLI("replicaof", "127.0.0.1", "1") },
		func() { server.CLI("replicaof", "no", "one") },
	}
}

func dead(t *testing.T) trouble {
	server := redistest.Start(t)
	return trouble{nil, server, server.Kill, server.Restart}
}

func hanging(t *testing.T) trouble {
	server := redistest.Start(t)
	return trouble{nil, server, server.Pause, server.Resume}
}

// laterPing asks for the health as if a second had passed since the last time.
func laterPing(t *testing.T, r *Redis) (chat.Health, error) {
	r.monitor.at = time.Time{}
	return r.Ping(t.Context())
}

// changes are the calls that change something.
func changes(t *testing.T, w *world, id string) map[string]error {
	_, claimed := w.Claim(t.Context(), w.owner, chat.Claim{Record: recordNamed(newID()), Token: newID(), Lease: lease})
	_, started := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
	_, begun := w.Begin(t.Context(), w.owner, id, begin(newID(), "question"))
	_, updated := w.Update(t.Context(), w.owner, id, chat.Update{Title: new(newID())})
	return map[string]error{"claim": claimed, "start": started, "begin": begun, "update": updated}
}

func TestHealthIsDegradedWhereOnlyWritesFail(t *testing.T) {
	for name, c := range map[string]struct {
		make     func(*testing.T) trouble
		replicas int
		warning  string
	}{
		"a read-only replica":         {command("replicaof 127.0.0.1 1", "replicaof no one"), 0, "Redis is a read-only replica"},
		"out of memory":               {outOfMemory, 0, "Redis is out of memory"},
		"too few replicas":            {command("config set min-replicas-to-write 1", "config set min-replicas-to-write 0"), 0, "too few replicas"},
		"REDIS_WAIT_REPLICAS not met": {withoutReplica, 1, "too few replicas"},
		"a save that fails":           {failingSave, 0, "Redis cannot save"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trouble := c.make(t)
			w, r := openWith(t, defaults(trouble.server.Addr), Options{Limits: limits, Timeout: time.Second, Replicas: c.replicas},
				slog.New(slog.DiscardHandler))
			var health chat.Health
			var err error
			isHealthy := func() bool {
				health, err = laterPing(t, r)
				return err == nil && health.Warning == ""
			}
			require.Eventually(t, isHealthy, 10*time.Second, 10*time.Millisecond) // a replica may not be in step yet
			id := w.start()
			w.turn(id, "before")

			trouble.begin()
			trouble.clock.Ahead(2 * limits.Lag()) // a read would count its access
			require.Eventually(t, func() bool {
				health, err = laterPing(t, r)
				return err != nil || health.Warning != ""
			}, 10*time.Second, 10*time.Millisecond)
			require.NoError(t, err, "reads go on")
			require.Contains(t, health.Warning, "Conversations can be read, but not changed: "+c.warning)
			require.Positive(t, health.Latency)
			_, messages := w.get(id)
			require.Equal(t, []string{"before complete", "re before complete"}, texts(messages))
			require.Equal(t, []string{id}, w.list())
			for call, err := range changes(t, w, id) {
				require.ErrorIs(t, err, chat.ErrUnavailable, call)
			}
			w.get(id)
			require.Contains(t, w.list(), id)
			health, err = laterPing(t, r)
			require.NoError(t, err)
			require.Contains(t, health.Warning, c.warning)

			trouble.end()
			require.Eventually(t, isHealthy, 10*time.Second, 10*time.Millisecond)
			require.Eventually(t, func() bool { // a replica that is back may have to load once more
				_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
				return err == nil
			}, 10*time.Second, 10*time.Millisecond)
		})
	}
}

func TestHealthIsAnErrorWhereNothingIsServed(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(*testing.T) trouble
		class string
	}{
		"no scripts":                    {command("acl setuser default -evalsha -eval", "acl setuser default +evalsha +eval"), operator},
		"no keys":                       {command("acl setuser default resetkeys", "acl setuser default ~*"), operator},
		"a replica that has no data":    {replicaWithoutData, notExecuted},
		"a server that is down":         {dead, notExecuted},
		"a server that does not answer": {hanging, unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trouble := c.make(t)
			w, r := openWith(t, defaults(trouble.server.Addr), Options{Limits: limits, Timeout: time.Second}, slog.New(slog.DiscardHandler))
			id := w.start()
			_, err := laterPing(t, r)
			require.NoError(t, err)

			trouble.begin()
			_, err = laterPing(t, r)
			require.ErrorIs(t, err, chat.ErrUnavailable)
			require.ErrorContains(t, err, c.class)
			_, _, err = w.Get(t.Context(), w.owner, id, page)
			require.ErrorIs(t, err, chat.ErrUnavailable, "get")
			_, _, err = w.List(t.Context(), w.owner, chat.List{Limit: 1})
			require.ErrorIs(t, err, chat.ErrUnavailable, "list")
			for call, err := range changes(t, w, id) {
				require.ErrorIs(t, err, chat.ErrUnavailable, call)
			}

			trouble.end()
			require.Eventually(t, func() bool {
				health, err := laterPing(t, r)
				return err == nil && health.Warning == ""
			}, 10*time.Second, 10*time.Millisecond)
			require.Eventually(t, func() bool { // a breaker closes by itself
				_, _, err := w.List(t.Context(), w.owner, chat.List{Limit: 1})
				return err == nil
			}, 10*time.Second, 10*time.Millisecond)
			w.turn(w.start(), "after")
		})
	}
}

// Above 90 % of maxmemory everything works, and someone should look.
func TestHealthIsDegradedWhereMemoryIsNearlyFull(t *testing.T) {
	var log safeBuffer
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	w, r := openWith(t, defaults(server.Addr), Options{Limits: limits, Timeout: time.Second}, slog.New(slog.NewJSONHandler(&log, nil)))
	id := w.start()
	w.turn(id, "loads the scripts")
	server.CLI("setrange", "filler", "40000000", "x") // so that what connections use is little
	fill := func(share float64) {
		match := regexp.MustCompile(`used_memory:(\d+)`).FindStringSubmatch(server.CLI("info", "memory"))
		used, err := strconv.ParseFloat(match[1], 64)
		require.NoError(t, err)
		server.CLI("config", "set", "maxmemory", strconv.FormatFloat(used/share, 'f', 0, 64))
	}
	for round := range 3 {
		if round == 2 {
			r.monitor.toldAt = time.Now().Add(-warnEvery)
		}
		for _, step := range []struct {
			share   float64
			warning string
		}{{0.87, ""}, {0.93, "Redis is nearly full: above 90 % of its maxmemory"}, {0.5, ""}} {
			fill(step.share)
			r.monitor.asked = time.Now().Add(-infoEvery)
			for range 3 {
				health, err := laterPing(t, r)
				require.NoError(t, err)
				require.Equal(t, step.warning, health.Warning, step.share)
				w.turn(id, "goes on")
				w.get(id)
			}
		}
	}
	require.Equal(t, 2, strings.Count(log.String(), "nearly full"), "a line a minute")
}

// Whoever asks, and however many: Redis gets one question a second, whether it answers, refuses or is silent.
func TestHealthIsAskedOnceASecond(t *testing.T) {
	for name, spoil := range map[string]func(*redistest.Server){
		"healthy":   func(*redistest.Server) {},
		"degraded":  func(s *redistest.Server) { s.CLI("config", "set", "min-replicas-to-write", "1") },
		"unhealthy": func(s *redistest.Server) { s.CLI("acl", "setuser", "default", "-evalsha", "-eval") },
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			_, r := openWith(t, defaults(server.Addr), Options{Limits: limits, Timeout: time.Second}, slog.New(slog.DiscardHandler))
			_, err := laterPing(t, r)
			require.NoError(t, err)
			spoil(server)
			asked := func() (n int) {
				stats := regexp.MustCompile(`cmdstat_evalsha:calls=(\d+).*rejected_calls=(\d+)`).FindStringSubmatch(server.CLI("info", "commandstats"))
				for _, number := range stats[1:] {
					more, err := strconv.Atoi(number)
					require.NoError(t, err)
					n += more
				}
				return n
			}
			before := asked()
			r.monitor.at = time.Now().Add(-pingEvery)
			first, failed := r.Ping(t.Context())
			once := asked() - before // the client may try a refused command again
			require.Contains(t, []int{1, 2}, once)
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					health, err := r.Ping(t.Context())
					assert.Equal(t, first, health)
					assert.Equal(t, failed, err)
				})
			}
			all.Wait()
			require.Equal(t, once, asked()-before)
			r.monitor.at = time.Now().Add(-pingEvery)
			for range 100 {
				all.Go(func() { _, _ = r.Ping(t.Context()) })
			}
			all.Wait()
			require.Equal(t, 2*once, asked()-before)
		})
	}
	t.Run("silent", func(t *testing.T) {
		server := redistest.Start(t)
		_, r := openWith(t, defaults(server.Addr), Options{Limits: limits, Timeout: time.Second}, slog.New(slog.DiscardHandler))
		server.Pause()
		t.Cleanup(server.Resume)
		began := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				_, err := r.Ping(t.Context())
				assert.ErrorIs(t, err, chat.ErrUnavailable)
			})
		}
		all.Wait()
		require.Less(t, time.Since(began), pingBudget+5*time.Second)
	})
}

// Redis 6.0 words the refusal of a script otherwise.
func TestWhyOnlyReads(t *testing.T) {
	for refusal, reason := range map[string]string{
		"OOM command not allowed when used memory > 'maxmemory'.":         "out of memory",
		"READONLY You can't write against a read only replica.":           "read-only replica",
		"NOREPLICAS Not enough good replicas to write.":                   "too few replicas",
		"MISCONF Redis is configured to save RDB snapshots, but it can't": "cannot save",
	} {
		require.Contains(t, whyOnlyReads(errors.New(refusal)), reason)
		require.Contains(t, whyOnlyReads(fmt.Errorf("ERR Error running script (call to f_0): @user_script:4: @user_script: 4: -%s", refusal)), reason)
	}
	require.Contains(t, whyOnlyReads(fmt.Errorf("wait: %w", errTooFewReplicas)), "too few replicas")
	for _, other := range []string{"NOPERM this user has no permissions", "LOADING Redis is loading", "ERR unknown command", "MASTERDOWN Link is down"} {
		require.Empty(t, whyOnlyReads(errors.New(other)))
	}
	require.Empty(t, whyOnlyReads(nil))
}
