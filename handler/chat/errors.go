package chat

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"chatkeep/handler/logs"
)

// Why a request is refused or fails. Each is one answer to the caller.
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
	// ErrQuota means the owner has no room for more bytes.
	ErrQuota = errors.New("the quota is used up")
	// ErrKeyReused means that the idempotency key or message id was used for another request before.
	ErrKeyReused = errors.New("the idempotency key belongs to another request")
	// ErrMessageIDTaken means that the conversation has a message with this id.
	ErrMessageIDTaken = errors.New("the message id is taken")
	// ErrTurnComplete means that the last question has its answer, or that there is none, so nothing is to be asked again.
	ErrTurnComplete = errors.New("the last turn is complete")
	// ErrVersion means that the conversation has another version than the change was made for.
	ErrVersion = errors.New("the conversation has changed")
	// ErrTransition means that a conversation cannot go from its status to the one that is asked for.
	ErrTransition = errors.New("no such transition")
	// ErrCancelled means that the owner has asked for the end of the turn. Callers of the Service never get it.
	ErrCancelled = errors.New("the turn is cancelled")
	// ErrUnavailable means the store cannot answer now. Whether a change was made is not known.
	ErrUnavailable = errors.New("the store is unavailable")
	// ErrDamaged means that what is stored contradicts itself, as after an eviction or a change by hand.
	ErrDamaged = logs.Because(logs.Damaged, errors.New("the conversation is damaged"))
)

// Failure is why a turn that had begun has no answer, or why a conversation could not be opened. The user's message stays, as Failed.
// errors.Is compares codes, so a Failure with more to say matches the sentinel with its code.
type Failure struct {
	Code       string        // stored with the turn, and shown to the caller
	RetryAfter time.Duration // when it is worth trying again; 0: not known
	Claims     string        // in base64, that the user must sign in with; of ErrInsufficientClaims
	Err        error         // the cause, for the log; never shown or stored
}

func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Code
	}
	return f.Code + ": " + f.Err.Error()
}

func (f *Failure) Unwrap() error { return f.Err }

// Cause is the class of the cause, for the log; empty where Err tells it.
func (f *Failure) Cause() logs.Cause {
	switch f.Code {
	case ErrAgentTimeout.Code:
		return logs.Timeout
	case ErrAgentBusy.Code:
		return logs.Busy
	case ErrTurnLost.Code:
		return logs.Lost
	default:
		return ""
	}
}

// Is implements errors.Is.
func (f *Failure) Is(target error) bool {
	other, ok := target.(*Failure)
	return ok && other.Code == f.Code
}

// The failures that the Service itself knows.
var (
	// ErrAgentFailed means the agent gave no answer, or an ill-formed one.
	ErrAgentFailed = &Failure{Code: "agent_failed"}
	// ErrAgentTimeout means the agent gave no answer in time.
	ErrAgentTimeout = &Failure{Code: "agent_timeout"}
	// ErrTurnLost means that the turn's lease ran out, or its process ended, before it was finished.
	ErrTurnLost = &Failure{Code: "turn_lost"}
	// ErrNotAsked means that the turn ended before the agent was called, so its request may resume it. It is stored, never shown.
	ErrNotAsked = &Failure{Code: "not_asked"}
)

// The failures that agents know.
var (
	// ErrAgentBusy means that the agent turns calls away for now; its RetryAfter says for how long.
	ErrAgentBusy = &Failure{Code: "agent_busy"}
	// ErrContentFiltered means that a content filter refused the message or its answer.
	ErrContentFiltered = &Failure{Code: "content_filtered"}
	// ErrAgentForbidden means that the agent does not serve this user.
	ErrAgentForbidden = &Failure{Code: "agent_forbidden"}
	// ErrConsentRequired means that nobody has consented to our calling the agent for this user.
	ErrConsentRequired = &Failure{Code: "consent_required"}
	// ErrAgentConversationLost means that the agent no longer knows the conversation.
	ErrAgentConversationLost = &Failure{Code: "agent_conversation_lost"}
	// ErrInsufficientClaims means that the user must sign in again: with its Claims, if it has any. They are of that moment, and not stored.
	ErrInsufficientClaims = &Failure{Code: "insufficient_claims"}
)

// NotTaken reports whether a failure says that the agent has nothing of the question: then its request, repeated, takes the turn up again.
func NotTaken(code string) bool {
	return code == ErrNotAsked.Code || code == ErrAgentBusy.Code || code == ErrInsufficientClaims.Code
}

// BusyError means that another turn of the conversation lives, at most for Left more.
type BusyError struct {
	Left time.Duration
	Seq  int64 // of the question, when the turn is that of the same request; otherwise 0
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("another turn is in progress for at most %v", e.Left)
}

// RateError means that the owner has begun as many turns as a minute allows, which are Quota. The next may begin in Left.
type RateError struct {
	Left  time.Duration
	Quota int64
}

func (e *RateError) Error() string { return fmt.Sprintf("too many turns, the next in %v", e.Left) }

// ReplayedError is the error that an earlier execution of the same request ended with.
type ReplayedError struct{ Err error }

func (e *ReplayedError) Error() string { return "repeated request: " + e.Err.Error() }
func (e *ReplayedError) Unwrap() error { return e.Err }

// InvalidError means that a request is not valid. Its text is made to be shown to the caller.
type InvalidError struct{ Fields []FieldError }

// Field names what a caller gives. A front end has its own names for them.
type Field string

// The fields that are checked here.
const (
	ConversationIDField Field = "conversation id"
	MessageIDField      Field = "message id"
	TitleField          Field = "title"
	MetadataField       Field = "metadata"
	TextField           Field = "text"
	ValueField          Field = "value"
	StatusField         Field = "status"
	LimitField          Field = "limit"
	BeforeField         Field = "before"
)

// FieldError says what is wrong with a field, or with its member Key.
type FieldError struct {
	Field   Field
	Key     string // of a pair of the metadata; empty: the field itself
	Message string
}

func (e *InvalidError) Error() string {
	var all []string
	for _, f := range e.Fields {
		all = append(all, strings.TrimSuffix(string(f.Field)+"."+f.Key, ".")+" "+f.Message)
	}
	return strings.Join(all, "; ")
}
