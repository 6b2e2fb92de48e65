package chat

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Settings are the times a Service keeps to.
type Settings struct {
	Context        int           // how many earlier messages an agent is given
	AgentTimeout   time.Duration // for one answer
	TurnWait       time.Duration // how long a send waits for its turn
	TurnLease      time.Duration // how long a turn lives without being renewed; renewed at a third of it
	IdempotencyTTL time.Duration // how long a caller's name for a request is kept
}

// Service is what can be done with conversations. It is safe for concurrent use, and is closed after its last call.
type Service struct {
	store    Store
	agent    Agent
	settings Settings
	log      *slog.Logger
	lanes    lanes
	loose    looseEnds
}

// NewService returns a Service over a store and an agent.
func NewService(store Store, agent Agent, settings Settings, log *slog.Logger) *Service {
	return &Service{store: store, agent: agent, settings: settings, log: log, loose: newLooseEnds()}
}

// Close stops what goes on after its call has been answered, and waits until it has stopped.
func (s *Service) Close() {
	s.loose.close()
}

// Once is how a caller repeats a request without having it done twice.
type Once struct {
	Key     string // the caller's name for the request; empty: none
	Request string // a digest of all that is asked
}

// Opening is what the owner gives for a new conversation; all of it may be empty.
type Opening struct {
	Once     Once
	Title    string
	Metadata map[string]string
	ObjectID string
}

// Started is a new conversation with the agent's greeting.
type Started struct {
	Conversation Conversation
	Messages     []Message
	Replayed     bool // an earlier request with the same key made it
}

// Start opens a conversation with the agent and stores it. When the agent fails, nothing is stored.
//
// A request with a key is done once: repeated within Settings.IdempotencyTTL it returns what the first one returned, as long as
// that conversation lives. While the first one runs, it waits up to Settings.TurnWait, then gets a *BusyError.
func (s *Service) Start(ctx context.Context, owner Owner, o Opening) (Started, error) {
	if err := invalid(o.check()); err != nil {
		return Started{}, err
	}
	if o.Once.Key == "" {
		// From here on a caller that hangs up changes nothing: what was begun is stored.
		started, err := s.start(context.WithoutCancel(ctx), owner, o, Claim{})
		return started, wrap("start", err)
	}
	claim := Claim{Guard: s.keyGuard(o.Once), Token: newID(), Lease: s.settings.TurnLease}
	made, isMade, err := s.claim(ctx, owner, claim)
	if err != nil {
		return Started{}, wrap("start", err)
	}
	if isMade {
		started, err := s.started(ctx, owner, made)
		return started, wrap("start", err)
	}
	started, err := s.start(context.WithoutCancel(ctx), owner, o, claim)
	if err != nil {
		s.giveUp(owner, claim)
	}
	return started, wrap("start", err)
}

// start opens a conversation under a claim, or under none.
func (s *Service) start(ctx context.Context, owner Owner, o Opening, claim Claim) (Started, error) {
	id := newID()
	reply, err := s.open(ctx, owner, id, claim)
	if err != nil {
		return Started{}, err
	}
	now := timestamp()
	greeting := fromAgent(reply.Messages, "")
	begun := Start{
		Conversation: Conversation{
			ID: id, ObjectID: o.ObjectID, ExternalID: reply.ExternalID, Title: o.Title, Metadata: o.Metadata,
		},
		Messages: greeting,
		AgentRef: reply.AgentRef,
		Now:      now,
	}
	if claim.Token != "" {
		begun.Guard, begun.Token = &claim.Guard, claim.Token
	}
	conversation, err := s.store.Start(ctx, owner, begun)
	if err != nil {
		return Started{}, err
	}
	place(greeting, 1, now)
	return Started{Conversation: conversation, Messages: greeting}, nil
}

// started returns a conversation as it was when it was made.
func (s *Service) started(ctx context.Context, owner Owner, made Conversation) (Started, error) {
	greeting := []Message{}
	if n := made.MessageCount; n > 0 {
		var err error
		_, greeting, err = s.store.Get(ctx, owner, made.ID, Page{Before: n + 1, Limit: int(n), Now: timestamp()})
		if err != nil {
			return Started{}, err
		}
	}
	return Started{Conversation: made, Messages: greeting, Replayed: true}, nil
}

// Said is what the owner says: text, or the data of a submitted card, or both.
type Said struct {
	Once      Once
	MessageID *string // the message's id, and a name for the request like Once.Key
	Text      *string
	Value     []byte // a JSON object, or nil
}

// Sent is a finished turn.
type Sent struct {
	Message  Message // the owner's, as stored
	Replies  []Message
	Replayed bool // an earlier request with the same key or message id made it
}

