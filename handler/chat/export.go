package chat

import (
	"context"
	"errors"
	"iter"
)

// Exported is a part of an export.
type Exported struct {
	Conversation *Conversation   // nil: more messages of the last one
	Messages     []StoredMessage // those that follow, oldest first
	Damaged      bool            // the conversation, of which only the ID is set, cannot be read, or no further
}

// Bounds of a part. A hundred conversations and one part are all that an export holds at a time, however slowly it is taken.
const (
	maxExportPage   = 1000      // messages
	exportPageBytes = 128 << 10 // of them, or one message
)

// Export returns all of the owner's conversations with their messages, last updated first, part by part. It is no access. What is changed
// meanwhile may be missed, or is told as it was at some moment; what stands still is told once. An error is the last part.
func (s *Service) Export(ctx context.Context, owner Owner) iter.Seq2[Exported, error] {
	return func(yield func(Exported, error) bool) {
		list := List{Limit: maxList}
		for {
			conversations, next, err := s.store.List(ctx, owner, list)
			if err != nil {
				yield(Exported{}, wrap("export", err))
				return
			}
			for _, c := range conversations {
				if !s.exportConversation(ctx, owner, c.ID, yield) {
					return
				}
			}
			if next == nil {
				return
			}
			list.After = next
		}
	}
}

// exportConversation returns false when that was the last part. What was deleted meanwhile has no more parts.
//
// A page has the newest of the messages that are asked for, as many as a store returns at once, while an export tells the oldest first.
// So a page that begins too late is asked for again, of half as many messages as it had.
func (s *Service) exportConversation(ctx context.Context, owner Owner, id string, yield func(Exported, error) bool) bool {
	part := Exported{Conversation: new(Conversation)}
	size, last := int64(maxExportPage), int64(maxExportPage)
	for seq := int64(1); seq <= last; {
		size = min(size, last-seq+1)
		c, page, err := s.store.Get(ctx, owner, id, Page{Before: seq + size, Limit: int(size), Bytes: exportPageBytes, Unseen: true})
		switch {
		case errors.Is(err, ErrNotFound):
			return true
		case errors.Is(err, ErrDamaged):
			return yield(Exported{Conversation: &Conversation{ID: id, Owner: owner}, Damaged: true}, nil)
		case err != nil:
			yield(Exported{}, wrap("export", err))
			return false
		case len(page) > 0 && page[0].Seq > seq:
			size = max(1, int64(len(page)/2))
			continue
		}
		if part.Conversation != nil {
			*part.Conversation, last = c, c.MessageCount
		}
		part.Messages = page
		if !yield(part, nil) {
			return false
		}
		part.Conversation = nil
		seq += size
		size = min(2*size, maxExportPage)
	}
	return true
}
