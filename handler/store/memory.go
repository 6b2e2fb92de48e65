package store

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"chatkeep/handler/chat"

	"github.com/go-json-experiment/json"
)

// Memory is a chat.Store for local use: conversations end with the process. It makes the same promises as Redis. Its clock is the
// process'.
type Memory struct {
	limits chat.Limits

	mu      sync.Mutex
	owners  map[chat.Owner]*account
	watches map[*watch]bool
}

// account is all that belongs to one owner.
type account struct {
	conversations map[string]*entry
	records       map[string]record // by their names
	windowStart   time.Time         // of the minute in which turns are counted
	turns         int64

	logWindow time.Time // when the time began in which logged counts
	logged    int       // bytes of entries of logs
}

// entry is a conversation with its messages and its turn.
type entry struct {
	chat.Conversation
	messages       []chat.StoredMessage // none is Pending: see pending
	messageBytes   int64
	ids            map[string]bool // of all messages
	agentRef       string
	last           chat.Preview
	isTitled       bool      // the title was given, or a message gave it: no other message does
	turnToken      string    // of the last turn that began
	turnLeaseUntil time.Time // when the live turn dies; zero once it has ended
	questionSeq    int64     // of that turn's message
	cancelToken    string    // the turn whose end the owner has asked for
	cancelCall     string    // and by which call

	questions map[int64]bool // the seqs of those of the user
	attempt   int64          // how often the last question was asked before
	log       []chat.Entry
	logUntil  time.Time // when it is gone
}

// record is an idempotency record of a turn or of a start.
type record struct {
	fingerprint string
	expiresAt   time.Time
	turnToken   string

	// Of a turn.
	questionSeq int64
	replyCount  int64
	failure     string
	endedAt     time.Time // when it was finished; zero while it lives, and when it died

	// Of a start.
	turnLeaseUntil time.Time          // when its claim dies
	made           *chat.Conversation // as it was then, but for what the request itself has; nil until then
}

// NewMemory returns an empty store.
func NewMemory(limits chat.Limits) *Memory {
	return &Memory{limits: limits, owners: make(map[chat.Owner]*account), watches: make(map[*watch]bool)}
}

// Claim implements chat.Store.
func (m *Memory) Claim(_ context.Context, owner chat.Owner, c chat.Claim) (*chat.Conversation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	a := m.account(owner)
	past, err := a.recall(now, c.Record)
	switch {
	case err != nil:
		return nil, err
	case past != nil && past.made != nil:
		if _, err := m.open(a, past.made.ID, now); err != nil {
			return nil, err
		}
		made := *past.made
		return &made, nil
	case past != nil && past.turnToken != c.Token && past.turnLeaseUntil.After(now):
		return nil, &chat.BusyError{Left: past.turnLeaseUntil.Sub(now)}
	case c.Lease > 0:
		m.remember(a, now, c.Record, record{turnToken: c.Token, turnLeaseUntil: now.Add(c.Lease)})
	case past != nil && past.turnToken == c.Token:
		delete(a.records, c.Record.Name)
	}
	return nil, nil
}

// Start implements chat.Store.
func (m *Memory) Start(_ context.Context, owner chat.Owner, s chat.Start) (chat.Conversation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	m.purge(now)
	a := m.account(owner)
	if e, ok := a.conversations[s.Conversation.ID]; ok {
		return e.conversation(), nil
	}
	if _, isDeleted := a.records[tombstone(s.Conversation.ID).Name]; isDeleted {
		return chat.Conversation{}, chat.ErrNotFound
	}
	if s.Record != nil {
		past, err := a.recall(now, *s.Record)
		if err != nil || past == nil || past.turnToken != s.Token || past.made != nil {
			return chat.Conversation{}, chat.ErrTurnLost
		}
	}
	if int64(len(a.conversations)) >= m.limits.Conversations {
		return chat.Conversation{}, chat.ErrTooMany
	}
	given := s.Conversation
	e := &entry{
		Conversation: chat.Conversation{
			ID: given.ID, Owner: owner, ObjectID: given.ObjectID, ExternalID: given.ExternalID, Title: given.Title,
			Metadata: keptMetadata(given.Metadata), Status: chat.Active, Version: 1,
			CreatedAt: now, UpdatedAt: now,
		},
		ids: make(map[string]bool), questions: make(map[int64]bool), agentRef: s.AgentRef,
	}
	e.isTitled = given.Title != ""
	m.putOff(e, now)
	e.show(chat.Assistant, s.Preview)
	for _, message := range s.Messages {
		e.push(now, messageID(message), message)
	}
	if err := m.admit(a, now, e.bytes()); err != nil {
		return chat.Conversation{}, err
	}
	a.turns++
	a.conversations[e.ID] = e
	if s.Record != nil {
		made := e.Conversation
		made.Title, made.Metadata, made.ObjectID = "", nil, ""
		m.remember(a, now, *s.Record, record{turnToken: s.Token, made: &made})
	}
	return e.conversation(), nil
}

