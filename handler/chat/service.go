package chat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Settings are the times a Service keeps to.
type Settings struct {
	Context      int           // how many earlier messages an agent is given
	AgentTimeout time.Duration // for one answer
	TurnWait     time.Duration // how long a send waits for its turn
	TurnLease    time.Duration // how long a turn lives without being renewed; renewed at a third of it
}

// Service is what can be done with conversations. It is safe for concurrent use.
type Service struct {
	store    Store
	agent    Agent
	settings Settings
	log      *slog.Logger
	lanes    lanes
}

// NewService returns a Service over a store and an agent.
func NewService(store Store, agent Agent, settings Settings, log *slog.Logger) *Service {
	return &Service{store: store, agent: agent, settings: settings, log: log}
}

// Opening is what the owner gives for a new conversation; all of it may be empty.
type Opening struct {
	Title    string
	Metadata map[string]string
	ObjectID string
}

// Started is a new conversation with the agent's greeting.
type Started struct {
	Conversation Conversation
	Messages     []Message
}

// Start opens a conversation with the agent and stores it. When the agent fails, nothing is stored.
func (s *Service) Start(ctx context.Context, owner Owner, o Opening) (Started, error) {
	if err := invalid(o.check()); err != nil {
		return Started{}, err
	}
	// From here on a caller that hangs up changes nothing: what was begun is stored.
	ctx = context.WithoutCancel(ctx)
	id := newID()
	reply, err := s.open(ctx, owner, id)
	if err != nil {
		return Started{}, fmt.Errorf("start: %w", err)
	}
	now := timestamp()
	greeting := fromAgent(reply.Messages, "")
	conversation, err := s.store.Start(ctx, owner, Start{
		Conversation: Conversation{
			ID: id, ObjectID: o.ObjectID, ExternalID: reply.ExternalID, Title: o.Title, Metadata: o.Metadata,
		},
		Messages: greeting,
		AgentRef: reply.AgentRef,
		Now:      now,
	})
	if err != nil {
		return Started{}, fmt.Errorf("start: %w", err)
	}
	place(greeting, 1, now)
	return Started{Conversation: conversation, Messages: greeting}, nil
}

// Said is what the owner says: text, or the data of a submitted card, or both.
type Said struct {
	Text  *string
	Value []byte // a JSON object, or nil
}

// Sent is a finished turn.
type Sent struct {
	Message Message // the owner's, as stored
	Replies []Message
}

// Send stores what the owner says, has the agent answer it, and stores the answer.
//
// Sends to one conversation take turns: the next waits up to Settings.TurnWait, then gets a *BusyError, with nothing stored.
// A turn that has begun goes on when ctx ends. When it fails, the message is kept as Failed.
func (s *Service) Send(ctx context.Context, owner Owner, id string, said Said) (Sent, error) {
	if err := invalid(checkID(id), said.check()); err != nil {
		return Sent{}, err
	}
	patience, cancel := context.WithTimeoutCause(ctx, s.settings.TurnWait, &BusyError{Left: s.settings.TurnLease})
	defer cancel()
	leave, err := s.lanes.enter(patience, owner, id)
	if err != nil {
		return Sent{}, fmt.Errorf("send: %w", err)
	}
	defer leave()
	token := newID()
	turn, err := s.begin(patience, owner, id, Begin{
		Message: Message{ID: newID(), Role: User, Kind: Text, Text: said.text(), Value: said.Value},
		Token:   token,
		Context: s.settings.Context,
		Lease:   s.settings.TurnLease,
	})
	if err != nil {
		return Sent{}, fmt.Errorf("send: %w", err)
	}

	ctx = context.WithoutCancel(ctx)
	reply, err := s.answer(ctx, owner, id, token, turn)
	if err != nil {
		s.abort(ctx, owner, id, token)
		return Sent{}, fmt.Errorf("send: %w", err)
	}
	replies := fromAgent(reply.Messages, turn.Message.ID)
	at, err := s.store.Finish(ctx, owner, id, Finish{
		Token: token, State: Complete, Replies: replies,
		AgentRef: reply.AgentRef, ExternalID: reply.ExternalID, Now: timestamp(),
	})
	if err != nil {
		return Sent{}, fmt.Errorf("send: %w", err)
	}
	turn.Message.State = Complete
	place(replies, turn.Message.Seq+1, at)
	return Sent{Message: turn.Message, Replies: replies}, nil
}

