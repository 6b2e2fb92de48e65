package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"chatkeep/handler/chat"
)

// Cancel implements chat.Store.
func (r *Redis) Cancel(ctx context.Context, owner chat.Owner, id string, c chat.Cancellation) (bool, error) {
	reply, err := r.run(ctx, cancelScript, conversationKeys(owner, id), append(r.argsOf(owner, id, 2), c.MessageID, c.Token)...)
	return err == nil && reply[0] != "", err
}

// Events implements chat.Store.
func (r *Redis) Events(ctx context.Context, owner chat.Owner, id string, after *chat.EventID) (chat.Log, error) {
	args := r.argsOf(owner, id, 4)
	if after != nil {
		args = append(args, after.Seq, after.N)
	} else {
		args = append(args, "", "")
	}
	reply, err := r.run(ctx, eventsScript, conversationKeys(owner, id), append(args, chat.LogEntries, chat.PageBytes)...)
	if err != nil {
		return chat.Log{}, err
	}
	log, err := decodeLog(reply)
	if err != nil {
		return chat.Log{}, fmt.Errorf("redis: events: %w", err)
	}
	return log, nil
}

// appendEntries appends what prelude.lua's tell is given.
func appendEntries(args []any, entries []chat.Entry) []any {
	for _, e := range entries {
		args = append(args, e.ID.N, string(e.Kind), e.Text, e.MessageID)
	}
	return args
}

// decodeLog reads what events.lua returns.
func decodeLog(reply []string) (chat.Log, error) {
	r := &replyReader{rest: reply}
	log := chat.Log{Last: r.number(), Token: r.text(), Attempt: r.number()}
	life := r.text()
	log.IsLive = life == "1"
	log.After = chat.EventID{Seq: r.number(), N: r.number()}
	log.IsThere, log.MoreEntries, log.MoreMessages = r.text() != "", r.text() != "", r.text() != ""
	first := r.number()
	for n := r.number(); n > 0 && r.err == nil; n-- {
		e := chat.Entry{ID: r.id(), Kind: chat.EventKind(r.text()), Text: r.text(), MessageID: r.text()}
		if e.Kind == chat.StatusEvent || e.Kind == chat.DeltaEvent { // others are of a newer version
			log.Entries = append(log.Entries, e)
		}
	}
	if r.err != nil {
		return chat.Log{}, r.err
	}
	if len(r.rest) == 0 {
		return log, nil
	}
	pending := int64(0)
	if life != "" {
		pending = log.Last
	}
	var err error
	log.Messages, err = decodeMessages(r.rest, first, pending)
	if life == "2" && err == nil {
		failDead(log)
	}
	return log, err
}

// failDead says of the last question, whose turn is dead, what settle will.
func failDead(log chat.Log) {
	for i := range log.Messages {
		if log.Messages[i].Seq == log.Last {
			log.Messages[i].State = chat.Failed
		}
	}
}

// replyReader reads a script's reply, element by element. After an error it reads nothing.
type replyReader struct {
	rest []string
	err  error
}

func (r *replyReader) fail(err error) {
	r.err = cmp.Or(r.err, err)
}

func (r *replyReader) text() string {
	if len(r.rest) == 0 || r.err != nil {
		r.fail(fmt.Errorf("a reply that is cut: %w", chat.ErrDamaged))
		return ""
	}
	text := r.rest[0]
	r.rest = r.rest[1:]
	return text
}

func (r *replyReader) number() int64 {
	n, err := strconv.ParseInt(r.text(), 10, 64)
	r.fail(err)
	return n
}

func (r *replyReader) id() chat.EventID {
	id, ok := chat.ParseEventID(r.text())
	if !ok {
		r.fail(fmt.Errorf("an event id: %w", chat.ErrDamaged))
	}
	return id
}

// watch is somebody who waits for turns of a conversation.
type watch struct {
	owner chat.Owner
	id    string
	begun func()
}

// Watch implements chat.Store.
func (m *Memory) Watch(owner chat.Owner, id string, begun func()) (stop func()) {
	w := &watch{owner, id, begun}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watches[w] = true
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watches, w)
	}
}

