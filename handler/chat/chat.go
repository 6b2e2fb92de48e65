// Package chat says what a conversation is, what may happen to it, and what a store and an agent must promise.
//
// A conversation belongs to one Owner and grows by turns. A turn is one message of the user and the agent's replies to it;
// a conversation has at most one live turn, so its history is always a question followed by its answers.
package chat

import (
	"context"
	"time"
)

// Owner is whose conversation it is: one user of one Entra tenant. The same user id in two tenants is two owners.
type Owner struct {
	TenantID string // the token's tid
	UserID   string // the token's sub
}

// Status is where a conversation stands. Only an active one takes messages.
type Status string

// The statuses of a conversation.
const (
	Active    Status = "active"
	Completed Status = "completed"
	Archived  Status = "archived"
)

// Statuses are all that a conversation can have.
var Statuses = []Status{Active, Completed, Archived}

// Conversation is everything about a conversation but its messages. Times are UTC, whole milliseconds.
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
	LastAccessedAt time.Time // of the owner's last start, send or get
	ExpiresAt      time.Time // LastAccessedAt plus the store's time to live
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

// The states of a message. A user message is Pending while its turn runs, then Complete, or Failed when no answer was stored.
// Everything else is Complete.
const (
	Pending  State = "pending"
	Complete State = "complete"
	Failed   State = "failed"
)

// Message is one message of a conversation. Its byte slices hold one JSON value each and must not be changed.
type Message struct {
	ID        string // a canonical lower-case UUID
	Seq       int64  // 1, 2, 3… in the conversation, without gaps
	Role      Role
	Kind      Kind
	Text      string
	CardJSON  []byte // the card, a JSON object; nil when there is none
	CardID    string
	Value     []byte // a submitted card's data, a JSON object; nil when there is none
	InReplyTo string // the id of the user message that this answers
	State     State
	CreatedAt time.Time // never before the message with the lower Seq
}

// Guard names a request, so that its repetition is recognised for as long as the name is kept.
type Guard struct {
	Name    string        // unique among the owner's requests
	Request string        // a digest of all that is asked, and where; under the same name another one is ErrKeyReused
	TTL     time.Duration // from when the request is begun, at most the time to live of a conversation
}

// Store keeps conversations. Every method is safe for concurrent use, does all of what it says or nothing, and reaches only
// what belongs to owner. A conversation that is missing, has expired or belongs to someone else is one case: ErrNotFound.
// Errors that mean "not now" wrap ErrUnavailable. What a method returns is the caller's own copy.
//
// The caller stamps the time; the store keeps it, and moves a stamp that lies before the conversation's last one up to that.
// A turn whose lease has run out is dead: the next Begin or Get marks its message Failed, and its Finish is refused.
type Store interface {
	// Claim takes a guarded start under c.Token until c.Now + c.Lease. Repeated, it moves that end; a Lease of 0 gives the start up.
	// When the start has been made, Claim returns its conversation as it was then, and true.
	// ErrKeyReused: the guard names another request. *BusyError: another token holds the start.
	Claim(ctx context.Context, owner Owner, c Claim) (made Conversation, isMade bool, err error)

	// Start makes a conversation with its first messages and returns it.
	// ErrTooMany: the owner has as many conversations as Limits allow. ErrTurnLost: s.Token does not hold s.Guard.
	Start(ctx context.Context, owner Owner, s Start) (Conversation, error)

	// Begin appends a user message as Pending, and takes the turn under b.Token until b.Now + b.Lease.
	// When a guard knows the request, nothing is appended: the turn is returned as it ended, or, when it failed because the agent
	// was NotAsked and nothing has followed, taken up again.
	// ErrClosed: not active. ErrFull: no room for a question and an answer. ErrKeyReused: a guard names another request.
	// *BusyError: another turn lives, or this one under another token.
	Begin(ctx context.Context, owner Owner, id string, b Begin) (Turn, error)

	// Renew moves the end of a live turn's lease. ErrTurnLost: the token does not hold a live turn.
	Renew(ctx context.Context, owner Owner, id, token string, now time.Time, lease time.Duration) error

	// Finish ends a live turn: the user message gets f.State and the replies follow it, in order.
	// It returns the time that the replies were stamped with; repeated, that of the first time. ErrTurnLost: the token does not hold a live turn; nothing is written.
	Finish(ctx context.Context, owner Owner, id string, f Finish) (time.Time, error)

	// Get returns a conversation and a page of its messages, oldest first, and counts as an access.
	Get(ctx context.Context, owner Owner, id string, p Page) (Conversation, []Message, error)

	// List returns the owner's conversations, last updated first, at most l.Limit, and whether more follow.
	// Whatever it names could be got at l.Now. It is not an access.
	List(ctx context.Context, owner Owner, l List) (conversations []Conversation, more bool, err error)

	// Ping returns no error when the store answers, or did so within the last second.
	Ping(ctx context.Context) (Vitals, error)
}

