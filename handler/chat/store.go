package chat

import (
	"context"
	"time"
)

// Store stores conversations. Every method is safe for concurrent use, does all of what it says or nothing, and reaches only
// what belongs to owner. A conversation that is missing, has expired or belongs to someone else is one case: ErrNotFound.
// Errors that mean "not now" wrap ErrUnavailable. What a method returns is a copy of the caller's own, except for bytes of JSON, which
// nobody changes.
//
// The store has the only clock: it stamps, and judges leases and expiries. A stamp never lies before the conversation's last one.
// A turn whose lease has run out is dead: the next Begin or Get marks its message Failed, and its Finish is refused.
type Store interface {
	// Claim takes the start that c.Record identifies under c.Token until its lease ends. Repeated, it moves that end; a Lease of 0
	// gives the start up. When the start has been made, Claim returns its conversation as it was then, but for Title, Metadata and
	// ObjectID, which the request itself has. Otherwise it returns nil.
	// ErrKeyReused: the record has another fingerprint. *BusyError: another token holds the start. ErrNotFound: it was made, and is gone.
	Claim(ctx context.Context, owner Owner, c Claim) (*Conversation, error)
	// Start makes a conversation with its first messages and returns it.
	// ErrTooMany: the owner has as many conversations as Limits allow. ErrQuota: or as many bytes. *RateError: or turns.
	// ErrTurnLost: s.Token does not hold s.Record.
	// ErrNotFound: this call was executed before, and the conversation deleted since.
	Start(ctx context.Context, owner Owner, s Start) (Conversation, error)
	// Begin appends a user message as Pending, and takes the turn under b.Token until its lease ends. A conversation that was given no title,
	// not even an empty one by Update, gets b.Title.
	// If a record identifies the request, nothing is appended. A finished turn is returned; one that failed and is NotTaken, and which is
	// still last, is resumed as a turn more. The other records of b then identify the request too.
	// ErrClosed: not active. ErrFull: no room for a question and an answer. ErrKeyReused: a record has another fingerprint.
	// ErrMessageIDTaken: a message of the conversation has the id. *BusyError: another turn lives, or this one under another token.
	// ErrQuota: no room for the message. *RateError: too many turns.
	// ErrTurnLost: this call was executed before, and its turn has ended since.
	Begin(ctx context.Context, owner Owner, id string, b Begin) (Turn, error)
	// Append adds to the log of a live turn, moves the end of its lease, and counts as an access. Entries whose ids are not above those of the
	// turn that are there already are left out, so it may be repeated. ErrTurnLost: the token does not hold a live turn.
	Append(ctx context.Context, owner Owner, id string, a Append) (Appended, error)
	// Finish ends a live turn: the user message gets f.State and the replies follow it, in order; the entries go to the log.
	// Repeated, it returns what it did the first time. ErrTurnLost: the token does not hold a live turn; nothing is written.
	// ErrCancelled: f.State is Complete, and the owner has asked for the turn's end; nothing is written.
	Finish(ctx context.Context, owner Owner, id string, f Finish) (Finished, error)
	// Cancel asks that the live turn end, and tells whether this call, or an earlier one with its token, did: not when no turn lives, it is not
	// that of c.MessageID, or somebody else has asked before.
	Cancel(ctx context.Context, owner Owner, id string, c Cancellation) (bool, error)
	// Events returns a page of what has happened in the conversation after an event. It is no access. after nil: after what happened before
	// the live turn or, when none lives, after all that did.
	Events(ctx context.Context, owner Owner, id string, after *EventID) (Log, error)
	// Watch calls begun, which must not block, after a turn of the conversation has begun in any process, and whenever one may have been
	// missed. It may call too often, and seldom miss one. It does so until stop is called.
	Watch(owner Owner, id string, begun func()) (stop func())
	// Update changes what the owner may change, and returns the conversation. It is no access, and does not disturb a turn.
	// What changes nothing is no change, and so is what u.Record identifies: it was made before.
	// ErrQuota: no room for it. ErrVersion: u.Version is not the conversation's. ErrKeyReused: the record has another fingerprint.
	Update(ctx context.Context, owner Owner, id string, u Update) (Conversation, error)
	// Recall tells whether the owner has a record. ErrKeyReused: it has another fingerprint.
	Recall(ctx context.Context, owner Owner, record IdempotencyRecord) (bool, error)
	// Delete ends a conversation at once, with all that it holds; nothing brings it back. A deletion that d.Record identifies was done
	// before: that is replayed. ErrKeyReused: the record has another fingerprint.
	Delete(ctx context.Context, owner Owner, id string, d Deletion) (replayed bool, err error)
	// Erase ends everything that the owner has, step by step: an error may leave a part of it, for the next call to end, which counts only
	// what it ends itself. Deletions leave
	// nothing to tell a late start by.
	Erase(ctx context.Context, owner Owner) (Erasure, error)
	// Get returns a conversation and a page of its messages, oldest first, and counts as an access unless p.Unseen. When p.Known is
	// the conversation's version, no message is read.
	Get(ctx context.Context, owner Owner, id string, p Page) (Conversation, []StoredMessage, error)
	// List returns conversations of the owner, last updated first, at most l.Limit, and where the next page begins: nil at the end.
	// Each of them can be read by Get. One whose entry is damaged is left out until it is next opened, so a page may be short although
	// more follow. ObjectID is not among what it returns. It is not an access.
	List(ctx context.Context, owner Owner, l List) ([]Conversation, *Cursor, error)
	// Ping returns what callers get, as of a second ago at most: an error when nothing is served, and Health.Warning when only writes fail.
	Ping(ctx context.Context) (Health, error)
}

