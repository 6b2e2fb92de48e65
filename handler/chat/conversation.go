package chat

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Status is the state of a conversation. Only an active one takes messages.
type Status string

// The statuses of a conversation.
const (
	Active    Status = "active"
	Completed Status = "completed"
	Archived  Status = "archived"
)

// Statuses are all that a conversation can have.
var Statuses = []Status{Active, Completed, Archived}

// Conversation is everything about a conversation but its messages. Times are UTC, whole milliseconds, and the store's.
type Conversation struct {
	ID             string // a canonical lower-case UUID
	Owner          Owner
	ObjectID       string // the owner's Entra object id, for administrators; never part of a key, may be empty
	ExternalID     string // the agent's own id of the conversation, may be empty
	Title          string
	Status         Status
	Metadata       map[string]string
	MessageCount   int64 // also the highest Seq
	Version        int64 // counts changes of messages, status, title and metadata, not accesses; starts at 1
	CreatedAt      time.Time
	UpdatedAt      time.Time // of the last message or change of a message's state; never goes backwards
	LastAccessedAt time.Time // of the owner's last counted start, send or get; see Limits.Lag
	ExpiresAt      time.Time // LastAccessedAt plus the store's time to live, within the age that it may have: it lives at least until then
	Last           Preview   // only Store.List tells it
}

// Preview is the beginning of the text of the last message that has any. It is zero when there is none, or it is not known: the message is
// from before previews were stored.
type Preview struct {
	Role Role
	Text string
}

// Role says who wrote a message.
type Role string

// The roles of a message.
const (
	User      Role = "user"
	Assistant Role = "assistant"
)

// Kind says what a message is made of.
type Kind string

// The kinds of a message.
const (
	Text         Kind = "text"
	AdaptiveCard Kind = "adaptiveCard"
)

// State says what became of a message.
type State string

// The states of a message. A user message is Pending while its turn runs, then Complete, Failed when no whole answer was stored, or
// Cancelled when the owner ended it. A reply is Complete, or Partial: as much of it as had arrived when its turn failed or was cancelled.
const (
	Pending   State = "pending"
	Complete  State = "complete"
	Failed    State = "failed"
	Cancelled State = "cancelled"
	Partial   State = "partial"
)

// Message is the content of a message. Its JSON form is what stores hold and what callers get: a member may be added, none may change its
// meaning. Its byte slices hold one JSON value each and must not be changed.
type Message struct {
	ID        string         `json:"id"` // a canonical lower-case UUID; names one message of its conversation for ever. The first member.
	Role      Role           `json:"role"`
	Kind      Kind           `json:"kind"`
	Text      string         `json:"text,omitzero"`
	CardJSON  jsontext.Value `json:"cardJson,omitzero"` // the card, a JSON object; nil when there is none
	CardID    string         `json:"cardId,omitzero"`
	Value     jsontext.Value `json:"value,omitzero"`     // a submitted card's data, a JSON object; nil when there is none
	InReplyTo string         `json:"inReplyTo,omitzero"` // the id of the user message that this answers

	SuggestedActions []SuggestedAction `json:"suggestedActions,omitzero"` // of an agent's message: what the user may choose to say next
}

// SuggestedAction is something that the user may choose to say: the title is shown, the value is sent as text.
type SuggestedAction struct {
	Title string `json:"title"`
	Value string `json:"value"`
}

// encode returns the JSON form of a message, without spaces between tokens. It fails when the message is not well-formed JSON in UTF-8.
func (m Message) encode() ([]byte, error) {
	return json.Marshal(m, json.Deterministic(true))
}

// StoredMessage is a message with what the store knows of it. JSON is the JSON form of the Message, which passes from the store to the caller unread;
// it must not be changed.
type StoredMessage struct {
	Seq       int64 // 1, 2, 3… in the conversation, without gaps
	State     State
	CreatedAt time.Time // never before the message with the lower Seq
	JSON      []byte
	Failure   string // of a Failed question: the code of the failure; empty: its turn was lost
}

// Message reads the JSON form.
func (s StoredMessage) Message() (Message, error) {
	var m Message
	if err := json.Unmarshal(s.JSON, &m); err != nil {
		return Message{}, fmt.Errorf("message %d: %w", s.Seq, ErrDamaged)
	}
	return m, nil
}
