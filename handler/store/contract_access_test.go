package store

import (
	"slices"
	"testing"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

// How long a conversation lives.
var accessRules = map[string]rule{
	"a get may be unseen": func(t *testing.T, w *world) {
		id := w.start()
		w.turn(id, "question")
		w.begin(id, begin("one", "dies"))
		before, err := w.look(id)
		require.NoError(t, err)
		w.sleep(30 * time.Minute)
		c, messages, err := w.Get(t.Context(), w.owner, id, chat.Page{Limit: 1000, Unseen: true})
		require.NoError(t, err)
		require.Equal(t, before.LastAccessedAt, c.LastAccessedAt)
		require.Equal(t, before.ExpiresAt, c.ExpiresAt)
		require.Equal(t, []string{"question complete", "re question complete", "dies failed"}, texts(messages))
		w.sleep(gone - 30*time.Minute)
		_, err = w.look(id)
		require.ErrorIs(t, err, chat.ErrNotFound, "it put off the end")
	},

	"an access is counted at most once within the lag": func(t *testing.T, w *world) {
		lag := limits.Lag()
		require.Equal(t, 36*time.Second, lag)
		id := w.start()
		counted := w.now
		for name, access := range map[string]func(){
			"get": func() { w.get(id) },
			"get what is known": func() {
				c, err := w.look(id)
				require.NoError(t, err)
				_, _, err = w.Get(t.Context(), w.owner, id, chat.Page{Limit: 1, Known: c.Version})
				require.NoError(t, err)
			},
			"begin": func() {
				b := begin(newID(), "question")
				turn := w.begin(id, b)
				w.finish(id, answerTo(b, turn.Message.Seq))
			},
		} {
			w.at(counted.Add(lag - time.Millisecond))
			access()
			c, err := w.look(id)
			require.NoError(t, err)
			require.Equal(t, counted, c.LastAccessedAt, name)
			require.Equal(t, counted.Add(limits.TTL), c.ExpiresAt, name)
			w.sleep(time.Millisecond)
			access()
			counted = w.now
			c, err = w.look(id)
			require.NoError(t, err)
			require.Equal(t, counted, c.LastAccessedAt, name)
			require.Equal(t, counted.Add(limits.TTL), c.ExpiresAt, name)
			listed, _, err := w.List(t.Context(), w.owner, chat.List{Limit: 1})
			require.NoError(t, err)
			require.Equal(t, counted, listed[0].LastAccessedAt, name)
			require.Equal(t, counted.Add(limits.TTL), listed[0].ExpiresAt, name)
		}
	},

	"an access that is not counted is worth the full time too": func(t *testing.T, w *world) {
		for name, access := range map[string]func(string){
			"get":   func(id string) { w.get(id) },
			"begin": func(id string) { w.begin(id, begin(newID(), "question")) },
		} {
			id := w.start()
			w.sleep(limits.Lag() - time.Millisecond)
			access(id)
			w.sleep(limits.TTL)
			require.Equal(t, []string{id}, w.list(), name)
			_, err := w.look(id)
			require.NoError(t, err, name)
			w.sleep(2 * time.Millisecond)
			require.Empty(t, w.list(), name)
			_, err = w.look(id)
			require.ErrorIs(t, err, chat.ErrNotFound, name)
		}
	},

	"start, begin and get put off the end, list and update do not": func(t *testing.T, w *world) {
		id := w.start()
		w.sleep(lives)
		got, _ := w.get(id)
		require.Equal(t, w.now.Add(limits.TTL), got.ExpiresAt)
		w.sleep(lives)
		w.turn(id, "hello")
		w.sleep(lives)
		require.Equal(t, []string{id}, w.list(), "begin did not put off the end")
		w.update(id, chat.Update{Title: new("changed")})
		w.sleep(gone - lives)
		require.Empty(t, w.list(), "list or update put off the end")
		_, _, err := w.Get(t.Context(), w.owner, id, page)
		require.ErrorIs(t, err, chat.ErrNotFound)
		w.refuse(id, begin("x", "hello"), chat.ErrNotFound)
		_, err = w.Update(t.Context(), w.owner, id, chat.Update{Title: new("again")})
		require.ErrorIs(t, err, chat.ErrNotFound)
		require.Empty(t, w.list(), "a refused call left something")
	},

	"renewing puts off the end": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		b.Lease = gone
		w.begin(id, b)
		for range 3 {
			w.sleep(lives)
			require.NoError(t, w.renew(w.owner, id, "one", gone))
		}
		c, err := w.look(id)
		require.NoError(t, err)
		require.Equal(t, w.now, c.LastAccessedAt)
		w.sleep(lives)
		w.finish(id, answerTo(b, 1, "at last"))
		_, messages := w.get(id)
		require.Equal(t, []string{"question complete", "at last complete"}, texts(messages))
	},

	"a turn whose conversation is gone is not found": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		b.Lease = 3 * gone
		w.begin(id, b)
		w.sleep(gone)
		require.ErrorIs(t, w.renew(w.owner, id, "one", lease), chat.ErrNotFound)
		_, err := w.Finish(t.Context(), w.owner, id, answerTo(b, 1, "late"))
		require.ErrorIs(t, err, chat.ErrNotFound)
		require.Empty(t, w.list(), "a refused finish left something")
	},

	"what is listed can be got": func(t *testing.T, w *world) {
		began := w.now
		var ids []string
		for range 20 {
			ids = append(ids, w.start())
			w.sleep(time.Minute)
		}
		for i := range 40 {
			w.at(began.Add(gone + time.Duration(i-10)*time.Minute))
			listed := w.list()
			require.Len(t, listed, min(20, max(0, 29-i)), "at minute %d", i)
			for _, id := range ids {
				_, err := w.look(id)
				if slices.Contains(listed, id) {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, chat.ErrNotFound)
				}
			}
		}
	},

	"a version that is known is not sent again": func(t *testing.T, w *world) {
		id := w.start()
		w.turn(id, "hello")
		w.sleep(time.Minute)
		known, messages := w.get(id)
		require.Len(t, messages, 2)
		p := chat.Page{Limit: 1000, Known: known.Version}
		c, messages, err := w.Get(t.Context(), w.owner, id, p)
		require.NoError(t, err)
		require.Equal(t, known, c)
		require.Nil(t, messages)
		w.sleep(time.Minute)
		c, _, err = w.Get(t.Context(), w.owner, id, p)
		require.NoError(t, err)
		require.Equal(t, w.now, c.LastAccessedAt, "it is an access")

		w.begin(id, begin("dies", "dies"))
		p.Known++
		_, messages, err = w.Get(t.Context(), w.owner, id, p)
		require.NoError(t, err)
		require.Nil(t, messages)
		w.sleep(lease)
		c, messages, err = w.Get(t.Context(), w.owner, id, p)
		require.NoError(t, err)
		require.Equal(t, p.Known+1, c.Version)
		require.Equal(t, "dies failed", texts(messages)[2], "the end of a dead turn is a change")
	},

	"a page holds the messages before a place, oldest first": func(t *testing.T, w *world) {
		id := w.start()
		for range 5 {
			w.turn(id, "x")
		}
		for _, p := range []struct {
			before int64
			limit  int
			want   []int64
		}{
			{0, 3, []int64{8, 9, 10}}, {0, 1000, []int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}, {8, 3, []int64{5, 6, 7}},
			{2, 3, []int64{1}}, {1, 3, nil}, {11, 2, []int64{9, 10}}, {1 << 53, 2, []int64{9, 10}},
		} {
			_, messages, err := w.Get(t.Context(), w.owner, id, chat.Page{Before: p.before, Limit: p.limit})
			require.NoError(t, err)
			var seqs []int64
			for _, m := range messages {
				seqs = append(seqs, m.Seq)
			}
			require.Equal(t, p.want, seqs, "before %d, limit %d", p.before, p.limit)
		}
	},
}

