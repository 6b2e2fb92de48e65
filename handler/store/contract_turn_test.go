package store

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// How a conversation grows by turns.
var turnRules = map[string]rule{
	"a turn is the question, then its answers": func(t *testing.T, w *world) {
		id := w.start()
		w.sleep(time.Second)
		asked := w.now
		b := begin("one", "question")
		turn := w.begin(id, b)
		require.Equal(t, chat.StoredMessage{Seq: 1, State: chat.Pending, CreatedAt: asked, JSON: b.JSON}, turn.Message)
		require.Empty(t, turn.History)
		require.False(t, turn.Replayed)
		running, messages := w.get(id)
		require.Equal(t, []chat.StoredMessage{turn.Message}, messages)
		require.Equal(t, int64(2), running.Version)
		require.Equal(t, int64(1), running.MessageCount)
		require.Equal(t, asked, running.UpdatedAt)

		w.sleep(time.Second)
		ended := w.now
		f := answerTo(b, 1, "a", "b")
		f.AgentRef, f.ExternalID = "ref2", "external2"
		require.Equal(t, ended, w.finish(id, f))
		w.sleep(time.Second)
		done, messages := w.get(id)
		require.Equal(t, []chat.StoredMessage{
			{Seq: 1, State: chat.Complete, CreatedAt: asked, JSON: b.JSON},
			{Seq: 2, State: chat.Complete, CreatedAt: ended, JSON: f.Replies[0]},
			{Seq: 3, State: chat.Complete, CreatedAt: ended, JSON: f.Replies[1]},
		}, messages)
		require.Equal(t, int64(3), done.Version)
		require.Equal(t, int64(3), done.MessageCount)
		require.Equal(t, "external2", done.ExternalID)
		require.Equal(t, ended, done.UpdatedAt)
		listed, _, err := w.List(t.Context(), w.owner, chat.List{Limit: 1})
		require.NoError(t, err)
		require.Equal(t, []chat.Conversation{done}, listed)

		next := w.begin(id, begin("two", "again"))
		require.Equal(t, messages, next.History)
		require.Equal(t, "ref2", next.AgentRef)
		require.Equal(t, "external2", next.ExternalID)
	},

	"what an agent does not say anew is kept": func(t *testing.T, w *world) {
		started, err := w.Start(t.Context(), w.owner, chat.Start{
			Conversation: chat.Conversation{ID: newID(), ExternalID: "external"}, AgentRef: "ref",
		})
		require.NoError(t, err)
		w.turn(started.ID, "question")
		turn := w.begin(started.ID, begin("two", "again"))
		require.Equal(t, "ref", turn.AgentRef)
		require.Equal(t, "external", turn.ExternalID)
	},

	"the context is the last messages before the question": func(t *testing.T, w *world) {
		id := w.start()
		for i := range 4 {
			w.turn(id, fmt.Sprint(i))
		}
		b := begin("x", "question")
		b.Context = 3
		turn := w.begin(id, b)
		require.Equal(t, []string{"re 2 complete", "3 complete", "re 3 complete"}, texts(turn.History))
		require.Equal(t, int64(6), turn.History[0].Seq)
		w.finish(id, failed(b, 9, chat.ErrAgentFailed))
		none := begin("y", "question")
		none.Context = 0
		require.Empty(t, w.begin(id, none).History)
	},

	"a busy conversation takes no second turn": func(t *testing.T, w *world) {
		id := w.start()
		w.begin(id, begin("one", "question"))
		w.sleep(10 * time.Second)
		require.Equal(t, 20*time.Second, w.wait(id, begin("two", "me too")))
		c, messages := w.get(id)
		require.Equal(t, []string{"question pending"}, texts(messages))
		require.Equal(t, int64(2), c.Version)
	},

	"a failed turn keeps the question": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		w.begin(id, b)
		w.finish(id, failed(b, 1, chat.ErrAgentFailed))
		w.turn(id, "again")
		_, messages := w.get(id)
		require.Equal(t, []string{"question failed", "again complete", "re again complete"}, texts(messages))
	},

	"a lease that runs out ends the turn": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		w.begin(id, b)
		w.sleep(lease - time.Millisecond)
		before, messages := w.get(id)
		require.Equal(t, []string{"question pending"}, texts(messages))
		require.Equal(t, int64(2), before.Version)

		w.sleep(time.Millisecond)
		require.ErrorIs(t, w.renew(w.owner, id, "one", lease), chat.ErrTurnLost)
		late := answerTo(b, 1, "late")
		_, err := w.Finish(t.Context(), w.owner, id, late)
		require.ErrorIs(t, err, chat.ErrTurnLost)
		after, messages := w.get(id)
		require.Equal(t, []string{"question failed"}, texts(messages))
		require.Equal(t, int64(3), after.Version, "the end of the turn is one change, a refused finish none")
		require.Equal(t, w.now, after.UpdatedAt)
		_, err = w.Finish(t.Context(), w.owner, id, late)
		require.ErrorIs(t, err, chat.ErrTurnLost)
		w.refuse(id, b, chat.ErrTurnLost, "a repeated begin took the turn again")
	},

	"a dead turn is taken over": func(t *testing.T, w *world) {
		id := w.start()
		one, two := begin("one", "question"), begin("two", "mine")
		w.begin(id, one)
		w.sleep(lease)
		require.Equal(t, []string{"question failed"}, texts(w.begin(id, two).History))
		_, err := w.Finish(t.Context(), w.owner, id, answerTo(one, 1, "late"))
		require.ErrorIs(t, err, chat.ErrTurnLost)
		w.finish(id, answerTo(two, 2))
		c, messages := w.get(id)
		require.Equal(t, []string{"question failed", "mine complete"}, texts(messages))
		require.Equal(t, int64(5), c.Version, "begin, death, begin, finish")
	},

	"a renewed lease lives on": func(t *testing.T, w *world) {
		id := w.start()
		w.begin(id, begin("one", "question"))
		require.ErrorIs(t, w.renew(w.owner, id, "two", lease), chat.ErrTurnLost)
		w.sleep(20 * time.Second)
		require.NoError(t, w.renew(w.owner, id, "one", lease))
		w.sleep(20 * time.Second)
		require.Equal(t, 10*time.Second, w.wait(id, begin("two", "me too")))
	},

	"a conversation holds so many messages": func(t *testing.T, w *world) {
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.Messages = 5 }))
		id := w.start()
		w.turn(id, "one")
		w.turn(id, "two")
		w.refuse(id, begin("x", "three"), chat.ErrFull, "there is no room for an answer")
		c, messages := w.get(id)
		require.Len(t, messages, 4)
		require.Equal(t, int64(5), c.Version, "a refused begin left something")
	},

	"every call of a turn may be repeated": func(t *testing.T, w *world) {
		for name, forget := range map[string]bool{"with records": false, "without records": true} {
			id := w.start()
			b := begin("one "+name, "question")
			if forget {
				b.Records = nil
			}
			first := w.begin(id, b)
			w.sleep(time.Second)
			first.Before = 1 // or later: it is forgotten
			require.Equal(t, first, w.begin(id, b), name)
			f := answerTo(b, 1, "a", "b")
			at := w.finish(id, f)
			w.sleep(time.Second)
			require.Equal(t, at, w.finish(id, f), name)
			unknown := f
			unknown.Seq = 0
			require.Equal(t, at, w.finish(id, unknown), name)
			w.refuse(id, b, chat.ErrTurnLost, name)
			done, messages := w.get(id)
			require.Equal(t, []string{"question complete", "a complete", "b complete"}, texts(messages), name)
			require.Equal(t, int64(3), done.Version, name)

			next := begin("two "+name, "next")
			w.begin(id, next)
			w.sleep(time.Second)
			require.Equal(t, at, w.finish(id, f), "%s, while the next turn runs", name)
			w.finish(id, answerTo(next, 4, "re next"))
			require.Equal(t, at, w.finish(id, f), "%s, after the next turn", name)
			if forget {
				w.refuse(id, b, chat.ErrMessageIDTaken, name)
			} else {
				w.refuse(id, b, chat.ErrTurnLost, name)
			}
			done, messages = w.get(id)
			require.Len(t, messages, 5, name)
			require.Equal(t, int64(5), done.Version, name)
		}
	},

	"a finish without replies may be repeated": func(t *testing.T, w *world) {
		for name, state := range map[string]chat.State{"complete": chat.Complete, "failed": chat.Failed} {
			for _, forget := range []bool{false, true} {
				id := w.start()
				b := begin(newID(), "question")
				if forget {
					b.Records = nil
				}
				w.begin(id, b)
				f := chat.Finish{Token: b.Token, Seq: 1, Records: b.Records, State: state}
				at := w.finish(id, f)
				require.Equal(t, at, w.finish(id, f), name)
				w.turn(id, "next")
				w.finish(id, f)
				_, messages := w.get(id)
				require.Equal(t, []string{"question " + string(state), "next complete", "re next complete"}, texts(messages))
			}
		}
	},

	"a finish of another turn is no repetition": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		b.Records = nil
		w.begin(id, b)
		for _, f := range []chat.Finish{
			answerTo(chat.Begin{Token: "x"}, 1, "another"), answerTo(chat.Begin{Token: "x"}, 0, "another"),
			answerTo(chat.Begin{Token: "x"}, 1), failed(chat.Begin{Token: "x"}, 1, chat.ErrAgentFailed),
			answerTo(chat.Begin{Token: "x"}, 7, "another"),
		} {
			_, err := w.Finish(t.Context(), w.owner, id, f)
			require.ErrorIs(t, err, chat.ErrTurnLost, "while it runs")
		}
		w.finish(id, answerTo(b, 1, "a"))
		for _, f := range []chat.Finish{
			answerTo(chat.Begin{Token: "x"}, 1, "another"), answerTo(b, 1, "another"), answerTo(chat.Begin{Token: "x"}, 2, "another"),
			failed(b, 1, chat.ErrAgentFailed),
		} {
			_, err := w.Finish(t.Context(), w.owner, id, f)
			require.ErrorIs(t, err, chat.ErrTurnLost, "after its end")
		}
		_, messages := w.get(id)
		require.Equal(t, []string{"question complete", "a complete"}, texts(messages))
	},

	"parallel turns all land, in one order": func(t *testing.T, w *world) {
		id := w.start()
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				for j := range 5 {
					b := begin(newID(), fmt.Sprintf("%d-%d", i, j))
					var turn chat.Turn
					for {
						var err error
						turn, err = w.Begin(t.Context(), w.owner, id, b)
						if _, busy := errors.AsType[*chat.BusyError](err); busy {
							runtime.Gosched()
							continue
						}
						if !assert.NoError(t, err) {
							return
						}
						break
					}
					_, err := w.Finish(t.Context(), w.owner, id, answerTo(b, turn.Message.Seq, fmt.Sprintf("re %d-%d", i, j)))
					assert.NoError(t, err)
				}
			})
		}
		all.Wait()
		c, messages := w.get(id)
		require.Len(t, messages, 100)
		require.Equal(t, int64(100), c.MessageCount)
		require.Equal(t, int64(101), c.Version)
		said := texts(messages)
		asked := make(map[string]bool)
		for i := 0; i < len(messages); i += 2 {
			require.Equal(t, int64(i+1), messages[i].Seq)
			require.Equal(t, "re "+said[i], said[i+1])
			asked[said[i]] = true
		}
		require.Len(t, asked, 50)
	},
}

