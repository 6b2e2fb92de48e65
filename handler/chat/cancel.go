package chat

import "context"

// Cancel ends the live turn of a conversation, in whichever process it runs, if it is that of the message with the given id; nil: whichever
// lives. The message becomes Cancelled, and what has arrived of the answer is kept. Cancel does not wait for that, which takes 2 s at most.
// It tells whether this call did it: it is false when no such turn lives, or somebody else has cancelled it.
//
// Repeated, it changes nothing. A call is known by its key, if it has one, as long as the conversation has no newer turn: then it is told
// the same again.
func (s *Service) Cancel(ctx context.Context, owner Owner, id string, messageID *string, key string) (bool, error) {
	c := Cancellation{Token: key}
	if key == "" {
		c.Token = newID()
	}
	wrong := checkID(ConversationIDField, id)
	if messageID != nil {
		c.MessageID = *messageID
		wrong = append(wrong, checkID(MessageIDField, c.MessageID)...)
	}
	if err := invalid(wrong); err != nil {
		return false, err
	}
	cancelled, err := s.store.Cancel(ctx, owner, id, c)
	if err != nil {
		return false, wrap("cancel", err)
	}
	if t := s.runningTurn(conversationKey{owner, id}); cancelled && t != nil {
		t.nudge() // it asks the store, for it may be the next turn already
	}
	return cancelled, nil
}
