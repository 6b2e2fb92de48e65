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

// opening opens after a time, or ends with ctx.
func opening(takes time.Duration) greeter {
	return greeter{open: func(ctx context.Context) (chat.Reply, error) {
		select {
		case <-time.After(takes):
			return saying("Welcome"), nil
		case <-ctx.Done():
			return chat.Reply{}, ctx.Err()
		}
	}}
}

func keyedOpening() chat.Opening {
	return chat.Opening{
		Idempotency: chat.Idempotency{Key: "key", Fingerprint: "r"}, Title: "Trip", Metadata: map[string]string{"to": "Rome"},
	}
}

func conversations(t *testing.T, s *chat.Service) int {
	t.Helper()
	all, _, err := s.ListConversations(t.Context(), alice.Owner, chat.List{Limit: 100})
	require.NoError(t, err)
	return len(all)
}

func TestTheGreetingIsStored(t *testing.T) {
	between := &between{Store: store.NewMemory(limits)}
	s := serve(t, between, greeter{open: func(context.Context) (chat.Reply, error) {
		reply := saying("Welcome", "How can I help?")
		reply.ExternalID = "external"
		return reply, nil
	}})
	started, err := s.Start(t.Context(), alice, chat.Opening{Title: "x"})
	require.NoError(t, err)
	require.Equal(t, "external", started.Conversation.ExternalID)
	require.Equal(t, alice.ObjectID, started.Conversation.ObjectID)
	_, messages, err := s.Get(t.Context(), alice.Owner, started.Conversation.ID, chat.Page{Limit: 10})
	require.NoError(t, err)
	require.Equal(t, messages, started.Messages)
	require.Equal(t, "How can I help?", read(t, messages[1]).Text)
	require.Equal(t, chat.NewMessageID(2)[30:], read(t, messages[1]).ID[30:], "the id does not tell its place")
	require.Zero(t, between.count("claim"), "a start without a key has claimed one")
}

func TestAnAgentThatCannotBeOpenedLeavesNoConversation(t *testing.T) {
	busy := &chat.Failure{Code: "agent_busy", RetryAfter: time.Minute}
	var log buffer
	for name, c := range map[string]struct {
		open func(context.Context) (chat.Reply, error)
		want error
	}{
		"an error":  {func(context.Context) (chat.Reply, error) { return saying("a"), errors.New("cannot") }, chat.ErrAgentFailed},
		"a failure": {func(context.Context) (chat.Reply, error) { return chat.Reply{}, fmt.Errorf("open: %w", busy) }, busy},
		"a panic":   {func(context.Context) (chat.Reply, error) { panic("bug") }, chat.ErrAgentFailed},
		"time":      {opening(time.Hour).open, chat.ErrAgentTimeout},
	} {
		for _, o := range []chat.Opening{{}, keyedOpening()} {
			t.Run(name+" "+o.Idempotency.Key, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					memory := store.NewMemory(limits)
					s := serveWith(t, memory, greeter{open: c.open}, settings, slog.NewTextHandler(&log, nil))
					began := time.Now()
					_, err := s.Start(t.Context(), alice, o)
					require.ErrorIs(t, err, c.want)
					require.LessOrEqual(t, time.Since(began), settings.AgentTimeout)
					require.Zero(t, conversations(t, s))

					began = time.Now()
					_, err = serve(t, memory, agent.Echo{}).Start(t.Context(), alice, o)
					require.NoError(t, err)
					require.Zero(t, time.Since(began), "a start that failed holds its key")
				})
			})
		}
	}
	require.Equal(t, 2, strings.Count(log.String(), "level=ERROR"), "a panic is not logged once")
}

func TestThePanicOfAStoreFailsItsStartAlone(t *testing.T) {
	for _, at := range []string{"claim", "start"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var isDone atomic.Bool
				s := serve(t, &between{Store: store.NewMemory(limits), after: func(_ context.Context, call string) error {
					if call == at && isDone.CompareAndSwap(false, true) {
						panic("bug")
					}
					return nil
				}}, agent.Echo{})
				_, err := s.Start(t.Context(), alice, keyedOpening())
				require.ErrorContains(t, err, "panic: string")
				synctest.Wait()
				began := time.Now()
				_, err = s.Start(t.Context(), alice, keyedOpening())
				require.NoError(t, err)
				require.Zero(t, time.Since(began), "it waited for the lease")
				require.Equal(t, 1, conversations(t, s))
			})
		})
	}
}

func TestARepeatedStartIsDoneOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		between := &between{Store: store.NewMemory(limits)}
		opened := 0
		s := serve(t, between, greeter{open: func(ctx context.Context) (chat.Reply, error) {
			opened++
			return opening(50 * time.Second).open(ctx)
		}})
		o := keyedOpening()
		var first chat.Started
		var running sync.WaitGroup
		running.Go(func() {
			var err error
			first, err = s.Start(t.Context(), alice, o)
			assert.NoError(t, err)
		})
		time.Sleep(settings.TurnLease + time.Second)
		began := time.Now()
		_, err := s.Start(t.Context(), alice, o)
		isBusy(t, err)
		require.Equal(t, settings.TurnWait, time.Since(began))
		running.Wait()
		_, err = s.Send(t.Context(), alice, first.Conversation.ID, say("hello"))
		require.NoError(t, err)
		again, err := s.Start(t.Context(), alice, o)
		require.NoError(t, err)
		require.True(t, again.Replayed)
		again.Replayed = false
		require.Equal(t, first, again)
		require.Equal(t, 1, opened)

		o.Idempotency.Fingerprint = "another"
		_, err = s.Start(t.Context(), alice, o)
		require.ErrorIs(t, err, chat.ErrKeyReused)
	})
}

// paged is a store whose pages are shorter than asked for, as those of large messages are.
type paged struct{ chat.Store }

func (p paged) Get(ctx context.Context, owner chat.Owner, id string, page chat.Page) (chat.Conversation, []chat.StoredMessage, error) {
	page.Limit = min(page.Limit, 2)
	return p.Store.Get(ctx, owner, id, page)
}

func TestALargeGreetingIsReplayedWhole(t *testing.T) {
	s := serve(t, paged{store.NewMemory(limits)}, greeter{open: func(context.Context) (chat.Reply, error) {
		return saying("a", "b", "c", "d", "e"), nil
	}})
	first, err := s.Start(t.Context(), alice, keyedOpening())
	require.NoError(t, err)
	again, err := s.Start(t.Context(), alice, keyedOpening())
	require.NoError(t, err)
	require.Len(t, again.Messages, 5)
	require.Equal(t, first.Messages, again.Messages)
}

func TestAStartGoesOnWhenItsCallerHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, store.NewMemory(limits), opening(5*time.Second))
		ctx, hangUp := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, hangUp)
		began := time.Now()
		_, err := s.Start(ctx, alice, keyedOpening())
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, time.Second, time.Since(began))
		started, err := s.Start(t.Context(), alice, keyedOpening())
		require.NoError(t, err)
		require.True(t, started.Replayed)
		require.Equal(t, 1, conversations(t, s))
	})
}

func TestAClaimThatIsLostEndsTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		claims := 0
		s := serve(t, &between{Store: store.NewMemory(limits), before: func(_ context.Context, call string) error {
			if call == "claim" {
				if claims++; claims > 1 {
					return &chat.BusyError{Left: time.Minute} // another process holds it
				}
			}
			return nil
		}}, opening(time.Minute))
		began := time.Now()
		_, err := s.Start(t.Context(), alice, keyedOpening())
		require.ErrorIs(t, err, chat.ErrTurnLost)
		require.Equal(t, settings.TurnLease/3, time.Since(began))
		require.Zero(t, conversations(t, s))
	})
}

func TestAStartThatAnOutageCutsOffIsDoneAgain(t *testing.T) {
	for _, at := range []string{"claim", "start"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var isDown, isOver atomic.Bool
				s := serve(t, &between{Store: store.NewMemory(limits), after: func(_ context.Context, call string) error {
					if isDown.CompareAndSwap(false, call == at && !isOver.Load()); isDown.Load() {
						time.Sleep(time.Second)
						return chat.ErrUnavailable
					}
					return nil
				}}, agent.Echo{})
				began := time.Now()
				_, err := s.Start(t.Context(), alice, keyedOpening())
				require.ErrorIs(t, err, chat.ErrUnavailable)
				require.Equal(t, time.Second, time.Since(began), "it waited for the claim to be given up")
				isOver.Store(true)
				isDown.Store(false)
				time.Sleep(2 * time.Second)
				began = time.Now()
				_, err = s.Start(t.Context(), alice, keyedOpening())
				require.NoError(t, err)
				require.Less(t, time.Since(began), time.Second, "it waited for the lease")
				require.Equal(t, 1, conversations(t, s))
			})
		})
	}
}

func TestCloseDrainsStarts(t *testing.T) {
	for takes, want := range map[time.Duration]int{5 * time.Second: 1, 50 * time.Second: 0} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, store.NewMemory(limits), opening(takes))
				ctx, hangUp := context.WithCancel(t.Context())
				go func() { _, _ = s.Start(ctx, alice, chat.Opening{}) }()
				synctest.Wait()
				hangUp()
				grace, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				began := time.Now()
				s.Close(grace)
				require.Equal(t, min(takes, 10*time.Second), time.Since(began))
				require.Equal(t, want, conversations(t, s))
			})
		})
	}
}
