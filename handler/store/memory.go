package store

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"chatkeep/handler/chat"
)

// Memory is a chat.Store for local use: what it keeps ends with the process. It keeps the same promises as Redis.
type Memory struct {
	limits chat.Limits

	mu     sync.Mutex
	owners map[chat.Owner]map[string]*kept
}

// kept is a conversation with its messages and its turn.
type kept struct {
	chat.Conversation
	messages []chat.Message
	agentRef string
	token    string    // of the last turn that began
	lease    time.Time // when the live turn dies; zero once it has ended
	asked    int64     // seq of its message
	ended    time.Time // when it was finished; zero while it lives, and when it died
}

// NewMemory returns an empty store.
func NewMemory(limits chat.Limits) *Memory {
	return &Memory{limits: limits, owners: make(map[chat.Owner]map[string]*kept)}
}

// Start implements chat.Store.
func (m *Memory) Start(_ context.Context, owner chat.Owner, s chat.Start) (chat.Conversation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for other := range m.owners {
		m.purge(other, s.Now)
	}
	mine := m.owners[owner]
	if k, ok := mine[s.Conversation.ID]; ok {
		return k.conversation(), nil
	}
	if int64(len(mine)) >= m.limits.Conversations {
		return chat.Conversation{}, chat.ErrTooMany
	}
	k := &kept{Conversation: s.Conversation, agentRef: s.AgentRef}
	k.Owner, k.Status, k.Version = owner, chat.Active, 1
	k.Metadata = maps.Clone(s.Conversation.Metadata)
	k.CreatedAt, k.UpdatedAt, k.LastAccessedAt, k.ExpiresAt = s.Now, s.Now, s.Now, s.Now.Add(m.limits.TTL)
	k.push(s.Now, s.Messages)
	if mine == nil {
		mine = make(map[string]*kept)
		m.owners[owner] = mine
	}
	mine[k.ID] = k
	return k.conversation(), nil
}

// Begin implements chat.Store.
func (m *Memory) Begin(_ context.Context, owner chat.Owner, id string, b chat.Begin) (chat.Turn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, err := m.load(owner, id, b.Now)
	if err != nil {
		return chat.Turn{}, err
	}
	k.settle(b.Now)
	switch {
	case k.token == b.Token && k.lease.IsZero():
		return chat.Turn{}, chat.ErrTurnLost
	case k.token == b.Token:
	case k.Status != chat.Active:
		return chat.Turn{}, chat.ErrClosed
	case !k.lease.IsZero():
		return chat.Turn{}, &chat.BusyError{Left: k.lease.Sub(b.Now)}
	case k.MessageCount+2 > m.limits.Messages:
		return chat.Turn{}, chat.ErrFull
	default:
		k.push(k.change(b.Now), []chat.Message{b.Message})
		k.messages[k.MessageCount-1].State = chat.Pending
		k.token, k.lease, k.asked, k.ended = b.Token, b.Now.Add(b.Lease), k.MessageCount, time.Time{}
		k.touch(b.Now, m.limits.TTL)
	}
	asked := k.messages[k.asked-1]
	history := k.messages[max(0, int(k.asked)-1-b.Context) : k.asked-1]
	return chat.Turn{
		Message: clone(asked), History: cloneAll(history), AgentRef: k.agentRef, ExternalID: k.ExternalID,
	}, nil
}

// Renew implements chat.Store.
func (m *Memory) Renew(_ context.Context, owner chat.Owner, id, token string, now time.Time, lease time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, err := m.load(owner, id, now)
	if err != nil || k.token != token || !k.lease.After(now) {
		return chat.ErrTurnLost
	}
	k.lease = now.Add(lease)
	return nil
}

// Finish implements chat.Store.
func (m *Memory) Finish(_ context.Context, owner chat.Owner, id string, f chat.Finish) (time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, err := m.load(owner, id, f.Now)
	switch {
	case err != nil:
		return time.Time{}, chat.ErrTurnLost
	case k.token == f.Token && !k.ended.IsZero():
		return k.ended, nil
	case k.token != f.Token || !k.lease.After(f.Now):
		return time.Time{}, chat.ErrTurnLost
	}
	k.close(f.State)
	k.push(k.change(f.Now), f.Replies)
	if f.ExternalID != "" {
		k.ExternalID = f.ExternalID
	}
	if f.AgentRef != "" {
		k.agentRef = f.AgentRef
	}
	k.ended = k.UpdatedAt
	return k.ended, nil
}

