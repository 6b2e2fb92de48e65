package store

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/redis/go-redis/v9"
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

// openFrozen starts a server whose clock stands still unless the world moves it.
func openFrozen(t *testing.T, args ...string) (*world, *redistest.Server) {
	t.Helper()
	clock := redistest.NewClock(t)
	server := clock.Start(t, args...)
	client := connect(t, Connection{Addr: server.Addr})
	now := time.Now().UTC().Truncate(time.Millisecond).Add(48 * time.Hour)
	w := newWorld(t, func(l chat.Limits) chat.Store { return newRedis(t, client, l, 10*time.Second) }, now, clock.Freeze)
	w.at(now)
	return w, server
}

// A fail-over may lead to a server whose clock is behind.
func TestAFailOverToASlowerClock(t *testing.T) {
	clock := redistest.NewClock(t)
	master := clock.Start(t)
	clock.Ahead(12 * time.Minute)
	replica := redistest.StartReplica(t, master)
	w := openRedis(t, master.Addr)
	id := w.start()
	w.turn(id, "first")
	before, messages := w.get(id)
	require.WithinDuration(t, time.Now().Add(12*time.Minute), before.UpdatedAt, time.Minute)
	awaitReplica(t, master, replica)
	replica.CLI("replicaof", "no", "one")
	w.Store = newRedis(t, connect(t, Connection{Addr: replica.Addr}), limits, 10*time.Second)
	w.turn(id, "second")
	w.update(id, chat.Update{Title: new("changed")})
	after, all := w.get(id)
	require.Equal(t, messages, all[:2])
	require.Equal(t, before.UpdatedAt, all[2].CreatedAt)
	require.Equal(t, before.UpdatedAt, all[3].CreatedAt)
	require.Equal(t, before.UpdatedAt, after.UpdatedAt)
	require.Equal(t, before.LastAccessedAt, after.LastAccessedAt)
	require.Equal(t, before.Version+3, after.Version)
	require.Equal(t, []string{id}, w.list())
}

