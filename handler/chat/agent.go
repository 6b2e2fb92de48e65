package chat

import "context"

// Agent answers. Its methods are called concurrently, and end when ctx does. An error that wraps a *Failure says why the agent gave no
// answer; any other error, and a panic, is ErrAgentFailed. With an error from Answer, the Reply holds what had arrived.
type Agent interface {
	// Open opens the agent's side of a new conversation. Its messages are the greeting.
	Open(ctx context.Context, caller Caller, conversationID string) (Reply, error)
	// Answer answers q.Message. What it passes to emit may reach callers before the answer is stored: events are hints, the returned
	// Reply is the truth. emit never blocks, and is not called after Answer has returned.
	Answer(ctx context.Context, caller Caller, q Question, emit func(Event)) (Reply, error)
}

// Question is a user's message that an agent is asked to answer.
type Question struct {
	ConversationID string
	Message        Message
	History        []StoredMessage // the last messages before it, oldest first; at most Settings.Context
	AgentRef       string          // from the agent's last Reply; empty: none yet
	ExternalID     string          // likewise
}

// Event is a part of an answer while the agent makes it.
type Event struct {
	Kind  EventKind
	Index int    // of a Delta: which message of the Reply its text belongs to, from 0; never less than before
	Text  string // of a Status and a Delta
}

// EventKind says what an Event is.
type EventKind string

// The kinds of an event.
const (
	StatusEvent EventKind = "status" // what the agent does, for the user to read
	DeltaEvent  EventKind = "delta"  // text that follows the text so far of its message
)

// Reply is an agent's answer: messages with Kind, Text, CardJSON, CardID and SuggestedActions set, and the agent's own state.
// None of it is stored unless all is well-formed: text is UTF-8 without NUL, a card is one JSON object, and a message has one of them.
// A Reply without messages is an answer too.
type Reply struct {
	Messages   []Message
	AgentRef   string // replaces the stored one, unless empty
	ExternalID string // likewise
}
