package store

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

// say is an entry of a delta, or of a status when it has no id.
func say(seq, n int64, text, messageID string) chat.Entry {
	kind := chat.DeltaEvent
	if messageID == "" {
		kind = chat.StatusEvent
	}
	return chat.Entry{ID: chat.EventID{Seq: seq, N: n}, Kind: kind, Text: text, MessageID: messageID}
}

// add adds entries to the log of a live turn.
func (w *world) add(id, token string, entries ...chat.Entry) chat.Appended {
	w.t.Helper()
	appended, err := w.Append(w.t.Context(), w.owner, id, chat.Append{Token: token, Lease: lease, Entries: entries})
	require.NoError(w.t, err)
	return appended
}

// events returns what has happened after an event; the zero id is nil.
func (w *world) events(id string, after chat.EventID) chat.Log {
	w.t.Helper()
	var at *chat.EventID
	if after != (chat.EventID{}) {
		at = &after
	}
	log, err := w.Events(w.t.Context(), w.owner, id, at)
	require.NoError(w.t, err)
	return log
}

// logged are the entries of a log in short.
func logged(log chat.Log) []string {
	var all []string
	for _, e := range log.Entries {
		all = append(all, fmt.Sprintf("%s %s %s", e.ID, e.Kind, e.Text))
	}
	return all
}

