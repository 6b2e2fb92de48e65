package store

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// callsUntil is a hook that ends a context after so many calls.
type callsUntil struct {
	redis.Hook
	left int
	end  func()
}

func (c *callsUntil) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if c.left--; c.left == 0 {
			c.end()
		}
		return next(ctx, cmd)
	}
}

func (c *callsUntil) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *callsUntil) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func TestAnErasureThatWasCutIsRepeated(t *testing.T) {
	server := redistest.Start(t)
	client := connect(t, Connection{Addr: server.Addr})
	var log bytes.Buffer
	store := NewRedis(client, client, Options{Limits: limits, Timeout: 10 * time.Second}, slog.New(slog.NewJSONHandler(&log, nil)))
	t.Cleanup(store.Close)
	w := &world{Store: store, t: t, owner: someone()}
	const conversations = 4 * eraseStep
	for range conversations {
		w.turn(w.start(), "question")
	}
	w.del(w.start())
	ctx, cut := context.WithCancel(t.Context())
	client.AddHook(&callsUntil{left: 4, end: cut})
	first, err := w.Erase(ctx, w.owner)
	require.Error(t, err)
	require.Positive(t, first.Deleted)
	left := w.list()
	require.NotEmpty(t, left)
	require.Less(t, len(left), conversations)
	require.Contains(t, log.String(), fmt.Sprintf(`"an erasure was cut, a repetition goes on with it","deleted":%d}`, first.Deleted))
	require.NotContains(t, log.String(), `"erasing"`, "within a second")

	store.eraseLogEvery = 0
	require.Equal(t, chat.Erasure{Deleted: len(left)}, w.erase(), "it counts what the first one left")
	require.Contains(t, log.String(), fmt.Sprintf(`"erasing","deleted":%d}`, eraseStep))
	require.NotContains(t, log.String(), w.owner.UserID)
	require.NotContains(t, log.String(), left[0])
	require.Equal(t, chat.Erasure{}, w.erase(), "again")
	require.Empty(t, server.CLI("keys", "*"))
}

// What an eviction has left of an owner is erased too.
func TestAnErasureFindsWhatIsLeft(t *testing.T) {
	server := redistest.Start(t)
	for _, lost := range []string{"exp", "sum", "idx:active", "usage", "idem", "idem:exp", "exp sum", "exp idx:active", "sum idx:active"} {
		w := openRedis(t, server.Addr)
		w.turn(w.start(), "question")
		w.turn(w.start(), "question")
		for name := range strings.FieldsSeq(lost) {
			server.CLI("del", tagOf(w.owner)+name)
		}
		require.Equal(t, chat.Erasure{Deleted: 2}, w.erase(), lost)
		require.Empty(t, server.CLI("keys", "*"), lost)
	}
}

// The keys that remain are counted: what another writes meanwhile shows.
func TestTheKeysThatRemainAreCounted(t *testing.T) {
	server := redistest.Start(t)
	client := connect(t, Connection{Addr: server.Addr})
	w := &world{Store: newRedis(t, client, limits, 10*time.Second), t: t, owner: someone()}
	id := w.start()
	w.turn(id, "question")
	w.erase() // loads the scripts
	w.start()
	other := openRedis(t, server.Addr)
	other.owner = w.owner
	client.AddHook(&callsUntil{left: 3, end: func() { other.start() }}) // after the last step, before the count
	done := w.erase()
	require.Equal(t, 1, done.Deleted)
	require.Positive(t, done.KeysRemaining)
}

// No step takes longer than the others' scripts may: see TestNoScriptHoldsRedis.
func TestNoStepOfAnErasureHoldsRedis(t *testing.T) {
	server := redistest.Start(t, "--slowlog-log-slower-than", "0", "--slowlog-max-len", "128")
	client := connect(t, Connection{Addr: server.Addr})
	w := &world{Store: newRedis(t, client, withLimits(func(l *chat.Limits) { l.Conversations = 10_000 }), 10*time.Second), t: t, owner: someone()}
	least := time.Hour
	for range 5 {
		for range 10 * eraseStep {
			_, err := w.Start(t.Context(), w.owner, chat.Start{
				Conversation: chat.Conversation{ID: newID(), Title: strings.Repeat("t", 200), Metadata: map[string]string{"a": strings.Repeat("x", 512)}},
				Messages:     [][]byte{answer(1, strings.Repeat("x", 10_000))},
			})
			require.NoError(t, err)
		}
		longest(t, client.(*redis.Client))
		require.Equal(t, chat.Erasure{Deleted: 10 * eraseStep}, w.erase())
		least = min(least, longest(t, client.(*redis.Client)))
	}
	t.Log(least)
	require.Less(t, least, 20*time.Millisecond)
}
