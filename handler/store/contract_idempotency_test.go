package store

import (
	"fmt"
	"testing"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

// How a repeated request is recognised.
var recordRules = map[string]rule{
	"a repeated request finds its turn as it ended": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		b.Records = append(b.Records, recordNamed("key"))
		first := w.begin(id, b)
		w.sleep(time.Second)
		require.Equal(t, lease-time.Second, w.wait(id, retry(b, "two")), "it waits for the one that runs")
		f := answerTo(b, 1, "a", "b")
		at := w.finish(id, f)
		w.turn(id, "next")
		w.sleep(time.Second)
		w.begin(id, begin("busy", "now"))
		before, _ := w.get(id)

		for _, records := range [][]chat.IdempotencyRecord{b.Records, b.Records[:1], b.Records[1:], {recordNamed("unknown"), b.Records[1]}} {
			turn := w.begin(id, retry(b, "two", records...))
			require.True(t, turn.Replayed)
			require.Equal(t, chat.StoredMessage{Seq: 1, State: chat.Complete, CreatedAt: first.Message.CreatedAt, JSON: b.JSON}, turn.Message)
			require.Equal(t, []chat.StoredMessage{
				{Seq: 2, State: chat.Complete, CreatedAt: at, JSON: f.Replies[0]}, {Seq: 3, State: chat.Complete, CreatedAt: at, JSON: f.Replies[1]},
			}, turn.Replies)
			require.Empty(t, turn.Failure)
			require.Nil(t, turn.History)
		}
		after, messages := w.get(id)
		require.Equal(t, before, after)
		require.Len(t, messages, 6)
	},

	"a repeated request finds its turn as it failed": func(t *testing.T, w *world) {
		id := w.start()
		fails, dies := begin("one", "fails"), begin("two", "dies")
		w.begin(id, fails)
		w.finish(id, failed(fails, 1, chat.ErrAgentFailed))
		w.begin(id, dies)
		w.sleep(lease)
		turn := w.begin(id, retry(fails, "three"))
		require.True(t, turn.Replayed)
		require.Equal(t, chat.ErrAgentFailed.Code, turn.Failure)
		require.Equal(t, chat.Failed, turn.Message.State)
		require.Empty(t, turn.Replies)
		turn = w.begin(id, retry(dies, "four"))
		require.True(t, turn.Replayed)
		require.Empty(t, turn.Failure)
		require.Equal(t, chat.Failed, turn.Message.State)
		_, messages := w.get(id)
		require.Equal(t, []string{"fails failed", "dies failed"}, texts(messages))
	},

	"a repeated request finds its turn in a conversation that is closed": func(t *testing.T, w *world) {
		id := w.start()
		b, notAsked := begin("one", "question"), begin("two", "not asked")
		w.begin(id, b)
		w.finish(id, answerTo(b, 1, "a"))
		w.begin(id, notAsked)
		w.finish(id, failed(notAsked, 3, chat.ErrNotAsked))
		w.update(id, chat.Update{Status: new(chat.Archived)})
		require.True(t, w.begin(id, retry(b, "three")).Replayed)
		turn := w.begin(id, retry(notAsked, "four"))
		require.True(t, turn.Replayed, "it was taken up again")
		require.Equal(t, chat.ErrNotAsked.Code, turn.Failure)
	},

	"a turn whose agent was not asked is taken up again by its request": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		first := w.begin(id, b)
		w.sleep(time.Second)
		notAsked := failed(b, 1, chat.ErrNotAsked)
		w.finish(id, notAsked)
		w.refuse(id, b, chat.ErrTurnLost, "a late execution of the first begin took it up")

		w.sleep(time.Second)
		again := retry(b, "two", b.Records[0], recordNamed("key"))
		first.Attempt, first.Before = 1, 1
		require.Equal(t, first, w.begin(id, again))
		_, messages := w.get(id)
		require.Equal(t, []string{"question pending"}, texts(messages))
		require.Equal(t, lease, w.wait(id, b), "a late execution of the first begin waits")
		_, err := w.Finish(t.Context(), w.owner, id, notAsked)
		require.ErrorIs(t, err, chat.ErrTurnLost, "a late execution of the first finish")
		w.finish(id, failed(again, 1, chat.ErrNotAsked))
		require.True(t, w.isKnown("key"))

		w.turn(id, "next")
		require.True(t, w.begin(id, retry(b, "three")).Replayed, "it was taken up behind a later turn")
		_, messages = w.get(id)
		require.Equal(t, []string{"question failed", "next complete", "re next complete"}, texts(messages))
	},

	"a turn that its agent did not take is taken up again by its request": func(t *testing.T, w *world) {
		for _, failure := range []*chat.Failure{chat.ErrNotAsked, chat.ErrAgentBusy, chat.ErrInsufficientClaims} {
			id := w.start()
			b := begin("one "+id, "question")
			w.begin(id, b)
			w.finish(id, failed(b, 1, failure))
			again := w.begin(id, retry(b, "two "+id))
			require.False(t, again.Replayed, failure.Code)
			require.EqualValues(t, 1, again.Attempt)
			_, messages := w.get(id)
			require.Equal(t, []string{"question pending"}, texts(messages))
		}
		for _, failure := range []*chat.Failure{chat.ErrAgentFailed, chat.ErrAgentTimeout, chat.ErrAgentForbidden, chat.ErrContentFiltered} {
			id := w.start()
			b := begin("one "+id, "question")
			w.begin(id, b)
			w.finish(id, failed(b, 1, failure))
			require.True(t, w.begin(id, retry(b, "two "+id)).Replayed, failure.Code)
		}
	},

	"a turn that is taken up again ends like any other": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		w.begin(id, b)
		w.finish(id, failed(b, 1, chat.ErrNotAsked))
		again := retry(b, "two")
		w.begin(id, again)
		w.finish(id, answerTo(again, 1, "a"))
		turn := w.begin(id, retry(b, "three"))
		require.True(t, turn.Replayed)
		require.Empty(t, turn.Failure)
		require.Equal(t, []string{"a complete"}, texts(turn.Replies))
		_, messages := w.get(id)
		require.Equal(t, []string{"question complete", "a complete"}, texts(messages))
	},

	"a begin that is executed late finds that it was executed": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		b.Records = append(b.Records, recordNamed("key"))
		w.begin(id, b)
		w.finish(id, failed(b, 1, chat.ErrAgentFailed))
		w.turn(id, "next")
		w.refuse(id, b, chat.ErrTurnLost)
		_, messages := w.get(id)
		require.Equal(t, []string{"question failed", "next complete", "re next complete"}, texts(messages))
	},

	"a name belongs to one request of one owner": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		w.begin(id, b)
		before, _ := w.get(id)
		other := begin("two", "another")
		other.Records = append(other.Records, b.Records[0])
		for i := range other.Records {
			other.Records[i].Fingerprint = "another"
		}
		w.refuse(id, other, chat.ErrKeyReused)
		_, err := w.Claim(t.Context(), w.owner, chat.Claim{Record: other.Records[1], Token: "two", Lease: lease})
		require.ErrorIs(t, err, chat.ErrKeyReused)
		after, _ := w.get(id)
		require.Equal(t, before, after, "a refused request left something")
		require.False(t, w.isKnown(other.Records[0].Name), "a refused request left a record")

		w.owner = someone()
		other.Records = other.Records[1:]
		require.False(t, w.begin(w.start(), other).Replayed)
	},

	"every name that a repeated request brings is bound to it": func(t *testing.T, w *world) {
		id := w.start()
		a := begin("one", "A")
		w.begin(id, a)
		w.finish(id, answerTo(a, 1, "re A"))
		w.sleep(40 * time.Second)
		key := recordNamed("key")
		require.True(t, w.begin(id, retry(a, "two", a.Records[0], key)).Replayed)

		b := begin("three", "B")
		b.Records = append(b.Records, key)
		for i := range b.Records {
			b.Records[i].Fingerprint = "B"
		}
		w.refuse(id, b, chat.ErrKeyReused)
		w.sleep(40 * time.Second)
		require.False(t, w.isKnown(a.Records[0].Name))
		turn := w.begin(id, retry(a, "four", key))
		require.True(t, turn.Replayed, "the key has its full time")
		require.Equal(t, []string{"re A complete"}, texts(turn.Replies))
		w.sleep(20 * time.Second)
		require.False(t, w.isKnown("key"))
		_, messages := w.get(id)
		require.Len(t, messages, 2)
	},

	"a record is kept for its time, and no longer than a conversation": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		long := recordNamed("long")
		long.TTL = 3 * limits.TTL
		b.Records = append(b.Records, long)
		w.begin(id, b)
		w.finish(id, answerTo(b, 1, "a"))
		w.sleep(b.Records[0].TTL - time.Millisecond)
		require.True(t, w.begin(id, retry(b, "two", b.Records[0])).Replayed)
		w.sleep(time.Millisecond)
		require.False(t, w.begin(id, retry(b, "three", b.Records[0])).Replayed)
		w.sleep(limits.TTL - time.Minute - time.Millisecond)
		require.True(t, w.isKnown("long"))
		w.sleep(time.Millisecond)
		require.False(t, w.isKnown("long"))
	},

	"an owner has so many records, and the oldest goes first": func(t *testing.T, w *world) {
		w.Store = w.open(withLimits(func(l *chat.Limits) { l.IdempotencyRecords = 3 }))
		id := w.start()
		known := func() (all []int) {
			for i := range 6 {
				if w.isKnown(fmt.Sprint(i)) {
					all = append(all, i)
				}
			}
			return all
		}
		for i := range 5 {
			b := begin(newID(), "question")
			b.Records = []chat.IdempotencyRecord{recordNamed(fmt.Sprint(i))}
			w.begin(id, b)
			w.finish(id, answerTo(b, int64(2*i+1), "a"))
			w.sleep(time.Millisecond)
		}
		require.Equal(t, []int{2, 3, 4}, known())
		_, err := w.Claim(t.Context(), w.owner, chat.Claim{Record: recordNamed("5"), Token: "x", Lease: lease})
		require.NoError(t, err)
		require.Equal(t, []int{3, 4, 5}, known())
		other := *w
		other.owner = someone()
		mine := other.start()
		other.turn(mine, "question")
		require.Equal(t, []int{3, 4, 5}, known(), "another owner's record counted")

		w.sleep(time.Second)
		refreshed := begin(newID(), "x")
		refreshed.Records = []chat.IdempotencyRecord{recordNamed("3")}
		require.True(t, w.begin(id, refreshed).Replayed)
		require.Equal(t, []int{3, 4, 5}, known(), "a replay of a known record needs no room")
	},
}

