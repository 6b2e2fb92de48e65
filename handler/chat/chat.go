// Package chat defines what a conversation is, what may happen to it, and what a store and an agent must promise.
//
// A conversation belongs to one Owner and grows by turns. A turn is one message of the user and the agent's replies to it;
// a conversation has at most one live turn, so its history is always a question followed by its answers.
package chat

import (
	"fmt"
	"io"
	"log/slog"
)

// Owner is whose conversation it is: one user of one Entra tenant. The same user id in two tenants is two owners.
type Owner struct {
	TenantID string // the token's tid
	UserID   string // the token's sub
}

// Caller is who makes a request, as the token says.
type Caller struct {
	Owner    Owner
	ObjectID string // the Entra object id, for administrators; never part of a key, may be empty
	Token    Secret // the bearer token, for an agent that acts on the caller's behalf; may be empty
}

// Secret is text that is printed, logged and encoded as "redacted". string(s) reveals it.
type Secret string

const redacted = "redacted"

// Format implements fmt.Formatter, for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
