package chat

import "time"

// Idempotency identifies a request, so that a caller can repeat it and it is done once (draft-ietf-httpapi-idempotency-key-header-07).
type Idempotency struct {
	Key         string // the caller's name for the request; empty: none
	Fingerprint string // a digest of the whole request
}

// IdempotencyRecord identifies a request, so that a retry within TTL is recognised. A store holds at most Limits.IdempotencyRecords of an
// owner; beyond that the oldest goes first.
type IdempotencyRecord struct {
	Name        string // unique among the owner's requests
	Fingerprint string // another one under the same name is ErrKeyReused
	TTL         time.Duration
}
