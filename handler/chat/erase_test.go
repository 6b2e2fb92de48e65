package chat_test

import (
	"sync"
	"testing"
	"testing/synctest"

	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSendsOfAnErasedOwnerAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, store.NewMemory(limits), slow)
		var sends sync.WaitGroup
		for range 3 {
			id := start(t, s)
			sends.Go(func() {
				_, err := s.Send(t.Context(), alice, id, say("5s"))
				assert.ErrorIs(t, err, chat.ErrNotFound)
			})
		}
		synctest.Wait()
		done, err := s.Erase(t.Context(), alice.Owner)
		require.NoError(t, err)
		require.Equal(t, chat.Erasure{Deleted: 3}, done)
		sends.Wait()
		listed, _, err := s.ListConversations(t.Context(), alice.Owner, chat.List{Limit: 1})
		require.NoError(t, err)
		require.Empty(t, listed)
	})
}