// Begin implements chat.Store.
func (m *Memory) Begin(_ context.Context, owner chat.Owner, id string, b chat.Begin) (chat.Turn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	a := m.account(owner)
	e, err := m.open(a, id, now)
	if err != nil {
		return chat.Turn{}, err
	}
	past, err := a.recall(now, b.Records...)
	if err != nil {
		return chat.Turn{}, err
	}
	e.settle(now)
	isLive := e.pending() > 0
	isRepeated := e.turnToken == b.Token || slices.ContainsFunc(b.Records, func(r chat.IdempotencyRecord) bool {
		return a.records[r.Name].turnToken == b.Token
	})
	switch {
	case isRepeated && isLive && e.turnToken == b.Token:
		return e.begun(b, e.questionSeq), nil // which was before is forgotten
	case isRepeated:
		return chat.Turn{}, chat.ErrTurnLost
	case past != nil && past.questionSeq == e.pending():
		return chat.Turn{}, &chat.BusyError{Left: e.turnLeaseUntil.Sub(now), Seq: past.questionSeq}
	case past != nil && chat.NotTaken(past.failure) && past.questionSeq == e.MessageCount && e.Status == chat.Active:
		if err := m.admitTurn(a, now); err != nil {
			return chat.Turn{}, err
		}
		a.turns++
		e.messages[past.questionSeq-1].State, e.messages[past.questionSeq-1].Failure = chat.Complete, ""
		before := e.questionSeq
		e.attempt++
		m.take(a, e, now, b, past.questionSeq)
		return e.begun(b, before), nil
	case past != nil:
		for _, r := range b.Records {
			if _, isKnown := a.records[r.Name]; !isKnown {
				m.remember(a, now, r, *past)
			}
		}
		return e.replayed(*past), nil
	case e.ids[b.MessageID]:
		return chat.Turn{}, chat.ErrMessageIDTaken
	case e.Status != chat.Active:
		return chat.Turn{}, chat.ErrClosed
	case isLive:
		return chat.Turn{}, &chat.BusyError{Left: e.turnLeaseUntil.Sub(now)}
	case e.MessageCount+2 > m.limits.Messages:
		return chat.Turn{}, chat.ErrFull
	}
	title := b.Title
	if e.isTitled {
		title = ""
	}
	if err := m.admit(a, now, int64(len(b.JSON)+len(title))); err != nil {
		return chat.Turn{}, err
	}
	a.turns++
	if title != "" {
		e.Title, e.isTitled = title, true
	}
	e.show(chat.User, b.Preview)
	e.push(later(now, e.UpdatedAt), b.MessageID, b.JSON)
	e.questions[e.MessageCount] = true
	before := e.questionSeq
	e.attempt = 0
	m.take(a, e, now, b, e.MessageCount)
	return e.begun(b, before), nil
}

// take makes the message with the given seq the one that is asked under b. The caller holds m.mu.
func (m *Memory) take(a *account, e *entry, now time.Time, b chat.Begin, seq int64) {
	e.change(now)
	e.turnToken, e.turnLeaseUntil, e.questionSeq = b.Token, now.Add(b.Lease), seq
	m.access(e, now)
	for _, r := range b.Records {
		m.remember(a, now, r, record{turnToken: b.Token, questionSeq: seq})
	}
	for w := range m.watches {
		if w.owner == e.Owner && w.id == e.ID {
			w.begun()
		}
	}
}

