package store

import (
	"slices"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

// One owner's share.
var boundsRules = map[string]rule{
	"an owner's usage is known": func(t *testing.T, w *world) {
		usage := func() Usage {
			switch s := w.Store.(type) {
			case *Memory:
				return s.Usage(w.owner)
			case *Redis:
				u, err := s.Usage(t.Context(), w.owner, func(int) {})
				require.NoError(t, err)
				return u
			default:
				require.Fail(t, "another store")
				return Usage{}
			}
		}
		require.Zero(t, usage().Bytes)
		w.turn(w.start(), "question")
		first := usage()
		require.EqualValues(t, 1, first.Conversations)
		id := w.start()
		w.turn(id, strings.Repeat("x", 1_000))
		second := usage()
		require.EqualValues(t, 2, second.Conversations)
		require.Greater(t, second.Bytes, first.Bytes+1_000)
	},

	"an owner has so many bytes": func(t *testing.T, w *world) {
		const room = 20_000
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.Bytes = room }))
		id := w.start()
		long := strings.Repeat("x", 3_000)
		var refused error
		asked := 0
		for ; refused == nil && asked < 10; asked++ {
			b := begin(newID(), long)
			b.Records = nil
			var turn chat.Turn
			if turn, refused = w.Begin(t.Context(), w.owner, id, b); refused == nil {
				w.finish(id, answerTo(b, turn.Message.Seq, long))
			}
		}
		require.ErrorIs(t, refused, chat.ErrQuota)
		require.Greater(t, asked, 3, "refused although there was room")
		before, messages := w.get(id)
		require.Len(t, messages, 2*(asked-1), "a refused message left something")

		_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID(), Metadata: map[string]string{"a": long}}})
		require.ErrorIs(t, err, chat.ErrQuota)
		_, err = w.Update(t.Context(), w.owner, id, chat.Update{Metadata: map[string]string{"a": long}})
		require.ErrorIs(t, err, chat.ErrQuota)
		after, err := w.look(id)
		require.NoError(t, err)
		require.Equal(t, before, after)
		require.Equal(t, []string{id}, w.list())

		small := w.start()
		title := "x"
		w.update(id, chat.Update{Title: &title})
		other := &world{Store: w.Store, t: t, owner: someone()}
		other.turn(other.start(), long)

		w.sleep(gone)
		fresh := w.start()
		require.NotEqual(t, small, fresh)
		w.turn(fresh, long) // what has expired does not count
	},

	"an answer is stored when the question had room": func(t *testing.T, w *world) {
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.Bytes = 2_000 }))
		id := w.start()
		b := begin("one", "question")
		w.begin(id, b)
		w.finish(id, answerTo(b, 1, strings.Repeat("x", 5_000)))
		w.refuse(id, begin("two", "next"), chat.ErrQuota)
		require.True(t, w.begin(id, retry(b, "three")).Replayed, "a replay needs no room")
	},

	"an owner begins so many turns a minute": func(t *testing.T, w *world) {
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.TurnsPerMinute = 4 }))
		id := w.start() // the first
		first := begin("one", "one")
		w.begin(id, first)
		w.finish(id, answerTo(first, 1, "re one"))
		w.sleep(10 * time.Second)
		w.turn(id, "two")
		w.begin(id, begin("live", "live"))
		w.wait(id, begin("waits", "waits"))
		require.True(t, w.begin(id, retry(first, "again")).Replayed, "a replay counts")

		_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
		var rate *chat.RateError
		require.ErrorAs(t, err, &rate)
		require.Equal(t, 50*time.Second, rate.Left)
		require.EqualValues(t, 4, rate.Quota)
		w.finish(id, failed(chat.Begin{Token: "live"}, 5, chat.ErrAgentFailed))
		_, err = w.Begin(t.Context(), w.owner, id, begin("over", "over"))
		require.ErrorAs(t, err, &rate)
		_, messages := w.get(id)
		require.Len(t, messages, 5)

		other := &world{Store: w.Store, t: t, owner: someone()}
		other.start()
		w.sleep(50 * time.Second)
		w.turn(id, "next minute")
	},

	"a turn that is taken up again is one more": func(t *testing.T, w *world) {
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.TurnsPerMinute = 3 }))
		id := w.start() // the first
		b := begin("one", "question")
		w.begin(id, b)
		w.finish(id, failed(b, 1, chat.ErrInsufficientClaims))
		again := retry(b, "two")
		w.begin(id, again)
		w.finish(id, failed(again, 1, chat.ErrInsufficientClaims))
		_, err := w.Begin(t.Context(), w.owner, id, retry(b, "three"))
		var rate *chat.RateError
		require.ErrorAs(t, err, &rate)
		w.sleep(rate.Left)
		require.False(t, w.begin(id, retry(b, "four")).Replayed)
	},

	"a page has so many bytes, and at least one message": func(t *testing.T, w *world) {
		id := w.start()
		lengths := []int{10, 400_000, 10, 10, 300_000, 900_000, 20_000, 1_100_000, 10}
		var all []chat.StoredMessage
		for _, length := range lengths {
			b := begin(newID(), "q")
			turn := w.begin(id, b)
			w.finish(id, answerTo(b, turn.Message.Seq, strings.Repeat("x", length)))
		}
		_, few, err := w.Get(t.Context(), w.owner, id, chat.Page{Before: 8, Limit: 1000, Bytes: 1000})
		require.NoError(t, err)
		require.Len(t, few, 3, "a question, a short answer and a question follow an answer of 400,000 bytes")
		before, pages := int64(0), 0
		for {
			c, messages, err := w.Get(t.Context(), w.owner, id, chat.Page{Before: before, Limit: 1000})
			require.NoError(t, err)
			require.NotEmpty(t, messages)
			size := 0
			for _, m := range messages {
				size += len(m.JSON)
			}
			require.True(t, size <= chat.PageBytes || len(messages) == 1, "%d bytes in %d messages", size, len(messages))
			all = slices.Concat(messages, all)
			pages++
			if before = messages[0].Seq; before == 1 {
				require.Equal(t, int64(len(all)), c.MessageCount)
				break
			}
		}
		require.LessOrEqual(t, pages, 6, "pages are emptier than they need be")
		for i, m := range all {
			require.Equal(t, int64(i+1), m.Seq)
			said, err := m.Message()
			require.NoError(t, err)
			if i%2 == 1 {
				require.Len(t, said.Text, lengths[i/2])
			}
		}
	},

	"the context has so many bytes, the newest whole messages": func(t *testing.T, w *world) {
		id := w.start()
		for range 20 {
			w.turn(id, strings.Repeat("x", 1_000))
		}
		b := begin("one", "question")
		b.ContextBytes = 5_000
		turn := w.begin(id, b)
		require.Len(t, turn.History, 4)
		require.Equal(t, int64(40), turn.History[3].Seq)
		w.finish(id, answerTo(b, turn.Message.Seq, strings.Repeat("x", 6_000)))
		b = begin("two", "question")
		b.ContextBytes = 5_000
		require.Empty(t, w.begin(id, b).History, "a part of a message")
	},

	"a page of the list has so many bytes, and at least one conversation": func(t *testing.T, w *world) {
		metadata := map[string]string{}
		for _, key := range []string{"a", "b", "c", "d"} {
			metadata[key] = strings.Repeat("x", 20_000)
		}
		var started []string
		for range 8 {
			c, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID(), Metadata: metadata}})
			require.NoError(t, err)
			started = append(started, c.ID)
			w.sleep(time.Millisecond)
		}
		var listed []string
		var after *chat.Cursor
		for {
			conversations, next, err := w.List(t.Context(), w.owner, chat.List{Limit: 100, After: after})
			require.NoError(t, err)
			require.Len(t, conversations, min(3, 8-len(listed)))
			require.Equal(t, metadata, conversations[0].Metadata)
			listed = append(listed, idsOf(conversations)...)
			if after = next; after == nil {
				break
			}
		}
		slices.Reverse(listed)
		require.Equal(t, started, listed)
	},
}