// Whose a conversation is.
var ownerRules = map[string]rule{
	"nobody reaches another owner's conversation": func(t *testing.T, w *world) {
		id := w.start()
		w.turn(id, "secret")
		before, messages := w.get(id)
		for name, other := range map[string]chat.Owner{
			"another user":                      someone(),
			"the same user of another tenant":   {TenantID: someone().TenantID, UserID: w.owner.UserID},
			"another user of the same tenant":   {TenantID: w.owner.TenantID, UserID: someone().UserID},
			"tenant and user the other way":     {TenantID: w.owner.UserID, UserID: w.owner.TenantID},
			"the border between them elsewhere": {TenantID: w.owner.TenantID + w.owner.UserID[:1], UserID: w.owner.UserID[1:]},
			"nobody":                            {},
		} {
			_, _, err := w.Get(t.Context(), other, id, page)
			require.ErrorIs(t, err, chat.ErrNotFound, name)
			_, err = w.Begin(t.Context(), other, id, begin("x", "intruder"))
			require.ErrorIs(t, err, chat.ErrNotFound, name)
			require.ErrorIs(t, w.renew(other, id, "x", lease), chat.ErrNotFound, name)
			_, err = w.Finish(t.Context(), other, id, answerTo(chat.Begin{Token: "x"}, 1))
			require.ErrorIs(t, err, chat.ErrNotFound, name)
			_, err = w.Update(t.Context(), other, id, chat.Update{Title: new("mine")})
			require.ErrorIs(t, err, chat.ErrNotFound, name)
			listed, _, err := w.List(t.Context(), other, chat.List{Limit: 10})
			require.NoError(t, err, name)
			require.Empty(t, listed, name)
		}
		after, same := w.get(id)
		require.Equal(t, before, after)
		require.Equal(t, messages, same)
	},

	"two owners may use one id": func(t *testing.T, w *world) {
		id := w.start()
		other := someone()
		_, err := w.Start(t.Context(), other, chat.Start{Conversation: chat.Conversation{ID: id, Title: "other"}})
		require.NoError(t, err)
		mine, _ := w.get(id)
		require.Empty(t, mine.Title)
	},
}