// What a turn tells while it runs, and how it is stopped.
var logRules = map[string]rule{
	"a log has what the last two turns told that told something": func(t *testing.T, w *world) {
		id := w.start()
		require.Equal(t, chat.Log{After: chat.EventID{N: 19_999}}, w.events(id, chat.EventID{}))
		one := begin("one", "q1")
		turn := w.begin(id, one)
		require.Zero(t, turn.Attempt)
		require.Zero(t, turn.Before)
		log := w.events(id, chat.EventID{})
		require.Equal(t, chat.Log{After: chat.EventID{Seq: 1}, Messages: []chat.StoredMessage{turn.Message}, Last: 1, Token: "one", IsLive: true}, log)
		require.Equal(t, chat.Appended{}, w.add(id, "one", say(1, 2, "busy", ""), say(1, 3, "a", "x")))
		require.Equal(t, chat.Appended{}, w.add(id, "one"))
		log = w.events(id, chat.EventID{})
		require.Equal(t, []string{"1-2 status busy", "1-3 delta a"}, logged(log))
		require.Equal(t, "x", log.Entries[1].MessageID)

		f := answerTo(one, 1, "ab")
		f.Entries = []chat.Entry{say(1, 4, "b", "x")}
		w.finish(id, f)
		log = w.events(id, chat.EventID{Seq: 1, N: 3})
		require.True(t, log.IsThere)
		require.False(t, log.IsLive)
		require.Equal(t, []string{"1-4 delta b"}, logged(log))
		_, messages := w.get(id)
		require.Equal(t, messages, log.Messages)
		require.False(t, w.events(id, chat.EventID{Seq: 1, N: 5}).IsThere)
		require.Equal(t, chat.Log{After: chat.EventID{Seq: 1, N: 19_999}, Last: 1, Token: "one"}, w.events(id, chat.EventID{}))
		require.Equal(t, messages, w.events(id, chat.EventID{Seq: 1, N: 19_998}).Messages)
		require.Equal(t, messages, w.events(id, chat.EventID{N: 19_999}).Messages, "after nothing")

		for range 2 {
			w.turn(id, "silent")
		}
		two := begin("two", "q2")
		turn = w.begin(id, two)
		require.Equal(t, int64(5), turn.Before)
		require.Equal(t, []string{"1-4 delta b"}, logged(w.events(id, chat.EventID{Seq: 1, N: 3})))
		f = answerTo(two, 7)
		f.Entries = []chat.Entry{say(7, 2, "c", "x"), say(7, 3, "d", "x")}
		w.finish(id, f)
		log = w.events(id, chat.EventID{Seq: 1, N: 1})
		require.Equal(t, []string{"1-2 status busy", "1-3 delta a", "1-4 delta b", "7-2 delta c", "7-3 delta d"}, logged(log))
		require.Equal(t, []string{
			"q1 complete", "ab complete", "silent complete", "re silent complete", "silent complete", "re silent complete", "q2 complete",
		}, texts(log.Messages))
		require.Equal(t, []string{"ab complete", "silent complete"}, texts(w.events(id, chat.EventID{Seq: 1, N: 19_999}).Messages[:2]))
		w.begin(id, begin("three", "q3"))
		w.add(id, "three", say(8, 2, "e", "x"))
		require.Equal(t, []string{"7-2 delta c", "7-3 delta d", "8-2 delta e"}, logged(w.events(id, chat.EventID{Seq: 1, N: 3})))
	},

	"of a turn that is dead it is said that it failed": func(t *testing.T, w *world) {
		id := w.start()
		w.begin(id, begin("one", "q"))
		w.sleep(lease)
		log := w.events(id, chat.EventID{Seq: 1, N: 1})
		require.False(t, log.IsLive)
		require.Equal(t, []string{"q failed"}, texts(log.Messages))
		require.Empty(t, log.Messages[0].Failure)
		w.get(id) // settles it
		require.Equal(t, log, w.events(id, chat.EventID{Seq: 1, N: 1}))
	},

	"a log is gone so long after its turn": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "q")
		w.begin(id, b)
		w.add(id, "one", say(1, 2, "a", "x"))
		for range 8 {
			w.sleep(lease - time.Second)
			w.add(id, "one")
		}
		w.finish(id, answerTo(b, 1, "re"))
		w.sleep(chat.LogTime)
		require.Len(t, w.events(id, chat.EventID{Seq: 1}).Entries, 1)
		w.sleep(5 * time.Minute)
		log := w.events(id, chat.EventID{Seq: 1})
		require.Empty(t, log.Entries)
		require.Len(t, log.Messages, 2)
	},

	"every call on a log may be repeated": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "q")
		w.begin(id, b)
		again := w.begin(id, b)
		require.Equal(t, int64(1), again.Before, "it need not be known, but must not be too early")
		entries := []chat.Entry{say(1, 2, "a", "x"), say(1, 3, "b", "x")}
		w.add(id, "one", entries...)
		w.add(id, "one", entries...)
		w.add(id, "one", append(entries, say(1, 4, "c", "x"))...)
		f := answerTo(b, 1, "abc")
		f.Entries = []chat.Entry{say(1, 4, "c", "x"), say(1, 5, "d", "x")}
		w.finish(id, f)
		w.finish(id, f)
		require.Equal(t, []string{"1-2 delta a", "1-3 delta b", "1-4 delta c", "1-5 delta d"}, logged(w.events(id, chat.EventID{Seq: 1})))
		w.begin(id, begin("two", "next"))
		_, err := w.Append(t.Context(), w.owner, id, chat.Append{Token: "one", Lease: lease, Entries: entries})
		require.ErrorIs(t, err, chat.ErrTurnLost)
	},

	"a turn that is taken up again has new ids": func(t *testing.T, w *world) {
		id := w.start()
		w.turn(id, "before")
		b := begin("one", "q")
		w.begin(id, b)
		for attempt := range int64(3) {
			w.finish(id, failed(b, 0, chat.ErrNotAsked))
			log := w.events(id, chat.EventID{Seq: 3, N: 1})
			require.Equal(t, attempt, log.Attempt)
			require.Equal(t, "not_asked", log.Messages[0].Failure)
			require.Equal(t, chat.EventID{Seq: 3, N: attempt*20_000 + 19_999}, w.events(id, chat.EventID{}).After)
			b = retry(b, newID())
			turn := w.begin(id, b)
			require.Equal(t, attempt+1, turn.Attempt)
			require.Equal(t, int64(3), turn.Before)
			require.Equal(t, attempt+1, w.begin(id, b).Attempt)
			log = w.events(id, chat.EventID{})
			require.Equal(t, chat.EventID{Seq: 3, N: 20_000 * (attempt + 1)}, log.After)
			require.Equal(t, attempt+1, log.Attempt)
			require.Equal(t, []string{"q pending"}, texts(log.Messages))
			require.Empty(t, log.Messages[0].Failure)
			require.Len(t, w.events(id, chat.EventID{Seq: 3, N: 20_000*attempt + 19_999}).Messages, 1, "the attempt before was told")
		}
		w.finish(id, answerTo(b, 3))
		next := w.begin(id, begin("x", "next"))
		require.Zero(t, next.Attempt)
		require.Zero(t, w.events(id, chat.EventID{}).Attempt)
	},

	"a log is read page by page": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "q")
		w.begin(id, b)
		var all []chat.Entry
		for n := range int64(chat.LogEntries + 1) {
			all = append(all, say(1, n+2, "x", "x"))
		}
		w.add(id, "one", all...)
		for _, after := range []chat.EventID{{}, {Seq: 1, N: 1}} {
			log := w.events(id, after)
			require.True(t, log.MoreEntries)
			require.Len(t, log.Entries, chat.LogEntries)
			log = w.events(id, log.Entries[chat.LogEntries-1].ID)
			require.False(t, log.MoreEntries)
			require.Len(t, log.Entries, 1)
		}
		for n := range int64(4) {
			w.add(id, "one", say(1, 1000+n, strings.Repeat("x", 400_000), "x"))
		}
		log := w.events(id, chat.EventID{Seq: 1, N: 999})
		require.True(t, log.MoreEntries)
		require.Len(t, log.Entries, 2)

		large := strings.Repeat("x", 600_000)
		w.finish(id, answerTo(b, 1, large, large))
		w.turn(id, "next")
		log = w.events(id, chat.EventID{Seq: 1, N: 9999})
		require.True(t, log.MoreMessages)
		require.Len(t, log.Messages, 3, "a whole turn, and none that is cut")
		log = w.events(id, chat.EventID{Seq: 1, N: 19_999})
		require.False(t, log.MoreMessages)
		require.Equal(t, int64(5), log.Messages[len(log.Messages)-1].Seq)
		for range 20 {
			w.turn(id, strings.Repeat("y", 30_000))
		}
		seen := 0
		for after, more := (chat.EventID{Seq: 1, N: 19_999}), true; more; {
			log := w.events(id, after)
			for _, m := range log.Messages {
				if seen++; m.Seq%2 == 0 && m.Seq > 3 {
					after = chat.EventID{Seq: m.Seq, N: 19_999}
				}
			}
			more = log.MoreMessages
		}
		require.GreaterOrEqual(t, seen, 42)
	},

	"an owner logs so much": func(t *testing.T, w *world) {
		id, other := w.start(), w.start()
		w.begin(id, begin("one", "q"))
		b := begin("two", "q")
		w.begin(other, b)
		large := strings.Repeat("x", 1<<20-chat.EntryBytes)
		for n := range int64(15) {
			require.False(t, w.add(id, "one", say(1, 2+n, large, "x")).Dropped)
		}
		require.False(t, w.add(other, "two", say(1, 2, large, "x")).Dropped)
		require.True(t, w.add(other, "two", say(1, 3, "x", "x")).Dropped)
		require.False(t, w.add(other, "two", say(1, 2, large, "x")).Dropped, "it is there")
		require.False(t, w.add(other, "two").Dropped)
		f := answerTo(b, 1, "re")
		f.Entries = []chat.Entry{say(1, 3, "x", "x")}
		done, err := w.Finish(t.Context(), w.owner, other, f)
		require.NoError(t, err)
		require.True(t, done.Dropped)
		require.Empty(t, logged(w.events(other, chat.EventID{Seq: 1, N: 2})))
		me := w.owner
		w.owner = someone()
		theirs := w.start()
		w.begin(theirs, begin("three", "q"))
		require.False(t, w.add(theirs, "three", say(1, 2, "x", "x")).Dropped)
		w.owner = me
		for range 40 {
			w.add(id, "one")
			w.sleep(lease - time.Second)
		}
		require.False(t, w.add(id, "one", say(1, 99, "x", "x")).Dropped, "for ever")
	},

	"what arrived of an answer is kept as partial": func(t *testing.T, w *world) {
		id := w.start()
		for i, state := range []chat.State{chat.Failed, chat.Cancelled} {
			b := begin(newID(), "q")
			seq := w.begin(id, b).Message.Seq
			f := answerTo(b, seq, "a", "b")
			f.State = state
			if state == chat.Failed {
				f.Failure = "agent_failed"
			}
			at := w.finish(id, f)
			require.Equal(t, at, w.finish(id, f))
			c, messages := w.get(id)
			want := []string{"q " + string(state), "a partial", "b partial"}
			require.Equal(t, want, texts(messages[3*i:]))
			require.Equal(t, int64(3*i+3), c.MessageCount)
			require.Equal(t, int64(1+2*(i+1)), c.Version)
			again := w.begin(id, retry(b, newID()))
			require.True(t, again.Replayed)
			require.Equal(t, messages[3*i], again.Message)
			require.Equal(t, messages[3*i+1:], again.Replies)
			require.Equal(t, f.Failure, again.Failure)
			require.Equal(t, f.Failure, messages[3*i].Failure)
			require.Equal(t, messages[3*i:], w.events(id, chat.EventID{Seq: seq, N: 1}).Messages)
			complete := f
			complete.State = chat.Complete
			complete.Records = nil
			_, err := w.Finish(t.Context(), w.owner, id, complete)
			require.ErrorIs(t, err, chat.ErrTurnLost, "another end")
		}
		require.Equal(t, []string{"q failed", "a partial", "b partial", "q cancelled", "a partial", "b partial"}, texts(w.begin(id, begin("x", "q")).History))
	},

	"a live turn is cancelled once": func(t *testing.T, w *world) {
		id := w.start()
		cancel := func(messageID, token string) bool {
			cancelled, err := w.Cancel(t.Context(), w.owner, id, chat.Cancellation{MessageID: messageID, Token: token})
			require.NoError(t, err)
			return cancelled
		}
		require.False(t, cancel("", "call"))
		b := begin("one", "q")
		w.begin(id, b)
		before, _ := w.get(id)
		require.False(t, cancel(newID(), "call"))
		require.False(t, w.add(id, "one").Cancelled)
		require.True(t, cancel(b.MessageID, "call"))
		require.True(t, cancel("", "call"), "the same call")
		require.False(t, cancel("", "another"))
		require.True(t, w.add(id, "one").Cancelled)
		after, _ := w.get(id)
		require.Equal(t, before.Version, after.Version)
		_, err := w.Finish(t.Context(), w.owner, id, answerTo(b, 1, "whole"))
		require.ErrorIs(t, err, chat.ErrCancelled)
		f := answerTo(b, 1, "half")
		f.State = chat.Cancelled
		w.finish(id, f)
		require.True(t, cancel("", "call"), "the same call")
		require.False(t, cancel("", "another"))

		two := begin("two", "next")
		w.begin(id, two)
		require.False(t, w.add(id, "two").Cancelled, "the turn before was")
		require.False(t, cancel(b.MessageID, "call"), "that is over")
		w.finish(id, answerTo(two, 3, "re next"))
		require.False(t, cancel("", "call"))
		w.begin(id, begin("three", "dies"))
		w.sleep(lease)
		require.False(t, cancel("", "call"))
	},

	"a log is its owner's": func(t *testing.T, w *world) {
		id := w.start()
		b := begin("one", "q")
		w.begin(id, b)
		stranger := someone()
		_, err := w.Events(t.Context(), stranger, id, nil)
		require.ErrorIs(t, err, chat.ErrNotFound)
		_, err = w.Cancel(t.Context(), stranger, id, chat.Cancellation{Token: "x"})
		require.ErrorIs(t, err, chat.ErrNotFound)
		_, err = w.Append(t.Context(), stranger, id, chat.Append{Token: "one", Lease: lease, Entries: []chat.Entry{say(1, 2, "x", "x")}})
		require.ErrorIs(t, err, chat.ErrNotFound)
		require.False(t, w.add(id, "one").Cancelled)
		_, err = w.Events(t.Context(), w.owner, newID(), nil)
		require.ErrorIs(t, err, chat.ErrNotFound)
	},

	"a log ends with its conversation": func(t *testing.T, w *world) {
		for name, end := range map[string]func(id string){
			"deleted": func(id string) { w.del(id) },
			"erased": func(string) {
				_, err := w.Erase(t.Context(), w.owner)
				require.NoError(t, err)
			},
			"expired": func(string) { w.sleep(gone) },
		} {
			id := w.start()
			b := begin(newID(), "q")
			w.begin(id, b)
			w.add(id, b.Token, say(1, 2, "secret", "x"))
			end(id)
			_, err := w.Events(t.Context(), w.owner, id, &chat.EventID{Seq: 1})
			require.ErrorIs(t, err, chat.ErrNotFound, name)
			if r, isRedis := w.Store.(*Redis); isRedis {
				require.Zero(t, r.client.Exists(t.Context(), logKey(tagOf(w.owner), id)).Val(), name)
			}
		}
	},

	"reading a log is no access": func(t *testing.T, w *world) {
		id := w.start()
		w.turn(id, "q")
		w.sleep(lives)
		require.False(t, w.events(id, chat.EventID{}).IsLive)
		w.sleep(2 * time.Millisecond)
		_, err := w.Events(t.Context(), w.owner, id, nil)
		require.ErrorIs(t, err, chat.ErrNotFound)
	},

	"turns that begin are told to those who watch": func(t *testing.T, w *world) {
		id, other := w.start(), w.start()
		begun := make(chan struct{}, 100)
		var others atomic.Int64
		stop := w.Watch(w.owner, id, func() { begun <- struct{}{} })
		stopOther := w.Watch(w.owner, other, func() { others.Add(1) })
		defer stopOther()
		if _, isMemory := w.Store.(*Memory); !isMemory {
			<-begun // it may have missed something before
		}
		for range 3 {
			w.turn(id, "q")
			select {
			case <-begun:
			case <-time.After(10 * time.Second):
				require.Fail(t, "nobody was told")
			}
		}
		stop()
		require.LessOrEqual(t, others.Load(), int64(1))
	},
}
