package chat

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// begin waits for other turns to end, until the patience does: then its cause is the error.
func (s *Service) begin(patience context.Context, owner Owner, id string, b Begin) (Turn, error) {
	var turn Turn
	err := waitWhileBusy(patience, func(ctx context.Context) (err error) {
		b.Now = timestamp()
		turn, err = s.store.Begin(ctx, owner, id, b)
		return err
	})
	if errors.Is(err, ErrUnavailable) { // it may have begun; nobody would end it
		s.loose.offer(s.settings.TurnLease, func(ctx context.Context) error {
			_, err := s.store.Finish(ctx, owner, id,
				Finish{Token: b.Token, Guards: b.Guards, State: Failed, Failure: NotAsked, Now: timestamp()})
			return err
		})
	}
	return turn, err
}

// claim waits until no other request holds the start, until ctx ends or the patience does.
func (s *Service) claim(ctx context.Context, owner Owner, c Claim) (made Conversation, isMade bool, err error) {
	patience, cancel := context.WithTimeoutCause(ctx, s.settings.TurnWait, &BusyError{Left: s.settings.TurnLease})
	defer cancel()
	err = waitWhileBusy(patience, func(ctx context.Context) (err error) {
		c.Now = timestamp()
		made, isMade, err = s.store.Claim(ctx, owner, c)
		return err
	})
	if errors.Is(err, ErrUnavailable) {
		s.giveUp(owner, c)
	}
	return made, isMade, err
}

// waitWhileBusy repeats try until it returns something else than a *BusyError, or with the cause of the patience's end.
// A try is never interrupted: what became of it would not be known.
func waitWhileBusy(patience context.Context, try func(context.Context) error) error {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := try(context.WithoutCancel(patience))
		busy, isBusy := errors.AsType[*BusyError](err)
		if !isBusy {
			return err
		}
		select {
		case <-time.After(min(pause, busy.Left)):
		case <-patience.Done():
			return context.Cause(patience)
		}
	}
}

// open has the agent open a conversation, and keeps the claim alive meanwhile, if there is one.
func (s *Service) open(ctx context.Context, owner Owner, id string, claim Claim) (Reply, error) {
	var renew func(context.Context) error
	if claim.Token != "" {
		renew = func(ctx context.Context) error {
			claim.Now = timestamp()
			_, _, err := s.store.Claim(ctx, owner, claim)
			if _, isBusy := errors.AsType[*BusyError](err); isBusy {
				return ErrTurnLost
			}
			return err
		}
	}
	return s.ask(ctx, renew, func(ctx context.Context) (Reply, error) { return s.agent.Open(ctx, owner, id) })
}

// answer has the agent answer, and keeps the turn alive meanwhile.
func (s *Service) answer(ctx context.Context, owner Owner, id, token string, turn Turn) (Reply, error) {
	renew := func(ctx context.Context) error {
		return s.store.Renew(ctx, owner, id, token, timestamp(), s.settings.TurnLease)
	}
	return s.ask(ctx, renew, func(ctx context.Context) (Reply, error) { return s.agent.Answer(ctx, owner, id, turn) })
}

// ask calls the agent, and renews the lease meanwhile, if there is one. When the lease cannot be kept, it ends with ErrTurnLost.
func (s *Service) ask(ctx context.Context, renew func(context.Context) error, call func(context.Context) (Reply, error)) (Reply, error) {
	ctx, cancelTimeout := context.WithTimeoutCause(ctx, s.settings.AgentTimeout, ErrAgentTimeout)
	defer cancelTimeout()
	ctx, stop := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	if renew != nil {
		renewing.Go(func() { s.keepLease(ctx, stop, renew) })
	}
	defer func() { stop(nil); renewing.Wait() }()
	reply, err := call(ctx)
	return reply, agentError(ctx, err)
}

// keepLease renews a lease until ctx ends, and ends it with ErrTurnLost when the lease cannot be kept.
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
		err := renew(ctx)
		switch {
		case err == nil:
			held = asked
		case errors.Is(err, ErrTurnLost) || time.Since(held) >= s.settings.TurnLease:
			stop(ErrTurnLost)
			return
		}
	}
}

// agentError says why the agent gave no answer: it was stopped for the cause of ctx, or failed by itself.
func agentError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return fmt.Errorf("%w: %w", ErrAgentFailed, err)
	}
}

// failureOf is what is kept of an error that a turn ended with; error gives it back.
func failureOf(err error) Failure {
	switch {
	case errors.Is(err, ErrAgentFailed):
		return AgentFailed
	case errors.Is(err, ErrAgentTimeout):
		return AgentTimeout
	default:
		return ""
	}
}

func (f Failure) error() error {
	switch f {
	case AgentFailed:
		return ErrAgentFailed
	case AgentTimeout:
		return ErrAgentTimeout
	case NotAsked:
	}
	return ErrTurnLost
}

// outcome is what the first execution of a turn that is over returned.
func (t Turn) outcome() (Sent, error) {
	if t.Message.State != Complete {
		return Sent{}, &ReplayedError{t.Failure.error()}
	}
	return Sent{Message: t.Message, Replies: t.Replies, Replayed: true}, nil
}

// finish ends a turn. When the store cannot do it now, it is tried on after the caller has its error, as long as the lease may live:
// then a repeated request finds the answer.
func (s *Service) finish(ctx context.Context, owner Owner, id string, f Finish) (time.Time, error) {
	f.Now = timestamp()
	at, err := s.store.Finish(ctx, owner, id, f)
	if errors.Is(err, ErrUnavailable) {
		s.loose.tie(s.settings.TurnLease, func(ctx context.Context) error {
			f.Now = timestamp()
			_, err := s.store.Finish(ctx, owner, id, f)
			return err
		})
	}
	return at, err
}

// fail marks the turn's message as Failed. When that cannot be done, the end of the lease does it.
func (s *Service) fail(ctx context.Context, owner Owner, id string, f Finish) {
	if _, err := s.finish(ctx, owner, id, f); err != nil && !errors.Is(err, ErrTurnLost) {
		s.log.WarnContext(ctx, "turn not ended, its lease will end it", "err", err)
	}
}

// giveUp gives a claim up, so that a repeated request need not wait for the end of its lease. It does not wait for the store.
func (s *Service) giveUp(owner Owner, c Claim) {
	c.Lease = 0
	s.loose.offer(s.settings.TurnLease, func(ctx context.Context) error {
		c.Now = timestamp()
		_, _, err := s.store.Claim(ctx, owner, c)
		return err
	})
}
