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

func TestParallelSendsTakeTurns(t *testing.T) {
	for _, n := range []int{50, 500} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := serve(t, store.NewMemory(limits), agent.Echo{})
			id := start(t, s)
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() {
					sent, err := s.Send(t.Context(), alice, id, say(fmt.Sprint(i)))
					if assert.NoError(t, err) {
						assert.Equal(t, sent.Message.Seq+1, sent.Replies[0].Seq)
						question, _ := sent.Message.Message()
						answer, _ := sent.Replies[0].Message()
						assert.Equal(t, question.ID, answer.InReplyTo)
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
		s := serve(t, store.NewMemory(limits), slow)
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
		isBusy(t, err)
		require.Equal(t, settings.TurnWait, time.Since(began))
		first.Wait()
		require.Len(t, history(t, s, id), 6, "a refused message was stored")
	})
}

func TestThoseWhoWaitAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, store.NewMemory(limits), slow)
		id := start(t, s)
		var all sync.WaitGroup
		var want []string
		for i := range 9 {
			text := fmt.Sprintf("%dms", 1000+i)
			all.Go(func() {
				_, err := s.Send(t.Context(), alice, id, say(text))
				assert.NoError(t, err)
			})
			want = append(want, "user "+text+" complete", "assistant done complete")
			synctest.Wait()
		}
		ctx, hangUp := context.WithCancel(t.Context())
		time.AfterFunc(500*time.Millisecond, hangUp)
		began := time.Now()
		_, err := s.Send(ctx, alice, id, say("gone"))
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 500*time.Millisecond, time.Since(began))
		all.Wait()
		require.Equal(t, want, history(t, s, id))
	})
}

// Another process is another Service over the same store.
func TestTurnsOfAnotherProcessAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		one, two := serve(t, memory, slow), serve(t, memory, slow)
		id := start(t, one)
		var first sync.WaitGroup
		first.Go(func() {
			_, err := one.Send(t.Context(), alice, id, say("5s"))
			assert.NoError(t, err)
		})
		synctest.Wait()
		began := time.Now()
		_, err := two.Send(t.Context(), alice, id, say("6s"))
		require.NoError(t, err)
		require.InDelta(t, 11, time.Since(began).Seconds(), 0.3)
		first.Wait()
		require.Len(t, history(t, one, id), 4)
	})
}

func theirs() chat.Begin {
	return chat.Begin{
		MessageID: "01890a5d-ac96-774b-bcce-b302099a8057", Token: "theirs", Lease: settings.TurnLease,
		JSON: []byte(`{"id":"01890a5d-ac96-774b-bcce-b302099a8057","role":"user","kind":"text","text":"theirs"}`),
	}
}

func TestATurnOfAnotherProcessThatTakesTooLongIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		s := serve(t, memory, agent.Echo{})
		id := start(t, s)
		_, err := memory.Begin(t.Context(), alice.Owner, id, theirs())
		require.NoError(t, err)
		began := time.Now()
		_, err = s.Send(t.Context(), alice, id, say("mine"))
		isBusy(t, err)
		require.Equal(t, settings.TurnWait, time.Since(began))
		ctx, hangUp := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, hangUp)
		_, err = s.Send(ctx, alice, id, say("gone"))
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, []string{"user theirs pending"}, history(t, s, id))

		time.Sleep(settings.TurnLease - settings.TurnWait - 2*time.Second)
		_, err = s.Send(t.Context(), alice, id, say("mine"))
		require.NoError(t, err, "it did not wait for the end of the lease")
		require.Equal(t, []string{"user theirs failed", "user mine complete", "assistant mine complete"}, history(t, s, id))
	})
}

