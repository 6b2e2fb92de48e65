package chat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// maxUpdates is how often a change is tried that others keep getting ahead of.
const maxUpdates = 10

// Change is what the owner wants changed; what is not given stays.
type Change struct {
	Idempotency   Idempotency
	Title         *string
	ClearMetadata bool               // before Metadata is merged
	Metadata      map[string]*string // nil takes a pair out (RFC 7396)
	Status        *Status
	Matches       func(version int64) bool // whether the change is meant for a version; nil: for any
}

// Changed is a conversation after a change.
type Changed struct {
	Conversation Conversation
	Replayed     bool // an earlier request with the same key made the change; the conversation is as it is now
}

// Update changes a conversation. A turn that runs is not disturbed. What changes nothing is no change.
// ErrVersion: the change is meant for another version. ErrTransition: the status cannot follow the one that there is.
//
// A request with a key is done once within Settings.IdempotencyTTL.
func (s *Service) Update(ctx context.Context, owner Owner, id string, c Change) (Changed, error) {
	if err := invalid(checkID(ConversationIDField, id), c.check()); err != nil {
		return Changed{}, err
	}
	var record *IdempotencyRecord
	if c.Idempotency.Key != "" {
		r := s.keyRecord(c.Idempotency)
		record = &r
	}
	for range maxUpdates {
		changed, err := s.tryUpdate(ctx, owner, id, c, record)
		if !errors.Is(err, errOvertaken) {
			return changed, wrap("update", err)
		}
	}
	return Changed{}, wrap("update", errOvertaken)
}

// errOvertaken means that the conversation was changed between two looks at it.
var errOvertaken = fmt.Errorf("overtaken by other changes: %w", ErrUnavailable)

// tryUpdate makes the change to the version that it finds. It looks for the record after the conversation, so that an earlier execution
// is found whenever it has changed what was seen.
func (s *Service) tryUpdate(ctx context.Context, owner Owner, id string, c Change, record *IdempotencyRecord) (Changed, error) {
	current, err := s.store.Update(ctx, owner, id, Update{})
	if err != nil {
		return Changed{}, err
	}
	if record != nil {
		isKnown, err := s.store.Recall(ctx, owner, *record)
		if err != nil {
			return Changed{}, err
		}
		if isKnown {
			current, err = s.store.Update(ctx, owner, id, Update{})
			return Changed{Conversation: current, Replayed: true}, err
		}
	}
	u, err := c.of(current)
	if err != nil {
		return Changed{}, err
	}
	u.Record = record
	updated, err := s.store.Update(ctx, owner, id, u)
	if errors.Is(err, ErrVersion) {
		err = errOvertaken
	}
	return Changed{Conversation: updated}, err
}

func (c Change) check() []FieldError {
	if c.Status != nil && !slices.Contains(Statuses, *c.Status) {
		return []FieldError{{StatusField, "", "must be active, completed or archived"}}
	}
	return nil
}

// of returns what the change is for a conversation as it stands.
func (c Change) of(current Conversation) (Update, error) {
	if c.Matches != nil && !c.Matches(current.Version) {
		return Update{}, ErrVersion
	}
	if c.Status != nil && *c.Status == Completed && current.Status == Archived {
		return Update{}, ErrTransition
	}
	u := Update{Title: c.Title, Status: c.Status, Version: current.Version}
	after := Opening{Title: current.Title, Metadata: current.Metadata}
	if c.Title != nil {
		after.Title = *c.Title
	}
	if c.ClearMetadata || len(c.Metadata) > 0 {
		u.Metadata = c.merge(current.Metadata)
		after.Metadata = u.Metadata
	}
	return u, invalid(after.check())
}

// merge returns metadata with the changes.
func (c Change) merge(metadata map[string]string) map[string]string {
	merged := make(map[string]string)
	if !c.ClearMetadata {
		maps.Copy(merged, metadata)
	}
	for key, value := range c.Metadata {
		if value == nil {
			delete(merged, key)
		} else {
			merged[key] = *value
		}
	}
	return merged
}