// Send stores what the owner says, has the agent answer it, and stores the answer.
//
// Sends to one conversation take turns: the next waits up to Settings.TurnWait, then gets a *BusyError, with nothing stored.
// A turn that has begun goes on when ctx ends. When it fails, the message is kept as Failed.
//
// A request with a key or a message id is done once: repeated within Settings.IdempotencyTTL it returns what the first one
// returned, an error of its turn as a *ReplayedError. While the first one runs, it waits as for any other turn.
func (s *Service) Send(ctx context.Context, owner Owner, id string, said Said) (Sent, error) {
	if err := invalid(checkID("conversationId", id), said.check()); err != nil {
		return Sent{}, err
	}
	patience, cancel := context.WithTimeoutCause(ctx, s.settings.TurnWait, &BusyError{Left: s.settings.TurnLease})
	defer cancel()
	leave, err := s.lanes.enter(patience, owner, id)
	if err != nil {
		return Sent{}, wrap("send", err)
	}
	defer leave()
	question, guards := s.question(said)
	token := newID()
	turn, err := s.begin(patience, owner, id, Begin{
		Message: question, Guards: guards, Token: token, Context: s.settings.Context, Lease: s.settings.TurnLease,
	})
	if err != nil {
		return Sent{}, wrap("send", err)
	}
	if turn.Over {
		sent, err := turn.outcome()
		return sent, wrap("send", err)
	}

	ctx = context.WithoutCancel(ctx)
	end := Finish{Token: token, Guards: guards}
	reply, err := s.answer(ctx, owner, id, token, turn)
	if err != nil {
		end.State, end.Failure = Failed, failureOf(err)
		s.fail(ctx, owner, id, end)
		return Sent{}, wrap("send", err)
	}
	end.State, end.Replies = Complete, fromAgent(reply.Messages, turn.Message.ID)
	end.AgentRef, end.ExternalID = reply.AgentRef, reply.ExternalID
	at, err := s.finish(ctx, owner, id, end)
	if err != nil {
		return Sent{}, wrap("send", err)
	}
	turn.Message.State = Complete
	place(end.Replies, turn.Message.Seq+1, at)
	return Sent{Message: turn.Message, Replies: end.Replies}, nil
}

// Get returns a conversation and a page of its messages.
func (s *Service) Get(ctx context.Context, owner Owner, id string, p Page) (Conversation, []Message, error) {
	if err := invalid(checkID("conversationId", id)); err != nil {
		return Conversation{}, nil, err
	}
	p.Now = timestamp()
	conversation, messages, err := s.store.Get(ctx, owner, id, p)
	return conversation, messages, wrap("get", err)
}

// ListConversations returns a page of the owner's conversations and whether more follow.
func (s *Service) ListConversations(ctx context.Context, owner Owner, l List) ([]Conversation, bool, error) {
	l.Now = timestamp()
	conversations, more, err := s.store.List(ctx, owner, l)
	return conversations, more, wrap("list conversations", err)
}

// Health returns no error when the store answers.
func (s *Service) Health(ctx context.Context) (Vitals, error) {
	return s.store.Ping(ctx)
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// question makes the owner's message, and the guards of the request: by the message's id, and by the caller's key.
// An id that the caller did not choose guards against late executions alone, until all of the turn's are over.
func (s *Service) question(said Said) (Message, []Guard) {
	m := Message{ID: newID(), Role: User, Kind: Text, Text: said.text(), Value: said.Value}
	ttl := s.settings.AgentTimeout + 2*s.settings.TurnLease
	if said.MessageID != nil {
		m.ID, ttl = *said.MessageID, s.settings.IdempotencyTTL
	}
	guards := []Guard{{Name: "message:" + m.ID, Request: said.Once.Request, TTL: ttl}}
	if said.Once.Key != "" {
		guards = append(guards, s.keyGuard(said.Once))
	}
	return m, guards
}

func (s *Service) keyGuard(o Once) Guard {
	return Guard{Name: "key:" + o.Key, Request: o.Request, TTL: s.settings.IdempotencyTTL}
}

// fromAgent makes an agent's messages ready to be stored.
func fromAgent(messages []Message, inReplyTo string) []Message {
	made := make([]Message, 0, len(messages))
	for _, m := range messages {
		m.ID, m.Role, m.InReplyTo = newID(), Assistant, inReplyTo
		made = append(made, m)
	}
	return made
}

// place fills in what the store decided about messages that it appended.
func place(messages []Message, first int64, at time.Time) {
	for i := range messages {
		messages[i].Seq, messages[i].State, messages[i].CreatedAt = first+int64(i), Complete, at
	}
}

// timestamp is the time in the resolution that is stored.
func timestamp() time.Time {
	return time.Now().UTC().Truncate(time.Millisecond)
}
