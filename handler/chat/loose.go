package chat

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maxOffers bounds the loose ends whose work is likely not needed: those of calls that may not have reached the store.
const maxOffers = 256

// looseEnds are what remains to be done when the store failed in the midst of a call. Each is tried until the store has answered,
// while its lease may live. They only spare others the wait for the end of that lease.
type looseEnds struct {
	stop   chan struct{} // closed by close
	offers chan struct{} // a place for each offer
	mu     sync.Mutex    // guards closed, so that nothing is tied after close
	closed bool
	all    sync.WaitGroup
}

func newLooseEnds() looseEnds {
	return looseEnds{stop: make(chan struct{}), offers: make(chan struct{}, maxOffers)}
}

// offer is tie, unless there are too many offers.
func (l *looseEnds) offer(lease time.Duration, try func(context.Context) error) {
	select {
	case l.offers <- struct{}{}:
		l.run(lease, try, func() { <-l.offers })
	default:
	}
}

// tie tries until the store has answered or the lease is over.
func (l *looseEnds) tie(lease time.Duration, try func(context.Context) error) {
	l.run(lease, try, func() {})
}

func (l *looseEnds) run(lease time.Duration, try func(context.Context) error, done func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		done()
		return
	}
	l.all.Go(func() {
		defer done()
		ctx, cancel := context.WithTimeout(context.Background(), lease)
		defer cancel()
		for pause := 50 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
			if err := try(ctx); !errors.Is(err, ErrUnavailable) {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-l.stop:
				return
			case <-time.After(pause):
			}
		}
	})
}

// close stops trying, and waits until all have stopped.
func (l *looseEnds) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	close(l.stop)
	l.all.Wait()
}
