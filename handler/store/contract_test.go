package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The promises of chat.Store, each a rule, over every store.

var limits = chat.Limits{TTL: time.Hour, Messages: 1_000, Conversations: 300}

// t0 is when the rules happen; the stores know no other time.
var t0 = time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)

func TestContract(t *testing.T) {
	plain := redis.NewClient(&redis.Options{Addr: redistest.Start(t).Addr})
	t.Cleanup(func() { _ = plain.Close() })
	secure := redistest.StartTLS(t)
	encrypted := redis.NewClient(&redis.Options{Addr: secure.Addr, TLSConfig: secure.TLS})
	t.Cleanup(func() { _ = encrypted.Close() })
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: redistest.StartCluster(t, 3, 0).Addrs})
	t.Cleanup(func() { _ = cluster.Close() })

	stores := map[string]func(chat.Limits) chat.Store{
		"memory":  func(l chat.Limits) chat.Store { return NewMemory(l) },
		"redis":   func(l chat.Limits) chat.Store { return newRedis(t, plain, l, 10*time.Second) },
		"tls":     func(l chat.Limits) chat.Store { return newRedis(t, encrypted, l, 10*time.Second) },
		"cluster": func(l chat.Limits) chat.Store { return newRedis(t, cluster, l, 10*time.Second) },
	}
	for name, open := range stores {
		for rule, check := range rules {
			t.Run(name+"/"+rule, func(t *testing.T) {
				t.Parallel()
				check(t, &world{Store: open(limits), t: t, owner: someone()})
			})
		}
		t.Run(name+"/small limits", func(t *testing.T) {
			t.Parallel()
			checkLimits(t, &world{
				Store: open(chat.Limits{TTL: time.Hour, Messages: 4, Conversations: 2}), t: t, owner: someone(),
			})
		})
	}
}