// begun is the live turn.
func (e *entry) begun(b chat.Begin, before int64) chat.Turn {
	return chat.Turn{
		Attempt: e.attempt, Before: before,
		Message:  e.page(e.questionSeq-1, e.questionSeq)[0],
		History:  newest(e.page(e.questionSeq-1-int64(b.Context), e.questionSeq-1), b.ContextBytes, 0),
		AgentRef: e.agentRef, ExternalID: e.ExternalID,
	}
}

// replayed is the turn of a record, as it ended.
func (e *entry) replayed(r record) chat.Turn {
	return chat.Turn{
		Message: e.page(r.questionSeq-1, r.questionSeq)[0], AgentRef: e.agentRef, ExternalID: e.ExternalID,
		Replayed: true, Replies: e.page(r.questionSeq, r.questionSeq+r.replyCount), Failure: r.failure,
	}
}

// Append implements chat.Store.
func (m *Memory) Append(_ context.Context, owner chat.Owner, id string, req chat.Append) (chat.Appended, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	a := m.account(owner)
	e, err := m.open(a, id, now)
	if err != nil {
		return chat.Appended{}, err
	}
	if !e.isHeld(req.Token, now) {
		return chat.Appended{}, chat.ErrTurnLost
	}
	e.turnLeaseUntil = now.Add(req.Lease)
	m.access(e, now)
	return chat.Appended{Cancelled: e.cancelToken == req.Token, Dropped: e.tell(a, now, req.Entries)}, nil
}

// Finish implements chat.Store.
func (m *Memory) Finish(_ context.Context, owner chat.Owner, id string, f chat.Finish) (chat.Finished, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	a := m.account(owner)
	e, err := m.open(a, id, now)
	if err != nil {
		return chat.Finished{}, err
	}
	if !e.isHeld(f.Token, now) {
		if at, isEnded := a.ended(e, f); isEnded {
			return chat.Finished{At: at}, nil
		}
		return chat.Finished{}, chat.ErrTurnLost
	}
	if f.State == chat.Complete && e.cancelToken == f.Token {
		return chat.Finished{}, chat.ErrCancelled
	}
	e.end(f.State)
	e.messages[e.questionSeq-1].Failure = f.Failure
	at := e.change(now)
	for _, reply := range f.Replies {
		e.push(at, messageID(reply), reply)
		if f.State != chat.Complete {
			e.messages[len(e.messages)-1].State = chat.Partial
		}
	}
	e.show(chat.Assistant, f.Preview)
	e.ExternalID, e.agentRef = cmp.Or(f.ExternalID, e.ExternalID), cmp.Or(f.AgentRef, e.agentRef)
	for _, r := range f.Records {
		if known, ok := a.records[r.Name]; ok && known.turnToken == f.Token {
			known.replyCount, known.failure, known.endedAt = int64(len(f.Replies)), f.Failure, at
			a.records[r.Name] = known
		}
	}
	return chat.Finished{At: at, Dropped: e.tell(a, now, f.Entries)}, nil
}

// ended returns the stamp of f's own first execution, if there was one. Without a record, the messages show it.
func (a *account) ended(e *entry, f chat.Finish) (time.Time, bool) {
	for _, r := range f.Records {
		if known := a.records[r.Name]; known.turnToken == f.Token && !known.endedAt.IsZero() {
			return known.endedAt, true
		}
	}
	seq := f.Seq
	if seq == 0 && e.turnToken == f.Token {
		seq = e.questionSeq
	}
	if seq == 0 || seq > e.MessageCount || seq == e.pending() || e.messages[seq-1].State != f.State {
		return time.Time{}, false
	}
	if len(f.Replies) == 0 {
		return e.UpdatedAt, true
	}
	if seq == e.MessageCount {
		return time.Time{}, false
	}
	answer := e.messages[seq]
	return answer.CreatedAt, messageID(answer.JSON) == messageID(f.Replies[0])
}

