package chat

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// What can stand in the way of a request. Each is one answer to the caller.
var (
	// ErrNotFound means the conversation does not exist, has expired, or belongs to someone else.
	// The three are one error so that a caller cannot probe for other people's conversations.
	ErrNotFound = errors.New("no such conversation")

	// ErrClosed means the conversation is not active.
	ErrClosed = errors.New("the conversation is closed")

	// ErrFull means the conversation has no room for another turn.
	ErrFull = errors.New("the conversation is full")

	// ErrTooMany means the owner has no room for another conversation.
	ErrTooMany = errors.New("too many conversations")

	// ErrKeyReused means that the name of a request was given to another one before.
	ErrKeyReused = errors.New("the idempotency key belongs to another request")

	// ErrTurnLost means that the turn's lease ran out before it was finished; its message is kept as Failed.
	ErrTurnLost = errors.New("the turn was lost")

	// ErrAgentFailed means the agent gave no answer; the user's message is kept as Failed.
	ErrAgentFailed = errors.New("the agent failed")

	// ErrAgentTimeout means the agent gave no answer in time; the user's message is kept as Failed.
	ErrAgentTimeout = errors.New("the agent took too long")

	// ErrUnavailable means the store cannot answer now. Whether a change was made is not known.
	ErrUnavailable = errors.New("the store is unavailable")

	// ErrDamaged means that what is stored contradicts itself, as after an eviction or a change by hand.
	ErrDamaged = errors.New("the conversation is damaged")
)

// BusyError means that another turn of the conversation lives, at most for Left more.
type BusyError struct{ Left time.Duration }

func (e *BusyError) Error() string {
	return fmt.Sprintf("another turn is in progress for at most %v", e.Left)
}

// ReplayedError is the error that an earlier execution of the same request ended with.
type ReplayedError struct{ Err error }

func (e *ReplayedError) Error() string { return "repeated request: " + e.Err.Error() }
func (e *ReplayedError) Unwrap() error { return e.Err }

// InvalidError means that a request cannot be meant. Its text is made to be shown to the caller.
type InvalidError struct{ Fields []FieldError }

// FieldError says what is wrong with one field; Path is its place in the request, such as "metadata.color".
type FieldError struct{ Path, Message string }

func (e *InvalidError) Error() string {
	var all []string
	for _, f := range e.Fields {
		all = append(all, f.Path+" "+f.Message)
	}
	return strings.Join(all, "; ")
}

// Invalid returns an *InvalidError about one field.
func Invalid(path, message string) error {
	return &InvalidError{Fields: []FieldError{{Path: path, Message: message}}}
}
