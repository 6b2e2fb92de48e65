package chat_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	alice  = chat.Owner{TenantID: "t", UserID: "alice"}
	limits = chat.Limits{TTL: time.Hour, Messages: 10_000, Conversations: 10_000}
	times  = chat.Settings{Context: 50, AgentTimeout: 200 * time.Second, TurnWait: 10 * time.Second, TurnLease: 30 * time.Second, IdempotencyTTL: time.Hour}
)

// agentFunc answers by a function, and has no greeting.
type agentFunc func(context.Context, chat.Turn) (chat.Reply, error)

func (agentFunc) Open(context.Context, chat.Owner, string) (chat.Reply, error) {
	return chat.Reply{}, nil
}

func (f agentFunc) Answer(ctx context.Context, _ chat.Owner, _ string, t chat.Turn) (chat.Reply, error) {
	return f(ctx, t)
}

func newService(a chat.Agent) (*chat.Service, *store.Memory) {
	memory := store.NewMemory(limits)
	return chat.NewService(memory, a, times, slog.New(slog.DiscardHandler)), memory
}

func start(t *testing.T, s *chat.Service) string {
	t.Helper()
	started, err := s.Start(t.Context(), alice, chat.Opening{})
	require.NoError(t, err)
	return started.Conversation.ID
}

func say(text string) chat.Said { return chat.Said{Text: &text} }

func history(t *testing.T, s *chat.Service, id string) []string {
	t.Helper()
	_, messages, err := s.Get(t.Context(), alice, id, chat.Page{Limit: 1000})
	require.NoError(t, err)
	var all []string
	for i, m := range messages {
		require.Equal(t, int64(i+1), m.Seq)
		all = append(all, fmt.Sprintf("%s %s %s", m.Role, m.Text, m.State))
	}
	return all
}

func TestParallelSendsTakeTurns(t *testing.T) {
	for _, n := range []int{50, 500} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s, _ := newService(agent.Echo{})
			id := start(t, s)
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() {
					sent, err := s.Send(t.Context(), alice, id, say(fmt.Sprint(i)))
					if assert.NoError(t, err) {
						assert.Equal(t, sent.Message.Seq+1, sent.Replies[0].Seq)
						assert.Equal(t, sent.Message.ID, sent.Replies[0].InReplyTo)
					}
				})
			}
			all.Wait()
			messages := history(t, s, id)
			require.Len(t, messages, 2*n)
			asked := map[string]bool{}
			for i := 0; i < len(messages); i += 2 {
				question := strings.TrimPrefix(messages[i], "user ")
				require.Equal(t, "assistant "+question, messages[i+1])
				asked[question] = true
			}
			require.Len(t, asked, n)
		})
	}
}

func TestABusyConversationIsWaitedForThenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newService(agentFunc(func(_ context.Context, turn chat.Turn) (chat.Reply, error) {
			d, err := time.ParseDuration(turn.Message.Text)
			time.Sleep(d)
			return chat.Reply{Messages: []chat.Message{{Kind: chat.Text, Text: "done"}}}, err
		}))
		id := start(t, s)
		var first sync.WaitGroup
		first.Go(func() {
			_, err := s.Send(t.Context(), alice, id, say("9s"))
			assert.NoError(t, err)
		})
		synctest.Wait()
		began := time.Now()
		_, err := s.Send(t.Context(), alice, id, say("15s"))
		require.NoError(t, err, "it did not wait")
		require.Equal(t, 24*time.Second, time.Since(began))
		first.Wait()

		first.Go(func() {
			_, err := s.Send(t.Context(), alice, id, say("15s"))
			assert.NoError(t, err)
		})
		synctest.Wait()
		began = time.Now()
		_, err = s.Send(t.Context(), alice, id, say("1s"))
		var busy *chat.BusyError
		require.ErrorAs(t, err, &busy)
		require.Equal(t, times.TurnWait, time.Since(began))
		first.Wait()
		require.Len(t, history(t, s, id), 6, "a refused message was stored")
	})
}

// Another process is another Service over the same store.
func TestTurnsOfAnotherProcessAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := agentFunc(func(context.Context, chat.Turn) (chat.Reply, error) {
			time.Sleep(5 * time.Second)
			return chat.Reply{}, nil
		})
		one, memory := newService(slow)
		two := chat.NewService(memory, slow, times, slog.New(slog.DiscardHandler))
		id := start(t, one)
		var first sync.WaitGroup
		first.Go(func() {
			_, err := one.Send(t.Context(), alice, id, say("one"))
			assert.NoError(t, err)
		})
		synctest.Wait()
		began := time.Now()
		_, err := two.Send(t.Context(), alice, id, say("two"))
		require.NoError(t, err)
		require.InDelta(t, 10, time.Since(began).Seconds(), 0.3)
		first.Wait()
		require.Equal(t, []string{"user one complete", "user two complete"}, history(t, one, id))
	})
}

