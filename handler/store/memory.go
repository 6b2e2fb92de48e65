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
	guards map[chat.Owner]map[string]*guard // by their names
}

// guard is what is known of a request, of a turn or of a start.
type guard struct {
	request string
	token   string
	expires time.Time

	asked   int64 // of a turn: seq of its message
	replies int64 // how many messages answered it
	failure chat.Failure
	ended   time.Time // when it was finished; zero while it lives, and when it died

	lease time.Time          // of a start: when the claim dies
	made  *chat.Conversation // as it was then; nil until then
}

// kept is a conversation with its messages and its turn.
type kept struct {
	chat.Conversation
	messages []chat.Message
	agentRef string
	token    string    // of the last turn that began
	lease    time.Time // when the live turn dies; zero once it has ended
	asked    int64     // seq of its message
}

// NewMemory returns an empty store.
func NewMemory(limits chat.Limits) *Memory {
	return &Memory{
		limits: limits, owners: make(map[chat.Owner]map[string]*kept), guards: make(map[chat.Owner]map[string]*guard),
	}
}

// Claim implements chat.Store.
func (m *Memory) Claim(_ context.Context, owner chat.Owner, c chat.Claim) (chat.Conversation, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	past, err := m.recall(owner, c.Now, c.Guard)
	switch {
	case err != nil:
		return chat.Conversation{}, false, err
	case past != nil && past.made != nil:
		return copyOf(*past.made), true, nil
	case past != nil && past.token != c.Token && past.lease.After(c.Now):
		return chat.Conversation{}, false, &chat.BusyError{Left: past.lease.Sub(c.Now)}
	case c.Lease > 0:
		m.remember(owner, c.Now, c.Guard, guard{token: c.Token, lease: c.Now.Add(c.Lease)})
	case past != nil && past.token == c.Token:
		delete(m.guards[owner], c.Guard.Name)
	}
	return chat.Conversation{}, false, nil
}

