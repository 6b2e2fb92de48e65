package chat

import "context"

// Delete ends a conversation at once, with all that it holds. A turn that runs is refused its end: its caller gets ErrNotFound.
//
// A request with a key is done once: repeated within Settings.IdempotencyTTL it is replayed, where one without a key is ErrNotFound.
func (s *Service) Delete(ctx context.Context, owner Owner, id string, i Idempotency) (replayed bool, err error) {
	if err := invalid(checkID(ConversationIDField, id)); err != nil {
		return false, err
	}
	d := Deletion{Token: newID()}
	if i.Key != "" {
		record := s.keyRecord(i)
		d.Record = &record
	}
	replayed, err = s.store.Delete(ctx, owner, id, d)
	return replayed, wrap("delete", err)
}
