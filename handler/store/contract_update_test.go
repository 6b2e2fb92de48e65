package store

import (
	"testing"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

// recall tells whether the owner has a record.
func (w *world) recall(r chat.IdempotencyRecord) bool {
	w.t.Helper()
	isKnown, err := w.Recall(w.t.Context(), w.owner, r)
	require.NoError(w.t, err)
	return isKnown
}

// How an update is recognised when it is repeated.
var updateRecordRules = map[string]rule{
	"an update with a record is made once": func(t *testing.T, w *world) {
		id := w.start()
		record := recordNamed("key")
		require.False(t, w.recall(record))
		first := chat.Update{Title: new("first"), Status: new(chat.Completed), Record: &record}
		require.Equal(t, "first", w.update(id, first).Title)
		require.True(t, w.recall(record))
		second := w.update(id, chat.Update{Title: new("second"), Status: new(chat.Active)})
		require.Equal(t, second, w.update(id, first), "it was made again")
		first.Version = 1
		require.Equal(t, second, w.update(id, first), "its version is that of long ago")

		another := record
		another.Fingerprint = "another"
		_, err := w.Update(t.Context(), w.owner, id, chat.Update{Title: new("another"), Record: &another})
		require.ErrorIs(t, err, chat.ErrKeyReused)
		_, err = w.Recall(t.Context(), w.owner, another)
		require.ErrorIs(t, err, chat.ErrKeyReused)
		after, err := w.look(id)
		require.NoError(t, err)
		require.Equal(t, second, after)

		w.sleep(time.Minute)
		require.False(t, w.recall(record))
		first.Version = 0
		require.Equal(t, "first", w.update(id, first).Title, "the record outlives its time")
	},

	"an update that changes nothing is remembered": func(t *testing.T, w *world) {
		id := w.start()
		record := recordNamed("key")
		w.update(id, chat.Update{Title: new(""), Record: &record})
		require.True(t, w.recall(record))
		w.update(id, chat.Update{Title: new("changed")})
		require.Equal(t, "changed", w.update(id, chat.Update{Title: new(""), Record: &record}).Title)
	},

	"a refused update is not remembered": func(t *testing.T, w *world) {
		record := recordNamed("key")
		id := w.start()
		_, err := w.Update(t.Context(), w.owner, id, chat.Update{Title: new("changed"), Version: 7, Record: &record})
		require.ErrorIs(t, err, chat.ErrVersion)
		_, err = w.Update(t.Context(), w.owner, newID(), chat.Update{Title: new("changed"), Record: &record})
		require.ErrorIs(t, err, chat.ErrNotFound)
		require.False(t, w.recall(record))
	},

	"a record is its owner's": func(t *testing.T, w *world) {
		record := recordNamed("key")
		w.update(w.start(), chat.Update{Title: new("changed"), Record: &record})
		isKnown, err := w.Recall(t.Context(), someone(), record)
		require.NoError(t, err)
		require.False(t, isKnown)
	},
}
