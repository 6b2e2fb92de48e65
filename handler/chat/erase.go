package chat

import "context"

// Erase ends everything that the owner has: conversations, idempotency records and counters. Cut short, it has ended a part; repeated, it
// ends the rest. Turns that run are refused their end.
func (s *Service) Erase(ctx context.Context, owner Owner) (Erasure, error) {
	done, err := s.store.Erase(ctx, owner)
	return done, wrap("erase", err)
}
