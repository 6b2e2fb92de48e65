package store

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Whatever runs beside a deletion, no key of the conversation is left, and no byte of it is counted.
func TestADeletionLeavesNoKeyAndNoByte(t *testing.T) {
	server := redistest.Start(t)
	w := openRedis(t, server.Addr)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = client.Close() })
	tag := tagOf(w.owner)
	for range 20 {
		s := chat.Start{
			Conversation: chat.Conversation{ID: newID(), Title: "title", Metadata: map[string]string{"a": "b"}}, Messages: [][]byte{answer(1, "hi")},
		}
		_, err := w.Start(t.Context(), w.owner, s)
		require.NoError(t, err)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				b := begin(newID(), "secret words")
				turn, err := w.Begin(t.Context(), w.owner, s.Conversation.ID, b)
				if err == nil {
					_, _ = w.Finish(t.Context(), w.owner, s.Conversation.ID, answerTo(b, turn.Message.Seq, "answer"))
				}
			})
			all.Go(func() { _, _ = w.Delete(t.Context(), w.owner, s.Conversation.ID, chat.Deletion{Token: newID()}) })
			all.Go(func() { _, _, _ = w.Get(t.Context(), w.owner, s.Conversation.ID, page) })
			all.Go(func() {
				_, _ = w.Update(t.Context(), w.owner, s.Conversation.ID, chat.Update{Title: new(newID())})
			})
			all.Go(func() { _, _ = w.Start(t.Context(), w.owner, s) })
		}
		all.Wait()
		keys := strings.Fields(server.CLI("keys", "*"))
		slices.Sort(keys)
		require.Equal(t, []string{tag + "idem", tag + "idem:exp", tag + "usage"}, keys)
		require.Equal(t, strconv.Itoa(counted(t, client, w.owner)), client.HGet(t.Context(), tag+"usage", "bytes").Val())
	}
	for _, record := range client.HGetAll(t.Context(), tag+"idem").Val() {
		require.NotContains(t, record, "secret")
	}
}

func TestADamagedConversationCanBeDeleted(t *testing.T) {
	server := redistest.Start(t)
	for name, spoil := range map[string]func(tag, id string){
		"messages are gone":    func(tag, id string) { server.CLI("del", tag+"m:"+id) },
		"a message is missing": func(tag, id string) { server.CLI("rpop", tag+"m:"+id) },
		"its summary is gone":  func(tag, id string) { server.CLI("hdel", tag+"sum", id) },
	} {
		t.Run(name, func(t *testing.T) {
			w := openRedis(t, server.Addr)
			tag := tagOf(w.owner)
			id := w.start()
			w.turn(id, "question")
			spoil(tag, id)
			w.del(id)
			w.requireGone(id)
			require.Empty(t, server.CLI("keys", tag+"*"+id))
			require.Empty(t, server.CLI("keys", tag+"exp"))
			records := 0
			for record := range strings.FieldsSeq(server.CLI("hvals", tag+"idem")) {
				records += len(record)
			}
			require.Equal(t, strconv.Itoa(records), server.CLI("hget", tag+"usage", "bytes"))
		})
	}
}

// Deleting makes room, so it must work when there is none.
func TestADeletionNeedsNoMemory(t *testing.T) {
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	w := openRedis(t, server.Addr)
	id := w.start()
	w.turn(id, "question")
	server.CLI("config", "set", "maxmemory", "1")
	_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
	require.ErrorIs(t, err, chat.ErrUnavailable)
	w.del(id)
	w.requireGone(id)
}
