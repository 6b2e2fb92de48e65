package store

import (
	"context"
	"time"

	"chatkeep/handler/chat"
)

// tombstone is the record that a deleted conversation leaves, for longer than a call of the store can be under way.
func tombstone(id string) chat.IdempotencyRecord {
	return chat.IdempotencyRecord{Name: "deleted:" + id, Fingerprint: "deleted", TTL: 10 * time.Minute}
}

// Delete implements chat.Store.
func (r *Redis) Delete(ctx context.Context, owner chat.Owner, id string, d chat.Deletion) (bool, error) {
	var record chat.IdempotencyRecord
	var name string
	if d.Record != nil {
		record = *d.Record
		name = digest(record.Name)
	}
	grave := tombstone(id)
	args := append(r.argsOf(owner, id, 7), d.Token, digest(grave.Name), r.recordTTL(grave), r.options.Limits.IdempotencyRecords,
		record.Fingerprint, name, r.recordTTL(record))
	reply, err := r.run(ctx, deleteScript, conversationKeys(owner, id), args...)
	return err == nil && reply[0] != "", err
}

// Delete implements chat.Store.
func (m *Memory) Delete(_ context.Context, owner chat.Owner, id string, d chat.Deletion) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	a := m.account(owner)
	if d.Record != nil {
		past, err := a.recall(now, *d.Record)
		if err != nil || past != nil {
			return past != nil && past.turnToken != d.Token, err
		}
	}
	grave := tombstone(id)
	if _, err := m.open(a, id, now); err != nil {
		if past, _ := a.recall(now, grave); past != nil && past.turnToken == d.Token {
			return false, nil
		}
		return false, err
	}
	delete(a.conversations, id)
	for _, r := range []*chat.IdempotencyRecord{&grave, d.Record} {
		if r != nil {
			m.remember(a, now, *r, record{turnToken: d.Token})
		}
	}
	return false, nil
}