func TestWithoutWaitingAFreeTurnIsTakenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := settings
		now.TurnWait = 0
		asked := make(chan struct{})
		s := serveWith(t, store.NewMemory(limits), agentFunc(func(_ context.Context, q chat.Question) (chat.Reply, error) {
			if q.Message.Text == "wait" {
				<-asked
			}
			return chat.Reply{}, nil
		}), now, slog.DiscardHandler)
		id := start(t, s)
		for range 1000 {
			_, err := s.Send(t.Context(), alice, id, say("hello"))
			require.NoError(t, err)
			_, err = s.Start(t.Context(), alice, chat.Opening{Idempotency: chat.Idempotency{Key: chat.NewMessageID(1)}})
			require.NoError(t, err)
		}
		var first sync.WaitGroup
		first.Go(func() {
			_, err := s.Send(t.Context(), alice, id, say("wait"))
			assert.NoError(t, err)
		})
		synctest.Wait()
		began := time.Now()
		_, err := s.Send(t.Context(), alice, id, say("refused"))
		isBusy(t, err)
		require.Zero(t, time.Since(began))
		close(asked)
		first.Wait()
	})
}

func TestALongTurnKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		between := &between{Store: store.NewMemory(limits)}
		s := serve(t, between, slow)
		id := start(t, s)
		_, err := s.Send(t.Context(), alice, id, say("199s"))
		require.NoError(t, err)
		require.Equal(t, []string{"user 199s complete", "assistant done complete"}, history(t, s, id))
		require.InDelta(t, 198, between.count("append"), 1, "not every second")
		require.Equal(t, int64(1), between.finished.Seq, "the store cannot recognise a repetition")
	})
}

func TestACallerThatHangsUpStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, store.NewMemory(limits), slow)
		id := start(t, s)
		ctx, hangUp := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		time.AfterFunc(time.Second, func() { hangUp(gone) })
		began := time.Now()
		_, err := s.Send(ctx, alice, id, say("2s"))
		require.ErrorIs(t, err, gone)
		require.Equal(t, time.Second, time.Since(began), "it was not returned at once")
		require.Equal(t, []string{"user 2s pending"}, history(t, s, id))
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []string{"user 2s complete", "assistant done complete"}, history(t, s, id))
	})
}

func TestACallThatBeganATurnIsNotCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, hangUp := context.WithCancel(t.Context())
		s := serve(t, &between{Store: store.NewMemory(limits), before: func(ctx context.Context, call string) error {
			if call == "begin" || call == "finish" {
				hangUp()
				assert.NoError(t, ctx.Err(), call)
			}
			return nil
		}}, agent.Echo{})
		id := start(t, s)
		_, err := s.Send(ctx, alice, id, say("hello"))
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		require.Equal(t, []string{"user hello complete", "assistant hello complete"}, history(t, s, id))
	})
}

func TestAFailingAgentLeavesTheMessageAsFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, store.NewMemory(limits), agentFunc(func(ctx context.Context, q chat.Question) (chat.Reply, error) {
			if q.Message.Text == "slow" {
				<-ctx.Done()
				return chat.Reply{}, ctx.Err()
			}
			return saying("half an answer"), errors.New("cannot")
		}))
		id := start(t, s)
		_, err := s.Send(t.Context(), alice, id, say("fail"))
		require.ErrorIs(t, err, chat.ErrAgentFailed)
		require.ErrorContains(t, err, "cannot", "the log is not told why")
		began := time.Now()
		_, err = s.Send(t.Context(), alice, id, say("slow"))
		require.ErrorIs(t, err, chat.ErrAgentTimeout)
		require.Equal(t, settings.AgentTimeout, time.Since(began))
		require.Equal(t, []string{"user fail failed", "assistant half an answer partial", "user slow failed"}, history(t, s, id))
	})
}