// Update implements chat.Store.
func (m *Memory) Update(_ context.Context, owner chat.Owner, id string, u chat.Update) (chat.Conversation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	a := m.account(owner)
	e, err := m.open(a, id, now)
	if err != nil {
		return chat.Conversation{}, err
	}
	if u.Record != nil {
		if past, err := a.recall(now, *u.Record); err != nil || past != nil {
			return e.conversation(), err
		}
	}
	title, metadata, status := e.Title, e.Metadata, e.Status
	if u.Title != nil {
		title = *u.Title
	}
	if u.Metadata != nil {
		metadata = keptMetadata(u.Metadata)
	}
	if u.Status != nil {
		status = *u.Status
	}
	isTitled := e.isTitled || u.Title != nil
	if title == e.Title && maps.Equal(metadata, e.Metadata) && status == e.Status {
		e.isTitled = isTitled
		m.note(a, now, u.Record)
		return e.conversation(), nil
	}
	if u.Version != 0 && u.Version != e.Version {
		return chat.Conversation{}, chat.ErrVersion
	}
	before, was := e.bytes(), e.Conversation
	e.Title, e.Metadata, e.Status = title, metadata, status
	if more := e.bytes() - before; more > 0 && m.bytes(a, now) > m.limits.Bytes {
		e.Conversation = was
		return chat.Conversation{}, chat.ErrQuota
	}
	e.isTitled = isTitled
	e.change(now)
	m.note(a, now, u.Record)
	return e.conversation(), nil
}

// note has a record, if there is one, know its request. The caller holds m.mu.
func (m *Memory) note(a *account, now time.Time, r *chat.IdempotencyRecord) {
	if r != nil {
		m.remember(a, now, *r, record{})
	}
}

// Get implements chat.Store.
func (m *Memory) Get(_ context.Context, owner chat.Owner, id string, p chat.Page) (chat.Conversation, []chat.StoredMessage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	e, err := m.open(m.account(owner), id, now)
	if err != nil {
		return chat.Conversation{}, nil, err
	}
	e.settle(now)
	if !p.Unseen {
		m.access(e, now)
	}
	if p.Known == e.Version {
		return e.conversation(), nil, nil
	}
	last := e.MessageCount
	if p.Before > 0 {
		last = min(last, p.Before-1)
	}
	return e.conversation(), newest(e.page(last-int64(p.Limit), last), cmp.Or(p.Bytes, chat.PageBytes), 1), nil
}

// List implements chat.Store.
func (m *Memory) List(_ context.Context, owner chat.Owner, l chat.List) ([]chat.Conversation, *chat.Cursor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	var all []chat.Conversation
	for _, e := range m.account(owner).conversations {
		isBehind := l.After == nil || byRecency(chat.Conversation{ID: l.After.ID, UpdatedAt: l.After.UpdatedAt}, e.Conversation) < 0
		if isBehind && !m.isGone(e, now) && (l.Status == "" || e.Status == l.Status) {
			c := e.conversation()
			c.Last = e.last
			all = append(all, c)
		}
	}
	slices.SortFunc(all, byRecency)
	most, size := 0, 0
	for most < min(l.Limit, len(all)) {
		size += len(all[most].Title) + len(all[most].Last.Text) + sizeOf(all[most].Metadata)
		if size > chat.ListBytes && most > 0 {
			break
		}
		most++
	}
	if most == len(all) {
		return all, nil, nil
	}
	last := all[most-1]
	return all[:most], &chat.Cursor{UpdatedAt: last.UpdatedAt, ID: last.ID}, nil
}

// Ping implements chat.Store.
func (m *Memory) Ping(context.Context) (chat.Health, error) { return chat.Health{}, nil }

// byRecency sorts the last updated first, and of equal times the highest id.
func byRecency(a, b chat.Conversation) int {
	return cmp.Or(b.UpdatedAt.Compare(a.UpdatedAt), strings.Compare(b.ID, a.ID))
}

