package store

import (
	"errors"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// del deletes a conversation.
func (w *world) del(id string) {
	w.t.Helper()
	replayed, err := w.Delete(w.t.Context(), w.owner, id, chat.Deletion{Token: newID()})
	require.NoError(w.t, err)
	require.False(w.t, replayed)
}

// requireGone checks that nothing can be done with a conversation.
func (w *world) requireGone(id string) {
	w.t.Helper()
	ctx := w.t.Context()
	_, _, err := w.Get(ctx, w.owner, id, page)
	require.ErrorIs(w.t, err, chat.ErrNotFound)
	_, err = w.Update(ctx, w.owner, id, chat.Update{Title: new("back")})
	require.ErrorIs(w.t, err, chat.ErrNotFound)
	w.refuse(id, begin(newID(), "back"), chat.ErrNotFound)
	_, err = w.Delete(ctx, w.owner, id, chat.Deletion{Token: newID()})
	require.ErrorIs(w.t, err, chat.ErrNotFound)
	require.NotContains(w.t, w.list(), id)
	require.NotContains(w.t, w.list(chat.Statuses...), id)
}

// How a conversation is deleted.
var deleteRules = map[string]rule{
	"a deleted conversation is gone, and no other": func(t *testing.T, w *world) {
		for _, status := range chat.Statuses {
			id, other := w.start(), w.start()
			w.turn(id, "question")
			w.turn(other, "question")
			w.update(id, chat.Update{Title: new("title"), Metadata: map[string]string{"a": "b"}, Status: &status})
			w.del(id)
			w.requireGone(id)
			_, messages := w.get(other)
			require.Len(t, messages, 2)
			require.Contains(t, w.list(), other)
		}
		require.Len(t, w.list(), 3)
		w.sleep(30 * time.Minute)
		require.Len(t, w.list(), 3)
	},

	"only the owner deletes a conversation": func(t *testing.T, w *world) {
		id := w.start()
		for _, other := range []chat.Owner{
			someone(), {TenantID: w.owner.TenantID, UserID: newID()}, {TenantID: newID(), UserID: w.owner.UserID},
		} {
			_, err := w.Delete(t.Context(), other, id, chat.Deletion{Token: newID()})
			require.ErrorIs(t, err, chat.ErrNotFound)
		}
		w.get(id)
	},

	"what has expired cannot be deleted": func(_ *testing.T, w *world) {
		id := w.start()
		w.sleep(gone)
		w.requireGone(id)
	},

	"a running turn cannot bring a deleted conversation back": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		w.begin(id, b)
		w.del(id)
		require.ErrorIs(t, w.renew(w.owner, id, "one", lease), chat.ErrNotFound)
		_, err := w.Finish(t.Context(), w.owner, id, answerTo(b, 1, "answer"))
		require.ErrorIs(t, err, chat.ErrNotFound)
		_, err = w.Finish(t.Context(), w.owner, id, failed(b, 1, chat.ErrAgentFailed))
		require.ErrorIs(t, err, chat.ErrNotFound)
		w.refuse(id, b, chat.ErrNotFound, "a late second execution")
		w.refuse(id, retry(b, "two"), chat.ErrNotFound, "a retry")
		w.requireGone(id)
	},

	"a late start cannot bring a deleted conversation back": func(t *testing.T, w *world) {
		s := chat.Start{Conversation: chat.Conversation{ID: newID(), Title: "once"}, Messages: [][]byte{answer(1, "hi")}}
		_, err := w.Start(t.Context(), w.owner, s)
		require.NoError(t, err)
		w.del(s.Conversation.ID)
		for range 2 {
			_, err = w.Start(t.Context(), w.owner, s)
			require.ErrorIs(t, err, chat.ErrNotFound)
			w.requireGone(s.Conversation.ID)
			w.sleep(9 * time.Minute)
		}
		w.start()
	},

	"a start with a key that was deleted is not made again": func(t *testing.T, w *world) {
		record := recordNamed("key")
		record.TTL = time.Hour
		claim := chat.Claim{Record: record, Token: "one", Lease: lease}
		_, err := w.Claim(t.Context(), w.owner, claim)
		require.NoError(t, err)
		s := chat.Start{Conversation: chat.Conversation{ID: newID()}, Record: &record, Token: "one"}
		_, err = w.Start(t.Context(), w.owner, s)
		require.NoError(t, err)
		w.del(s.Conversation.ID)
		_, err = w.Claim(t.Context(), w.owner, claim)
		require.ErrorIs(t, err, chat.ErrNotFound)
		_, err = w.Start(t.Context(), w.owner, s)
		require.ErrorIs(t, err, chat.ErrNotFound)
		w.sleep(20 * time.Minute)
		_, err = w.Start(t.Context(), w.owner, s)
		require.Error(t, err, "without a tombstone, its record tells")
		w.requireGone(s.Conversation.ID)
	},

	"a deletion knows its own first execution": func(t *testing.T, w *world) {
		for _, record := range []*chat.IdempotencyRecord{nil, new(recordNamed("key"))} {
			id := w.start()
			d := chat.Deletion{Token: newID(), Record: record}
			for range 2 {
				replayed, err := w.Delete(t.Context(), w.owner, id, d)
				require.NoError(t, err)
				require.False(t, replayed)
			}
			w.requireGone(id)
		}
	},

	"a deletion with a record is done once": func(t *testing.T, w *world) {
		id, other := w.start(), w.start()
		record := recordNamed("key")
		_, err := w.Delete(t.Context(), w.owner, newID(), chat.Deletion{Token: newID(), Record: &record})
		require.ErrorIs(t, err, chat.ErrNotFound)
		require.False(t, w.isKnown("key"), "a refused deletion is remembered")
		_, err = w.Delete(t.Context(), w.owner, id, chat.Deletion{Token: newID(), Record: &record})
		require.NoError(t, err)
		replayed, err := w.Delete(t.Context(), w.owner, id, chat.Deletion{Token: newID(), Record: &record})
		require.NoError(t, err)
		require.True(t, replayed)

		another := record
		another.Fingerprint = "another"
		_, err = w.Delete(t.Context(), w.owner, other, chat.Deletion{Token: newID(), Record: &another})
		require.ErrorIs(t, err, chat.ErrKeyReused)
		b := begin(newID(), "question")
		b.Records = []chat.IdempotencyRecord{another}
		w.refuse(other, b, chat.ErrKeyReused)
		w.get(other)
		w.sleep(time.Minute)
		_, err = w.Delete(t.Context(), w.owner, id, chat.Deletion{Token: newID(), Record: &record})
		require.ErrorIs(t, err, chat.ErrNotFound, "the record outlives its time")
	},

	"a deleted conversation leaves its room to others": func(t *testing.T, w *world) {
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.Conversations, l.Bytes = 2, 10_000 }))
		w.start()
		for range 5 {
			c, err := w.Start(t.Context(), w.owner, chat.Start{
				Conversation: chat.Conversation{ID: newID(), Title: string(make([]byte, 3_000))}, Messages: [][]byte{answer(1, string(make([]byte, 500)))},
			})
			require.NoError(t, err)
			w.del(c.ID)
		}
	},

	"parallel deletions, sends and starts leave nothing": func(t *testing.T, w *world) {
		for range 5 {
			s := chat.Start{Conversation: chat.Conversation{ID: newID()}, Messages: [][]byte{answer(1, "hi")}}
			_, err := w.Start(t.Context(), w.owner, s)
			require.NoError(t, err)
			var all sync.WaitGroup
			deleted := make(chan error, 4)
			for range cap(deleted) {
				all.Go(func() {
					_, err := w.Delete(t.Context(), w.owner, s.Conversation.ID, chat.Deletion{Token: newID()})
					deleted <- err
				})
				all.Go(func() {
					b := begin(newID(), "question")
					turn, err := w.Begin(t.Context(), w.owner, s.Conversation.ID, b)
					if err == nil {
						_, err = w.Finish(t.Context(), w.owner, s.Conversation.ID, answerTo(b, turn.Message.Seq, "answer"))
					}
					_, isBusy := errors.AsType[*chat.BusyError](err)
					assert.True(t, err == nil || isBusy || errors.Is(err, chat.ErrNotFound), "%v", err)
				})
				all.Go(func() { _, _ = w.Start(t.Context(), w.owner, s) })
			}
			all.Wait()
			close(deleted)
			done := 0
			for err := range deleted {
				if err == nil {
					done++
				} else {
					assert.ErrorIs(t, err, chat.ErrNotFound)
				}
			}
			require.Equal(t, 1, done)
			w.requireGone(s.Conversation.ID)
		}
	},
}