func TestAnAgentSaysWhyItFailed(t *testing.T) {
	forbidden := &chat.Failure{Code: "agent_forbidden", RetryAfter: time.Minute, Claims: "e30=", Err: errors.New("secret words")}
	for name, c := range map[string]struct {
		err          error
		want, replay *chat.Failure
	}{
		"a failure":                   {forbidden, forbidden, &chat.Failure{Code: "agent_forbidden"}},
		"a failure that is wrapped":   {fmt.Errorf("agent: %w", forbidden), forbidden, &chat.Failure{Code: "agent_forbidden"}},
		"a failure without a code":    {&chat.Failure{}, chat.ErrAgentFailed, chat.ErrAgentFailed},
		"a failure that is our own":   {chat.ErrNotAsked, chat.ErrAgentFailed, chat.ErrAgentFailed},
		"its own deadline":            {context.DeadlineExceeded, chat.ErrAgentFailed, chat.ErrAgentFailed},
		"a conversation that is lost": {chat.ErrNotFound, chat.ErrAgentFailed, chat.ErrAgentFailed},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, store.NewMemory(limits), agentFunc(func(context.Context, chat.Question) (chat.Reply, error) {
				return chat.Reply{}, c.err
			}))
			id := start(t, s)
			_, err := s.Send(t.Context(), alice, id, keyed("key", "hello"))
			failure, ok := errors.AsType[*chat.Failure](err)
			require.True(t, ok)
			require.Equal(t, c.want.Code, failure.Code)
			require.Equal(t, c.want.RetryAfter, failure.RetryAfter)
			require.Equal(t, c.want.Claims, failure.Claims)

			_, err = s.Send(t.Context(), alice, id, keyed("key", "hello"))
			replayed, ok := errors.AsType[*chat.ReplayedError](err)
			require.True(t, ok)
			require.Equal(t, c.replay, replayed.Err, "more was stored than the code")
		})
	}
}

func TestATurnThatIsTakenOverStopsItsAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		between := &between{Store: store.NewMemory(limits)}
		s := serve(t, between, slow)
		id := start(t, s)
		lost := make(chan error)
		go func() {
			_, err := s.Send(t.Context(), alice, id, say("100s"))
			lost <- err
		}()
		synctest.Wait()
		_, err := between.Store.Finish(t.Context(), alice.Owner, id, chat.Finish{Token: between.begun.Token, State: chat.Failed})
		require.NoError(t, err)
		_, err = between.Store.Begin(t.Context(), alice.Owner, id, theirs())
		require.NoError(t, err)
		began := time.Now()
		require.ErrorIs(t, <-lost, chat.ErrTurnLost)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, []string{"user 100s failed", "user theirs pending"}, history(t, s, id))
	})
}

func TestALeaseThatCannotBeRenewedEndsTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &between{Store: store.NewMemory(limits), before: func(_ context.Context, call string) error {
			if call == "append" {
				return chat.ErrUnavailable
			}
			return nil
		}}, slow)
		id := start(t, s)
		began := time.Now()
		_, err := s.Send(t.Context(), alice, id, say("100s"))
		require.ErrorIs(t, err, chat.ErrTurnLost)
		require.Equal(t, settings.TurnLease, time.Since(began))
		require.Equal(t, []string{"user 100s failed"}, history(t, s, id))
	})
}

func TestALeaseThatIsRenewedInTimeIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		between := &between{Store: store.NewMemory(limits)}
		between.before = func(_ context.Context, call string) error {
			if call == "append" && between.count("append")%2 == 1 {
				return chat.ErrUnavailable
			}
			return nil
		}
		s := serve(t, between, slow)
		_, err := s.Send(t.Context(), alice, start(t, s), say("190s"))
		require.NoError(t, err)
	})
}

func TestAConversationThatIsGoneUnderItsTurnIsNotFound(t *testing.T) {
	for name, a := range map[string]chat.Agent{
		"when the lease is renewed": slow,
		"when the answer is stored": agentFunc(func(context.Context, chat.Question) (chat.Reply, error) {
			time.Sleep(600 * time.Millisecond)
			return saying("late"), nil
		}),
		"when the agent fails": agentFunc(func(context.Context, chat.Question) (chat.Reply, error) {
			time.Sleep(600 * time.Millisecond)
			return chat.Reply{}, errors.New("cannot")
		}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				short := limits
				short.TTL = 500 * time.Millisecond
				s := serve(t, store.NewMemory(short), a)
				began := time.Now()
				_, err := s.Send(t.Context(), alice, start(t, s), say("100s"))
				require.ErrorIs(t, err, chat.ErrNotFound)
				_, isFailure := errors.AsType[*chat.Failure](err)
				require.False(t, isFailure, "it says that the message is kept")
				require.LessOrEqual(t, time.Since(began), time.Second)
			})
		})
	}
}

