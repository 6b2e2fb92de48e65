package chat

// Opening is what the owner gives for a new conversation; all of it may be empty.
type Opening struct {
	Idempotency Idempotency
	Title       string
	Metadata    map[string]string
}

// Started is a new conversation with the agent's greeting.
type Started struct {
	Conversation Conversation
	Messages     []StoredMessage
	Replayed     bool // an earlier request with the same key made it
}

// Input is the owner's message: text, or the data of a submitted card, or both.
type Input struct {
	Idempotency Idempotency
	MessageID   *string // the message's id, and a name for the request like Idempotency.Key; nil: the Service makes one
	Text        *string
	Value       []byte // a JSON object, or nil
}

// Sent is a finished turn.
type Sent struct {
	Message  StoredMessage // the owner's
	Replies  []StoredMessage
	Replayed bool // an earlier request with the same key or message id made it
}