func TestRoundTrips(t *testing.T) {
	server := redistest.Start(t)
	w := openRedis(t, server.Addr)
	w.turn(w.start(), "loads the scripts")
	w.list()
	id := w.start()
	w.get(id)
	w.update(id, chat.Update{})
	w.del(w.start())
	w.events(id, chat.EventID{})
	_, err := w.Cancel(t.Context(), w.owner, id, chat.Cancellation{Token: "x"})
	require.NoError(t, err)
	b := begin(newID(), "x")
	w.add(id, b.Token, say(w.begin(id, b).Message.Seq, 2, "x", "x"))
	w.finish(id, answerTo(b, 0, "x"))
	_, err = w.Ping(t.Context())
	require.NoError(t, err)
	w.Store.(*Redis).monitor.at = time.Time{} // a second later
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
		"start":  {1, func() { w.start() }},
		"send":   {2, func() { w.turn(id, "x") }},
		"get":    {1, func() { w.get(id) }},
		"list":   {1, func() { w.list() }},
		"update": {1, func() { w.update(id, chat.Update{Title: new("changed")}) }},
		"delete": {2, func() { w.del(w.start()) }},
		"a turn that tells in three batches": {5, func() {
			b := begin(newID(), "x")
			seq := w.begin(id, b).Message.Seq
			for n := range int64(3) {
				w.add(id, b.Token, say(seq, 2+n, "x", "x"))
			}
			w.finish(id, answerTo(b, seq, "xxx"))
		}},
		"a page of a log": {1, func() { w.events(id, chat.EventID{}) }},
		"cancel": {1, func() {
			_, err := w.Cancel(t.Context(), w.owner, id, chat.Cancellation{Token: "x"})
			require.NoError(t, err)
		}},
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
		"HSET": true, "HGET": true, "HMGET": true, "HDEL": true, "HEXISTS": true, "HSTRLEN": true, "HINCRBY": true,
		"ZADD": true, "ZREM": true, "ZSCORE": true, "ZCARD": true, "ZRANGE": true, "ZRANGEBYSCORE": true, "ZREVRANGEBYSCORE": true,
		"LLEN": true, "LINDEX": true, "LSET": true, "LRANGE": true, "RPUSH": true, "PEXPIREAT": true, "TIME": true, "SET": true, "PTTL": true,
		"UNLINK": true, "HSCAN": true, "EXISTS": true, "XADD": true, "XRANGE": true, "XREVRANGE": true,
	}
	files, err := filepath.Glob("*.lua")
	require.NoError(t, err)
	require.Len(t, files, 17)
	call := regexp.MustCompile(`redis\.call\('(\w+)'(?:, ([^,)]+))?`)
	given := `^(expiries|summaries|records|recordExpiries|usage|conversation|messages|events|active|INDEX\[c\.status\]|KEYS\[1\]` +
		`|key|index|was)?$` // the last three run through some of the others
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Len(t, call.FindAllString(string(text), -1), strings.Count(string(text), "redis.call("), file)
		for _, match := range call.FindAllStringSubmatch(string(text), -1) {
			require.True(t, known[match[1]], "%s: %s", file, match[1])
			require.Regexp(t, given, match[2], "%s: %s", file, match[0])
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
	direct.turn(direct.start(), "loads the scripts")
	executed := func() int {
		match := regexp.MustCompile(`cmdstat_evalsha:calls=(\d+)`).FindStringSubmatch(server.CLI("info", "commandstats"))
		n, err := strconv.Atoi(match[1])
		require.NoError(t, err)
		return n
	}
	id := newID()
	record, b := recordNamed("key"), begin("token", "question")
	known := direct.start()
	direct.begin(known, begin("loads the scripts", "x"))
	direct.add(known, "loads the scripts")
	direct.events(known, chat.EventID{})
	_, err := direct.Cancel(t.Context(), direct.owner, known, chat.Cancellation{Token: "loads the script"})
	require.NoError(t, err)
	direct.del(known)
	_, err = direct.Claim(t.Context(), direct.owner, chat.Claim{Record: record, Token: "loads the script"})
	require.NoError(t, err)
	for _, call := range []struct {
		script string
		do     func() error
	}{
		{"claim", func() error {
			_, err := through.Claim(t.Context(), through.owner, chat.Claim{Record: record, Token: "token", Lease: lease})
			return err
		}},
		{"start", func() error {
			_, err := through.Start(t.Context(), through.owner, chat.Start{
				Conversation: chat.Conversation{ID: id}, Messages: [][]byte{answer(1, "hi")}, Record: &record, Token: "token",
			})
			return err
		}},
		{"begin", func() error {
			_, err := through.Begin(t.Context(), through.owner, id, b)
			return err
		}},
		{"append", func() error {
			_, err := through.Append(t.Context(), through.owner, id, chat.Append{Token: "token", Lease: lease, Entries: []chat.Entry{say(2, 2, "told", "x")}})
			return err
		}},
		{"cancel", func() error {
			cancelled, err := through.Cancel(t.Context(), through.owner, id, chat.Cancellation{Token: "x"})
			if err == nil && !cancelled {
				return errors.New("not recognised")
			}
			return err
		}},
		{"events", func() error {
			_, err := through.Events(t.Context(), through.owner, id, nil)
			return err
		}},
		{"finish", func() error {
			f := answerTo(b, 2, "answer")
			f.State, f.Entries = chat.Cancelled, []chat.Entry{say(2, 3, "at last", "x")}
			_, err := through.Finish(t.Context(), through.owner, id, f)
			return err
		}},
		{"begin again", func() error {
			turn, err := through.Begin(t.Context(), through.owner, id, retry(b, "another", b.Records[0], recordNamed("another")))
			if err == nil && !turn.Replayed {
				return errors.New("not recognised")
			}
			return err
		}},
		{"update", func() error {
			_, err := through.Update(t.Context(), through.owner, id, chat.Update{Title: new("new"), Status: new(chat.Archived), Version: 3})
			return err
		}},
		{"get", func() error {
			_, _, err := through.Get(t.Context(), through.owner, id, page)
			return err
		}},
		{"list", func() error {
			_, _, err := through.List(t.Context(), through.owner, chat.List{Limit: 10})
			return err
		}},
	} {
		through.list() // a connection stands, so that the next reply is the script's
		before := executed()
		link.Lose(1)
		require.NoError(t, call.do(), call.script)
		require.Zero(t, link.ToLose(), "%s: no reply was lost", call.script)
		require.GreaterOrEqual(t, executed()-before, 2, "%s was not repeated", call.script)
	}
	c, messages := direct.get(id)
	require.Equal(t, []string{"hi complete", "question cancelled", "answer partial"}, texts(messages))
	require.Equal(t, []string{"2-2 delta told", "2-3 delta at last"}, logged(direct.events(id, chat.EventID{Seq: 2, N: 1})))
	require.Equal(t, int64(4), c.Version)
	require.Equal(t, []string{id}, direct.list(chat.Archived))
}
