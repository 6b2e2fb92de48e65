package auth

import (
	"fmt"
	"io"
	"log/slog"
)

// User is the signed-in caller. ID and TenantID together name a user for ever; neither does so alone.
//
// A User prints, logs and encodes as redacted. Its single fields do not, and package fmt cannot redact a User in an unexported field of
// another value.
type User struct {
	ID       string // the claim sub: 1 to 255 printable ASCII characters without space
	TenantID string // the claim tid: a GUID in lower case
	ObjectID string // the claim oid: a GUID in lower case, or empty. It is for administrators and is no key
	// Token is the verified token itself, with which an agent may act for the user. It must never be logged, stored or shown: whoever
	// has it is the user until it expires.
	Token string
}

const redacted = "[redacted user]"

// Format implements fmt.Formatter.
func (User) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements fmt.Stringer.
func (User) String() string { return redacted }

// LogValue implements slog.LogValuer.
func (User) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler, and so keeps a User within another value out of JSON.
func (User) MarshalText() ([]byte, error) { return []byte(redacted), nil }
