package store

import (
	"strings"
	"testing"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

// listed returns a conversation as list shows it.
func (w *world) listed(id string) chat.Conversation {
	w.t.Helper()
	all, _, err := w.List(w.t.Context(), w.owner, chat.List{Limit: 1000})
	require.NoError(w.t, err)
	for _, c := range all {
		if c.ID == id {
			return c
		}
	}
	require.Fail(w.t, "it is not listed")
	return chat.Conversation{}
}

// say is a question that gives a title, with an answer that has a preview.
func (w *world) say(id, title, reply string) {
	w.t.Helper()
	b := begin(newID(), "question")
	b.Title = title
	f := answerTo(b, w.begin(id, b).Message.Seq, "answer")
	f.Preview = reply
	w.finish(id, f)
}

// What messages say of their conversation.
var titleRules = map[string]rule{
	"list shows the last message that has text": func(t *testing.T, w *world) {
		started, err := w.Start(t.Context(), w.owner, chat.Start{
			Conversation: chat.Conversation{ID: newID()}, Messages: [][]byte{answer(1, "hi")}, Preview: "hi",
		})
		require.NoError(t, err)
		id := started.ID
		shows := func(role chat.Role, text string) {
			t.Helper()
			require.Equal(t, chat.Preview{Role: role, Text: text}, w.listed(id).Last)
		}
		shows(chat.Assistant, "hi")
		b := begin("one", "question")
		b.Preview = "question"
		w.begin(id, b)
		shows(chat.User, "question")
		w.finish(id, failed(b, 2, chat.ErrAgentFailed))
		shows(chat.User, "question")
		w.say(id, "", "a \"quoted\"\n/é\t👍🏽\u2028 answer")
		shows(chat.Assistant, "a \"quoted\"\n/é\t👍🏽\u2028 answer")
		w.say(id, "", "") // a card answers a value
		w.update(id, chat.Update{Title: new("title"), Status: new(chat.Completed)})
		w.sleep(time.Hour)
		c, _ := w.get(id)
		require.Empty(t, c.Last, "only list tells it")
		shows(chat.Assistant, "a \"quoted\"\n/é\t👍🏽\u2028 answer")

		id = w.start()
		shows("", "")
		w.turn(id, "question")
		shows("", "")
	},

	"a page of a list has room for the last messages": func(t *testing.T, w *world) {
		for range 100 {
			_, err := w.Start(t.Context(), w.owner, chat.Start{
				Conversation: chat.Conversation{ID: newID()}, Messages: [][]byte{answer(1, "hi")}, Preview: strings.Repeat("x", 4000),
			})
			require.NoError(t, err)
		}
		first, next, err := w.List(t.Context(), w.owner, chat.List{Limit: 100})
		require.NoError(t, err)
		require.NotNil(t, next)
		require.Greater(t, len(first), 50)
		require.LessOrEqual(t, 4000*len(first), chat.ListBytes)
		rest, next, err := w.List(t.Context(), w.owner, chat.List{Limit: 100, After: next})
		require.NoError(t, err)
		require.Nil(t, next)
		require.Len(t, rest, 100-len(first))
	},

	"the first message that has a title gives it": func(t *testing.T, w *world) {
		id := w.start()
		called := func(title string) {
			t.Helper()
			c, _ := w.get(id)
			require.Equal(t, title, c.Title)
			require.Equal(t, title, w.listed(id).Title)
		}
		w.say(id, "", "answer")
		called("")
		w.say(id, "first", "")
		called("first")
		c, _ := w.get(id)
		require.Equal(t, int64(5), c.Version, "it is no change by itself")
		w.say(id, "second", "")
		called("first")

		given, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID(), Title: "given"}})
		require.NoError(t, err)
		id = given.ID
		w.say(id, "first", "")
		called("given")
	},

	"a title that the owner has set stays": func(t *testing.T, w *world) {
		for name, set := range map[string]func(id string) string{
			"before": func(id string) string { return w.update(id, chat.Update{Title: new("mine")}).Title },
			"none":   func(id string) string { return w.update(id, chat.Update{Title: new("")}).Title },
			"none, with another change": func(id string) string {
				return w.update(id, chat.Update{Title: new(""), Metadata: map[string]string{"a": "b"}}).Title
			},
			"after": func(id string) string {
				w.say(id, "given", "")
				return w.update(id, chat.Update{Title: new("mine")}).Title
			},
			"none, after": func(id string) string {
				w.say(id, "given", "")
				return w.update(id, chat.Update{Title: new("")}).Title
			},
		} {
			id := w.start()
			title := set(id)
			w.say(id, "another", "")
			c, _ := w.get(id)
			require.Equal(t, title, c.Title, name)
			require.Equal(t, title, w.listed(id).Title, name)
		}
	},

	"there must be room for the title that a message gives": func(_ *testing.T, w *world) {
		b := begin("one", strings.Repeat("x", 1000))
		b.Records, b.Title = nil, strings.Repeat("t", 100)
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.Bytes = int64(len(b.JSON)) + 99 }))
		w.refuse(w.start(), b, chat.ErrQuota)
	},
}

