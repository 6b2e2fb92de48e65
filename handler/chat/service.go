package chat

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"chatkeep/handler/logs"
	"chatkeep/handler/telemetry"
)

// Settings configure a Service.
type Settings struct {
	Context        int           // how many earlier messages an agent is given, at most
	ContextBytes   int64         // and of how many bytes
	AgentTimeout   time.Duration // for one answer
	TurnWait       time.Duration // how long a request waits for its turn
	TurnLease      time.Duration // how long a turn lives without being renewed; renewed at a third of it
	IdempotencyTTL time.Duration // how long a request with a key or a message id is recognised
	Recorder       *telemetry.Recorder
}

// Service has the operations on conversations. It is safe for concurrent use.
type Service struct {
	store    Store
	agent    Agent
	settings Settings
	recorder *telemetry.Recorder
	log      *slog.Logger
	queue    queue
	turns    *group // turns, and starts, that run by themselves
	retrier  *retrier

	mu      sync.Mutex
	running map[conversationKey]*turn  // of each conversation the turn that last began here, until it ends; guarded by mu
	watches map[conversationKey]*watch // of the conversations whose log is read here; guarded by mu

	endStreams sync.Once
	streamsEnd chan struct{} // closed by EndStreams
}

// NewService returns a Service over a store and an agent.
func NewService(store Store, agent Agent, settings Settings, log *slog.Logger) *Service {
	return &Service{
		store: store, agent: agent, settings: settings, recorder: cmp.Or(settings.Recorder, &telemetry.Recorder{}), log: log,
		turns: newGroup(log), retrier: newRetrier(settings.TurnLease, log), running: make(map[conversationKey]*turn),
		watches: make(map[conversationKey]*watch), streamsEnd: make(chan struct{}),
	}
}

// Close waits for the running turns. When ctx ends, it ends them with ErrTurnLost; then it stops all retries. When it returns, all
// goroutines of the Service have ended. A turn that would begin after Close was called is ErrUnavailable.
func (s *Service) Close(ctx context.Context) {
	s.turns.close(ctx)
	s.retrier.stop()
}

// EndStreams ends all streams that wait for turns of other processes, or for none. Those that read a turn of this process end with it.
func (s *Service) EndStreams() {
	s.endStreams.Do(func() { close(s.streamsEnd) })
}

// errClosing means that the process ends.
var errClosing = logs.Because(logs.Closing, fmt.Errorf("closing: %w", ErrUnavailable))

// Start opens a conversation with the agent and stores it. When the agent fails, nothing is stored. A start that has begun goes on
// when ctx ends.
//
// A request with a key is done once: repeated within Settings.IdempotencyTTL it returns what the first one returned, as long as
// that conversation lives. While the first one runs, it waits up to Settings.TurnWait, then gets a *BusyError.
func (s *Service) Start(ctx context.Context, caller Caller, o Opening) (Started, error) {
	if err := invalid(o.check()); err != nil {
		return Started{}, err
	}
	started, err := s.start(ctx, &opening{Opening: o, caller: caller, id: newID()})
	return started, wrap("start", err)
}

// Send stores the owner's message, has the agent answer it, and stores the answer.
//
// Sends to one conversation take turns: the next waits up to Settings.TurnWait, then gets a *BusyError, with nothing stored.
// A turn that has begun goes on when ctx ends. When it fails, the message stays, as Failed.
//
// A request with a key or a message id is done once: repeated within Settings.IdempotencyTTL it returns what the first one
// returned, an error of its turn as a *ReplayedError. While the first one runs, it waits as for any other turn.
func (s *Service) Send(ctx context.Context, caller Caller, id string, in Input) (Sent, error) {
	if err := invalid(checkID(ConversationIDField, id), in.check()); err != nil {
		return Sent{}, err
	}
	sent, err := s.send(ctx, caller, id, in)
	return sent, wrap("send", err)
}

// Get returns a conversation and a page of its messages.
func (s *Service) Get(ctx context.Context, owner Owner, id string, p Page) (Conversation, []StoredMessage, error) {
	if err := invalid(checkID(ConversationIDField, id), p.check()); err != nil {
		return Conversation{}, nil, err
	}
	conversation, messages, err := s.store.Get(ctx, owner, id, p)
	return conversation, messages, wrap("get", err)
}

// ListConversations returns a page of the owner's conversations, and where the next page begins: nil at the end.
func (s *Service) ListConversations(ctx context.Context, owner Owner, l List) ([]Conversation, *Cursor, error) {
	if err := invalid(l.check()); err != nil {
		return nil, nil, err
	}
	conversations, next, err := s.store.List(ctx, owner, l)
	return conversations, next, wrap("list conversations", err)
}

// Health returns the store's health, as Store.Ping does.
func (s *Service) Health(ctx context.Context) (Health, error) {
	return s.store.Ping(ctx)
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// record identifies a request by one of its names.
func (s *Service) record(name string, i Idempotency) IdempotencyRecord {
	return IdempotencyRecord{Name: name, Fingerprint: i.Fingerprint, TTL: s.settings.IdempotencyTTL}
}

func (s *Service) keyRecord(i Idempotency) IdempotencyRecord { return s.record("key:"+i.Key, i) }