// Get returns a conversation and a page of its messages.
func (s *Service) Get(ctx context.Context, owner Owner, id string, p Page) (Conversation, []Message, error) {
	if err := invalid(checkID(id)); err != nil {
		return Conversation{}, nil, err
	}
	p.Now = timestamp()
	conversation, messages, err := s.store.Get(ctx, owner, id, p)
	if err != nil {
		return Conversation{}, nil, fmt.Errorf("get: %w", err)
	}
	return conversation, messages, nil
}

// ListConversations returns a page of the owner's conversations and whether more follow.
func (s *Service) ListConversations(ctx context.Context, owner Owner, l List) ([]Conversation, bool, error) {
	l.Now = timestamp()
	conversations, more, err := s.store.List(ctx, owner, l)
	if err != nil {
		return nil, false, fmt.Errorf("list conversations: %w", err)
	}
	return conversations, more, nil
}

// Health returns nil when the store answers.
func (s *Service) Health(ctx context.Context) error {
	return s.store.Ping(ctx)
}

// begin waits for the turns of other processes to end, until the patience does: then its cause is the error.
func (s *Service) begin(patience context.Context, owner Owner, id string, b Begin) (Turn, error) {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		b.Now = timestamp()
		turn, err := s.store.Begin(context.WithoutCancel(patience), owner, id, b)
		busy, isBusy := errors.AsType[*BusyError](err)
		if !isBusy {
			return turn, err
		}
		select {
		case <-time.After(min(pause, busy.Left)):
		case <-patience.Done():
			return Turn{}, context.Cause(patience)
		}
	}
}

func (s *Service) open(ctx context.Context, owner Owner, id string) (Reply, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.settings.AgentTimeout, ErrAgentTimeout)
	defer cancel()
	reply, err := s.agent.Open(ctx, owner, id)
	return reply, agentError(ctx, err)
}

// answer asks the agent, and keeps the turn's lease alive meanwhile.
func (s *Service) answer(ctx context.Context, owner Owner, id, token string, turn Turn) (Reply, error) {
	ctx, cancelTimeout := context.WithTimeoutCause(ctx, s.settings.AgentTimeout, ErrAgentTimeout)
	defer cancelTimeout()
	ctx, stop := context.WithCancelCause(ctx)
	renewing := make(chan struct{})
	go func() {
		defer close(renewing)
		s.keepLease(ctx, stop, owner, id, token)
	}()
	defer func() { stop(nil); <-renewing }()
	reply, err := s.agent.Answer(ctx, owner, id, turn)
	return reply, agentError(ctx, err)
}

// keepLease renews the turn until ctx ends, and ends it with ErrTurnLost when the lease cannot be kept.
func (s *Service) keepLease(ctx context.Context, stop context.CancelCauseFunc, owner Owner, id, token string) {
	ticker := time.NewTicker(s.settings.TurnLease / 3)
	defer ticker.Stop()
	held := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		asked := time.Now()
		err := s.store.Renew(ctx, owner, id, token, timestamp(), s.settings.TurnLease)
		switch {
		case err == nil:
			held = asked
		case errors.Is(err, ErrTurnLost) || time.Since(held) >= s.settings.TurnLease:
			stop(ErrTurnLost)
			return
		}
	}
}

// agentError says why the agent gave no answer: it was stopped for the cause of ctx, or failed by itself.
func agentError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return fmt.Errorf("%w: %w", ErrAgentFailed, err)
	}
}

// abort marks the turn's message as Failed. When that cannot be done now, the end of the lease does it.
func (s *Service) abort(ctx context.Context, owner Owner, id, token string) {
	_, err := s.store.Finish(ctx, owner, id, Finish{Token: token, State: Failed, Now: timestamp()})
	if err != nil && !errors.Is(err, ErrTurnLost) {
		s.log.WarnContext(ctx, "turn not aborted, its lease will end it", "err", err)
	}
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
