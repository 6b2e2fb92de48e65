package store

import (
	"slices"
	"testing"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

// How conversations are listed.
var listRules = map[string]rule{
	"the list is in order of updates": func(t *testing.T, w *world) {
		a := w.start()
		w.sleep(time.Second)
		b := w.start()
		w.sleep(time.Second)
		c := w.start()
		require.Equal(t, []string{c, b, a}, w.list())
		w.sleep(time.Second)
		w.turn(a, "up")
		require.Equal(t, []string{a, c, b}, w.list())
		w.sleep(time.Minute)
		w.get(b)
		require.Equal(t, []string{a, c, b}, w.list(), "reading moved a conversation")
		w.update(b, chat.Update{Title: new("up")})
		require.Equal(t, []string{b, a, c}, w.list())
	},

	"paging shows each conversation once, and equal times are no trap": func(t *testing.T, w *world) {
		want := make(map[string]bool)
		for i := range 50 {
			if i%20 == 0 {
				w.sleep(time.Millisecond)
			}
			id := w.start()
			want[id] = true
			w.update(id, chat.Update{Status: new(chat.Statuses[i%3])})
		}
		for _, limit := range []int{1, 3, 7, 20, 49, 50, 51} {
			seen := make(map[string]bool)
			var all []chat.Conversation
			var after *chat.Cursor
			for pages := 0; ; pages++ {
				conversations, next, err := w.List(t.Context(), w.owner, chat.List{Limit: limit, After: after})
				require.NoError(t, err)
				require.Len(t, conversations, min(limit, 50-len(seen)), "limit %d, page %d", limit, pages)
				for _, c := range conversations {
					require.False(t, seen[c.ID], "%s came twice", c.ID)
					seen[c.ID] = true
				}
				all = append(all, conversations...)
				require.Equal(t, len(seen) < 50, next != nil)
				if next == nil {
					break
				}
				last := conversations[len(conversations)-1]
				require.Equal(t, &chat.Cursor{UpdatedAt: last.UpdatedAt, ID: last.ID}, next)
				after = next
			}
			require.Equal(t, want, seen)
			require.True(t, slices.IsSortedFunc(all, byRecency), "limit %d", limit)
		}
	},

	"paging through a list that is written to misses nothing that was left alone": func(t *testing.T, w *world) {
		var ids []string
		for range 30 {
			ids = append(ids, w.start())
			w.sleep(time.Millisecond)
		}
		touched := map[string]bool{}
		var seen []string
		var after *chat.Cursor
		for step := 0; ; step++ {
			conversations, next, err := w.List(t.Context(), w.owner, chat.List{Limit: 4, After: after})
			require.NoError(t, err)
			seen = append(seen, idsOf(conversations)...)
			if next == nil {
				break
			}
			after = next
			w.sleep(time.Millisecond)
			for _, id := range []string{ids[step], conversations[0].ID} {
				w.turn(id, "moved")
				touched[id] = true
			}
			w.start()
		}
		for _, id := range ids {
			if !touched[id] {
				require.Equal(t, 1, count(seen, id), "a conversation that nobody touched")
			}
			require.LessOrEqual(t, count(seen, id), 1, "a conversation came twice")
		}
	},

	"the list can be of one status": func(t *testing.T, w *world) {
		var all, active []string
		for range 9 {
			all = append(all, w.start())
			w.sleep(time.Millisecond)
		}
		ids := map[chat.Status][]string{}
		for i, id := range all {
			status := chat.Statuses[i%3]
			if status != chat.Active {
				w.sleep(time.Millisecond)
				require.Equal(t, status, w.update(id, chat.Update{Status: &status}).Status)
				ids[status] = append([]string{id}, ids[status]...)
			} else {
				active = append([]string{id}, active...)
			}
		}
		ids[chat.Active] = active
		for status, want := range ids {
			require.Len(t, want, 3)
			require.Equal(t, want, w.list(status), status)
			first, next, err := w.List(t.Context(), w.owner, chat.List{Status: status, Limit: 2})
			require.NoError(t, err)
			require.Equal(t, want[:2], idsOf(first))
			require.NotNil(t, next)
			rest, next, err := w.List(t.Context(), w.owner, chat.List{Status: status, Limit: 2, After: next})
			require.NoError(t, err)
			require.Equal(t, want[2:], idsOf(rest))
			require.Nil(t, next)
			for _, c := range append(first, rest...) {
				require.Equal(t, status, c.Status)
			}
		}
		require.ElementsMatch(t, all, w.list())
		w.sleep(gone)
		require.Empty(t, w.list(chat.Statuses...))
	},

	"a conversation that changes its status leaves its old list": func(t *testing.T, w *world) {
		id, other := w.start(), w.start()
		for _, status := range []chat.Status{
			chat.Completed, chat.Archived, chat.Active, chat.Archived, chat.Completed, chat.Active,
		} {
			w.sleep(time.Second)
			c := w.update(id, chat.Update{Status: &status})
			require.Equal(t, status, c.Status)
			for _, listed := range chat.Statuses {
				var want []string
				if listed == status {
					want = append(want, id)
				}
				if listed == chat.Active {
					want = append(want, other)
				}
				require.Equal(t, want, w.list(listed), "%s, moved to %s", listed, status)
			}
			require.Equal(t, []string{id, other}, w.list())
		}
	},
}

// What an owner may change.
var updateRules = map[string]rule{
	"an update changes what it says": func(t *testing.T, w *world) {
		started, err := w.Start(t.Context(), w.owner, chat.Start{
			Conversation: chat.Conversation{ID: newID(), Title: "old", Metadata: map[string]string{"a": "1", "b": "2"}, ExternalID: "x"},
		})
		require.NoError(t, err)
		id, want := started.ID, started
		for name, row := range map[string]struct {
			update chat.Update
			change func(*chat.Conversation)
		}{
			"a title": {chat.Update{Title: new(`"new" ü`)}, func(c *chat.Conversation) { c.Title = `"new" ü` }},
			"metadata, as a whole": {
				chat.Update{Metadata: map[string]string{"b": "3", "c": ""}},
				func(c *chat.Conversation) { c.Metadata = map[string]string{"b": "3", "c": ""} },
			},
			"a status": {chat.Update{Status: new(chat.Completed)}, func(c *chat.Conversation) { c.Status = chat.Completed }},
		} {
			w.sleep(time.Second)
			row.change(&want)
			want.Version++
			want.UpdatedAt = w.now
			got := w.update(id, row.update)
			require.Equal(t, want, got, name)
			looked, err := w.look(id)
			require.NoError(t, err)
			require.Equal(t, want, looked, name)
			listed, _, err := w.List(t.Context(), w.owner, chat.List{Limit: 1})
			require.NoError(t, err)
			require.Equal(t, []chat.Conversation{want}, listed, name)
		}
		w.sleep(time.Second)
		emptied := w.update(id, chat.Update{Title: new(""), Metadata: map[string]string{}, Status: new(chat.Active)})
		require.Empty(t, emptied.Title)
		require.Empty(t, emptied.Metadata)
		require.Equal(t, want.Version+1, emptied.Version, "one call is one change")
		require.Equal(t, started.LastAccessedAt, emptied.LastAccessedAt, "it is no access")
		listed, _, err := w.List(t.Context(), w.owner, chat.List{Limit: 1})
		require.NoError(t, err)
		require.Equal(t, []chat.Conversation{emptied}, listed)
	},

	"metadata that is given later is listed, and is not when it is taken away": func(t *testing.T, w *world) {
		id := w.start()
		for _, metadata := range []map[string]string{{"a": "b"}, {}, {"c": "d"}} {
			w.update(id, chat.Update{Metadata: metadata})
			listed, _, err := w.List(t.Context(), w.owner, chat.List{Limit: 1})
			require.NoError(t, err)
			require.Len(t, listed[0].Metadata, len(metadata))
		}
	},

	"what changes nothing is no change": func(t *testing.T, w *world) {
		started, err := w.Start(t.Context(), w.owner, chat.Start{
			Conversation: chat.Conversation{ID: newID(), Title: "title", Metadata: map[string]string{"a": "1", "b": "2"}},
		})
		require.NoError(t, err)
		w.sleep(time.Second)
		for _, u := range []chat.Update{
			{}, {Title: new("title")}, {Metadata: map[string]string{"b": "2", "a": "1"}}, {Status: new(chat.Active)},
			{Title: new("title"), Metadata: map[string]string{"b": "2", "a": "1"}, Status: new(chat.Active), Version: 1},
		} {
			require.Equal(t, started, w.update(started.ID, u))
		}
		bare := w.start()
		before, err := w.look(bare)
		require.NoError(t, err)
		w.sleep(time.Second)
		require.Equal(t, before, w.update(bare, chat.Update{Title: new(""), Metadata: map[string]string{}}))
	},

	"an update is made to the version that it names": func(t *testing.T, w *world) {
		id := w.start()
		w.sleep(time.Second)
		w.turn(id, "hello")
		before, err := w.look(id)
		require.NoError(t, err)
		require.Equal(t, int64(3), before.Version)
		for _, version := range []int64{1, 2, 4} {
			_, err := w.Update(t.Context(), w.owner, id, chat.Update{Title: new("new"), Status: new(chat.Archived), Version: version})
			require.ErrorIs(t, err, chat.ErrVersion)
		}
		after, err := w.look(id)
		require.NoError(t, err)
		require.Equal(t, before, after, "a refused update left something")
		require.Equal(t, []string{id}, w.list(chat.Active))

		u := chat.Update{Title: new("new"), Version: 3}
		changed := w.update(id, u)
		require.Equal(t, int64(4), changed.Version)
		w.sleep(time.Second)
		require.Equal(t, changed, w.update(id, u), "a repeated call finds what it has changed")
	},

	"an update does not disturb a turn": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		w.begin(id, b)
		w.update(id, chat.Update{Title: new("meanwhile"), Status: new(chat.Archived)})
		_, messages := w.get(id)
		require.Equal(t, []string{"question pending"}, texts(messages))
		require.NoError(t, w.renew(w.owner, id, "one", lease))
		w.sleep(time.Second)
		w.finish(id, answerTo(b, 1, "answer"))
		c, messages := w.get(id)
		require.Equal(t, []string{"question complete", "answer complete"}, texts(messages))
		require.Equal(t, "meanwhile", c.Title)
		require.Equal(t, chat.Archived, c.Status)
		require.Equal(t, int64(4), c.Version)
		require.Equal(t, []string{id}, w.list(chat.Archived))
		require.Empty(t, w.list(chat.Active, chat.Completed))
	},

	"only an active conversation takes messages": func(t *testing.T, w *world) {
		id := w.start()
		w.begin(id, begin("one", "question"))
		for _, status := range []chat.Status{chat.Completed, chat.Archived} {
			c := w.update(id, chat.Update{Status: &status})
			w.refuse(id, begin("two", "more"), chat.ErrClosed, status)
			after, messages := w.get(id)
			require.Equal(t, c, after, "a refused begin left something")
			require.Len(t, messages, 1)
		}
		w.sleep(lease)
		w.refuse(id, begin("two", "more"), chat.ErrClosed)
		w.update(id, chat.Update{Status: new(chat.Active)})
		w.turn(id, "again")
		_, messages := w.get(id)
		require.Equal(t, []string{"question failed", "again complete", "re again complete"}, texts(messages))
	},
}

func count(all []string, one string) int {
	n := 0
	for _, s := range all {
		if s == one {
			n++
		}
	}
	return n
}