// deep calls do under a deep stack.
func deep(n int, do func()) {
	if n > 0 {
		deep(n-1, do)
		return
	}
	do()
}

func TestThePanicOfAnAgentFailsItsTurnAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails when a goroutine is left
		var log buffer
		s := serveWith(t, store.NewMemory(limits), agentFunc(func(_ context.Context, q chat.Question) (chat.Reply, error) {
			if q.Message.Text != "fine" {
				deep(100, func() { panic("cannot answer " + q.Message.Text) })
			}
			return saying("fine"), nil
		}), settings, slog.NewTextHandler(&log, nil))
		id := start(t, s)
		began := time.Now()
		_, err := s.Send(t.Context(), alice, id, say("my secret"))
		require.ErrorIs(t, err, chat.ErrAgentFailed)
		require.ErrorContains(t, err, "panic: string")
		require.Zero(t, time.Since(began), "the turn was left to its lease")
		_, err = s.Send(t.Context(), alice, id, say("fine"))
		require.NoError(t, err)
		require.Equal(t, []string{"user my secret failed", "user fine complete", "assistant fine complete"}, history(t, s, id))

		require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"))
		require.Contains(t, log.String(), "turn_test.go", "it does not say where")
		require.NotContains(t, log.String(), "my secret")
		require.Less(t, len(log.String()), 6000)
	})
}

func TestThePanicOfAStoreFailsItsTurnAlone(t *testing.T) {
	for call, want := range map[string][]string{
		"begin":  nil,
		"append": {"user 15s failed"},
		"finish": {"user 15s failed"},
	} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log buffer
				var broken atomic.Bool
				s := serveWith(t, &between{Store: store.NewMemory(limits), before: func(_ context.Context, name string) error {
					if name == call && broken.CompareAndSwap(true, false) {
						panic("bug")
					}
					return nil
				}}, slow, settings, slog.NewTextHandler(&log, nil))
				id := start(t, s)
				broken.Store(true)
				_, err := s.Send(t.Context(), alice, id, say("15s"))
				require.ErrorContains(t, err, "panic: string")
				_, isFailure := errors.AsType[*chat.Failure](err)
				require.False(t, isFailure, "the agent is blamed")
				require.Equal(t, want, history(t, s, id))
				require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"))
				_, err = s.Send(t.Context(), alice, id, say("1s"))
				require.NoError(t, err)
			})
		})
	}
}

func TestAStoreThatAlwaysPanicsLeavesTheTurnToItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &between{Store: store.NewMemory(limits), before: func(_ context.Context, name string) error {
			if name == "finish" {
				panic("bug")
			}
			return nil
		}}, slow)
		id := start(t, s)
		_, err := s.Send(t.Context(), alice, id, say("1s"))
		require.ErrorContains(t, err, "panic: string")
		time.Sleep(settings.TurnLease)
		require.Equal(t, []string{"user 1s failed"}, history(t, s, id))
	})
}

func TestThePanicAfterTheReplyOfBeginIsTakenUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		s := serve(t, &between{Store: store.NewMemory(limits), after: func(_ context.Context, name string) error {
			if name == "begin" && broken.CompareAndSwap(true, false) {
				panic("bug")
			}
			return nil
		}}, agent.Echo{})
		id := start(t, s)
		broken.Store(true)
		_, err := s.Send(t.Context(), alice, id, keyed("key", "hello"))
		require.ErrorContains(t, err, "panic: string")
		synctest.Wait()
		_, err = s.Send(t.Context(), alice, id, keyed("key", "hello"))
		require.NoError(t, err)
		require.Equal(t, []string{"user hello complete", "assistant hello complete"}, history(t, s, id))
	})
}

// witness tells whom and what it is asked.
type witness struct {
	agent.Echo
	callers   *[]chat.Caller
	questions *[]chat.Question
}

func (w witness) Answer(_ context.Context, c chat.Caller, q chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	*w.callers, *w.questions = append(*w.callers, c), append(*w.questions, q)
	emit(chat.Event{Kind: chat.DeltaEvent, Text: "nobody reads this"})
	reply := saying("a")
	reply.Messages = append(reply.Messages, chat.Message{Kind: chat.AdaptiveCard, CardJSON: []byte(`{}`)})
	reply.AgentRef, reply.ExternalID = fmt.Sprintf("ref %d", len(*w.questions)), "external"
	return reply, nil
}

