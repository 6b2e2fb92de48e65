package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"chatkeep/handler/chat"
)

// eraseStep is how many conversations one script ends, so that it does not hold Redis.
const eraseStep = 50

// Erase implements chat.Store. While it goes on, it logs once a second how far it is.
func (r *Redis) Erase(ctx context.Context, owner chat.Owner) (chat.Erasure, error) {
	var done chat.Erasure
	logged := time.Now()
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
			r.log.WarnContext(ctx, "an erasure was cut, a repetition goes on with it", "deleted", done.Deleted)
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
		if time.Since(logged) >= r.eraseLogEvery {
			r.log.InfoContext(ctx, "erasing", "deleted", done.Deleted)
			logged = time.Now()
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
