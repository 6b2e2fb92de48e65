package store

import (
	"slices"
	"sync"
	"testing"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// erase erases the owner.
func (w *world) erase() chat.Erasure {
	w.t.Helper()
	done, err := w.Erase(w.t.Context(), w.owner)
	require.NoError(w.t, err)
	return done
}

// How all of an owner is erased.
var eraseRules = map[string]rule{
	"everything of an owner is erased, and nothing of another": func(t *testing.T, w *world) {
		owner, other := w.owner, someone()
		w.owner = other
		kept := w.start()
		w.turn(kept, "question")
		w.owner = owner
		record := recordNamed("key")
		claim := chat.Claim{Record: recordNamed("start"), Token: "one", Lease: lease}
		_, err := w.Claim(t.Context(), w.owner, claim)
		require.NoError(t, err)
		var ids []string
		for i := range 2*eraseStep + 7 {
			id := w.start()
			w.update(id, chat.Update{Status: new(chat.Statuses[i%3]), Title: new("title"), Record: &record})
			ids = append(ids, id)
		}
		w.turn(ids[0], "question")
		w.del(ids[1])
		require.Equal(t, chat.Erasure{Deleted: len(ids) - 1}, w.erase())
		require.Empty(t, w.list())
		require.Empty(t, w.list(chat.Statuses...))
		require.False(t, w.recall(record))
		require.False(t, w.isKnown("start"))
		for _, id := range []string{ids[0], ids[1], ids[len(ids)-1]} {
			w.requireGone(id)
		}
		require.Equal(t, chat.Erasure{}, w.erase(), "again")

		id := w.start()
		w.turn(id, "question")
		require.Equal(t, []string{id}, w.list())
		w.owner = other
		_, messages := w.get(kept)
		require.Len(t, messages, 2)
		require.Equal(t, []string{kept}, w.list())
	},

	"erasing ends the counters": func(t *testing.T, w *world) {
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.TurnsPerMinute = 2 }))
		w.start()
		w.start()
		_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
		var rate *chat.RateError
		require.ErrorAs(t, err, &rate)
		require.Equal(t, chat.Erasure{Deleted: 2}, w.erase())
		w.start()
	},

	"what has expired is not counted": func(t *testing.T, w *world) {
		w.start()
		w.sleep(gone)
		w.start()
		require.Equal(t, chat.Erasure{Deleted: 1}, w.erase())
	},

	"a running turn cannot bring an erased conversation back": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		w.begin(id, b)
		require.Equal(t, chat.Erasure{Deleted: 1}, w.erase())
		require.ErrorIs(t, w.renew(w.owner, id, "one", lease), chat.ErrNotFound)
		_, err := w.Finish(t.Context(), w.owner, id, answerTo(b, 1, "answer"))
		require.ErrorIs(t, err, chat.ErrNotFound)
		w.requireGone(id)
	},

	"erasures and sends may run in parallel": func(t *testing.T, w *world) {
		var ids []string
		for range 2 * eraseStep {
			ids = append(ids, w.start())
		}
		var all sync.WaitGroup
		deleted := make([]int, 3)
		for i := range deleted {
			all.Go(func() {
				done, err := w.Erase(t.Context(), w.owner)
				assert.NoError(t, err)
				deleted[i] = done.Deleted
			})
		}
		for _, id := range slices.Backward(ids) {
			all.Go(func() {
				b := begin(newID(), "question")
				turn, err := w.Begin(t.Context(), w.owner, id, b)
				if err == nil {
					_, err = w.Finish(t.Context(), w.owner, id, answerTo(b, turn.Message.Seq, "answer"))
				}
				if err != nil {
					assert.ErrorIs(t, err, chat.ErrNotFound)
				}
			})
		}
		all.Wait()
		require.Equal(t, len(ids), deleted[0]+deleted[1]+deleted[2])
		require.Empty(t, w.list())
		require.Equal(t, chat.Erasure{}, w.erase())
	},
}
