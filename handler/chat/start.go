package chat

import (
	"context"
	"errors"
	"maps"

	"chatkeep/handler/panics"
)

// opening is a start in progress. Once claimed, it runs by itself.
type opening struct {
	Opening
	caller Caller
	id     string // the conversation's
	claim  *Claim // nil: the request has no key

	done    chan struct{} // closed when started and err are set
	started Started
	err     error
}

// start is claim, run, wait.
func (s *Service) start(ctx context.Context, o *opening) (Started, error) {
	if o.Idempotency.Key != "" {
		o.claim = &Claim{Record: s.keyRecord(o.Idempotency), Token: newID(), Lease: s.settings.TurnLease}
		made, err := s.claim(ctx, o.caller.Owner, *o.claim)
		if err != nil {
			return Started{}, err
		}
		if made != nil {
			return s.replayStart(ctx, o, *made)
		}
	}
	if !s.runStart(ctx, o) {
		return Started{}, errClosing
	}
	if err := await(ctx, o.done); err != nil {
		return Started{}, err
	}
	return o.started, o.err
}

// claim waits until no other request holds the start, up to Settings.TurnWait. It returns the conversation, if the start has been made.
func (s *Service) claim(ctx context.Context, owner Owner, c Claim) (made *Conversation, err error) {
	waitCtx, cancel := s.waitCtx(ctx)
	defer cancel()
	noTurn := func() <-chan struct{} { return nil }
	err = whileBusy(waitCtx, noTurn, func(ctx context.Context) error {
		return panics.Recover(ctx, s.log, func() (err error) {
			made, err = s.store.Claim(ctx, owner, c)
			return err
		})
	})
	if errors.Is(err, ErrUnavailable) || panics.Is(err) { // the start may be claimed
		s.retrier.retryUncertain(ctx, func(ctx context.Context) error { return s.releaseClaim(ctx, owner, c) })
	}
	return made, err
}

// replayStart returns a conversation as it was when it was made, with its greeting.
func (s *Service) replayStart(ctx context.Context, o *opening, made Conversation) (Started, error) {
	made.Title, made.ObjectID = o.Title, o.caller.ObjectID
	if len(o.Metadata) > 0 {
		made.Metadata = maps.Clone(o.Metadata)
	}
	greeting := []StoredMessage{}
	for before := made.MessageCount + 1; before > 1; before = greeting[0].Seq { // a page may be shorter than its limit
		_, page, err := s.store.Get(ctx, o.caller.Owner, made.ID, Page{Before: before, Limit: int(before - 1)})
		if err != nil {
			return Started{}, err
		}
		if len(page) == 0 {
			return Started{}, ErrDamaged
		}
		greeting = append(page, greeting...)
	}
	return Started{Conversation: made, Messages: greeting, Replayed: true}, nil
}

// runStart makes the conversation in a goroutine of the Service. It returns false when the Service is closing.
func (s *Service) runStart(ctx context.Context, o *opening) bool {
	o.done = make(chan struct{})
	return s.turns.spawn(ctx, func(ctx context.Context) {
		defer close(o.done)
		o.err = panics.Recover(ctx, s.log, func() (err error) {
			o.started, err = s.makeConversation(ctx, o)
			return err
		})
		if o.err != nil && o.claim != nil {
			s.giveUp(ctx, o.caller.Owner, *o.claim, o.err)
		}
	})
}

// makeConversation has the agent open its side, and stores the conversation with the greeting.
func (s *Service) makeConversation(ctx context.Context, o *opening) (Started, error) {
	reply, err := s.askToOpen(ctx, o)
	if err != nil {
		return Started{}, err
	}
	greeting, err := reply.encode(func(index int) string { return NewMessageID(int64(index) + 1) }, "")
	if err != nil {
		return Started{}, err
	}
	req := Start{
		Conversation: Conversation{
			ID: o.id, ObjectID: o.caller.ObjectID, ExternalID: reply.ExternalID, Title: o.Title, Metadata: o.Metadata,
		},
		Messages: greeting,
		AgentRef: reply.AgentRef,
		Preview:  reply.preview(),
	}
	if o.claim != nil {
		req.Record, req.Token = &o.claim.Record, o.claim.Token
	}
	conversation, err := s.store.Start(context.WithoutCancel(ctx), o.caller.Owner, req)
	if err != nil {
		return Started{}, err
	}
	return Started{Conversation: conversation, Messages: stored(greeting, 1, Complete, conversation.CreatedAt)}, nil
}

// askToOpen asks the agent, and renews the claim meanwhile, if there is one.
func (s *Service) askToOpen(ctx context.Context, o *opening) (Reply, error) {
	var keep func(context.Context, context.CancelCauseFunc)
	if o.claim != nil {
		keep = func(ctx context.Context, stop context.CancelCauseFunc) {
			s.keepLease(ctx, stop, func(ctx context.Context) error {
				_, err := s.store.Claim(ctx, o.caller.Owner, *o.claim)
				if _, isBusy := errors.AsType[*BusyError](err); isBusy {
					return ErrTurnLost
				}
				return err
			})
		}
	}
	return s.ask(ctx, "agent open", keep, func(ctx context.Context) (Reply, error) { return s.agent.Open(ctx, o.caller, o.id) })
}

// giveUp releases the claim of a start that has failed, so that a repeated request need not wait for the end of its lease. If the store is
// unavailable, it does so in the background.
func (s *Service) giveUp(ctx context.Context, owner Owner, c Claim, why error) {
	release := func(ctx context.Context) error { return s.releaseClaim(ctx, owner, c) }
	if errors.Is(why, ErrUnavailable) || errors.Is(release(context.WithoutCancel(ctx)), ErrUnavailable) {
		s.retrier.retryUncertain(ctx, release)
	}
}

func (s *Service) releaseClaim(ctx context.Context, owner Owner, c Claim) error {
	c.Lease = 0
	_, err := s.store.Claim(ctx, owner, c)
	return err
}