// How old a conversation may become.
var ageRules = map[string]rule{
	"a conversation lives no longer than its age": func(t *testing.T, w *world) {
		const age = 90 * time.Minute
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.Age, l.Conversations = age, 1 }))
		id := w.start()
		began := w.now
		ends := func(at time.Time) {
			t.Helper()
			c, _ := w.get(id)
			require.Equal(t, at, c.ExpiresAt)
			require.Equal(t, at, w.listed(id).ExpiresAt)
		}
		ends(began.Add(limits.TTL))
		w.sleep(29 * time.Minute)
		ends(began.Add(29*time.Minute + limits.TTL))
		w.sleep(16 * time.Minute)
		ends(began.Add(age))
		w.sleep(30 * time.Minute)
		b := begin("one", "question")
		b.Lease = age
		w.begin(id, b)
		ends(began.Add(age))
		w.at(began.Add(age - time.Millisecond))
		_, err := w.Append(t.Context(), w.owner, id, chat.Append{Token: "one", Lease: age})
		require.NoError(t, err)
		ends(began.Add(age))
		w.at(began.Add(age + time.Millisecond))
		require.Empty(t, w.list())
		_, err = w.Append(t.Context(), w.owner, id, chat.Append{Token: "one", Lease: age})
		require.ErrorIs(t, err, chat.ErrNotFound)
		_, err = w.Finish(t.Context(), w.owner, id, answerTo(b, 1, "late"))
		require.ErrorIs(t, err, chat.ErrNotFound)
		w.requireGone(id)
		w.start() // there is room for another
	},

	"an age that is less than the time to live is the end": func(t *testing.T, w *world) {
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.Age = time.Minute }))
		c, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
		require.NoError(t, err)
		id := c.ID
		require.Equal(t, w.now.Add(time.Minute), c.ExpiresAt)
		require.Equal(t, w.now.Add(time.Minute), w.listed(id).ExpiresAt)
		w.sleep(time.Minute - time.Millisecond)
		require.Equal(t, []string{id}, w.list())
		w.sleep(2 * time.Millisecond)
		require.Empty(t, w.list())
		w.requireGone(id)
	},
}

// Of a store that outlives its settings.
var newAgeRules = map[string]rule{
	"what is too old for a new limit ends at its next access": func(t *testing.T, w *world) {
		for name, access := range map[string]func(id string) error{
			"get": func(id string) error {
				_, _, err := w.Get(t.Context(), w.owner, id, page)
				return err
			},
			"begin": func(id string) error {
				_, err := w.Begin(t.Context(), w.owner, id, begin("two", "question"))
				return err
			},
			"append": func(id string) error {
				_, err := w.Append(t.Context(), w.owner, id, chat.Append{Token: "one", Lease: lease})
				return err
			},
		} {
			id, other := w.start(), w.start()
			b := begin("one", "question")
			b.Lease = time.Hour
			w.begin(id, b)
			w.sleep(30 * time.Minute)
			before := w.Store
			w.Store = w.open(withLimits(func(l *chat.Limits) { l.Age = 20 * time.Minute }))
			require.Contains(t, w.list(), id, name)
			_, _, err := w.Get(t.Context(), w.owner, id, chat.Page{Limit: 1, Unseen: true})
			require.NoError(t, err, name)
			require.ErrorIs(t, access(id), chat.ErrNotFound, name)
			require.NotContains(t, w.list(), id, name)
			w.requireGone(id)
			_, err = w.look(other)
			require.NoError(t, err, name)
			w.Store = before
		}
	},

	"a new limit holds from the next access, whether it is counted or not": func(t *testing.T, w *world) {
		id := w.start()
		began := w.now
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.Age = 20 * time.Minute }))
		_, _, err := w.Get(t.Context(), w.owner, id, chat.Page{Limit: 1, Unseen: true})
		require.NoError(t, err)
		require.Equal(t, began.Add(limits.TTL), w.listed(id).ExpiresAt)
		w.sleep(time.Second)
		c, _ := w.get(id)
		require.Equal(t, began, c.LastAccessedAt)
		require.Equal(t, began.Add(20*time.Minute), c.ExpiresAt)
		require.Equal(t, began.Add(20*time.Minute), w.listed(id).ExpiresAt)
		w.at(began.Add(20*time.Minute + time.Millisecond))
		require.Empty(t, w.list())
		w.requireGone(id)
	},
}