// Cancel implements chat.Store.
func (m *Memory) Cancel(_ context.Context, owner chat.Owner, id string, c chat.Cancellation) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	e, err := m.open(m.account(owner), id, now)
	if err != nil {
		return false, err
	}
	switch {
	case e.turnToken == "" || c.MessageID != "" && messageID(e.messages[e.questionSeq-1].JSON) != c.MessageID:
		return false, nil
	case e.cancelToken == e.turnToken:
		return e.cancelCall == c.Token, nil
	case !e.isHeld(e.turnToken, now):
		return false, nil
	}
	e.cancelToken, e.cancelCall = e.turnToken, c.Token
	return true, nil
}

// Events implements chat.Store.
func (m *Memory) Events(_ context.Context, owner chat.Owner, id string, after *chat.EventID) (chat.Log, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock()
	e, err := m.open(m.account(owner), id, now)
	if err != nil {
		return chat.Log{}, err
	}
	log := chat.Log{Last: e.questionSeq, Token: e.turnToken, Attempt: e.attempt, IsLive: e.turnToken != "" && e.isHeld(e.turnToken, now)}
	switch {
	case after != nil:
		log.After = *after
	case log.IsLive:
		log.After = chat.EventID{Seq: log.Last, N: log.Attempt * attemptEvents}
	default:
		log.After = chat.EventID{Seq: log.Last, N: log.Attempt*attemptEvents + attemptEvents - 1}
	}
	isTold := log.After.N%attemptEvents == attemptEvents-1 && log.After.N >= log.Attempt*attemptEvents
	if isTold && log.After.Seq >= log.Last {
		return log, nil
	}
	size := 0
	for _, entry := range e.logged(now) {
		if order := entry.ID.Compare(log.After); order <= 0 {
			log.IsThere = log.IsThere || order == 0
			continue
		}
		if size += len(entry.Text); len(log.Entries) == chat.LogEntries || size > chat.PageBytes && len(log.Entries) > 0 {
			log.MoreEntries = true
			break
		}
		log.Entries = append(log.Entries, entry)
	}
	seq, bytes, turns := log.After.Seq, 0, 0
	if isTold {
		seq++
	}
	for _, message := range e.page(min(max(1, seq)-1, e.MessageCount), e.MessageCount) {
		if e.questions[message.Seq] {
			if turns > 0 && bytes > chat.PageBytes {
				log.MoreMessages = true
				break
			}
			turns++
		}
		bytes += len(message.JSON)
		log.Messages = append(log.Messages, message)
	}
	if e.pending() > 0 && !log.IsLive {
		failDead(log)
	}
	return log, nil
}

// attemptEvents is how many events an attempt to answer a question has at most: ATTEMPT in prelude.lua.
const attemptEvents = 20_000

// logged are the entries that have not expired.
func (e *entry) logged(now time.Time) []chat.Entry {
	if !e.logUntil.After(now) {
		return nil
	}
	return e.log
}

// tell adds those entries that are not there, and returns whether the owner has too many. Of older turns the log keeps the last that told any.
func (e *entry) tell(a *account, now time.Time, entries []chat.Entry) (dropped bool) {
	kept := e.logged(now)
	var last chat.EventID
	if n := len(kept); n > 0 {
		last = kept[n-1].ID
	}
	entries = slices.DeleteFunc(slices.Clone(entries), func(entry chat.Entry) bool { return entry.ID.Compare(last) <= 0 })
	size := 0
	for _, entry := range entries {
		size += len(entry.Text) + chat.EntryBytes
	}
	if size == 0 {
		return false
	}
	if now.Sub(a.logWindow) >= chat.LogTime {
		a.logWindow, a.logged = now, 0
	}
	if a.logged+size > chat.LogBytes {
		return true
	}
	a.logged += size
	if last.Seq != e.questionSeq {
		kept = slices.DeleteFunc(slices.Clone(kept), func(entry chat.Entry) bool { return entry.ID.Seq < last.Seq })
		e.logUntil = now.Add(chat.LogTime + logMargin)
	}
	e.log = slices.Concat(kept, entries)
	return false
}

// logMargin is for how long a turn can last.
const logMargin = 5 * time.Minute
