package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"chatkeep/handler/panics"

	"github.com/redis/go-redis/v9"
)

const (
	breakerFailures = 5                      // in a row, before it is asked whether Redis is down
	probeBudget     = 300 * time.Millisecond // for one answer
	probePause      = 150 * time.Millisecond // between two; with the budget: how long a recovery goes unnoticed
)

// errDown is the answer to a call that was not tried, because Redis is known to be down.
var errDown = errors.New("redis is known to be down")

// breaker lets calls fail at once while Redis is down, instead of each waiting for its own timeout. After some failures in a row
// it probes Redis in the background; it opens when the probe fails too, and closes with the first one that succeeds. So one master
// of a cluster that is down does not take the others with it, and recovery needs no traffic.
type breaker struct {
	probe func(context.Context) error
	log   *slog.Logger

	mu       sync.Mutex
	failures int   // in a row
	cause    error // of the last probe; not nil while open
	probing  bool
	stopped  bool

	stop chan struct{} // closed by close
	all  sync.WaitGroup
}

func newBreaker(probe func(context.Context) error, log *slog.Logger) *breaker {
	return &breaker{probe: probe, log: log, stop: make(chan struct{})}
}

// admit returns an error while the breaker is open.
func (b *breaker) admit() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cause != nil {
		return fmt.Errorf("%w: %w", errDown, b.cause)
	}
	return nil
}

// note learns from the outcome of a call.
func (b *breaker) note(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if answered(err) {
		b.failures, b.cause = 0, nil
		return
	}
	if errors.Is(err, context.Canceled) { // the caller's own leaving says nothing
		return
	}
	b.failures++
	if b.failures >= breakerFailures && !b.probing && !b.stopped {
		b.probing = true
		panics.Go(&b.all, b.log, b.watch)
	}
}

// answered reports whether Redis answered, even with a refusal.
func answered(err error) bool {
	var refusal redis.Error
	return err == nil || errors.As(err, &refusal)
}

// watch probes until Redis answers.
func (b *breaker) watch() {
	began, open := time.Now(), false
	defer func() {
		if bug := recover(); bug != nil {
			b.mu.Lock()
			b.failures, b.cause, b.probing = 0, nil, false // or nobody would ever probe again
			b.mu.Unlock()
			panic(bug) // spawn reports it
		}
	}()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), probeBudget)
		err := b.probe(ctx)
		cancel()
		b.mu.Lock()
		if answered(err) || b.failures < breakerFailures || b.stopped { // a call that succeeded meanwhile knows better
			b.failures, b.cause, b.probing = 0, nil, false
			b.mu.Unlock()
			break
		}
		b.cause = err
		b.mu.Unlock()
		if !open {
			open = true
			b.log.Warn("redis is down, calls fail at once", "err", unavailable(err))
		}
		select {
		case <-b.stop:
		case <-time.After(probePause):
		}
	}
	if open {
		b.log.Info("redis recovered", "afterMs", time.Since(began).Milliseconds())
	}
}

// close ends the probing, and waits for its end.
func (b *breaker) close() {
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	close(b.stop)
	b.all.Wait()
}
