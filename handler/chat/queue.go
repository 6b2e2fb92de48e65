package chat

import (
	"context"
	"sync"
)

// queue admits one waiting request per conversation and process at a time, first come, first served. It only spares the store the polling
// of many: that a conversation has one live turn is the store's promise.
type queue struct {
	mu    sync.Mutex
	heads map[conversationKey]*head
}

// conversationKey names a conversation in this process.
type conversationKey struct {
	owner Owner
	id    string
}

// head is the head of one queue. Goroutines blocked on a channel are served in order.
type head struct {
	place chan struct{}
	users int // at the head or behind it; guarded by queue.mu
}

// enter returns when the caller is at the head, or with the cause of ctx's end. At the head, the caller must call leave once.
func (q *queue) enter(ctx context.Context, key conversationKey) (leave func(), err error) {
	q.mu.Lock()
	if q.heads == nil {
		q.heads = make(map[conversationKey]*head)
	}
	mine, ok := q.heads[key]
	if !ok {
		mine = &head{place: make(chan struct{}, 1)}
		q.heads[key] = mine
	}
	mine.users++
	q.mu.Unlock()

	forget := func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if mine.users--; mine.users == 0 {
			delete(q.heads, key)
		}
	}
	select {
	case mine.place <- struct{}{}:
		return func() { <-mine.place; forget() }, nil
	case <-ctx.Done():
		forget()
		return nil, context.Cause(ctx)
	}
}
