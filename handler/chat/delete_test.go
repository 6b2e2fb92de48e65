package chat_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestASendWhoseConversationIsDeletedIsTold(t *testing.T) {
	for name, row := range map[string]struct {
		asked string
		sends int // all but one wait for the first
		took  time.Duration
	}{
		"its answer is refused":                 {"500ms", 2, 500 * time.Millisecond},
		"its agent is stopped at the renewal":   {"100s", 1, time.Second},
		"its agent fails, which is no news now": {"-", 2, 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, store.NewMemory(limits), agentFunc(func(ctx context.Context, q chat.Question) (chat.Reply, error) {
					if q.Message.Text == "-" {
						time.Sleep(500 * time.Millisecond)
						return chat.Reply{}, errors.New("no answer")
					}
					return slow(ctx, q)
				}))
				id := start(t, s)
				began := time.Now()
				var sends sync.WaitGroup
				for range row.sends {
					sends.Go(func() {
						_, err := s.Send(t.Context(), alice, id, say(row.asked))
						assert.ErrorIs(t, err, chat.ErrNotFound)
						assert.Equal(t, row.took, time.Since(began))
					})
				}
				synctest.Wait()
				_, err := s.Delete(t.Context(), alice.Owner, id, chat.Idempotency{})
				require.NoError(t, err)
				sends.Wait()
				_, _, err = s.Get(t.Context(), alice.Owner, id, chat.Page{Limit: 1})
				require.ErrorIs(t, err, chat.ErrNotFound)
			})
		})
	}
}

// cutOff is a store whose deletions end in err when they have been made.
type cutOff struct {
	chat.Store
	err error
}

func (c *cutOff) Delete(ctx context.Context, owner chat.Owner, id string, d chat.Deletion) (bool, error) {
	replayed, err := c.Store.Delete(ctx, owner, id, d)
	return replayed, errors.Join(err, c.err)
}

// A deletion that an outage cut off, with its outcome unknown, is repeated with its key.
func TestADeletionIsRepeatedAfterAnOutage(t *testing.T) {
	b := &cutOff{Store: store.NewMemory(limits), err: chat.ErrUnavailable}
	s := serve(t, b, agent.Echo{})
	id := start(t, s)
	key := chat.Idempotency{Key: "key", Fingerprint: "delete"}
	_, err := s.Delete(t.Context(), alice.Owner, id, key)
	require.ErrorIs(t, err, chat.ErrUnavailable)
	b.err = nil
	replayed, err := s.Delete(t.Context(), alice.Owner, id, key)
	require.NoError(t, err)
	require.True(t, replayed)
	_, err = s.Delete(t.Context(), alice.Owner, id, chat.Idempotency{})
	require.ErrorIs(t, err, chat.ErrNotFound)
	_, err = s.Delete(t.Context(), alice.Owner, "x", chat.Idempotency{})
	var invalid *chat.InvalidError
	require.ErrorAs(t, err, &invalid)
}