var rules = map[string]func(*testing.T, *world){
	"a started conversation can be got, as it was given": func(t *testing.T, w *world) {
		given := chat.Start{
			Conversation: chat.Conversation{
				ID: newID(), ObjectID: "oid", ExternalID: "external", Title: `Ünïcode "quoted" \ / ` + "\u2028",
				Metadata: map[string]string{"a": "", "b": `{"not":"json"}`},
			},
			Messages: []chat.Message{
				{ID: newID(), Role: chat.Assistant, Kind: chat.Text, Text: "Hello <b>&\u0001😀"},
				{
					ID: newID(), Role: chat.Assistant, Kind: chat.AdaptiveCard, CardID: "card",
					CardJSON: []byte(`{"n":12345678901234567890,"e":[],"o":{},"z":null}`),
				},
			},
			AgentRef: "ref", Now: t0,
		}
		started, err := w.Start(t.Context(), w.owner, given)
		require.NoError(t, err)
		want := given.Conversation
		want.Owner, want.Status, want.MessageCount, want.Version = w.owner, chat.Active, 2, 1
		want.CreatedAt, want.UpdatedAt, want.LastAccessedAt, want.ExpiresAt = t0, t0, t0, t0.Add(limits.TTL)
		require.Equal(t, want, started)

		got, messages := w.get(want.ID, t0.Add(time.Minute))
		want.LastAccessedAt, want.ExpiresAt = t0.Add(time.Minute), t0.Add(time.Minute+limits.TTL)
		require.Equal(t, want, got)
		greeting := slices.Clone(given.Messages)
		for i := range greeting {
			greeting[i].Seq, greeting[i].State, greeting[i].CreatedAt = int64(i+1), chat.Complete, t0
		}
		require.Equal(t, greeting, messages)

		listed, more, err := w.List(t.Context(), w.owner, chat.List{Limit: 1, Now: t0.Add(time.Minute)})
		require.NoError(t, err)
		require.False(t, more)
		require.Equal(t, []chat.Conversation{want}, listed)
	},

	"starting twice under one id is starting once": func(t *testing.T, w *world) {
		s := chat.Start{Conversation: chat.Conversation{ID: newID(), Title: "once"}, Messages: []chat.Message{answer("hi")}, Now: t0}
		first, err := w.Start(t.Context(), w.owner, s)
		require.NoError(t, err)
		second, err := w.Start(t.Context(), w.owner, s)
		require.NoError(t, err)
		require.Equal(t, first, second)
		_, messages := w.get(first.ID, t0)
		require.Len(t, messages, 1)
	},

	"a turn is the question, then its answers": func(t *testing.T, w *world) {
		id := w.start(t0)
		turn, err := w.Begin(t.Context(), w.owner, id, begin("one", "question", t0.Add(time.Second)))
		require.NoError(t, err)
		require.Equal(t, int64(1), turn.Message.Seq)
		require.Equal(t, chat.Pending, turn.Message.State)
		require.Equal(t, t0.Add(time.Second), turn.Message.CreatedAt)
		require.Empty(t, turn.History)

		running, messages := w.get(id, t0.Add(time.Second))
		require.Equal(t, []chat.Message{turn.Message}, messages)
		require.Equal(t, int64(2), running.Version)
		require.Equal(t, t0.Add(time.Second), running.UpdatedAt)

		at, err := w.Finish(t.Context(), w.owner, id, chat.Finish{
			Token: "one", State: chat.Complete, Replies: []chat.Message{answer("a"), answer("b")},
			AgentRef: "ref2", ExternalID: "external2", Now: t0.Add(2 * time.Second),
		})
		require.NoError(t, err)
		require.Equal(t, t0.Add(2*time.Second), at)
		done, messages := w.get(id, t0.Add(3*time.Second))
		require.Equal(t, []string{"question complete", "a complete", "b complete"}, texts(messages))
		require.Equal(t, int64(3), done.Version)
		require.Equal(t, int64(3), done.MessageCount)
		require.Equal(t, "external2", done.ExternalID)
		require.Equal(t, t0.Add(2*time.Second), done.UpdatedAt)

		next, err := w.Begin(t.Context(), w.owner, id, begin("two", "again", t0.Add(4*time.Second)))
		require.NoError(t, err)
		require.Equal(t, messages, next.History)
		require.Equal(t, "ref2", next.AgentRef)
		require.Equal(t, "external2", next.ExternalID)
	},

	"the context is the last messages before the question": func(t *testing.T, w *world) {
		id := w.start(t0)
		for i := range 4 {
			w.turn(id, fmt.Sprint(i), t0)
		}
		b := begin("x", "question", t0)
		b.Context = 3
		turn, err := w.Begin(t.Context(), w.owner, id, b)
		require.NoError(t, err)
		require.Equal(t, []string{"re 2 complete", "3 complete", "re 3 complete"}, texts(turn.History))
		require.Equal(t, int64(6), turn.History[0].Seq)
		b.Token, b.Context, b.Guards = "y", 0, begin("", "", t0).Guards
		_, err = w.Finish(t.Context(), w.owner, id, chat.Finish{Token: "x", State: chat.Failed, Now: t0})
		require.NoError(t, err)
		turn, err = w.Begin(t.Context(), w.owner, id, b)
		require.NoError(t, err)
		require.Empty(t, turn.History)
	},

	"every call that writes may be repeated": func(t *testing.T, w *world) {
		id := w.start(t0)
		b := begin("one", "question", t0)
		first, err := w.Begin(t.Context(), w.owner, id, b)
		require.NoError(t, err)
		second, err := w.Begin(t.Context(), w.owner, id, b)
		require.NoError(t, err)
		require.Equal(t, first, second)
		f := chat.Finish{
			Token: "one", Guards: b.Guards, State: chat.Complete, Replies: []chat.Message{answer("a")}, Now: t0.Add(time.Second),
		}
		at, err := w.Finish(t.Context(), w.owner, id, f)
		require.NoError(t, err)
		f.Now = t0.Add(2 * time.Second)
		again, err := w.Finish(t.Context(), w.owner, id, f)
		require.NoError(t, err)
		require.Equal(t, at, again)
		done, messages := w.get(id, t0)
		require.Equal(t, []string{"question complete", "a complete"}, texts(messages))
		require.Equal(t, int64(3), done.Version)

		_, err = w.Begin(t.Context(), w.owner, id, begin("two", "next", t0.Add(2*time.Second)))
		require.NoError(t, err)
		again, err = w.Finish(t.Context(), w.owner, id, f)
		require.NoError(t, err, "after the next turn has begun")
		require.Equal(t, at, again)
		_, messages = w.get(id, t0)
		require.Len(t, messages, 3)
	},

	"a repeated request finds its turn as it ended": func(t *testing.T, w *world) {
		id := w.start(t0)
		b := begin("one", "question", t0)
		b.Guards = append(b.Guards, guardNamed("key"))
		first, err := w.Begin(t.Context(), w.owner, id, b)
		require.NoError(t, err)
		again := b
		again.Token, again.Message.ID, again.Now = "two", newID(), t0.Add(time.Second)
		_, err = w.Begin(t.Context(), w.owner, id, again)
		var busy *chat.BusyError
		require.ErrorAs(t, err, &busy, "it did not wait for the one that runs")
		at, err := w.Finish(t.Context(), w.owner, id, chat.Finish{
			Token: "one", Guards: b.Guards, State: chat.Complete, Replies: []chat.Message{answer("a"), answer("b")}, Now: t0.Add(time.Second),
		})
		require.NoError(t, err)
		w.turn(id, "next", t0.Add(time.Second))
		_, err = w.Begin(t.Context(), w.owner, id, begin("busy", "now", t0.Add(2*time.Second)))
		require.NoError(t, err)
		before, _ := w.get(id, t0.Add(2*time.Second))

		for _, guards := range [][]chat.Guard{b.Guards, b.Guards[:1], b.Guards[1:], {guardNamed("unknown"), b.Guards[1]}} {
			again.Guards, again.Now = guards, t0.Add(2*time.Second)
			turn, err := w.Begin(t.Context(), w.owner, id, again)
			require.NoError(t, err)
			require.True(t, turn.Over)
			asked := first.Message
			asked.State = chat.Complete
			require.Equal(t, asked, turn.Message)
			require.Equal(t, []string{"a complete", "b complete"}, texts(turn.Replies))
			require.Equal(t, at, turn.Replies[0].CreatedAt)
			require.Equal(t, int64(2), turn.Replies[0].Seq)
		}
		after, messages := w.get(id, t0.Add(2*time.Second))
		require.Equal(t, before, after)
		require.Len(t, messages, 6)
	},

	"a repeated request finds its turn as it failed": func(t *testing.T, w *world) {
		id := w.start(t0)
		failed, died := begin("one", "failed", t0), begin("two", "died", t0)
		_, err := w.Begin(t.Context(), w.owner, id, failed)
		require.NoError(t, err)
		_, err = w.Finish(t.Context(), w.owner, id, chat.Finish{
			Token: "one", Guards: failed.Guards, State: chat.Failed, Failure: chat.AgentFailed, Now: t0,
		})
		require.NoError(t, err)
		_, err = w.Begin(t.Context(), w.owner, id, died)
		require.NoError(t, err)
		failed.Token, died.Token, failed.Now, died.Now = "three", "four", t0.Add(lease), t0.Add(lease)
		turn, err := w.Begin(t.Context(), w.owner, id, failed)
		require.NoError(t, err)
		require.True(t, turn.Over)
		require.Equal(t, chat.AgentFailed, turn.Failure)
		require.Equal(t, chat.Failed, turn.Message.State)
		require.Empty(t, turn.Replies)
		turn, err = w.Begin(t.Context(), w.owner, id, died)
		require.NoError(t, err)
		require.True(t, turn.Over)
		require.Empty(t, turn.Failure)
		require.Equal(t, chat.Failed, turn.Message.State)
		_, messages := w.get(id, t0.Add(lease))
		require.Equal(t, []string{"failed failed", "died failed"}, texts(messages))
	},

	"a turn whose agent was not asked is taken up again by its request": func(t *testing.T, w *world) {
		id := w.start(t0)
		b := begin("one", "question", t0)
		first, err := w.Begin(t.Context(), w.owner, id, b)
		require.NoError(t, err)
		notAsked := chat.Finish{Token: "one", Guards: b.Guards, State: chat.Failed, Failure: chat.NotAsked, Now: t0.Add(time.Second)}
		_, err = w.Finish(t.Context(), w.owner, id, notAsked)
		require.NoError(t, err)
		_, err = w.Begin(t.Context(), w.owner, id, b)
		require.ErrorIs(t, err, chat.ErrTurnLost, "a late execution of the first begin took it up")

		again := b
		again.Token, again.Message.ID, again.Now = "two", newID(), t0.Add(2*time.Second)
		second, err := w.Begin(t.Context(), w.owner, id, again)
		require.NoError(t, err)
		require.Equal(t, first, second)
		_, err = w.Begin(t.Context(), w.owner, id, b)
		var busy *chat.BusyError
		require.ErrorAs(t, err, &busy, "a late execution of the first begin")
		_, err = w.Finish(t.Context(), w.owner, id, notAsked)
		require.ErrorIs(t, err, chat.ErrTurnLost, "a late execution of the first finish")
		notAsked.Token = "two"
		_, err = w.Finish(t.Context(), w.owner, id, notAsked)
		require.NoError(t, err)

		w.turn(id, "next", t0.Add(2*time.Second))
		again.Token = "three"
		late, err := w.Begin(t.Context(), w.owner, id, again)
		require.NoError(t, err)
		require.True(t, late.Over, "it was taken up behind a later turn")
		_, messages := w.get(id, t0.Add(2*time.Second))
		require.Equal(t, []string{"question failed", "next complete", "re next complete"}, texts(messages))
	},

	"a begin that is executed late finds that it was executed": func(t *testing.T, w *world) {
		id := w.start(t0)
		b := begin("one", "question", t0)
		_, err := w.Begin(t.Context(), w.owner, id, b)
		require.NoError(t, err)
		_, err = w.Finish(t.Context(), w.owner, id, chat.Finish{Token: "one", Guards: b.Guards, State: chat.Failed, Now: t0})
		require.NoError(t, err)
		w.turn(id, "next", t0)
		_, err = w.Begin(t.Context(), w.owner, id, b)
		require.ErrorIs(t, err, chat.ErrTurnLost)
		_, messages := w.get(id, t0)
		require.Equal(t, []string{"question failed", "next complete", "re next complete"}, texts(messages))
	},

	"a name belongs to one request of one owner": func(t *testing.T, w *world) {
		id := w.start(t0)
		b := begin("one", "question", t0)
		_, err := w.Begin(t.Context(), w.owner, id, b)
		require.NoError(t, err)
		before, _ := w.get(id, t0)
		other := begin("two", "another", t0.Add(lease))
		other.Guards = append(other.Guards, b.Guards[0])
		for i := range other.Guards {
			other.Guards[i].Request = "another"
		}
		_, err = w.Begin(t.Context(), w.owner, id, other)
		require.ErrorIs(t, err, chat.ErrKeyReused)
		_, _, err = w.Claim(t.Context(), w.owner, chat.Claim{Guard: other.Guards[1], Token: "two", Lease: lease, Now: t0})
		require.ErrorIs(t, err, chat.ErrKeyReused)
		after, _ := w.get(id, t0)
		require.Equal(t, before, after, "a refused request left something")

		w.owner = someone()
		mine := w.start(t0)
		_, err = w.Begin(t.Context(), w.owner, mine, chat.Begin{
			Message: other.Message, Guards: other.Guards[1:], Token: "two", Lease: lease, Now: t0,
		})
		require.NoError(t, err)
	},

	"a guard is kept for its time": func(t *testing.T, w *world) {
		id := w.start(t0)
		b := begin("one", "question", t0)
		b.Guards[0].TTL = 50 * time.Millisecond
		_, err := w.Begin(t.Context(), w.owner, id, b)
		require.NoError(t, err)
		_, err = w.Finish(t.Context(), w.owner, id, chat.Finish{Token: "one", State: chat.Complete, Now: t0})
		require.NoError(t, err)
		again := b
		again.Token, again.Now = "two", t0.Add(b.Guards[0].TTL)
		require.Eventually(t, func() bool {
			turn, err := w.Begin(t.Context(), w.owner, id, again)
			return err == nil && !turn.Over
		}, 10*time.Second, 10*time.Millisecond)
	},

	"a claimed start is made once": func(t *testing.T, w *world) {
		guard := guardNamed("key")
		claim := func(token string, now time.Time, lease time.Duration) (chat.Conversation, bool, error) {
			return w.Claim(t.Context(), w.owner, chat.Claim{Guard: guard, Token: token, Lease: lease, Now: now})
		}
		start := func(token string, now time.Time) (chat.Conversation, error) {
			return w.Start(t.Context(), w.owner, chat.Start{
				Conversation: chat.Conversation{ID: newID(), Title: token}, Messages: []chat.Message{answer("hi")},
				Guard: &guard, Token: token, Now: now,
			})
		}
		_, err := start("one", t0)
		require.ErrorIs(t, err, chat.ErrTurnLost, "without a claim")
		for range 2 {
			_, isMade, err := claim("one", t0, lease)
			require.NoError(t, err)
			require.False(t, isMade)
		}
		_, _, err = claim("two", t0.Add(10*time.Second), lease)
		var busy *chat.BusyError
		require.ErrorAs(t, err, &busy)
		require.Equal(t, 20*time.Second, busy.Left)
		_, _, err = claim("one", t0.Add(10*time.Second), lease)
		require.NoError(t, err)
		_, _, err = claim("two", t0.Add(lease), lease)
		require.ErrorAs(t, err, &busy, "a renewed claim was taken over")

		_, _, err = claim("two", t0.Add(10*time.Second), 0)
		require.ErrorAs(t, err, &busy, "another's claim was given up")
		_, _, err = claim("one", t0.Add(10*time.Second), 0)
		require.NoError(t, err)
		_, err = start("one", t0.Add(10*time.Second))
		require.ErrorIs(t, err, chat.ErrTurnLost, "after giving up")
		_, _, err = claim("two", t0.Add(10*time.Second), lease)
		require.NoError(t, err)
		_, _, err = claim("three", t0.Add(10*time.Second+lease), lease)
		require.NoError(t, err, "a dead claim was not taken over")
		_, err = start("two", t0.Add(10*time.Second+lease))
		require.ErrorIs(t, err, chat.ErrTurnLost)
		require.Empty(t, w.list(t0))

		made, err := start("three", t0.Add(10*time.Second+lease))
		require.NoError(t, err)
		w.turn(made.ID, "question", t0.Add(time.Minute))
		for _, token := range []string{"three", "four"} {
			found, isMade, err := claim(token, t0.Add(time.Minute), lease)
			require.NoError(t, err)
			require.True(t, isMade)
			require.Equal(t, made, found)
			_, _, err = claim(token, t0.Add(time.Minute), 0)
			require.NoError(t, err)
			_, err = start(token, t0.Add(time.Minute))
			require.ErrorIs(t, err, chat.ErrTurnLost)
		}
		require.Equal(t, []string{made.ID}, w.list(t0.Add(time.Minute)))
	},

	"a busy conversation takes no second turn": func(t *testing.T, w *world) {
		id := w.start(t0)
		_, err := w.Begin(t.Context(), w.owner, id, begin("one", "question", t0))
		require.NoError(t, err)
		_, err = w.Begin(t.Context(), w.owner, id, begin("two", "me too", t0.Add(10*time.Second)))
		var busy *chat.BusyError
		require.ErrorAs(t, err, &busy)
		require.Equal(t, 20*time.Second, busy.Left)
		c, messages := w.get(id, t0)
		require.Equal(t, []string{"question pending"}, texts(messages))
		require.Equal(t, int64(2), c.Version)
	},

	"a failed turn keeps the question": func(t *testing.T, w *world) {
		id := w.start(t0)
		_, err := w.Begin(t.Context(), w.owner, id, begin("one", "question", t0))
		require.NoError(t, err)
		_, err = w.Finish(t.Context(), w.owner, id, chat.Finish{Token: "one", State: chat.Failed, Now: t0})
		require.NoError(t, err)
		w.turn(id, "again", t0)
		_, messages := w.get(id, t0)
		require.Equal(t, []string{"question failed", "again complete", "re again complete"}, texts(messages))
	},

	"a lease that runs out ends the turn": func(t *testing.T, w *world) {
		id := w.start(t0)
		b := begin("one", "question", t0)
		_, err := w.Begin(t.Context(), w.owner, id, b)
		require.NoError(t, err)
		over := t0.Add(lease)
		require.ErrorIs(t, w.Renew(t.Context(), w.owner, id, "one", over, lease), chat.ErrTurnLost)
		late := chat.Finish{Token: "one", State: chat.Complete, Replies: []chat.Message{answer("late")}, Now: over}
		_, err = w.Finish(t.Context(), w.owner, id, late)
		require.ErrorIs(t, err, chat.ErrTurnLost)
		before, messages := w.get(id, over.Add(-time.Millisecond))
		require.Equal(t, []string{"question pending"}, texts(messages), "a refused finish wrote something")
		require.Equal(t, int64(2), before.Version)

		after, messages := w.get(id, over)
		require.Equal(t, []string{"question failed"}, texts(messages))
		require.Equal(t, int64(3), after.Version)
		_, err = w.Finish(t.Context(), w.owner, id, late)
		require.ErrorIs(t, err, chat.ErrTurnLost)
		_, err = w.Begin(t.Context(), w.owner, id, b)
		require.ErrorIs(t, err, chat.ErrTurnLost, "a repeated begin took the turn again")
	},

	"a dead turn is taken over": func(t *testing.T, w *world) {
		id := w.start(t0)
		_, err := w.Begin(t.Context(), w.owner, id, begin("one", "question", t0))
		require.NoError(t, err)
		turn, err := w.Begin(t.Context(), w.owner, id, begin("two", "mine", t0.Add(lease)))
		require.NoError(t, err)
		require.Equal(t, []string{"question failed"}, texts(turn.History))
		_, err = w.Finish(t.Context(), w.owner, id, chat.Finish{
			Token: "one", State: chat.Complete, Replies: []chat.Message{answer("late")}, Now: t0.Add(lease),
		})
		require.ErrorIs(t, err, chat.ErrTurnLost)
		_, err = w.Finish(t.Context(), w.owner, id, chat.Finish{Token: "two", State: chat.Complete, Now: t0.Add(lease)})
		require.NoError(t, err)
		_, messages := w.get(id, t0.Add(lease))
		require.Equal(t, []string{"question failed", "mine complete"}, texts(messages))
	},

	"a renewed lease lives on": func(t *testing.T, w *world) {
		id := w.start(t0)
		_, err := w.Begin(t.Context(), w.owner, id, begin("one", "question", t0))
		require.NoError(t, err)
		require.ErrorIs(t, w.Renew(t.Context(), w.owner, id, "two", t0, lease), chat.ErrTurnLost)
		require.NoError(t, w.Renew(t.Context(), w.owner, id, "one", t0.Add(20*time.Second), lease))
		_, err = w.Begin(t.Context(), w.owner, id, begin("two", "me too", t0.Add(40*time.Second)))
		var busy *chat.BusyError
		require.ErrorAs(t, err, &busy)
		require.Equal(t, 10*time.Second, busy.Left)
	},

	"nobody reaches another owner's conversation": func(t *testing.T, w *world) {
		id := w.start(t0)
		w.turn(id, "secret", t0)
		before, messages := w.get(id, t0)
		for name, other := range map[string]chat.Owner{
			"another user":                      someone(),
			"the same user of another tenant":   {TenantID: someone().TenantID, UserID: w.owner.UserID},
			"another user of the same tenant":   {TenantID: w.owner.TenantID, UserID: someone().UserID},
			"tenant and user the other way":     {TenantID: w.owner.UserID, UserID: w.owner.TenantID},
			"the border between them elsewhere": {TenantID: w.owner.TenantID + w.owner.UserID[:1], UserID: w.owner.UserID[1:]},
			"nobody":                            {},
		} {
			_, _, err := w.Get(t.Context(), other, id, page(t0))
			require.ErrorIs(t, err, chat.ErrNotFound, name)
			_, err = w.Begin(t.Context(), other, id, begin("x", "intruder", t0))
			require.ErrorIs(t, err, chat.ErrNotFound, name)
			require.ErrorIs(t, w.Renew(t.Context(), other, id, "x", t0, lease), chat.ErrTurnLost, name)
			_, err = w.Finish(t.Context(), other, id, chat.Finish{Token: "x", State: chat.Complete, Now: t0})
			require.ErrorIs(t, err, chat.ErrTurnLost, name)
			listed, _, err := w.List(t.Context(), other, chat.List{Limit: 10, Now: t0})
			require.NoError(t, err, name)
			require.Empty(t, listed, name)
		}
		after, same := w.get(id, t0)
		require.Equal(t, before, after)
		require.Equal(t, messages, same)
	},

	"two owners may use one id": func(t *testing.T, w *world) {
		id := w.start(t0)
		other := someone()
		_, err := w.Start(t.Context(), other, chat.Start{Conversation: chat.Conversation{ID: id, Title: "other"}, Now: t0})
		require.NoError(t, err)
		mine, _ := w.get(id, t0)
		require.Empty(t, mine.Title)
	},

	"what a caller got is a copy": func(t *testing.T, w *world) {
		id := newID()
		given := map[string]string{"k": "v"}
		value := []byte(`{"a":1}`)
		_, err := w.Start(t.Context(), w.owner, chat.Start{
			Conversation: chat.Conversation{ID: id, Metadata: given}, Now: t0,
			Messages: []chat.Message{{ID: newID(), Role: chat.Assistant, Kind: chat.AdaptiveCard, CardJSON: value}},
		})
		require.NoError(t, err)
		given["k"], value[2] = "changed", 'X'
		for range 2 {
			c, messages := w.get(id, t0)
			require.Equal(t, map[string]string{"k": "v"}, c.Metadata)
			require.JSONEq(t, `{"a":1}`, string(messages[0].CardJSON))
			c.Metadata["k"], messages[0].CardJSON[2] = "changed", 'X'
			listed, _, err := w.List(t.Context(), w.owner, chat.List{Limit: 1, Now: t0})
			require.NoError(t, err)
			require.Equal(t, map[string]string{"k": "v"}, listed[0].Metadata)
			listed[0].Metadata["k"] = "changed"
		}
	},

	"start, begin and get put off the end, list does not": func(t *testing.T, w *world) {
		id := w.start(t0)
		at := t0.Add(limits.TTL - time.Millisecond)
		got, _ := w.get(id, at)
		require.Equal(t, at.Add(limits.TTL), got.ExpiresAt)
		at = at.Add(limits.TTL - time.Millisecond)
		w.turn(id, "hello", at)
		at = at.Add(limits.TTL - time.Millisecond)
		require.Equal(t, []string{id}, w.list(at), "begin did not put off the end")
		at = at.Add(time.Millisecond)
		require.Empty(t, w.list(at), "list put off the end")
		_, _, err := w.Get(t.Context(), w.owner, id, page(at))
		require.ErrorIs(t, err, chat.ErrNotFound)
		_, err = w.Begin(t.Context(), w.owner, id, begin("x", "hello", at))
		require.ErrorIs(t, err, chat.ErrNotFound)
	},

	"what is listed can be got": func(t *testing.T, w *world) {
		var ids []string
		for i := range 20 {
			ids = append(ids, w.start(t0.Add(time.Duration(i)*time.Minute)))
		}
		for i := range 40 {
			now := t0.Add(limits.TTL + time.Duration(i-10)*time.Minute)
			listed := w.list(now)
			for _, id := range listed {
				require.Contains(t, ids, id)
			}
			require.Len(t, listed, min(20, max(0, 29-i)), "at minute %d", i)
		}
		for i, id := range ids {
			now := t0.Add(limits.TTL + time.Duration(i)*time.Minute)
			_, _, err := w.Get(t.Context(), w.owner, id, page(now))
			require.ErrorIs(t, err, chat.ErrNotFound)
		}
	},

	"times never go backwards within a conversation": func(t *testing.T, w *world) {
		id := w.start(t0)
		w.turn(id, "first", t0.Add(time.Minute))
		w.turn(id, "second, stamped by a slower clock", t0.Add(-time.Minute))
		c, messages := w.get(id, t0.Add(-time.Hour))
		require.Equal(t, t0.Add(time.Minute), c.UpdatedAt)
		require.Equal(t, t0.Add(time.Minute), c.LastAccessedAt)
		for i := 1; i < len(messages); i++ {
			require.False(t, messages[i].CreatedAt.Before(messages[i-1].CreatedAt), "message %d", i+1)
		}
	},

	"a page holds the messages before a place, oldest first": func(t *testing.T, w *world) {
		id := w.start(t0)
		for i := range 5 {
			w.turn(id, fmt.Sprint(i), t0)
		}
		for _, p := range []struct {
			before int64
			limit  int
			want   []int64
		}{
			{0, 3, []int64{8, 9, 10}}, {0, 1000, []int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}, {8, 3, []int64{5, 6, 7}},
			{2, 3, []int64{1}}, {1, 3, nil}, {11, 2, []int64{9, 10}}, {1 << 53, 2, []int64{9, 10}},
		} {
			_, messages, err := w.Get(t.Context(), w.owner, id, chat.Page{Before: p.before, Limit: p.limit, Now: t0})
			require.NoError(t, err)
			var seqs []int64
			for _, m := range messages {
				seqs = append(seqs, m.Seq)
			}
			require.Equal(t, p.want, seqs, "before %d, limit %d", p.before, p.limit)
		}
	},

	"the list is in order of updates, whatever their clocks said": func(t *testing.T, w *world) {
		a, b, c := w.start(t0), w.start(t0.Add(2*time.Second)), w.start(t0.Add(time.Second))
		require.Equal(t, []string{b, c, a}, w.list(t0))
		w.turn(a, "up", t0.Add(3*time.Second))
		require.Equal(t, []string{a, b, c}, w.list(t0))
		w.get(c, t0.Add(time.Minute))
		require.Equal(t, []string{a, b, c}, w.list(t0), "reading moved a conversation")
	},

	"paging shows each conversation once, and equal times are no trap": func(t *testing.T, w *world) {
		want := make(map[string]bool)
		for i := range 50 {
			want[w.start(t0.Add(time.Duration(i/20)*time.Millisecond))] = true
		}
		for _, limit := range []int{1, 3, 7, 20, 49, 50, 51} {
			seen := make(map[string]bool)
			var after *chat.Cursor
			for pages := 0; ; pages++ {
				conversations, more, err := w.List(t.Context(), w.owner, chat.List{Limit: limit, After: after, Now: t0})
				require.NoError(t, err)
				require.Len(t, conversations, min(limit, 50-len(seen)), "limit %d, page %d", limit, pages)
				for _, c := range conversations {
					require.False(t, seen[c.ID], "%s came twice", c.ID)
					seen[c.ID] = true
					after = &chat.Cursor{UpdatedAt: c.UpdatedAt, ID: c.ID}
				}
				require.Equal(t, len(seen) < 50, more)
				if !more {
					break
				}
			}
			require.Equal(t, want, seen)
		}
	},

	"paging through a list that is written to misses nothing that was left alone": func(t *testing.T, w *world) {
		var ids []string
		for i := range 30 {
			ids = append(ids, w.start(t0.Add(time.Duration(i)*time.Millisecond)))
		}
		touched := map[string]bool{}
		var seen []string
		var after *chat.Cursor
		for step := 0; ; step++ {
			conversations, more, err := w.List(t.Context(), w.owner, chat.List{Limit: 4, After: after, Now: t0})
			require.NoError(t, err)
			for _, c := range conversations {
				seen = append(seen, c.ID)
				after = &chat.Cursor{UpdatedAt: c.UpdatedAt, ID: c.ID}
			}
			if !more {
				break
			}
			for _, id := range []string{ids[step], conversations[0].ID} {
				w.turn(id, "moved", t0.Add(time.Minute))
				touched[id] = true
			}
			w.start(t0.Add(time.Hour / 2))
		}
		for _, id := range ids {
			if !touched[id] {
				require.Equal(t, 1, count(seen, id), "a conversation that nobody touched")
			}
			require.LessOrEqual(t, count(seen, id), 1, "a conversation came twice")
		}
	},

	"the list can be of one status": func(t *testing.T, w *world) {
		id := w.start(t0)
		for status, want := range map[chat.Status][]string{chat.Active: {id}, chat.Completed: nil, chat.Archived: nil} {
			conversations, more, err := w.List(t.Context(), w.owner, chat.List{Status: status, Limit: 10, Now: t0})
			require.NoError(t, err)
			require.False(t, more)
			require.Len(t, conversations, len(want), status)
		}
	},

	"parallel turns all land, in one order": func(t *testing.T, w *world) {
		id := w.start(t0)
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				for j := range 5 {
					token := fmt.Sprintf("%d-%d", i, j)
					for {
						_, err := w.Begin(t.Context(), w.owner, id, begin(token, token, t0))
						if _, busy := errors.AsType[*chat.BusyError](err); busy {
							runtime.Gosched()
							continue
						}
						if !assert.NoError(t, err) {
							return
						}
						break
					}
					_, err := w.Finish(t.Context(), w.owner, id, chat.Finish{
						Token: token, State: chat.Complete, Replies: []chat.Message{answer("re " + token)}, Now: t0,
					})
					assert.NoError(t, err)
				}
			})
		}
		all.Wait()
		c, messages := w.get(id, t0)
		require.Len(t, messages, 100)
		require.Equal(t, int64(100), c.MessageCount)
		require.Equal(t, int64(101), c.Version)
		asked := make(map[string]bool)
		for i := 0; i < len(messages); i += 2 {
			require.Equal(t, int64(i+1), messages[i].Seq)
			require.Equal(t, "re "+messages[i].Text, messages[i+1].Text)
			asked[messages[i].Text] = true
		}
		require.Len(t, asked, 50)
	},

	"parallel starts never exceed the limit": func(t *testing.T, w *world) {
		var started atomic.Int64
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				for range 40 {
					_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}, Now: t0})
					if err == nil {
						started.Add(1)
					} else {
						assert.ErrorIs(t, err, chat.ErrTooMany)
					}
				}
			})
		}
		all.Wait()
		require.Equal(t, limits.Conversations, started.Load())
	},

	"a text may be of any length that the service allows": func(t *testing.T, w *world) {
		id := w.start(t0)
		long := string(slices.Repeat([]byte("é"), 16_384))
		w.turn(id, long, t0)
		_, messages := w.get(id, t0)
		require.Equal(t, long, messages[0].Text)
	},
}

