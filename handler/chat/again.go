package chat

import "context"

// TellAgain is Tell of the last question, as a new one, when its turn has failed or was cancelled. Repeated while nothing else was asked, it
// asks once: all who want the same turn again get the same stream.
// ErrTurnComplete: the last question has its answer, or there is none. *BusyError: its turn runs.
func (s *Service) TellAgain(ctx context.Context, caller Caller, id string) (*Stream, error) {
	if err := invalid(checkID(ConversationIDField, id)); err != nil {
		return nil, err
	}
	stream, err := s.tellAgain(ctx, caller, id)
	return stream, wrap("send", err)
}

func (s *Service) tellAgain(ctx context.Context, caller Caller, id string) (*Stream, error) {
	log, err := s.store.Events(ctx, caller.Owner, id, nil)
	switch {
	case err != nil:
		return nil, err
	case log.IsLive:
		return nil, &BusyError{Left: s.settings.TurnLease}
	case log.Last == 0:
		return nil, ErrTurnComplete
	}
	_, messages, err := s.store.Get(ctx, caller.Owner, id, Page{Before: log.Last + 1, Limit: 1, Unseen: true})
	if err != nil {
		return nil, err
	}
	if len(messages) == 0 || messages[0].State == Complete {
		return nil, ErrTurnComplete
	}
	question, err := messages[0].Message()
	if err != nil {
		return nil, err
	}
	again := "again " + id + " " + question.ID // the space keeps it apart from callers' keys
	in := Input{Idempotency: Idempotency{Key: again, Fingerprint: again}, Value: question.Value}
	if question.Text != "" || in.Value == nil {
		in.Text = &question.Text
	}
	return s.tell(ctx, caller, id, in)
}