func TestTheAgentIsGivenTheCallerContextAndItsOwnState(t *testing.T) {
	var callers []chat.Caller
	var questions []chat.Question
	s := serve(t, store.NewMemory(limits), witness{callers: &callers, questions: &questions})
	id := start(t, s)
	for _, text := range []string{"one", "two"} {
		_, err := s.Send(t.Context(), alice, id, say(text))
		require.NoError(t, err)
	}
	require.Equal(t, []chat.Caller{alice, alice}, callers)
	require.Empty(t, questions[0].AgentRef)
	require.Empty(t, questions[0].History)
	require.Equal(t, id, questions[1].ConversationID)
	require.Equal(t, "ref 1", questions[1].AgentRef)
	require.Equal(t, "external", questions[1].ExternalID)
	require.Len(t, questions[1].History, 3)
	require.Equal(t, "one", read(t, questions[1].History[0]).Text)
	require.Equal(t, "two", questions[1].Message.Text)
	require.Equal(t, chat.User, questions[1].Message.Role)
}

func TestAnAgentIsGivenNoMoreContextThanItIsToHave(t *testing.T) {
	none, little := settings, settings
	none.Context, little.ContextBytes = 0, 1
	for name, with := range map[string]chat.Settings{"messages": none, "bytes": little} {
		t.Run(name, func(t *testing.T) {
			between := &between{Store: store.NewMemory(limits)}
			s := serveWith(t, between, agent.Echo{}, with, slog.DiscardHandler)
			_, err := s.Send(t.Context(), alice, start(t, s), say("hello"))
			require.NoError(t, err)
			require.Equal(t, with.Context, between.begun.Context)
			require.Equal(t, with.ContextBytes, between.begun.ContextBytes)
		})
	}
}

func TestOnlyARequestWithANameIsRecorded(t *testing.T) {
	between := &between{Store: store.NewMemory(limits)}
	s := serve(t, between, agent.Echo{})
	id, messageID := start(t, s), "01890a5d-ac96-774b-bcce-b302099a8057"
	for _, c := range []struct {
		in   chat.Input
		want []string
	}{
		{say("hello"), nil},
		{keyed("k", "hello"), []string{"key:k"}},
		{chat.Input{Text: new("hello"), MessageID: &messageID}, []string{"message:" + messageID}},
	} {
		_, err := s.Send(t.Context(), alice, id, c.in)
		require.NoError(t, err)
		var names []string
		for _, r := range between.begun.Records {
			require.Equal(t, settings.IdempotencyTTL, r.TTL)
			names = append(names, r.Name)
		}
		require.Equal(t, c.want, names)
	}
}

func TestAMessageIDThatIsTaken(t *testing.T) {
	var taken atomic.Bool
	s := serve(t, &between{Store: store.NewMemory(limits), before: func(_ context.Context, call string) error {
		if call == "begin" && taken.Load() {
			return chat.ErrMessageIDTaken
		}
		return nil
	}}, agent.Echo{})
	id := start(t, s)
	taken.Store(true)
	in := say("hello")
	_, err := s.Send(t.Context(), alice, id, in)
	require.ErrorIs(t, err, chat.ErrTurnLost, "the caller is told of an id that it did not choose")
	in.MessageID = new("01890a5d-ac96-774b-bcce-b302099a8057")
	_, err = s.Send(t.Context(), alice, id, in)
	require.ErrorIs(t, err, chat.ErrMessageIDTaken)
}