func checkLimits(t *testing.T, w *world) {
	first, second := w.start(t0), w.start(t0)
	_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}, Now: t0})
	require.ErrorIs(t, err, chat.ErrTooMany)
	require.ElementsMatch(t, []string{first, second}, w.list(t0), "a refused start left something")

	w.turn(first, "one", t0)
	w.turn(first, "two", t0)
	_, err = w.Begin(t.Context(), w.owner, first, begin("x", "three", t0))
	require.ErrorIs(t, err, chat.ErrFull)
	c, messages := w.get(first, t0)
	require.Len(t, messages, 4)
	require.Equal(t, int64(5), c.Version, "a refused begin left something")

	_, err = w.Start(t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}, Now: t0.Add(time.Hour)})
	require.NoError(t, err, "expired conversations still count")
}

// newRedis returns a store over a client, which its health uses too.
func newRedis(t testing.TB, client redis.UniversalClient, l chat.Limits, timeout time.Duration) *Redis {
	r := NewRedis(client, client, Options{Limits: l, Timeout: timeout}, slog.New(slog.DiscardHandler))
	t.Cleanup(r.Close)
	return r
}

// world is a store and the owner whom a rule is about.
type world struct {
	chat.Store
	t     *testing.T
	owner chat.Owner
}

const lease = 30 * time.Second

