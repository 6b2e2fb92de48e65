package chat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"chatkeep/handler/panics"
	"chatkeep/handler/telemetry"
)

// The pauses between two looks at a turn of another process.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

// turn is a question with the work on its answer. Once begun, it runs by itself: requests wait for its end, or read what it tells, and may
// leave.
type turn struct {
	caller         Caller
	conversationID string
	request        Begin
	isOurID        bool // we made the message's id, not the caller
	attaches       bool // the request need not wait when an earlier one's turn runs: that is *runningError
	begun          Turn
	times          times

	telling

	done chan struct{} // closed at the turn's end, when sent and err are set
	sent Sent
	err  error
}

// times are for the Recorder.
type times struct {
	tried time.Time     // when its request last tried to begin it
	began time.Time     // when it began to run
	agent time.Duration // what its agent took
}

func (t *turn) key() conversationKey { return conversationKey{t.caller.Owner, t.conversationID} }

// isSameRequest reports whether one of the records identifies t's request.
func (t *turn) isSameRequest(records []IdempotencyRecord) bool {
	return slices.ContainsFunc(records, func(r IdempotencyRecord) bool { return slices.Contains(t.request.Records, r) })
}

// send is begin, run, wait.
func (s *Service) send(ctx context.Context, caller Caller, id string, in Input) (Sent, error) {
	t, err := s.newTurn(caller, id, in)
	if err != nil {
		return Sent{}, err
	}
	if err := s.begin(ctx, t); err != nil {
		return Sent{}, err
	}
	if t.begun.Replayed {
		return t.begun.outcome()
	}
	if !s.run(ctx, t) {
		return Sent{}, errClosing
	}
	if err := await(ctx, t.done); err != nil {
		return Sent{}, err
	}
	return t.sent, t.err
}

// newTurn makes the user's message, and the records by which a retry of the request is recognised.
func (s *Service) newTurn(caller Caller, id string, in Input) (*turn, error) {
	m := Message{ID: newID(), Role: User, Kind: Text, Text: in.text(), Value: in.Value}
	var records []IdempotencyRecord
	if in.MessageID != nil {
		m.ID = *in.MessageID
		records = append(records, s.record("message:"+m.ID, in.Idempotency))
	}
	if in.Idempotency.Key != "" {
		records = append(records, s.keyRecord(in.Idempotency))
	}
	text, err := m.encode()
	if err != nil {
		return nil, err
	}
	return &turn{
		caller: caller, conversationID: id, isOurID: in.MessageID == nil, done: make(chan struct{}), telling: newTelling(),
		request: Begin{
			MessageID: m.ID, JSON: text, Title: titleOf(m.Text), Preview: previewOf(m.Text), Records: records, Token: newID(),
			Context: s.settings.Context, ContextBytes: s.settings.ContextBytes, Lease: s.settings.TurnLease,
		},
	}, nil
}

// outcome is what the first execution of a replayed turn returned.
func (t Turn) outcome() (Sent, error) {
	switch {
	case t.Message.State == Complete || t.Message.State == Cancelled:
		return Sent{Message: t.Message, Replies: t.Replies, Replayed: true}, nil
	case t.Failure == "" || t.Failure == ErrNotAsked.Code:
		return Sent{}, &ReplayedError{ErrTurnLost}
	default:
		return Sent{}, &ReplayedError{&Failure{Code: t.Failure}}
	}
}

// begin begins the turn, or finds how the same request's turn ended. While another turn lives, it waits up to Settings.TurnWait.
func (s *Service) begin(ctx context.Context, t *turn) error {
	err := s.tryBegin(ctx, t)
	if !isBusy(err) {
		return err
	}
	waitCtx, cancel := s.waitCtx(ctx)
	defer cancel()
	if live := s.runningTurn(t.key()); live != nil && live.isSameRequest(t.request.Records) {
		if err := await(waitCtx, live.done); err != nil {
			return err
		}
		if err := s.tryBegin(ctx, t); !isBusy(err) {
			return err
		}
	}
	leave, err := s.queue.enter(waitCtx, t.key())
	if err != nil {
		return err
	}
	defer leave()
	ended := func() <-chan struct{} {
		if live := s.runningTurn(t.key()); live != nil {
			return live.done
		}
		return nil
	}
	return whileBusy(waitCtx, ended, func(ctx context.Context) error { return s.tryBegin(ctx, t) })
}

// runningError means that an earlier request has begun the turn, which runs.
type runningError struct {
	seq int64 // of the question
}

func (e *runningError) Error() string { return "its turn runs" }