// Health is the state of a store.
type Health struct {
	Latency time.Duration // of the last ping
	Warning string        // why writes fail, or what endangers conversations; empty: nothing known
}

// Limits bound what a store holds.
type Limits struct {
	TTL                time.Duration // from the last access of a conversation to its end
	Age                time.Duration // from its start to its end, whatever the accesses; 0: any
	Messages           int64         // per conversation, checked when a turn begins: there must be room for it and one reply
	Conversations      int64         // per owner
	Bytes              int64         // per owner, of messages, attributes and idempotency records; checked before a write, but for an answer's
	TurnsPerMinute     int64         // per owner: starts, and sends that begin a turn
	IdempotencyRecords int64         // per owner; beyond it the oldest goes first
}

// What one call returns at most. A single message or conversation, or the end of a turn, may be larger.
const (
	PageBytes  = 1 << 20   // of messages
	ListBytes  = 256 << 10 // of conversations
	LogEntries = 500
)

// Bounds of the logs of an owner.
const (
	LogTime    = 15 * time.Minute // for which entries outlive their turn, at least; and 5 min more at most, or until two newer turns have some
	LogBytes   = 16 << 20         // of entries in LogTime, each counted as its text and EntryBytes; beyond it they are dropped
	EntryBytes = 64
)

// Lag is how far LastAccessedAt and ExpiresAt may lie behind the truth: an access is counted at most once in this time, so that most
// reads write nothing. A conversation lives longer by as much.
func (l Limits) Lag() time.Duration {
	return min(time.Minute, l.TTL/100).Truncate(time.Millisecond)
}

// Claim is the claim to a start with an idempotency key.
type Claim struct {
	Record IdempotencyRecord
	Token  string // unguessable
	Lease  time.Duration
}

// Start is what a new conversation starts with. Conversation's ID, ObjectID, ExternalID, Title and Metadata are used;
// the ID is fresh and makes a repeated call with the same ID harmless.
type Start struct {
	Conversation Conversation
	Messages     [][]byte           // the greeting, each the JSON form of a Message whose id is MessageID(Seq)'s
	AgentRef     string             // opaque to everyone but the agent
	Preview      string             // of the messages, for List; empty: none has text
	Record       *IdempotencyRecord // nil: none; otherwise claimed under Token
	Token        string
}