func TestATurnOfAnotherProcessThatTakesTooLongIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, memory := newService(agent.Echo{})
		id := start(t, s)
		_, err := memory.Begin(t.Context(), alice, id, chat.Begin{
			Token: "other", Lease: times.TurnLease, Now: time.Now(), Message: chat.Message{Role: chat.User, Text: "theirs"},
			Guards: []chat.Guard{{Name: "theirs", TTL: time.Minute}},
		})
		require.NoError(t, err)
		began := time.Now()
		_, err = s.Send(t.Context(), alice, id, say("mine"))
		var busy *chat.BusyError
		require.ErrorAs(t, err, &busy)
		require.Equal(t, times.TurnWait, time.Since(began))
		ctx, hangUp := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, hangUp)
		_, err = s.Send(ctx, alice, id, say("gone"))
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, []string{"user theirs pending"}, history(t, s, id))

		time.Sleep(times.TurnLease - times.TurnWait - 2*time.Second)
		_, err = s.Send(t.Context(), alice, id, say("mine"))
		require.NoError(t, err, "it did not wait for the end of the lease")
		require.Equal(t, []string{"user theirs failed", "user mine complete", "assistant mine complete"}, history(t, s, id))
	})
}

func TestALongTurnKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newService(agentFunc(func(context.Context, chat.Turn) (chat.Reply, error) {
			time.Sleep(199 * time.Second)
			return chat.Reply{}, nil
		}))
		id := start(t, s)
		_, err := s.Send(t.Context(), alice, id, say("long"))
		require.NoError(t, err)
		require.Equal(t, []string{"user long complete"}, history(t, s, id))
	})
}

func TestACallerThatHangsUpStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newService(agentFunc(func(ctx context.Context, _ chat.Turn) (chat.Reply, error) {
			time.Sleep(time.Second)
			return chat.Reply{Messages: []chat.Message{{Kind: chat.Text, Text: "there"}}}, ctx.Err()
		}))
		id := start(t, s)
		ctx, hangUp := context.WithCancel(t.Context())
		go func() { _, _ = s.Send(ctx, alice, id, say("hello")) }()
		synctest.Wait()
		hangUp()
		time.Sleep(2 * time.Second)
		require.Equal(t, []string{"user hello complete", "assistant there complete"}, history(t, s, id))
	})
}

func TestAFailingAgentLeavesTheMessageAsFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newService(agentFunc(func(ctx context.Context, turn chat.Turn) (chat.Reply, error) {
			if turn.Message.Text == "slow" {
				<-ctx.Done()
				return chat.Reply{}, ctx.Err()
			}
			return chat.Reply{}, errors.New("cannot")
		}))
		id := start(t, s)
		_, err := s.Send(t.Context(), alice, id, say("fail"))
		require.ErrorIs(t, err, chat.ErrAgentFailed)
		began := time.Now()
		_, err = s.Send(t.Context(), alice, id, say("slow"))
		require.ErrorIs(t, err, chat.ErrAgentTimeout)
		require.Equal(t, times.AgentTimeout, time.Since(began))
		require.Equal(t, []string{"user fail failed", "user slow failed"}, history(t, s, id))
	})
}

func TestATurnThatIsTakenOverStopsItsAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stopped := make(chan struct{})
		s, memory := newService(agentFunc(func(ctx context.Context, _ chat.Turn) (chat.Reply, error) {
			<-ctx.Done()
			close(stopped)
			return chat.Reply{}, ctx.Err()
		}))
		id := start(t, s)
		lost := make(chan error)
		go func() {
			_, err := s.Send(t.Context(), alice, id, say("mine"))
			lost <- err
		}()
		synctest.Wait()
		// A process with a clock a minute ahead takes the turn.
		_, err := memory.Begin(t.Context(), alice, id, chat.Begin{
			Token: "other", Lease: time.Hour, Now: time.Now().Add(time.Minute), Message: chat.Message{Role: chat.User, Text: "theirs"},
			Guards: []chat.Guard{{Name: "theirs", TTL: time.Minute}},
		})
		require.NoError(t, err)
		<-stopped
		require.ErrorIs(t, <-lost, chat.ErrTurnLost)
		require.Equal(t, []string{"user mine failed", "user theirs pending"}, history(t, s, id))
	})
}

func TestAPanickingAgentLeavesNothingRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails when a goroutine is left
		s, _ := newService(agentFunc(func(context.Context, chat.Turn) (chat.Reply, error) { panic("bug") }))
		id := start(t, s)
		require.Panics(t, func() { _, _ = s.Send(t.Context(), alice, id, say("x")) })
		time.Sleep(times.TurnLease)
		require.Equal(t, []string{"user x failed"}, history(t, s, id))
	})
}