// tryBegin is not cancelled when ctx ends, because its outcome would be unknown.
func (s *Service) tryBegin(ctx context.Context, t *turn) error {
	t.times.tried = time.Now()
	err := panics.Recover(ctx, s.log, func() (err error) {
		t.begun, err = s.store.Begin(context.WithoutCancel(ctx), t.caller.Owner, t.conversationID, t.request)
		return err
	})
	busy, isBusy := errors.AsType[*BusyError](err)
	switch {
	case isBusy && busy.Seq > 0 && t.attaches:
		return &runningError{busy.Seq}
	case errors.Is(err, ErrUnavailable) || panics.Is(err): // the turn may have begun, and nobody would end it
		s.retrier.retryUncertain(ctx, func(ctx context.Context) error { return s.finishUnasked(ctx, t) })
	case t.isOurID && errors.Is(err, ErrMessageIDTaken): // by a late second execution of this call
		return ErrTurnLost
	}
	return err
}

// waitCtx bounds the wait for other turns. Its cause is then a *BusyError.
func (s *Service) waitCtx(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, s.settings.TurnWait, &BusyError{Left: s.settings.TurnLease})
}

// whileBusy repeats try while it returns a *BusyError, or until waitCtx ends: then it returns the cause. Between two tries it waits
// for the end of the turn that runs in this process; without one, ended is nil, it pauses.
// A try is not cancelled, because its outcome would be unknown.
func whileBusy(waitCtx context.Context, ended func() <-chan struct{}, try func(context.Context) error) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := try(context.WithoutCancel(waitCtx))
		busy, ok := errors.AsType[*BusyError](err)
		if !ok {
			return err
		}
		end, longest := ended(), max(busy.Left, time.Millisecond)
		if end == nil {
			longest = min(longest, pause)
		}
		select {
		case <-end:
		case <-time.After(longest):
		case <-waitCtx.Done():
			return context.Cause(waitCtx)
		}
	}
}

func isBusy(err error) bool {
	_, ok := errors.AsType[*BusyError](err)
	return ok
}

func (s *Service) runningTurn(key conversationKey) *turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[key]
}

// run runs a turn that has begun in a goroutine of the Service. It returns false when the Service is closing: then a repeated request may
// resume the turn.
func (s *Service) run(ctx context.Context, t *turn) bool {
	t.next = t.begun.Attempt*attemptEvents + firstTold
	t.events = []StreamEvent{accepted(t.begun.Message, t.begun.Attempt, t.replyID(0))}
	s.mu.Lock()
	s.running[t.key()] = t
	s.mu.Unlock()
	isRunning := s.turns.spawn(ctx, func(ctx context.Context) {
		defer s.end(t)
		s.recorder.TurnsRunning.Add(1)
		t.times.began = time.Now()
		defer s.count(t)
		bug := panics.Recover(ctx, s.log, func() error {
			t.sent, t.err = s.answer(ctx, t)
			return nil
		})
		if bug != nil {
			t.err = bug
			_ = panics.Recover(ctx, s.log, func() error {
				_, err := s.fail(ctx, t, Reply{}, bug)
				return err
			})
		}
	})
	if !isRunning {
		s.end(t)
		_ = s.finishUnasked(context.WithoutCancel(ctx), t)
	}
	return isRunning
}

// end wakes those who wait for the turn. Those who read it have its end from its store, if that has it.
func (s *Service) end(t *turn) {
	why := t.err
	if why == nil {
		why = ErrTurnLost
	}
	t.over([]StreamEvent{{Kind: ErrorEvent, Err: why}})
	s.mu.Lock()
	if s.running[t.key()] == t {
		delete(s.running, t.key())
	}
	s.mu.Unlock()
	close(t.done)
}