func (w *world) start(now time.Time) string {
	w.t.Helper()
	c, err := w.Start(w.t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}, Now: now})
	require.NoError(w.t, err)
	return c.ID
}

// turn is a question and one answer, both at now.
func (w *world) turn(id, text string, now time.Time) {
	w.t.Helper()
	token := newID()
	_, err := w.Begin(w.t.Context(), w.owner, id, begin(token, text, now))
	require.NoError(w.t, err)
	_, err = w.Finish(w.t.Context(), w.owner, id, chat.Finish{
		Token: token, State: chat.Complete, Replies: []chat.Message{answer("re " + text)}, Now: now,
	})
	require.NoError(w.t, err)
}

func (w *world) get(id string, now time.Time) (chat.Conversation, []chat.Message) {
	w.t.Helper()
	c, messages, err := w.Get(w.t.Context(), w.owner, id, page(now))
	require.NoError(w.t, err)
	require.Equal(w.t, id, c.ID)
	return c, messages
}

func (w *world) list(now time.Time) []string {
	w.t.Helper()
	conversations, more, err := w.List(w.t.Context(), w.owner, chat.List{Limit: 1000, Now: now})
	require.NoError(w.t, err)
	require.False(w.t, more)
	var ids []string
	for _, c := range conversations {
		ids = append(ids, c.ID)
	}
	return ids
}

// newID returns a fresh UUID.
func newID() string {
	var u [16]byte
	_, _ = rand.Read(u[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// someone is an owner whom no other test knows.
func someone() chat.Owner {
	return chat.Owner{TenantID: newID(), UserID: rand.Text()}
}

func page(now time.Time) chat.Page { return chat.Page{Limit: 1000, Now: now} }

func begin(token, text string, now time.Time) chat.Begin {
	return chat.Begin{
		Message: chat.Message{ID: newID(), Role: chat.User, Kind: chat.Text, Text: text},
		Guards:  []chat.Guard{guardNamed(newID())},
		Token:   token, Context: 50, Lease: lease, Now: now,
	}
}

func guardNamed(name string) chat.Guard {
	return chat.Guard{Name: name, Request: "request", TTL: time.Minute}
}

func answer(text string) chat.Message {
	return chat.Message{ID: newID(), Role: chat.Assistant, Kind: chat.Text, Text: text}
}

func texts(messages []chat.Message) []string {
	var all []string
	for _, m := range messages {
		all = append(all, m.Text+" "+string(m.State))
	}
	return all
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