func TestTheAgentIsGivenContextAndItsOwnState(t *testing.T) {
	var turns []chat.Turn
	s, _ := newService(agentFunc(func(_ context.Context, turn chat.Turn) (chat.Reply, error) {
		turns = append(turns, turn)
		return chat.Reply{
			Messages: []chat.Message{{Kind: chat.Text, Text: "a"}, {Kind: chat.AdaptiveCard, CardJSON: []byte(`{}`)}},
			AgentRef: fmt.Sprintf("ref %d", len(turns)), ExternalID: "external",
		}, nil
	}))
	id := start(t, s)
	for _, text := range []string{"one", "two"} {
		_, err := s.Send(t.Context(), alice, id, say(text))
		require.NoError(t, err)
	}
	require.Empty(t, turns[0].AgentRef)
	require.Equal(t, "ref 1", turns[1].AgentRef)
	require.Equal(t, "external", turns[1].ExternalID)
	require.Len(t, turns[1].History, 3)
	require.Equal(t, "two", turns[1].Message.Text)
}

// greeter greets, or fails to.
type greeter struct {
	agent.Echo
	err error
}

func (g greeter) Open(context.Context, chat.Owner, string) (chat.Reply, error) {
	return chat.Reply{Messages: []chat.Message{{Kind: chat.Text, Text: "Welcome"}}, ExternalID: "external"}, g.err
}

func TestTheGreetingIsStored(t *testing.T) {
	s, _ := newService(greeter{})
	started, err := s.Start(t.Context(), alice, chat.Opening{Title: "x"})
	require.NoError(t, err)
	require.Equal(t, "external", started.Conversation.ExternalID)
	_, messages, err := s.Get(t.Context(), alice, started.Conversation.ID, chat.Page{Limit: 10})
	require.NoError(t, err)
	require.Equal(t, started.Messages, messages)
	require.Equal(t, "Welcome", messages[0].Text)
}

func TestAnAgentThatCannotBeOpenedLeavesNoConversation(t *testing.T) {
	s, _ := newService(greeter{err: errors.New("cannot")})
	_, err := s.Start(t.Context(), alice, chat.Opening{})
	require.ErrorIs(t, err, chat.ErrAgentFailed)
	conversations, _, err := s.ListConversations(t.Context(), alice, chat.List{Limit: 10})
	require.NoError(t, err)
	require.Empty(t, conversations)
}

func TestARepeatedSendIsDoneOnce(t *testing.T) {
	id1, id2 := "01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8058"
	text := "question"
	for name, said := range map[string]chat.Said{
		"by its key":        {Once: chat.Once{Key: "key", Request: "r"}, Text: &text},
		"by its message id": {Once: chat.Once{Request: "r"}, MessageID: &id1, Text: &text},
		"by both":           {Once: chat.Once{Key: "key", Request: "r"}, MessageID: &id1, Text: &text},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				s, _ := newService(agentFunc(func(context.Context, chat.Turn) (chat.Reply, error) {
					asked++
					time.Sleep(5 * time.Second)
					return chat.Reply{Messages: []chat.Message{{Kind: chat.Text, Text: "a"}, {Kind: chat.Text, Text: "b"}}}, nil
				}))
				id := start(t, s)
				var all sync.WaitGroup
				var sent [3]chat.Sent
				for i := range sent {
					all.Go(func() {
						var err error
						sent[i], err = s.Send(t.Context(), alice, id, said)
						assert.NoError(t, err)
					})
				}
				all.Wait()
				require.Equal(t, 1, asked)
				replayed := 0
				for _, one := range sent {
					if one.Replayed {
						replayed++
					}
					one.Replayed = sent[0].Replayed
					require.Equal(t, sent[0], one)
				}
				require.Equal(t, 2, replayed)
				if said.MessageID != nil {
					require.Equal(t, id1, sent[0].Message.ID)
				}
				require.Equal(t, []string{"user question complete", "assistant a complete", "assistant b complete"}, history(t, s, id))

				other := said
				other.Once.Request = "another"
				_, err := s.Send(t.Context(), alice, id, other)
				require.ErrorIs(t, err, chat.ErrKeyReused)
				time.Sleep(times.IdempotencyTTL)
				other.MessageID = &id2
				_, err = s.Send(t.Context(), alice, start(t, s), other)
				require.NoError(t, err, "a key was kept too long")
			})
		})
	}
}

func TestARepeatedSendFailsAsTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail error
		s, _ := newService(agentFunc(func(ctx context.Context, _ chat.Turn) (chat.Reply, error) {
			if fail == nil {
				<-ctx.Done()
				return chat.Reply{}, ctx.Err()
			}
			return chat.Reply{}, fail
		}))
		id := start(t, s)
		text := "question"
		for _, c := range []struct {
			key       string
			fail, err error
		}{{"fails", errors.New("broken"), chat.ErrAgentFailed}, {"takes too long", nil, chat.ErrAgentTimeout}} {
			fail = c.fail
			said := chat.Said{Once: chat.Once{Key: c.key, Request: c.key}, Text: &text}
			_, err := s.Send(t.Context(), alice, id, said)
			require.ErrorIs(t, err, c.err)
			fail = errors.New("asked again")
			_, err = s.Send(t.Context(), alice, id, said)
			require.ErrorIs(t, err, c.err)
			_, isReplayed := errors.AsType[*chat.ReplayedError](err)
			require.True(t, isReplayed)
		}
		require.Equal(t, []string{"user question failed", "user question failed"}, history(t, s, id))
	})
}

// opener opens like a slow agent that can fail.
type opener struct {
	agent.Echo
	opened *int
	fail   *error
}

func (o opener) Open(context.Context, chat.Owner, string) (chat.Reply, error) {
	*o.opened++
	time.Sleep(50 * time.Second)
	return chat.Reply{Messages: []chat.Message{{Kind: chat.Text, Text: "welcome"}}}, *o.fail
}

func TestARepeatedStartIsDoneOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened, fail := 0, errors.New("broken")
		s, _ := newService(opener{opened: &opened, fail: &fail})
		defer s.Close()
		o := chat.Opening{Once: chat.Once{Key: "key", Request: "r"}, Title: "Trip"}
		_, err := s.Start(t.Context(), alice, o)
		require.ErrorIs(t, err, chat.ErrAgentFailed)
		synctest.Wait()

		fail = nil
		var first chat.Started
		var running sync.WaitGroup
		running.Go(func() {
			var err error
			first, err = s.Start(t.Context(), alice, o)
			assert.NoError(t, err)
		})
		synctest.Wait()
		require.Equal(t, 2, opened, "a start that failed holds its key")
		time.Sleep(times.TurnLease + time.Second)
		began := time.Now()
		_, err = s.Start(t.Context(), alice, o)
		var busy *chat.BusyError
		require.ErrorAs(t, err, &busy)
		require.Equal(t, times.TurnWait, time.Since(began))
		running.Wait()
		_, err = s.Send(t.Context(), alice, first.Conversation.ID, say("hello"))
		require.NoError(t, err)
		again, err := s.Start(t.Context(), alice, o)
		require.NoError(t, err)
		require.True(t, again.Replayed)
		again.Replayed = false
		require.Equal(t, first, again)
		require.Equal(t, 2, opened)

		o.Once.Request = "another"
		_, err = s.Start(t.Context(), alice, o)
		require.ErrorIs(t, err, chat.ErrKeyReused)
	})
}

// shaky is a store with an outage that begins with a call: the call is not executed, or its reply is lost.
type shaky struct {
	chat.Store
	outage *atomic.Value // a string: "", or where it begins
}

func (s shaky) Begin(ctx context.Context, owner chat.Owner, id string, b chat.Begin) (chat.Turn, error) {
	if s.outage.Load() == "begin" {
		return chat.Turn{}, chat.ErrUnavailable
	}
	turn, err := s.Store.Begin(ctx, owner, id, b)
	if s.outage.Load() == "the reply of begin" {
		return chat.Turn{}, chat.ErrUnavailable
	}
	return turn, err
}

func (s shaky) Finish(ctx context.Context, owner chat.Owner, id string, f chat.Finish) (time.Time, error) {
	switch s.outage.Load() {
	case "":
		return s.Store.Finish(ctx, owner, id, f)
	case "the reply of finish":
		_, _ = s.Store.Finish(ctx, owner, id, f)
	}
	return time.Time{}, chat.ErrUnavailable
}

func TestARetryAfterAnOutageGetsItsAnswer(t *testing.T) {
	text := "question"
	said := chat.Said{Once: chat.Once{Key: "key", Request: "r"}, Text: &text}
	for _, where := range []string{"begin", "the reply of begin", "finish", "the reply of finish"} {
		t.Run("it begins with "+where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var outage atomic.Value
				outage.Store(where)
				s := chat.NewService(shaky{store.NewMemory(limits), &outage}, agent.Echo{}, times, slog.New(slog.DiscardHandler))
				defer s.Close()
				id := start(t, s)
				_, err := s.Send(t.Context(), alice, id, said)
				require.ErrorIs(t, err, chat.ErrUnavailable)
				time.Sleep(2 * time.Second)
				outage.Store("")
				sent, err := s.Send(t.Context(), alice, id, said)
				require.NoError(t, err)
				require.Equal(t, text, sent.Replies[0].Text)
				require.Equal(t, []string{"user question complete", "assistant question complete"}, history(t, s, id))
				time.Sleep(times.TurnLease)
				require.Equal(t, []string{"user question complete", "assistant question complete"}, history(t, s, id))
			})
		})
	}
}