// account returns what belongs to an owner, to be read or written. The caller holds m.mu.
func (m *Memory) account(owner chat.Owner) *account {
	a, ok := m.owners[owner]
	if !ok {
		a = &account{conversations: make(map[string]*entry), records: make(map[string]record)}
		m.owners[owner] = a
	}
	return a
}

// admit refuses a turn when the owner has begun too many in this minute, or has no room for the bytes that it brings.
// The caller holds m.mu.
func (m *Memory) admit(a *account, now time.Time, bytes int64) error {
	if err := m.admitTurn(a, now); err != nil {
		return err
	}
	if m.bytes(a, now)+bytes > m.limits.Bytes {
		return chat.ErrQuota
	}
	return nil
}

func (m *Memory) admitTurn(a *account, now time.Time) error {
	if now.Sub(a.windowStart) >= time.Minute {
		a.windowStart, a.turns = now, 0
	}
	if a.turns >= m.limits.TurnsPerMinute {
		return &chat.RateError{Left: a.windowStart.Add(time.Minute).Sub(now), Quota: m.limits.TurnsPerMinute}
	}
	return nil
}

// Usage returns what an owner has.
func (m *Memory) Usage(owner chat.Owner) Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	m.purge(now)
	a := m.account(owner)
	return Usage{Owner: owner, Bytes: m.bytes(a, now), Conversations: int64(len(a.conversations)), Records: int64(len(a.records))}
}

// recordBytes is what an idempotency record counts for.
const recordBytes = 200

// bytes is what an owner has. The caller holds m.mu.
func (m *Memory) bytes(a *account, now time.Time) int64 {
	sum := recordBytes * int64(len(a.records))
	for _, e := range a.conversations {
		if !m.isGone(e, now) {
			sum += e.bytes()
		}
	}
	return sum
}

func (e *entry) bytes() int64 {
	return e.messageBytes + int64(len(e.ObjectID)+len(e.ExternalID)+len(e.agentRef)+len(e.Title)+sizeOf(e.Metadata))
}

func sizeOf(metadata map[string]string) int {
	size := 0
	for key, value := range metadata {
		size += len(key) + len(value)
	}
	return size
}

// open returns a conversation that lives. The caller holds m.mu.
func (m *Memory) open(a *account, id string, now time.Time) (*entry, error) {
	e, ok := a.conversations[id]
	if !ok || m.isGone(e, now) {
		return nil, chat.ErrNotFound
	}
	return e, nil
}

// isGone reports whether a conversation has ended. It lives longer than ExpiresAt by the lag, within which accesses are not counted.
func (m *Memory) isGone(e *entry, now time.Time) bool {
	return !m.within(e, e.ExpiresAt.Add(m.limits.Lag())).After(now)
}

// putOff puts off a conversation's end.
func (m *Memory) putOff(e *entry, now time.Time) {
	e.LastAccessedAt, e.ExpiresAt = now, m.within(e, now.Add(m.limits.TTL))
}

// within returns a time or, when that is earlier, that at which the conversation has the age that it may have.
func (m *Memory) within(e *entry, at time.Time) time.Time {
	if oldest := e.CreatedAt.Add(m.limits.Age); m.limits.Age > 0 && oldest.Before(at) {
		return oldest
	}
	return at
}

// purge drops all that has expired. The caller holds m.mu.
func (m *Memory) purge(now time.Time) {
	maps.DeleteFunc(m.owners, func(_ chat.Owner, a *account) bool {
		maps.DeleteFunc(a.conversations, func(_ string, e *entry) bool { return m.isGone(e, now) })
		a.purgeRecords(now)
		return len(a.conversations) == 0 && len(a.records) == 0
	})
}

func (a *account) purgeRecords(now time.Time) {
	maps.DeleteFunc(a.records, func(_ string, r record) bool { return !r.expiresAt.After(now) })
}

// recall returns what is known of a request, or nil.
func (a *account) recall(now time.Time, records ...chat.IdempotencyRecord) (*record, error) {
	a.purgeRecords(now)
	var past *record
	for _, r := range records {
		known, ok := a.records[r.Name]
		switch {
		case ok && known.fingerprint != r.Fingerprint:
			return nil, chat.ErrKeyReused
		case ok && past == nil:
			past = &known
		}
	}
	return past, nil
}

