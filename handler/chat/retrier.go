package chat

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// maxUncertain bounds the retries of calls that may not have reached the store; most of these are not needed.
const maxUncertain = 256

// retrier retries store calls whose outcome an outage left unknown, until the lease expires. It only saves others from waiting for that.
type retrier struct {
	lease     time.Duration
	group     *group
	uncertain chan struct{} // holds one value per running retryUncertain
}

func newRetrier(lease time.Duration, log *slog.Logger) *retrier {
	return &retrier{lease: lease, group: newGroup(log), uncertain: make(chan struct{}, maxUncertain)}
}

// retry retries until the store has answered or the lease has expired. It does not wait.
func (r *retrier) retry(ctx context.Context, try func(context.Context) error) {
	r.group.spawn(ctx, func(ctx context.Context) { r.run(ctx, try) })
}

// retryUncertain is retry, unless maxUncertain such retries run.
func (r *retrier) retryUncertain(ctx context.Context, try func(context.Context) error) {
	select {
	case r.uncertain <- struct{}{}:
	default:
		return
	}
	isRunning := r.group.spawn(ctx, func(ctx context.Context) {
		defer func() { <-r.uncertain }()
		r.run(ctx, try)
	})
	if !isRunning {
		<-r.uncertain
	}
}

func (r *retrier) run(ctx context.Context, try func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, r.lease)
	defer cancel()
	for pause := 50 * time.Millisecond; errors.Is(try(ctx), ErrUnavailable); pause = min(2*pause, 500*time.Millisecond) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// stop ends all retries, and returns when they have ended.
func (r *retrier) stop() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	r.group.close(ended)
}
