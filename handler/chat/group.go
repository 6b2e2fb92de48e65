package chat

import (
	"context"
	"log/slog"
	"sync"

	"chatkeep/handler/panics"
)

// group runs functions that outlive the request that began them. It is safe for concurrent use.
type group struct {
	log      *slog.Logger
	all      sync.WaitGroup
	mu       sync.Mutex // guards the following
	isClosed bool
	ends     map[*context.CancelCauseFunc]struct{} // of what runs
}

func newGroup(log *slog.Logger) *group {
	return &group{log: log, ends: make(map[*context.CancelCauseFunc]struct{})}
}

// spawn calls do in a goroutine, unless the group is closed: then it returns false. do gets ctx without its end; close ends it.
func (g *group) spawn(ctx context.Context, do func(context.Context)) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isClosed {
		return false
	}
	ctx, end := context.WithCancelCause(context.WithoutCancel(ctx))
	g.ends[&end] = struct{}{}
	panics.Go(&g.all, g.log, func() {
		defer g.forget(&end)
		_ = panics.Recover(ctx, g.log, func() error { do(ctx); return nil })
	})
	return true
}

func (g *group) forget(end *context.CancelCauseFunc) {
	(*end)(nil)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.ends, end)
}

// close makes spawn refuse, and returns when all running functions have. When ctx ends, it ends their contexts with ErrTurnLost.
func (g *group) close(ctx context.Context) {
	g.mu.Lock()
	g.isClosed = true
	g.mu.Unlock()
	ended := make(chan struct{})
	var waiter sync.WaitGroup
	panics.Go(&waiter, g.log, func() { g.all.Wait(); close(ended) })
	if await(ctx, ended) != nil {
		g.end()
	}
	waiter.Wait()
}

func (g *group) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for end := range g.ends {
		(*end)(ErrTurnLost)
	}
}

// await returns nil when done is closed, or the cause of ctx's end.
func await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