// Get implements chat.Store.
func (m *Memory) Get(_ context.Context, owner chat.Owner, id string, p chat.Page) (chat.Conversation, []chat.Message, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, err := m.load(owner, id, p.Now)
	if err != nil {
		return chat.Conversation{}, nil, err
	}
	k.settle(p.Now)
	k.touch(p.Now, m.limits.TTL)
	last := k.MessageCount
	if p.Before > 0 {
		last = min(last, p.Before-1)
	}
	return k.conversation(), cloneAll(k.messages[max(0, last-int64(p.Limit)):last]), nil
}

// List implements chat.Store.
func (m *Memory) List(_ context.Context, owner chat.Owner, l chat.List) ([]chat.Conversation, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.purge(owner, l.Now)
	var all []chat.Conversation
	for _, k := range m.owners[owner] {
		follows := l.After == nil || byRecency(chat.Conversation{ID: l.After.ID, UpdatedAt: l.After.UpdatedAt}, k.Conversation) < 0
		if follows && (l.Status == "" || k.Status == l.Status) {
			all = append(all, k.conversation())
		}
	}
	slices.SortFunc(all, byRecency)
	if len(all) > l.Limit {
		return all[:l.Limit], true, nil
	}
	return all, false, nil
}

// Ping implements chat.Store.
func (m *Memory) Ping(context.Context) error { return nil }

// byRecency sorts the last updated first, and of equal times the highest id.
func byRecency(a, b chat.Conversation) int {
	if order := b.UpdatedAt.Compare(a.UpdatedAt); order != 0 {
		return order
	}
	return strings.Compare(b.ID, a.ID)
}

// load returns a conversation that lives at now. The caller holds m.mu.
func (m *Memory) load(owner chat.Owner, id string, now time.Time) (*kept, error) {
	m.purge(owner, now)
	k, ok := m.owners[owner][id]
	if !ok {
		return nil, chat.ErrNotFound
	}
	return k, nil
}

// purge drops an owner's conversations that have expired. The caller holds m.mu.
func (m *Memory) purge(owner chat.Owner, now time.Time) {
	maps.DeleteFunc(m.owners[owner], func(_ string, k *kept) bool { return !k.ExpiresAt.After(now) })
	if len(m.owners[owner]) == 0 {
		delete(m.owners, owner)
	}
}

func (k *kept) touch(now time.Time, ttl time.Duration) {
	if now.After(k.LastAccessedAt) {
		k.LastAccessedAt = now
	}
	k.ExpiresAt = k.LastAccessedAt.Add(ttl)
}

// change counts a change at now, and returns the time to stamp it with.
func (k *kept) change(now time.Time) time.Time {
	k.Version++
	if now.After(k.UpdatedAt) {
		k.UpdatedAt = now
	}
	return k.UpdatedAt
}

func (k *kept) push(at time.Time, messages []chat.Message) {
	for _, m := range messages {
		k.MessageCount++
		m = clone(m)
		m.Seq, m.State, m.CreatedAt = k.MessageCount, chat.Complete, at
		k.messages = append(k.messages, m)
	}
}

// close ends the turn: its message gets the state.
func (k *kept) close(state chat.State) {
	k.messages[k.asked-1].State = state
	k.lease = time.Time{}
}

// settle ends a turn whose lease has run out.
func (k *kept) settle(now time.Time) {
	if !k.lease.IsZero() && !k.lease.After(now) {
		k.close(chat.Failed)
		k.change(now)
	}
}

func (k *kept) conversation() chat.Conversation {
	c := k.Conversation
	c.Metadata = maps.Clone(c.Metadata)
	return c
}

func clone(m chat.Message) chat.Message {
	m.CardJSON, m.Value = slices.Clone(m.CardJSON), slices.Clone(m.Value)
	return m
}

func cloneAll(messages []chat.Message) []chat.Message {
	all := make([]chat.Message, 0, len(messages))
	for _, m := range messages {
		all = append(all, clone(m))
	}
	return all
}
