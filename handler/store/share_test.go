package store

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAnOwnerHasAShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShares(2)
		var all sync.WaitGroup
		began := time.Now()
		for range 6 {
			all.Go(func() {
				leave, err := s.enter(t.Context(), "crowd")
				if assert.NoError(t, err) {
					time.Sleep(time.Second)
					leave()
				}
			})
		}
		synctest.Wait()
		leave, err := s.enter(t.Context(), "other")
		require.NoError(t, err)
		require.Zero(t, time.Since(began), "another owner waits")
		leave()
		impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = s.enter(impatient, "crowd")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		all.Wait()
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Empty(t, s.all, "it grows with each owner")
	})
}