func TestARepeatedSendIsDoneOnce(t *testing.T) {
	id1, id2 := "01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8058"
	text := "question"
	for name, in := range map[string]chat.Input{
		"by its key":        {Idempotency: chat.Idempotency{Key: "key", Fingerprint: "r"}, Text: &text},
		"by its message id": {Idempotency: chat.Idempotency{Fingerprint: "r"}, MessageID: &id1, Text: &text},
		"by both":           {Idempotency: chat.Idempotency{Key: "key", Fingerprint: "r"}, MessageID: &id1, Text: &text},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				s := serve(t, store.NewMemory(limits), agentFunc(func(context.Context, chat.Question) (chat.Reply, error) {
					asked++
					time.Sleep(5 * time.Second)
					return saying("a", "b"), nil
				}))
				id := start(t, s)
				var all sync.WaitGroup
				var sent [3]chat.Sent
				for i := range sent {
					all.Go(func() {
						var err error
						sent[i], err = s.Send(t.Context(), alice, id, in)
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
				if in.MessageID != nil {
					require.Equal(t, id1, read(t, sent[0].Message).ID)
				}
				require.Equal(t, []string{"user question complete", "assistant a complete", "assistant b complete"}, history(t, s, id))

				other := in
				other.Idempotency.Fingerprint = "another"
				_, err := s.Send(t.Context(), alice, id, other)
				require.ErrorIs(t, err, chat.ErrKeyReused)
				time.Sleep(settings.IdempotencyTTL)
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
		s := serve(t, store.NewMemory(limits), agentFunc(func(ctx context.Context, _ chat.Question) (chat.Reply, error) {
			if fail == nil {
				<-ctx.Done()
				return chat.Reply{}, ctx.Err()
			}
			return chat.Reply{}, fail
		}))
		id := start(t, s)
		for _, c := range []struct {
			key       string
			fail, err error
		}{{"fails", errors.New("broken"), chat.ErrAgentFailed}, {"takes too long", nil, chat.ErrAgentTimeout}} {
			fail = c.fail
			_, err := s.Send(t.Context(), alice, id, keyed(c.key, "question"))
			require.ErrorIs(t, err, c.err)
			fail = errors.New("asked again")
			_, err = s.Send(t.Context(), alice, id, keyed(c.key, "question"))
			require.ErrorIs(t, err, c.err)
			_, isReplayed := errors.AsType[*chat.ReplayedError](err)
			require.True(t, isReplayed)
		}
		require.Equal(t, []string{"user question failed", "user question failed"}, history(t, s, id))
	})
}

// A question that the agent did not take is asked again by its own request, when the agent is less busy or the user has signed in anew.
func TestATurnThatWasNotTakenIsTakenUpAgain(t *testing.T) {
	for _, failure := range []*chat.Failure{{Code: "agent_busy", RetryAfter: time.Second}, {Code: "insufficient_claims", Claims: "e30="}} {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			s := serve(t, store.NewMemory(limits), agentFunc(func(context.Context, chat.Question) (chat.Reply, error) {
				if asked++; asked <= 2 {
					return chat.Reply{}, failure
				}
				return saying("taken"), nil
			}))
			id := start(t, s)
			_, err := s.Send(t.Context(), alice, id, keyed("key", "question"))
			require.ErrorIs(t, err, failure)
			stream := tell(t, s, id, keyed("key", "question"))
			require.False(t, stream.Replayed)
			events := restOf(t, stream)
			require.Equal(t, chat.EventID{Seq: 1, N: 20_001}, events[0].ID)
			told, _ := errors.AsType[*chat.Failure](events[1].Err)
			require.Equal(t, failure, told)

			sent, err := s.Send(t.Context(), alice, id, keyed("key", "question"))
			require.NoError(t, err)
			require.False(t, sent.Replayed)
			require.Equal(t, []string{"user question complete", "assistant taken complete"}, history(t, s, id))
			again, err := s.Send(t.Context(), alice, id, keyed("key", "question"))
			require.NoError(t, err)
			require.True(t, again.Replayed)
			require.Equal(t, 3, asked)
		})
	}
}

