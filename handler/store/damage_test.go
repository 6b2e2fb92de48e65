package store

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/require"
)

func TestAConversationThatIsLostAnswersItsStartWithNotFound(t *testing.T) {
	server := redistest.Start(t)
	w := openRedis(t, server.Addr)
	claim := chat.Claim{Record: recordNamed("key"), Token: "x", Lease: lease}
	_, err := w.Claim(t.Context(), w.owner, claim)
	require.NoError(t, err)
	made, err := w.Start(t.Context(), w.owner, chat.Start{
		Conversation: chat.Conversation{ID: newID()}, Record: &claim.Record, Token: claim.Token,
	})
	require.NoError(t, err)
	server.CLI("del", tagOf(w.owner)+"c:"+made.ID)
	_, _, err = w.Get(t.Context(), w.owner, made.ID, page)
	require.ErrorIs(t, err, chat.ErrNotFound)
	_, err = w.Claim(t.Context(), w.owner, claim)
	require.ErrorIs(t, err, chat.ErrNotFound)
}

func TestDamageIsLoud(t *testing.T) {
	server := redistest.Start(t)
	for name, spoil := range map[string]func(tag, id string){
		"messages are gone":    func(tag, id string) { server.CLI("del", tag+"m:"+id) },
		"a message is missing": func(tag, id string) { server.CLI("rpop", tag+"m:"+id) },
		"a message is not one": func(tag, id string) { server.CLI("lset", tag+"m:"+id, "0", "x") },
		"metadata is not one":  func(tag, id string) { server.CLI("hset", tag+"c:"+id, "metadata", "x") },
	} {
		t.Run(name, func(t *testing.T) {
			w := openRedis(t, server.Addr)
			id := w.start()
			w.turn(id, "x")
			spoil(tagOf(w.owner), id)
			_, _, err := w.Get(t.Context(), w.owner, id, page)
			require.ErrorIs(t, err, chat.ErrDamaged)
		})
	}
	t.Run("a conversation that lost its hash is gone from the list once it is asked for", func(t *testing.T) {
		w := openRedis(t, server.Addr)
		id := w.start()
		server.CLI("del", tagOf(w.owner)+"c:"+id)
		_, _, err := w.Get(t.Context(), w.owner, id, page)
		require.ErrorIs(t, err, chat.ErrNotFound)
		require.Empty(t, w.list())
	})
	t.Run("a conversation whose owner is another is not there", func(t *testing.T) {
		for field, value := range map[string]string{"tenantId": "another", "userId": "mallory"} {
			w := openRedis(t, server.Addr)
			id := w.start()
			server.CLI("hset", tagOf(w.owner)+"c:"+id, field, value)
			_, _, err := w.Get(t.Context(), w.owner, id, page)
			require.ErrorIs(t, err, chat.ErrNotFound)
			w.refuse(id, begin("x", "x"), chat.ErrNotFound)
			_, err = w.Update(t.Context(), w.owner, id, chat.Update{Title: new("mine")})
			require.ErrorIs(t, err, chat.ErrNotFound)
		}
	})
}

