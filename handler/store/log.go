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
	log := chat.Log{Running: r.number(), After: chat.EventID{Seq: r.number(), N: r.number()}, More: r.text() != ""}
	if before, kind := r.text(), r.text(); before != "" {
		log.Before = &chat.Entry{ID: r.id(before), Kind: chat.EntryKind(kind)}
	}
	for len(r.rest) > 0 && r.err == nil {
		id, fields, messages := r.id(r.text()), r.texts(), r.texts()
		e, err := decodeEntry(id, fields, messages)
		if err != nil {
			return chat.Log{}, err
		}
		if e.Kind != "" {
			log.Entries = append(log.Entries, e)
		}
	}
	return log, r.err
}

// decodeEntry reads an entry. Of a kind that only a newer version knows, it returns none.
func decodeEntry(id chat.EventID, fields, messages []string) (e chat.Entry, err error) {
	field := func(i int) string {
		if i >= len(fields) {
			return ""
		}
		return fields[i]
	}
	e = chat.Entry{ID: id, Kind: chat.EntryKind(field(0))}
	switch e.Kind {
	case chat.StatusEntry:
		e.Text = field(1)
		return e, nil
	case chat.DeltaEntry:
		e.Text, e.MessageID = field(1), field(3)
		return e, nil
	case chat.AcceptedEntry:
		e.MessageID = field(1)
	case chat.EndEntry:
		e.Failure = field(7)
		if e.First, err = strconv.ParseInt(field(3), 10, 64); err != nil {
			return chat.Entry{}, err
		}
	default:
		return chat.Entry{}, nil
	}
	all, err := decodeMessages(messages, id.Seq, 0)
	if err != nil || len(all) == 0 {
		return chat.Entry{}, cmp.Or(err, fmt.Errorf("entry %s: %w", id, chat.ErrDamaged))
	}
	e.Message, e.Replies = all[0], all[1:]
	return e, nil
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

// texts reads as many elements as the next one says.
func (r *replyReader) texts() []string {
	n := r.number()
	texts := make([]string, 0, min(max(0, n), int64(len(r.rest))))
	for ; n > 0 && r.err == nil; n-- {
		texts = append(texts, r.text())
	}
	return texts
}

func (r *replyReader) id(text string) chat.EventID {
	id, ok := chat.ParseEventID(text)
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
	var log chat.Log
	if e.isHeld(e.turnToken, now) {
		log.Running = e.questionSeq
	}
	kept := e.log
	if !e.logUntil.After(now) {
		kept = nil
	}
	switch {
	case after != nil:
		log.After = *after
	case log.Running > 0:
		log.After = chat.EventID{Seq: log.Running}
	case len(kept) > 0:
		log.After = kept[len(kept)-1].ID
	}
	size := 0
	for i, entry := range kept {
		if entry.ID.Compare(log.After) <= 0 {
			log.Before = &chat.Entry{ID: entry.ID, Kind: entry.Kind}
			continue
		}
		if size += len(entry.Text); len(log.Entries) == chat.LogEntries || size > chat.PageBytes && len(log.Entries) > 0 {
			log.More = true
			break
		}
		log.Entries = append(log.Entries, e.resolve(kept[i]))
	}
	return log, nil
}

// resolve returns an entry with the messages that it refers to.
func (e *entry) resolve(entry chat.Entry) chat.Entry {
	seq := entry.ID.Seq
	switch entry.Kind {
	case chat.AcceptedEntry:
		entry.Message = e.messages[seq-1]
	case chat.EndEntry:
		entry.Message = e.messages[seq-1]
		entry.Replies = slices.Clone(e.messages[seq:][:len(entry.Replies)])
	}
	return entry
}

// accepted returns N of the first event of the last turn, and the entry before it.
func (e *entry) accepted() (n int64, before chat.EventID) {
	for i, entry := range slices.Backward(e.log) {
		if entry.Kind == chat.AcceptedEntry {
			if i > 0 {
				before = e.log[i-1].ID
			}
			return entry.ID.N, before
		}
	}
	return 0, before
}

// logBegin logs that the turn has begun, and forgets all turns but it and the last.
func (e *entry) logBegin(now time.Time, b chat.Begin) {
	if !e.logUntil.After(now) {
		e.log = nil
	}
	id := chat.EventID{Seq: e.questionSeq, N: 1}
	if last := len(e.log) - 1; last >= 0 {
		before := e.log[last].ID
		oldest := before.Seq
		if before.Seq == id.Seq { // it is taken up again: what it told before is not told again
			id.N, oldest = before.N+1, id.Seq+1
		}
		e.log = slices.DeleteFunc(slices.Clone(e.log), func(entry chat.Entry) bool { return entry.ID.Seq < oldest })
	}
	e.log = append(e.log, chat.Entry{ID: id, Kind: chat.AcceptedEntry, MessageID: chat.WithSeq(b.ReplyID, id.Seq+1)})
	e.logUntil = now.Add(b.Lease + chat.LogTime)
}

// logEntries adds those entries that are not there, and returns whether the owner has too many.
func (e *entry) logEntries(a *account, now time.Time, entries []chat.Entry) (dropped bool) {
	last := chat.EventID{}
	if len(e.log) > 0 && e.logUntil.After(now) {
		last = e.log[len(e.log)-1].ID
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
	e.log = append(e.log, entries...)
	return false
}

// logEnd logs that the turn has ended.
func (e *entry) logEnd(now time.Time, f chat.Finish) {
	seq, first := e.questionSeq, f.First
	if first == 0 {
		first = 1
		if n := len(e.log); n > 0 && e.log[n-1].ID.Seq == seq {
			first = e.log[n-1].ID.N + 1
		}
	}
	e.log = append(e.log, chat.Entry{
		ID: chat.EventID{Seq: seq, N: first + max(1, f.Events) - 1}, Kind: chat.EndEntry, First: first, Failure: f.Failure,
		Replies: make([]chat.StoredMessage, len(f.Replies)),
	})
	e.logUntil = now.Add(chat.LogTime)
}