// count counts a turn that has run.
func (s *Service) count(t *turn) {
	s.recorder.TurnsRunning.Add(-1)
	ended := telemetry.Turn{State: string(Failed), Took: time.Since(t.times.began), Own: time.Since(t.times.tried) - t.times.agent}
	if t.err == nil {
		ended.State = string(t.sent.Message.State)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	ended.Dropped = t.dropped
	if !t.firstDelta.IsZero() {
		ended.FirstDelta = t.firstDelta.Sub(t.times.began)
	}
	s.recorder.Turn(ended)
}

// answer has the agent answer, and ends the turn in the store.
func (s *Service) answer(ctx context.Context, t *turn) (Sent, error) {
	reply, replies, err := s.askForAnswer(ctx, t)
	if err != nil {
		return s.fail(ctx, t, reply, err)
	}
	sent, err := s.finish(ctx, t, Finish{
		State: Complete, Replies: replies, Preview: reply.preview(), AgentRef: reply.AgentRef, ExternalID: reply.ExternalID,
	}, nil)
	if errors.Is(err, ErrCancelled) { // a moment before
		return s.fail(ctx, t, reply, err)
	}
	return sent, err
}

// askForAnswer asks the agent, and writes what it says to the log meanwhile. It returns the reply and the JSON forms of its messages, or with
// an error as much of the reply as there is.
func (s *Service) askForAnswer(ctx context.Context, t *turn) (Reply, [][]byte, error) {
	m, err := t.begun.Message.Message()
	if err != nil {
		return Reply{}, nil, err
	}
	q := Question{
		ConversationID: t.conversationID, Message: m, History: t.begun.History,
		AgentRef: t.begun.AgentRef, ExternalID: t.begun.ExternalID,
	}
	keep := func(ctx context.Context, stop context.CancelCauseFunc) { s.keepTelling(ctx, stop, t) }
	reply, err := s.ask(ctx, "agent answer", keep, func(ctx context.Context) (Reply, error) {
		defer func(asked time.Time) { t.times.agent = time.Since(asked) }(time.Now())
		return s.agent.Answer(ctx, t.caller, q, t.emit)
	})
	if err != nil {
		return reply, nil, err
	}
	if len(reply.Messages) > maxReplies {
		return Reply{}, nil, illFormed("it", fmt.Errorf("more than %d messages", maxReplies))
	}
	replies, err := reply.encode(t.replyID, m.ID)
	if err != nil {
		return Reply{}, nil, err
	}
	return reply, replies, nil
}

// fail ends the turn without a whole answer: what there is of one is kept. It returns why, or ErrNotFound if the conversation is gone; a turn
// that was cancelled has not failed, and returns what is kept.
func (s *Service) fail(ctx context.Context, t *turn, reply Reply, why error) (Sent, error) {
	end := Finish{State: Failed}
	if errors.Is(why, ErrCancelled) {
		end.State, why = Cancelled, nil
	}
	if failure, ok := errors.AsType[*Failure](why); ok {
		end.Failure = failure.Code
	}
	if m, err := t.begun.Message.Message(); err == nil {
		end.Replies, end.Preview = t.partial(reply, m.ID)
	}
	sent, err := s.finish(ctx, t, end, why)
	switch {
	case err == nil:
		return sent, why
	case errors.Is(err, ErrNotFound) || why == nil:
		return Sent{}, err
	case !errors.Is(err, ErrTurnLost):
		s.log.WarnContext(ctx, "turn not ended, its lease will end it", "err", err)
	}
	return Sent{}, why
}

// finish ends the turn in the store, and tells its end, which is that it failed unless why is nil. If the store is unavailable, finish keeps
// retrying in the background until the lease ends, so that a retry of the request finds the answer.
func (s *Service) finish(ctx context.Context, t *turn, f Finish, why error) (Sent, error) {
	question := t.begun.Message
	question.State, question.Failure = f.State, f.Failure
	f.Token, f.Records, f.Seq = t.request.Token, t.request.Records, question.Seq
	f.Entries = t.sealAll()
	state := Partial
	if f.State == Complete {
		state = Complete
	}
	sent := Sent{Message: question, Replies: stored(f.Replies, question.Seq+1, state, time.Time{})}
	last, err := ending(t.begun.Attempt, sent, why)
	if err != nil {
		return Sent{}, err
	}
	finished, err := s.store.Finish(context.WithoutCancel(ctx), t.caller.Owner, t.conversationID, f)
	if errors.Is(err, ErrUnavailable) {
		s.retrier.retry(ctx, func(ctx context.Context) error {
			_, err := s.store.Finish(ctx, t.caller.Owner, t.conversationID, f)
			return err
		})
	}
	if err != nil {
		return Sent{}, err
	}
	for i := range sent.Replies { // which the events refer to
		sent.Replies[i].CreatedAt = finished.At
	}
	t.tell(finished.Dropped)
	t.over(last)
	return sent, nil
}

// finishUnasked ends a turn, if it has begun, whose agent was not called: its request may resume it.
func (s *Service) finishUnasked(ctx context.Context, t *turn) error {
	_, err := s.store.Finish(ctx, t.caller.Owner, t.conversationID,
		Finish{Token: t.request.Token, Records: t.request.Records, State: Failed, Failure: ErrNotAsked.Code})
	return err
}