// A summary that is damaged or lost costs its entry, not the list, and only until the conversation is opened.
func TestADamagedSummaryCostsItsEntryAlone(t *testing.T) {
	server := redistest.Start(t)
	client := connect(t, Connection{Addr: server.Addr})
	for name, spoil := range map[string]func(summaries, id string){
		"lost":                 func(summaries, id string) { server.CLI("hdel", summaries, id) },
		"no JSON":              func(summaries, id string) { server.CLI("hset", summaries, id, "x") },
		"half":                 func(summaries, id string) { server.CLI("hset", summaries, id, `{"title":"`) },
		"another kind of JSON": func(summaries, id string) { server.CLI("hset", summaries, id, "[]") },
		"a member of another type": func(summaries, id string) {
			server.CLI("hset", summaries, id, `{"title":7,"status":"active","version":1}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log safeBuffer
			r := NewRedis(client, client, Options{Limits: limits, Timeout: time.Second}, slog.New(slog.NewJSONHandler(&log, nil)))
			t.Cleanup(r.Close)
			w := &world{Store: r, t: t, owner: someone()}
			var ids []string
			for range 5 {
				c, err := w.Start(t.Context(), w.owner, chat.Start{
					Conversation: chat.Conversation{ID: newID(), Title: "title", Metadata: map[string]string{"k": "v"}},
				})
				require.NoError(t, err)
				ids = append(ids, c.ID)
			}
			spoiled := w.list()[2]
			for range 2 {
				spoil(tagOf(w.owner)+"sum", spoiled)
				var seen []string
				var after *chat.Cursor
				for {
					listed, next, err := w.List(t.Context(), w.owner, chat.List{Limit: 1, After: after})
					require.NoError(t, err)
					for _, c := range listed {
						require.Equal(t, "title", c.Title)
						require.Equal(t, map[string]string{"k": "v"}, c.Metadata)
						seen = append(seen, c.ID)
					}
					if after = next; next == nil {
						break
					}
				}
				require.ElementsMatch(t, slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == spoiled }), seen)
				require.Equal(t, 1, strings.Count(log.String(), "\n"), "it is told once: %s", log.String())
				require.Contains(t, log.String(), spoiled)

				got, _ := w.get(spoiled)
				got.ObjectID = ""
				listed, next, err := w.List(t.Context(), w.owner, chat.List{Limit: 10})
				require.NoError(t, err)
				require.Nil(t, next)
				require.Len(t, listed, 5)
				require.Contains(t, listed, got, "opening it did not repair its entry")
				for key := range strings.FieldsSeq(server.CLI("keys", tagOf(w.owner)+"*")) {
					require.NotEqual(t, "-1", server.CLI("pttl", key), "%s never expires", key)
				}
			}
		})
	}
}

// The format can lose and gain fields: a missing one has a default, one of a newer version stays.
func TestFieldsMayBeMissingOrNew(t *testing.T) {
	server := redistest.Start(t)
	w := openRedis(t, server.Addr)
	started := func() (string, string) {
		c, err := w.Start(t.Context(), w.owner, chat.Start{
			Conversation: chat.Conversation{
				ID: newID(), ObjectID: "oid", ExternalID: "external", Title: "title", Metadata: map[string]string{"k": "v"},
			},
			Messages: [][]byte{answer(1, "hi")}, AgentRef: "ref",
		})
		require.NoError(t, err)
		w.turn(c.ID, "before")
		return c.ID, tagOf(w.owner) + "c:" + c.ID
	}
	goOn := func(id, name string) {
		_, messages := w.get(id)
		require.Len(t, messages, 3, name)
		w.turn(id, "after")
		c := w.update(id, chat.Update{Title: new("changed")})
		got, messages := w.get(id)
		got.CreatedAt, got.LastAccessedAt, got.ExpiresAt = c.CreatedAt, c.LastAccessedAt, c.ExpiresAt // one that is missing follows UpdatedAt
		require.Equal(t, c, got, name)
		require.Len(t, messages, 5, name)
		require.Contains(t, w.list(), id, name)
	}
	_, key := started()
	fields := strings.Fields(server.CLI("hkeys", key))
	require.Greater(t, len(fields), 15)
	for _, field := range fields {
		id, key := started()
		server.CLI("hdel", key, field)
		goOn(id, field)
	}
	id, key := started()
	summaries := tagOf(w.owner) + "sum"
	server.CLI("hset", key, "future", "kept")
	server.CLI("hset", summaries, id, strings.Replace(server.CLI("hget", summaries, id), "{", `{"future":"kept",`, 1))
	goOn(id, "a new field")
	require.Equal(t, "kept", server.CLI("hget", key, "future"))
	require.Contains(t, server.CLI("hget", summaries, id), `"future":"kept"`)

	server.CLI("hset", key, "format", "2")
	_, _, err := w.Get(t.Context(), w.owner, id, page)
	require.ErrorIs(t, err, chat.ErrUnavailable, "a newer format is left to newer programs")
	w.refuse(id, begin("x", "x"), chat.ErrUnavailable)
}
