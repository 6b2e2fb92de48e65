package store

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// How a conversation starts.
var startRules = map[string]rule{
	"a started conversation can be got, as it was given": func(t *testing.T, w *world) {
		began := w.now
		given := chat.Start{
			Conversation: chat.Conversation{
				ID: newID(), ObjectID: "oid", ExternalID: "external", Title: `Ünïcode "quoted" \ / ` + "\u2028",
				Metadata: map[string]string{"a": "", "b": `{"not":"json"}`},
			},
			Messages: [][]byte{
				encode(chat.Message{ID: chat.NewMessageID(1), Role: chat.Assistant, Kind: chat.Text, Text: "Hello <b>&\u0001😀"}),
				encode(chat.Message{
					ID: chat.NewMessageID(2), Role: chat.Assistant, Kind: chat.AdaptiveCard, CardID: "card",
					CardJSON: []byte(`{"n":12345678901234567890,"e":[],"o":{},"z":null}`),
				}),
			},
			AgentRef: "ref",
		}
		started, err := w.Start(t.Context(), w.owner, given)
		require.NoError(t, err)
		want := given.Conversation
		want.Owner, want.Status, want.MessageCount, want.Version = w.owner, chat.Active, 2, 1
		want.CreatedAt, want.UpdatedAt, want.LastAccessedAt, want.ExpiresAt = began, began, began, began.Add(limits.TTL)
		require.Equal(t, want, started)

		w.sleep(time.Minute)
		got, messages := w.get(want.ID)
		want.LastAccessedAt, want.ExpiresAt = w.now, w.now.Add(limits.TTL)
		require.Equal(t, want, got)
		require.Equal(t, []chat.StoredMessage{
			{Seq: 1, State: chat.Complete, CreatedAt: began, JSON: given.Messages[0]},
			{Seq: 2, State: chat.Complete, CreatedAt: began, JSON: given.Messages[1]},
		}, messages)

		want.ObjectID = "" // the list need not have it
		listed, next, err := w.List(t.Context(), w.owner, chat.List{Limit: 1})
		require.NoError(t, err)
		require.Nil(t, next)
		require.Len(t, listed, 1)
		listed[0].ObjectID = ""
		require.Equal(t, want, listed[0])
	},

	"a conversation may start with nothing": func(t *testing.T, w *world) {
		started, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
		require.NoError(t, err)
		got, messages := w.get(started.ID)
		require.Equal(t, started, got)
		require.Empty(t, messages)
	},

	"starting twice under one id is starting once": func(t *testing.T, w *world) {
		s := chat.Start{Conversation: chat.Conversation{ID: newID(), Title: "once"}, Messages: [][]byte{answer(1, "hi")}}
		first, err := w.Start(t.Context(), w.owner, s)
		require.NoError(t, err)
		w.sleep(time.Second)
		second, err := w.Start(t.Context(), w.owner, s)
		require.NoError(t, err)
		require.Equal(t, first, second)
		_, messages := w.get(first.ID)
		require.Len(t, messages, 1)
	},

	"a claimed start is made once": func(t *testing.T, w *world) {
		record := recordNamed("key")
		record.TTL = time.Hour
		claim := func(token string, lease time.Duration) (*chat.Conversation, error) {
			return w.Claim(t.Context(), w.owner, chat.Claim{Record: record, Token: token, Lease: lease})
		}
		start := func(token string) (chat.Conversation, error) {
			return w.Start(t.Context(), w.owner, chat.Start{
				Conversation: chat.Conversation{
					ID: newID(), ObjectID: "oid", ExternalID: "external", Title: token, Metadata: map[string]string{"k": "v"},
				},
				Messages: [][]byte{answer(1, "hi")}, Record: &record, Token: token,
			})
		}
		_, err := start("one")
		require.ErrorIs(t, err, chat.ErrTurnLost, "without a claim")
		for range 2 {
			made, err := claim("one", lease)
			require.NoError(t, err)
			require.Nil(t, made)
		}
		w.sleep(10 * time.Second)
		_, err = claim("two", lease)
		var busy *chat.BusyError
		require.ErrorAs(t, err, &busy)
		require.Equal(t, 20*time.Second, busy.Left)
		_, err = claim("one", lease)
		require.NoError(t, err)
		w.sleep(20 * time.Second)
		_, err = claim("two", lease)
		require.ErrorAs(t, err, &busy, "a renewed claim was taken over")

		_, err = claim("two", 0)
		require.ErrorAs(t, err, &busy, "another's claim was given up")
		_, err = claim("one", 0)
		require.NoError(t, err)
		_, err = start("one")
		require.ErrorIs(t, err, chat.ErrTurnLost, "after giving up")
		_, err = claim("two", lease)
		require.NoError(t, err)
		w.sleep(lease - time.Millisecond)
		_, err = claim("three", lease)
		require.ErrorAs(t, err, &busy)
		w.sleep(time.Millisecond)
		_, err = claim("three", lease)
		require.NoError(t, err, "a dead claim was not taken over")
		_, err = start("two")
		require.ErrorIs(t, err, chat.ErrTurnLost)
		require.Empty(t, w.list())

		made, err := start("three")
		require.NoError(t, err)
		w.sleep(time.Minute)
		w.turn(made.ID, "question")
		w.update(made.ID, chat.Update{Title: new("changed"), Status: new(chat.Archived)})
		want := made
		want.Title, want.Metadata, want.ObjectID = "", nil, "" // which the request has
		for _, token := range []string{"three", "four"} {
			found, err := claim(token, lease)
			require.NoError(t, err)
			require.Equal(t, &want, found)
			_, err = claim(token, 0)
			require.NoError(t, err)
			_, err = start(token)
			require.ErrorIs(t, err, chat.ErrTurnLost)
		}
		require.Equal(t, []string{made.ID}, w.list())
	},

	"there is a limit to an owner's conversations": func(t *testing.T, w *world) {
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.Conversations = 2 }))
		first, second := w.start(), w.start()
		_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
		require.ErrorIs(t, err, chat.ErrTooMany)
		require.ElementsMatch(t, []string{first, second}, w.list(), "a refused start left something")
		w.sleep(gone)
		third := w.start()
		require.Equal(t, []string{third}, w.list(), "expired conversations still count")
	},

	"parallel starts never exceed the limit": func(t *testing.T, w *world) {
		var started atomic.Int64
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				for range 40 {
					_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
					if err == nil {
						started.Add(1)
					} else {
						assert.ErrorIs(t, err, chat.ErrTooMany)
					}
				}
			})
		}
		all.Wait()
		require.Equal(t, limits.Conversations, started.Load())
	},

	"what a caller got is a copy": func(t *testing.T, w *world) {
		id := newID()
		given := map[string]string{"k": "v"}
		_, err := w.Start(t.Context(), w.owner, chat.Start{
			Conversation: chat.Conversation{ID: id, Metadata: given}, Messages: [][]byte{answer(1, "a"), answer(2, "b")},
		})
		require.NoError(t, err)
		given["k"] = "changed"
		for range 2 {
			c, messages := w.get(id)
			require.Equal(t, map[string]string{"k": "v"}, c.Metadata)
			require.Equal(t, []string{"a complete", "b complete"}, texts(messages))
			c.Metadata["k"] = "changed"
			slices.Reverse(messages)
			messages[0].State = chat.Failed
			listed, _, err := w.List(t.Context(), w.owner, chat.List{Limit: 1})
			require.NoError(t, err)
			require.Equal(t, map[string]string{"k": "v"}, listed[0].Metadata)
			listed[0].Metadata["k"] = "changed"
		}
		changed := map[string]string{"k": "w"}
		w.update(id, chat.Update{Metadata: changed}).Metadata["k"] = "changed"
		changed["k"] = "changed"
		c, _ := w.get(id)
		require.Equal(t, map[string]string{"k": "w"}, c.Metadata)
	},

	"a text may be of any length that the service allows": func(t *testing.T, w *world) {
		id := w.start()
		long := string(slices.Repeat([]byte("é"), 16_384))
		w.turn(id, long)
		_, messages := w.get(id)
		require.Equal(t, []string{long + " complete", "re " + long + " complete"}, texts(messages))
	},
}
