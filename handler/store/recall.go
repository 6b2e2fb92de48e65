package store

import (
	"context"

	"chatkeep/handler/chat"
)

// Recall implements chat.Store.
func (r *Redis) Recall(ctx context.Context, owner chat.Owner, record chat.IdempotencyRecord) (bool, error) {
	reply, err := r.run(ctx, recallScript, ownerKeys(owner), record.Fingerprint, digest(record.Name))
	return err == nil && reply[0] != "", err
}

// Recall implements chat.Store.
func (m *Memory) Recall(_ context.Context, owner chat.Owner, record chat.IdempotencyRecord) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	past, err := m.account(owner).recall(clock(), record)
	return past != nil, err
}
