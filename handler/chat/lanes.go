package chat

import (
	"context"
	"sync"
)

// lanes let the sends of this process to one conversation pass one at a time, first come, first served.
// They only spare the store the polling of many waiters; that a conversation has one live turn is the store's promise.
type lanes struct {
	mu  sync.Mutex
	all map[laneKey]*lane
}

type laneKey struct {
	owner Owner
	id    string
}

// lane holds its one place; senders blocked on a channel are served in order.
type lane struct {
	place chan struct{}
	users int // inside or waiting; guarded by lanes.mu
}

// enter returns when the caller is alone in the lane, or with the cause of ctx's end. Inside, the caller must call leave once.
func (l *lanes) enter(ctx context.Context, owner Owner, id string) (leave func(), err error) {
	key := laneKey{owner, id}
	l.mu.Lock()
	if l.all == nil {
		l.all = make(map[laneKey]*lane)
	}
	mine, ok := l.all[key]
	if !ok {
		mine = &lane{place: make(chan struct{}, 1)}
		l.all[key] = mine
	}
	mine.users++
	l.mu.Unlock()

	forget := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if mine.users--; mine.users == 0 {
			delete(l.all, key)
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