// Servers' clocks may jump back, or a fail-over may lead to one that is behind.
var backwardRules = map[string]rule{
	"times never go backwards within a conversation": func(t *testing.T, w *world) {
		id := w.start()
		w.sleep(time.Minute)
		w.turn(id, "first")
		w.sleep(time.Minute)
		latest := w.now
		w.turn(id, "second")
		before, _ := w.get(id)
		require.Equal(t, latest, before.LastAccessedAt)
		w.sleep(-12 * time.Minute)
		w.turn(id, "by a slower clock")
		w.update(id, chat.Update{Title: new("by a slower clock")})
		dying := begin("dies", "dies")
		w.begin(id, dying)
		w.sleep(lease)
		c, messages := w.get(id)
		require.Equal(t, []string{"second complete", "re second complete", "by a slower clock complete", "re by a slower clock complete", "dies failed"},
			texts(messages[2:]))
		require.Equal(t, latest, c.UpdatedAt)
		require.Equal(t, latest, c.LastAccessedAt)
		require.Equal(t, latest.Add(limits.TTL), c.ExpiresAt)
		require.Equal(t, before.Version+5, c.Version)
		for i := 1; i < len(messages); i++ {
			require.False(t, messages[i].CreatedAt.Before(messages[i-1].CreatedAt), "message %d", i+1)
		}
		require.Equal(t, latest, messages[6].CreatedAt)
		require.Equal(t, []string{id}, w.list())
	},
}
