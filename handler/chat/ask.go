package chat

import (
	"context"
	"errors"
	"sync"
	"time"

	"chatkeep/handler/panics"
	"chatkeep/handler/telemetry"

	"go.opentelemetry.io/otel/trace"
)

// ask calls the agent within a span of the name, for at most Settings.AgentTimeout, and keep meanwhile, if there is a lease to be kept. keep
// returns when its context ends, and can end it with a cause.
func (s *Service) ask(
	ctx context.Context, name string, keep func(context.Context, context.CancelCauseFunc), call func(context.Context) (Reply, error),
) (Reply, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.settings.AgentTimeout, ErrAgentTimeout)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	var keeping sync.WaitGroup
	if keep != nil {
		panics.Go(&keeping, s.log, func() { keep(ctx, stop) })
	}
	defer func() { stop(nil); keeping.Wait() }()
	var reply Reply
	asking, span := telemetry.Begin(ctx, name, trace.SpanKindClient)
	err := panics.Recover(ctx, s.log, func() (err error) {
		reply, err = call(asking)
		return err
	})
	err = agentError(ctx, err)
	telemetry.End(span, failureOf(err))
	return reply, err
}

// failureOf is the class of an error of ask: a code, where the agent failed.
func failureOf(err error) string {
	failure, ok := errors.AsType[*Failure](err)
	switch {
	case err == nil:
		return ""
	case ok:
		return failure.Code
	case errors.Is(err, ErrCancelled):
		return "cancelled"
	default:
		return "other"
	}
}

// keepLease renews a lease until ctx ends. It ends ctx when the lease is lost, or cannot be renewed in time.
func (s *Service) keepLease(ctx context.Context, stop context.CancelCauseFunc, renew func(context.Context) error) {
	ticker := time.NewTicker(s.settings.TurnLease / 3)
	defer ticker.Stop()
	held := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		asked := time.Now()
		err := panics.Recover(ctx, s.log, func() error { return renew(ctx) })
		if err == nil {
			held = asked
		} else if why := s.leaseLost(err, held); why != nil {
			stop(why)
			return
		}
	}
}

// leaseLost returns why a lease that was held last is lost when renewing it fails, or nil: then it is worth another try.
func (s *Service) leaseLost(err error, held time.Time) error {
	switch {
	case errors.Is(err, ErrTurnLost) || errors.Is(err, ErrNotFound) || panics.Is(err):
		return err
	case time.Since(held) >= s.settings.TurnLease:
		return ErrTurnLost
	default:
		return nil
	}
}

// agentError returns why the agent gave no answer: the cause of ctx if that stopped it, or its own failure.
func agentError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	failure, ok := errors.AsType[*Failure](err)
	if !ok || failure.Code == "" || failure.Code == ErrNotAsked.Code {
		return &Failure{Code: ErrAgentFailed.Code, Err: err}
	}
	return failure
}