// remember writes a record of a request. Beyond the most that an owner may have, those that expire first go. The caller holds m.mu.
func (m *Memory) remember(a *account, now time.Time, r chat.IdempotencyRecord, known record) {
	known.fingerprint, known.expiresAt = r.Fingerprint, now.Add(min(r.TTL, m.limits.TTL))
	a.records[r.Name] = known
	for int64(len(a.records)) > m.limits.IdempotencyRecords {
		oldest := r.Name
		for name, other := range a.records {
			if other.expiresAt.Before(a.records[oldest].expiresAt) {
				oldest = name
			}
		}
		delete(a.records, oldest)
	}
}

// access counts an access, unless one was counted within the lag. The caller holds m.mu.
func (m *Memory) access(e *entry, now time.Time) {
	if now.Sub(e.LastAccessedAt) >= m.limits.Lag() {
		m.putOff(e, now)
	}
}

// change counts a change at now, and returns the time to stamp it with.
func (e *entry) change(now time.Time) time.Time {
	e.Version++
	e.UpdatedAt = later(now, e.UpdatedAt)
	return e.UpdatedAt
}

func (e *entry) push(at time.Time, id string, text []byte) {
	e.MessageCount++
	e.messages = append(e.messages, chat.StoredMessage{Seq: e.MessageCount, State: chat.Complete, CreatedAt: at, JSON: text})
	e.messageBytes += int64(len(text))
	e.ids[id] = true
}

// show has list show the beginning of a message's text.
func (e *entry) show(role chat.Role, text string) {
	if text != "" {
		e.last = chat.Preview{Role: role, Text: text}
	}
}

// pending returns the seq of the message whose turn has not ended, or 0.
func (e *entry) pending() int64 {
	if e.turnLeaseUntil.IsZero() {
		return 0
	}
	return e.questionSeq
}

// isHeld reports whether the token holds a live turn.
func (e *entry) isHeld(token string, now time.Time) bool {
	return e.turnToken == token && e.turnLeaseUntil.After(now)
}

// end ends the turn: its message gets the state.
func (e *entry) end(state chat.State) {
	e.messages[e.questionSeq-1].State = state
	e.turnLeaseUntil = time.Time{}
}

// settle ends a turn whose lease has run out.
func (e *entry) settle(now time.Time) {
	if e.pending() > 0 && !e.turnLeaseUntil.After(now) {
		e.end(chat.Failed)
		e.change(now)
	}
}

// page returns the messages behind the one with the seq after, up to the one with the seq last.
func (e *entry) page(after, last int64) []chat.StoredMessage {
	page := slices.Clone(e.messages[max(0, after):last])
	for i := range page {
		if page[i].Seq == e.pending() {
			page[i].State, page[i].Failure = chat.Pending, ""
		}
	}
	return page
}

// newest returns as many of the newest messages as have the given bytes, but at least as many as least.
func newest(messages []chat.StoredMessage, bytes int64, least int) []chat.StoredMessage {
	for i := len(messages) - 1; i >= 0; i-- {
		bytes -= int64(len(messages[i].JSON))
		if bytes < 0 && len(messages)-1-i >= least {
			return messages[i+1:]
		}
	}
	return messages
}

func (e *entry) conversation() chat.Conversation {
	c := e.Conversation
	c.Metadata = maps.Clone(c.Metadata)
	return c
}

// keptMetadata is a copy of metadata, nil when there is none.
func keptMetadata(metadata map[string]string) map[string]string {
	if len(metadata) == 0 {
		return nil
	}
	return maps.Clone(metadata)
}

// messageID reads the id from the JSON form of a message. It is empty when there is none.
func messageID(text []byte) string {
	var m struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return ""
	}
	return m.ID
}

// clock is the process' time in the resolution that is stored.
func clock() time.Time {
	return time.Now().UTC().Truncate(time.Millisecond)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