// Start implements chat.Store.
func (m *Memory) Start(_ context.Context, owner chat.Owner, s chat.Start) (chat.Conversation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for other := range m.owners {
		m.purge(other, s.Now)
	}
	for other := range m.guards {
		m.purge(other, s.Now)
	}
	mine := m.owners[owner]
	if k, ok := mine[s.Conversation.ID]; ok {
		return k.conversation(), nil
	}
	if s.Guard != nil {
		past, err := m.recall(owner, s.Now, *s.Guard)
		if err != nil || past == nil || past.token != s.Token || past.made != nil {
			return chat.Conversation{}, chat.ErrTurnLost
		}
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
	made := k.conversation()
	if s.Guard != nil {
		m.remember(owner, s.Now, *s.Guard, guard{token: s.Token, made: &made})
	}
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
	past, err := m.recall(owner, b.Now, b.Guards...)
	if err != nil {
		return chat.Turn{}, err
	}
	k.settle(b.Now)
	live := !k.lease.IsZero()
	switch {
	case past != nil && past.token == b.Token:
		if k.token != b.Token || !live {
			return chat.Turn{}, chat.ErrTurnLost
		}
	case past != nil && past.token == k.token && live:
		return chat.Turn{}, &chat.BusyError{Left: k.lease.Sub(b.Now)}
	case past != nil && past.failure == chat.NotAsked && past.asked == k.MessageCount && k.Status == chat.Active:
		m.take(owner, k, b, past.asked)
	case past != nil:
		return k.over(*past), nil
	case k.Status != chat.Active:
		return chat.Turn{}, chat.ErrClosed
	case live:
		return chat.Turn{}, &chat.BusyError{Left: k.lease.Sub(b.Now)}
	case k.MessageCount+2 > m.limits.Messages:
		return chat.Turn{}, chat.ErrFull
	default:
		k.push(later(b.Now, k.UpdatedAt), []chat.Message{b.Message})
		m.take(owner, k, b, k.MessageCount)
	}
	return chat.Turn{
		Message:  clone(k.messages[k.asked-1]),
		History:  cloneAll(k.messages[max(0, int(k.asked)-1-b.Context) : k.asked-1]),
		AgentRef: k.agentRef, ExternalID: k.ExternalID,
	}, nil
}

// take makes the message with the given seq the one that is asked under b. The caller holds m.mu.
func (m *Memory) take(owner chat.Owner, k *kept, b chat.Begin, asked int64) {
	k.change(b.Now)
	k.messages[asked-1].State = chat.Pending
	k.token, k.lease, k.asked = b.Token, b.Now.Add(b.Lease), asked
	k.touch(b.Now, m.limits.TTL)
	for _, g := range b.Guards {
		m.remember(owner, b.Now, g, guard{token: b.Token, asked: asked})
	}
}

// over is the turn of a guard, as it ended.
func (k *kept) over(g guard) chat.Turn {
	return chat.Turn{
		Message: clone(k.messages[g.asked-1]), AgentRef: k.agentRef, ExternalID: k.ExternalID,
		Over: true, Replies: cloneAll(k.messages[g.asked : g.asked+g.replies]), Failure: g.failure,
	}
}

// recall returns what the first guard that knows its request knows, or nil. The caller holds m.mu.
func (m *Memory) recall(owner chat.Owner, now time.Time, guards ...chat.Guard) (*guard, error) {
	var past *guard
	for _, g := range guards {
		known, ok := m.guards[owner][g.Name]
		if !ok || !known.expires.After(now) {
			continue
		}
		if known.request != g.Request {
			return nil, chat.ErrKeyReused
		}
		if past == nil {
			past = known
		}
	}
	return past, nil
}

// remember has a guard know its request. The caller holds m.mu.
func (m *Memory) remember(owner chat.Owner, now time.Time, g chat.Guard, known guard) {
	known.request, known.expires = g.Request, now.Add(min(g.TTL, m.limits.TTL))
	if m.guards[owner] == nil {
		m.guards[owner] = make(map[string]*guard)
	}
	m.guards[owner][g.Name] = &known
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
	if err != nil {
		return time.Time{}, chat.ErrTurnLost
	}
	for _, g := range f.Guards {
		if known := m.guards[owner][g.Name]; known != nil && known.token == f.Token && !known.ended.IsZero() {
			return known.ended, nil
		}
	}
	if k.token != f.Token || !k.lease.After(f.Now) {
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
	for _, g := range f.Guards {
		if known := m.guards[owner][g.Name]; known != nil && known.token == f.Token {
			known.replies, known.failure, known.ended = int64(len(f.Replies)), f.Failure, k.UpdatedAt
		}
	}
	return k.UpdatedAt, nil
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
func (m *Memory) Ping(context.Context) (chat.Vitals, error) { return chat.Vitals{}, nil }

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

// purge drops an owner's conversations and guards that have expired. The caller holds m.mu.
func (m *Memory) purge(owner chat.Owner, now time.Time) {
	maps.DeleteFunc(m.guards[owner], func(_ string, g *guard) bool { return !g.expires.After(now) })
	if len(m.guards[owner]) == 0 {
		delete(m.guards, owner)
	}
	maps.DeleteFunc(m.owners[owner], func(_ string, k *kept) bool { return !k.ExpiresAt.After(now) })
	if len(m.owners[owner]) == 0 {
		delete(m.owners, owner)
	}
}

func (k *kept) touch(now time.Time, ttl time.Duration) {
	k.LastAccessedAt = later(now, k.LastAccessedAt)
	k.ExpiresAt = k.LastAccessedAt.Add(ttl)
}

// change counts a change at now, and returns the time to stamp it with.
func (k *kept) change(now time.Time) time.Time {
	k.Version++
	k.UpdatedAt = later(now, k.UpdatedAt)
	return k.UpdatedAt
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
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
	return copyOf(k.Conversation)
}

func copyOf(c chat.Conversation) chat.Conversation {
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
