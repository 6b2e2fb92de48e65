package chat

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAQueueForgetsThoseWhoHaveLeft(t *testing.T) {
	var q queue
	key := conversationKey{id: "a"}
	leave, err := q.enter(t.Context(), key)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = q.enter(ctx, key)
	require.ErrorIs(t, err, context.Canceled)
	leave()
	require.Empty(t, q.heads)
}