// An id names one message for ever.
var messageIDRules = map[string]rule{
	"an id of the conversation is taken": func(t *testing.T, w *world) {
		greeting := answer(1, "hello")
		started, err := w.Start(t.Context(), w.owner, chat.Start{
			Conversation: chat.Conversation{ID: newID()}, Messages: [][]byte{greeting},
		})
		require.NoError(t, err)
		id := started.ID
		old, recent, running := begin("one", "old"), begin("two", "recent"), begin("three", "running")
		w.begin(id, old)
		end := answerTo(old, 2, "a", "b")
		w.finish(id, end)
		w.sleep(time.Minute)
		require.False(t, w.isKnown(old.Records[0].Name))
		w.begin(id, recent)
		w.finish(id, failed(recent, 5, chat.ErrAgentFailed))
		w.begin(id, running)
		before, _ := w.get(id)

		taken := map[string]string{
			"of the greeting": messageID(greeting), "of a reply": messageID(end.Replies[0]), "of another reply": messageID(end.Replies[1]),
			"of an old question": old.MessageID, "of a question whose record lives": recent.MessageID,
			"of the running question": running.MessageID,
		}
		refuse := func(when string) {
			for name, messageID := range taken {
				b := begin(newID(), "another")
				b.MessageID, b.JSON = messageID, encode(chat.Message{ID: messageID, Role: chat.User, Kind: chat.Text, Text: "another"})
				w.refuse(id, b, chat.ErrMessageIDTaken, "%s, %s", name, when)
				require.False(t, w.isKnown(b.Records[0].Name), "%s, %s: a refused request left a record", name, when)
				b.Records = nil
				w.refuse(id, b, chat.ErrMessageIDTaken, "%s, %s", name, when)
			}
		}
		refuse("while a turn runs")
		after, _ := w.get(id)
		require.Equal(t, before, after, "a refused request left something")
		w.finish(id, answerTo(running, 6, "c"))
		refuse("between turns")
		w.update(id, chat.Update{Status: new(chat.Completed)})
		refuse("when it is closed")
	},

	"an id is taken while its record lives, and after": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "question")
		w.begin(id, b)
		w.finish(id, answerTo(b, 1, "a"))
		same := b
		same.Token = "two"
		require.True(t, w.begin(id, same).Replayed)
		other := same
		other.Records = []chat.IdempotencyRecord{{Name: b.Records[0].Name, Fingerprint: "another", TTL: time.Minute}}
		w.refuse(id, other, chat.ErrKeyReused)
		w.sleep(time.Minute)
		w.refuse(id, other, chat.ErrMessageIDTaken)
		w.refuse(id, same, chat.ErrMessageIDTaken)
		_, messages := w.get(id)
		require.Len(t, messages, 2)
	},

	"an id is free in another conversation, and when it is only like one": func(t *testing.T, w *world) {
		b := begin("one", "question")
		b.Records = nil
		one, two := w.start(), w.start()
		w.begin(one, b)
		w.begin(two, b)
		reply := answerTo(b, 1, "a")
		w.finish(two, reply)
		like := begin("two", "next")
		taken := messageID(reply.Replies[0])
		like.MessageID = newID()[:30] + taken[30:] // the same last digits, which tell a reply's place
		like.JSON = encode(chat.Message{ID: like.MessageID, Role: chat.User, Kind: chat.Text, Text: "next"})
		require.False(t, w.begin(two, like).Replayed)
	},
}