func TestARepeatOfATurnThatWasLostSaysSo(t *testing.T) {
	for name, failure := range map[string]string{"its process ended": "", "its agent was not asked": chat.ErrNotAsked.Code} {
		t.Run(name, func(t *testing.T) {
			memory := store.NewMemory(limits)
			s := serve(t, memory, agent.Echo{})
			id := start(t, s)
			lost := theirs()
			lost.Records = []chat.IdempotencyRecord{{Name: "key:key", Fingerprint: "hello", TTL: time.Hour}}
			_, err := memory.Begin(t.Context(), alice.Owner, id, lost)
			require.NoError(t, err)
			_, err = memory.Finish(t.Context(), alice.Owner, id,
				chat.Finish{Token: lost.Token, Seq: 1, Records: lost.Records, State: chat.Failed, Failure: failure})
			require.NoError(t, err)
			_, err = s.Send(t.Context(), alice, id, say("another"))
			require.NoError(t, err)

			_, err = s.Send(t.Context(), alice, id, keyed("key", "hello"))
			replayed, ok := errors.AsType[*chat.ReplayedError](err)
			require.True(t, ok)
			require.Equal(t, chat.ErrTurnLost, replayed.Err)
		})
	}
}

func TestAReplayNeverWaitsForARunningTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		between := &between{Store: store.NewMemory(limits)}
		s := serve(t, between, slow)
		id := start(t, s)
		_, err := s.Send(t.Context(), alice, id, keyed("key", "1s"))
		require.NoError(t, err)
		var running sync.WaitGroup
		for range 2 { // one runs, one waits for it
			running.Go(func() {
				_, err := s.Send(t.Context(), alice, id, say("5s"))
				assert.NoError(t, err)
			})
			synctest.Wait()
		}
		began, begins := time.Now(), between.count("begin")
		sent, err := s.Send(t.Context(), alice, id, keyed("key", "1s"))
		require.NoError(t, err)
		require.True(t, sent.Replayed)
		require.Zero(t, time.Since(began))
		require.Equal(t, begins+1, between.count("begin"))
		running.Wait()
	})
}

func TestARepeatJoinsItsRunningTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		between := &between{Store: store.NewMemory(limits)}
		s := serve(t, between, slow)
		id := start(t, s)
		var all sync.WaitGroup
		send := func(in chat.Input, takes time.Duration) {
			all.Go(func() {
				began := time.Now()
				_, _ = s.Send(t.Context(), alice, id, in)
				assert.Equal(t, takes, time.Since(began))
			})
			synctest.Wait()
		}
		send(keyed("key", "5s"), 5*time.Second)
		send(say("100s"), 105*time.Second) // these wait before the repeat does:
		send(say("1s"), settings.TurnWait) // it is not queued behind them
		begins := between.count("begin")
		send(keyed("key", "5s"), 5*time.Second)
		time.Sleep(4 * time.Second)
		require.Equal(t, begins+1, between.count("begin"), "the store is polled")
		all.Wait()
		require.Equal(t, []string{"user 5s complete", "assistant done complete", "user 100s complete", "assistant done complete"}, history(t, s, id))
	})
}

func TestARepeatWaitsForItsTurnNoLongerThanForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, store.NewMemory(limits), slow)
		id := start(t, s)
		var first sync.WaitGroup
		first.Go(func() {
			_, err := s.Send(t.Context(), alice, id, keyed("key", "20s"))
			assert.NoError(t, err)
		})
		synctest.Wait()
		began := time.Now()
		_, err := s.Send(t.Context(), alice, id, keyed("key", "20s"))
		isBusy(t, err)
		require.Equal(t, settings.TurnWait, time.Since(began))
		first.Wait()
	})
}

func TestARetryAfterAnOutageGetsItsAnswer(t *testing.T) {
	for where, begins := range map[string]struct{ call, reply string }{
		"begin":               {call: "begin"},
		"the reply of begin":  {reply: "begin"},
		"finish":              {call: "finish"},
		"the reply of finish": {reply: "finish"},
	} {
		t.Run("it begins with "+where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var isDown, isOver atomic.Bool
				outage := func(at string) func(context.Context, string) error {
					return func(_ context.Context, call string) error {
						isDown.CompareAndSwap(false, call == at && !isOver.Load())
						if isDown.Load() {
							return chat.ErrUnavailable
						}
						return nil
					}
				}
				s := serve(t, &between{Store: store.NewMemory(limits), before: outage(begins.call), after: outage(begins.reply)}, agent.Echo{})
				id := start(t, s)
				_, err := s.Send(t.Context(), alice, id, keyed("key", "question"))
				require.ErrorIs(t, err, chat.ErrUnavailable)
				time.Sleep(2 * time.Second)
				isOver.Store(true)
				isDown.Store(false)
				began := time.Now()
				sent, err := s.Send(t.Context(), alice, id, keyed("key", "question"))
				require.NoError(t, err)
				require.Less(t, time.Since(began), 2*time.Second, "it waited for the lease")
				require.Equal(t, "question", read(t, sent.Replies[0]).Text)
				require.Equal(t, []string{"user question complete", "assistant question complete"}, history(t, s, id))
				time.Sleep(settings.TurnLease)
				require.Equal(t, []string{"user question complete", "assistant question complete"}, history(t, s, id))
			})
		})
	}
}

func TestRetriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var isDown atomic.Bool
		between := &between{Store: store.NewMemory(limits), before: func(context.Context, string) error {
			if isDown.Load() {
				return chat.ErrUnavailable
			}
			return nil
		}}
		s := serve(t, between, agent.Echo{})
		id := start(t, s)
		for range 2 { // what has ended leaves room
			isDown.Store(true)
			finishes := between.count("finish")
			for range 300 {
				_, err := s.Send(t.Context(), alice, id, say("hello"))
				require.ErrorIs(t, err, chat.ErrUnavailable)
			}
			synctest.Wait()
			require.Equal(t, 256, between.count("finish")-finishes, "of calls that may not have reached the store")
			time.Sleep(settings.TurnLease)
			synctest.Wait()
			finishes = between.count("finish")
			time.Sleep(time.Minute)
			require.Equal(t, finishes, between.count("finish"), "after the lease")
			isDown.Store(false)
		}
	})
}

func TestCloseWaitsForRunningTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, store.NewMemory(limits), slow)
		id := start(t, s)
		ctx, hangUp := context.WithCancel(t.Context())
		go func() { _, _ = s.Send(ctx, alice, id, say("5s")) }()
		synctest.Wait()
		hangUp()
		began := time.Now()
		grace, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s.Close(grace)
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, []string{"user 5s complete", "assistant done complete"}, history(t, s, id))
	})
}

func TestCloseEndsTheTurnsThatOutlastItsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		s := serve(t, &between{Store: memory, before: func(ctx context.Context, call string) error {
			if call == "finish" {
				assert.NoError(t, ctx.Err())
			}
			return nil
		}}, slow)
		id := start(t, s)
		lost := make(chan error, 1)
		go func() {
			_, err := s.Send(t.Context(), alice, id, keyed("key", "50s"))
			lost <- err
		}()
		synctest.Wait()
		began := time.Now()
		grace, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s.Close(grace)
		require.Equal(t, 10*time.Second, time.Since(began))
		require.ErrorIs(t, <-lost, chat.ErrTurnLost)
		require.Equal(t, []string{"user 50s failed"}, history(t, s, id))

		_, err := s.Send(t.Context(), alice, id, keyed("late", "1s"))
		require.ErrorIs(t, err, chat.ErrUnavailable)
		_, err = s.Start(t.Context(), alice, chat.Opening{})
		require.ErrorIs(t, err, chat.ErrUnavailable)
		sent, err := serve(t, memory, slow).Send(t.Context(), alice, id, keyed("late", "1s"))
		require.NoError(t, err, "another process cannot take up what this one no longer began")
		require.Equal(t, int64(2), sent.Message.Seq)
		require.Equal(t, []string{"user 50s failed", "user 1s complete", "assistant done complete"}, history(t, s, id))
		s.Close(t.Context())
	})
}

func TestCloseStopsWhatIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &between{Store: store.NewMemory(limits), before: func(_ context.Context, call string) error {
			if call == "finish" {
				return chat.ErrUnavailable
			}
			return nil
		}}, agent.Echo{})
		_, err := s.Send(t.Context(), alice, start(t, s), say("hello"))
		require.ErrorIs(t, err, chat.ErrUnavailable)
		time.Sleep(time.Second)
		began := time.Now()
		s.Close(t.Context())
		require.Zero(t, time.Since(began))
	})
}