// Vitals is what a store tells of itself.
type Vitals struct {
	Latency time.Duration // of the last ping
	Warning string        // what endangers what is kept; empty: nothing that is known
}

// Limits bound what a store keeps.
type Limits struct {
	TTL           time.Duration // from the last access of a conversation to its end
	Messages      int64         // per conversation, checked when a turn begins: there must be room for it and one reply
	Conversations int64         // per owner
}

// Start is what a new conversation starts with. Conversation's ID, Owner, ObjectID, ExternalID, Title and Metadata are used;
// the ID is fresh and makes a repeated call with the same ID harmless.
type Start struct {
	Conversation Conversation
	Messages     []Message // the greeting; State, Seq and CreatedAt are set by the store
	AgentRef     string    // opaque to everyone but the agent
	Guard        *Guard    // nil: none; otherwise claimed under Token
	Token        string
	Now          time.Time
}

// Claim is the claim to a guarded start.
type Claim struct {
	Guard Guard
	Token string // unguessable
	Lease time.Duration
	Now   time.Time
}

// Begin is a question and the claim to the turn in which it is answered.
type Begin struct {
	Message Message // State, Seq and CreatedAt are set by the store
	Guards  []Guard // at least one, of which every execution of this call is recognised; two at most
	Token   string  // unguessable
	Context int     // how many earlier messages to return
	Lease   time.Duration
	Now     time.Time
}

// Turn is a turn that has begun, or one of the same request that is over.
type Turn struct {
	Message    Message   // the stored user message
	History    []Message // the last messages before it, oldest first; nil when Over
	AgentRef   string
	ExternalID string

	Over    bool
	Replies []Message // when Over
	Failure Failure   // when Over with a Failed message
}

// Failure says why a turn failed. Empty: it was lost.
type Failure string

// The reasons that are kept.
const (
	NotAsked     Failure = "not asked" // the agent knows nothing of the question
	AgentFailed  Failure = "agent failed"
	AgentTimeout Failure = "agent timeout"
)

// Finish is the end of a turn.
type Finish struct {
	Token      string
	Guards     []Guard   // those of its Begin
	State      State     // Complete or Failed
	Failure    Failure   // when Failed
	Replies    []Message // State, Seq and CreatedAt are set by the store
	AgentRef   string    // kept in place of the last one
	ExternalID string    // kept in place of the last one
	Now        time.Time
}

// Page asks for the last Limit messages with a Seq below Before; Before 0 asks for the newest.
type Page struct {
	Before int64
	Limit  int
	Now    time.Time
}

// List asks for a page of conversations.
type List struct {
	Status Status  // empty: any
	After  *Cursor // nil: from the most recently updated
	Limit  int
	Now    time.Time
}

// Cursor is a place in an owner's list: right behind the conversation ID, last updated at UpdatedAt.
type Cursor struct {
	UpdatedAt time.Time
	ID        string
}

// Agent answers. Its methods are called concurrently, and end when ctx does.
type Agent interface {
	// Open opens the agent's side of a new conversation.
	Open(ctx context.Context, owner Owner, conversationID string) (Reply, error)

	// Answer answers t.Message.
	Answer(ctx context.Context, owner Owner, conversationID string, t Turn) (Reply, error)
}

// Reply is what an agent says: messages with Kind, Text, CardJSON and CardID set, and its own state to be kept.
type Reply struct {
	Messages   []Message
	AgentRef   string
	ExternalID string
}
