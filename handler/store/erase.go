package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"chatkeep/handler/chat"
)

// eraseStep is how many conversations one script ends, so that it does not hold Redis.
const eraseStep = 50

// Erase implements chat.Store.
func (r *Redis) Erase(ctx context.Context, owner chat.Owner) (chat.Erasure, error) {
	var done chat.Erasure
	keys := ownerKeys(owner)
	var all, ids []string // keys of conversations, and what is next to be ended
	for {
		step := slices.Clone(keys)
		args := []any{eraseStep}
		for _, id := range ids {
			args = append(args, id)
			own := conversationKeys(owner, id)[len(keys):]
			step, all = append(step, own...), append(all, own...)
		}
		reply, err := r.run(ctx, eraseScript, step, args...)
		if err != nil {
			return done, err
		}
		ended, err := strconv.Atoi(reply[0])
		if err != nil {
			return done, fmt.Errorf("redis: erase: %w", err)
		}
		done.Deleted += ended
		if ids = reply[1:]; len(ids) == 0 {
			break
		}
	}
	for some := range slices.Chunk(append(all, keys...), 20*eraseStep) {
		reply, err := r.run(ctx, countScript, some)
		if err != nil {
			return done, err
		}
		left, err := strconv.Atoi(reply[0])
		if err != nil {
			return done, fmt.Errorf("redis: count: %w", err)
		}
		done.KeysRemaining += left
	}
	return done, nil
}

// Erase implements chat.Store.
func (m *Memory) Erase(_ context.Context, owner chat.Owner) (chat.Erasure, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	var done chat.Erasure
	for _, e := range m.account(owner).conversations {
		if !m.isGone(e, now) {
			done.Deleted++
		}
	}
	delete(m.owners, owner)
	return done, nil
}