// Begin is a question and the claim to the turn in which it is answered.
type Begin struct {
	MessageID    string
	JSON         []byte              // the JSON form of the message
	Title        string              // for the conversation; empty: none
	Preview      string              // of the message, for List; empty: it has no text
	Records      []IdempotencyRecord // by which a retry is recognised: two at most, with one fingerprint
	Token        string              // unguessable
	Context      int                 // how many earlier messages to return, at most
	ContextBytes int64               // and of how many bytes
	Lease        time.Duration
}

// Turn is a turn that has begun, or that of the same request as it ended.
type Turn struct {
	Message    StoredMessage   // the user's
	History    []StoredMessage // the last messages before it, oldest first; nil when Replayed
	AgentRef   string
	ExternalID string
	Attempt    int64 // how often the question was asked before
	Before     int64 // seq of the question before, or of one that is later; 0: there was none

	Replayed bool
	Replies  []StoredMessage // when Replayed
	Failure  string          // the code, when Replayed with a Failed message; empty: the turn was lost
}

// Append is what a live turn tells while it runs.
type Append struct {
	Token   string
	Lease   time.Duration
	Entries []Entry // of status and delta; may be empty
}

// Appended is what a live turn is told.
type Appended struct {
	Cancelled bool // the owner has asked for its end
	Dropped   bool // the entries are not in the log, for the owner has too many
}

// Finish is the end of a turn.
type Finish struct {
	Token      string
	Seq        int64               // of the turn's message; 0 when it is not known that the turn began
	Records    []IdempotencyRecord // those of its Begin
	State      State               // Complete, Failed or Cancelled
	Failure    string              // the code, when Failed
	Replies    [][]byte            // each the JSON form of a Message whose id is MessageID(Seq)'s; Partial unless State is Complete
	Preview    string              // of the replies, for List; empty: none has text
	AgentRef   string              // replaces the stored one, unless empty
	ExternalID string              // likewise

	Entries []Entry // for the log
}

// Finished is what a turn's end did.
type Finished struct {
	At      time.Time // the stamp of the replies
	Dropped bool      // the entries are not in the log, for the owner has too many
}

// Cancellation asks for the end of a turn.
type Cancellation struct {
	MessageID string // the question's; empty: whichever lives
	Token     string // of this call: unguessable
}

// Log is a page of what has happened in a conversation. Of a turn that After is the last event of, it has no entries, and may have replies.
type Log struct {
	After   EventID // what the page follows
	IsThere bool    // the log has an entry with its id

	Entries      []Entry // the first LogEntries, and PageBytes of text
	MoreEntries  bool
	Messages     []StoredMessage // of whole turns from that of After on: PageBytes, but one turn at least; of a turn that is dead, Failed
	MoreMessages bool

	// Of the last turn.
	Last    int64  // seq of its question; 0: there is none
	Token   string // as in its Begin
	Attempt int64  // how often the question was asked before
	IsLive  bool
}

// Update is a change of a conversation; what is nil stays.
type Update struct {
	Title    *string
	Metadata map[string]string
	Status   *Status
	Version  int64              // the change is made to this version only; 0: to any
	Record   *IdempotencyRecord // by which a retry is recognised; nil: none
}

// Deletion is how a deletion is recognised when it is repeated.
type Deletion struct {
	Token  string             // of this call: unguessable
	Record *IdempotencyRecord // nil: none
}

// Erasure is what Erase did.
type Erasure struct {
	Deleted       int // conversations that lived
	KeysRemaining int // of the owner's, counted when all was done; more than 0 when others wrote meanwhile
}

// Page asks for the last Limit messages with a Seq below Before; Before 0 asks for the newest.
type Page struct {
	Before int64
	Limit  int
	Known  int64 // the version that the caller has; 0: none
	Bytes  int64 // of the messages, at most, or one message; 0: PageBytes
	Unseen bool  // it is no access
}

// List asks for a page of conversations.
type List struct {
	Status Status  // empty: any
	After  *Cursor // nil: from the most recently updated
	Limit  int
}

// Cursor is a position in an owner's list: right after the conversation ID, last updated at UpdatedAt.
type Cursor struct {
	UpdatedAt time.Time
	ID        string
}
