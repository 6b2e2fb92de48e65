package chat

import (
	"context"
	"errors"
	"io"
)

// replayedN is N of the first event of a turn whose log is gone: above those that it had.
const replayedN = 1 << 20

// Stream tells what happens in a conversation. It is for one goroutine, which must Close it.
type Stream struct {
	Replayed bool // an earlier request with the same key or message id began the turn

	service *Service
	key     conversationKey
	at      position      // up to what Next has returned
	until   int64         // the stream ends with the turn of this question; 0: it does not
	ready   []StreamEvent // to be returned first
	turn    *turn         // of this process, which is read; nil: the log is
	next    int           // of the turn's events
	watch   *watch        // by which the log is read; nil until then
	ended   bool
}

// position is how far a log has been read.
type position struct {
	after  EventID // the last event that was told
	isOpen bool    // its turn's end has not been told
}

// Tell is Send for those who want to read the answer while it is made. Until the turn has begun it returns what Send does; then a stream of
// the turn's events, whose last is what Send would return. The turn goes on when nobody reads.
//
// Of a request that was made before, in whichever process, it returns the stream of its turn from the beginning.
func (s *Service) Tell(ctx context.Context, caller Caller, id string, in Input) (*Stream, error) {
	if err := invalid(checkID(ConversationIDField, id), in.check()); err != nil {
		return nil, err
	}
	stream, err := s.tell(ctx, caller, id, in)
	return stream, wrap("send", err)
}

func (s *Service) tell(ctx context.Context, caller Caller, id string, in Input) (*Stream, error) {
	t, err := s.newTurn(caller, id, in)
	if err != nil {
		return nil, err
	}
	t.attaches = true
	stream := &Stream{service: s, key: t.key()}
	err = s.begin(ctx, t)
	running, isRunning := errors.AsType[*runningError](err)
	switch {
	case isRunning:
		stream.Replayed = true
		err := stream.openTurn(ctx, running.seq)
		return stream, err
	case err != nil:
		return nil, err
	case t.begun.Replayed:
		stream.Replayed = true
		err := stream.openTurn(ctx, t.begun.Message.Seq)
		if errors.Is(err, errNoLog) {
			err = stream.replay(t.begun)
		}
		return stream, err
	}
	stream.until, stream.turn, t.isWatched = t.begun.Message.Seq, t, true
	if !s.run(ctx, t) {
		return nil, errClosing
	}
	return stream, nil
}

// ErrNothing means that there is nothing for a stream to tell.
var ErrNothing = errors.New("nothing follows")

// errNoLog means that the log no longer has a turn.
var errNoLog = errors.New("the log is gone")

// Stream returns what follows an event, until the turn that runs ends, or when none runs that of the event; after nil: the turn that runs,
// from its beginning. ErrNothing: nothing follows and nothing runs, or the log does not have the event.
//
// With follow it does not end, and tells of the turns to come as well: of all, as long as the reader does not fall behind by more than a
// turn. What the log no longer has is left out; the seq of the next AcceptedEvent shows it.
func (s *Service) Stream(ctx context.Context, owner Owner, id string, after *EventID, follow bool) (*Stream, error) {
	if err := invalid(checkID(ConversationIDField, id)); err != nil {
		return nil, err
	}
	stream := &Stream{service: s, key: conversationKey{owner, id}}
	return stream, wrap("stream", stream.open(ctx, after, follow))
}

// open finds out where a stream begins, and where it ends.
func (st *Stream) open(ctx context.Context, after *EventID, follow bool) error {
	log, err := st.look(ctx, after)
	if err != nil {
		return err
	}
	isKnown := after == nil || knows(log)
	if follow && !isKnown && len(log.Entries) == 0 { // the id of an event to come would hide all that do
		if log, err = st.look(ctx, nil); err != nil {
			return err
		}
	}
	st.at.start(log)
	if st.ready, err = st.at.take(log); err != nil {
		return err
	}
	switch {
	case follow:
		return nil
	case !isKnown || len(st.ready) == 0 && log.Running == 0:
		return ErrNothing
	case log.Running > 0:
		st.until = log.Running
	default:
		st.until = st.ready[len(st.ready)-1].ID.Seq
	}
	return nil
}

// openTurn begins with the turn of the question with the seq, and ends with it. errNoLog: the log does not have its beginning.
func (st *Stream) openTurn(ctx context.Context, seq int64) error {
	st.until = seq
	if t := st.service.runningTurn(st.key); t != nil && t.begun.Message.Seq == seq {
		st.turn, st.next = t, t.watch(EventID{})
		return nil
	}
	log, err := st.look(ctx, &EventID{Seq: seq})
	if err != nil {
		return err
	}
	if len(log.Entries) == 0 || log.Entries[0].ID.Seq != seq || log.Entries[0].Kind != AcceptedEntry {
		return errNoLog
	}
	st.at.start(log)
	st.ready, err = st.at.take(log)
	return err
}

// replay tells a turn from the messages that are stored.
func (st *Stream) replay(turn Turn) error {
	seq, question := turn.Message.Seq, turn.Message
	question.State = Pending
	accepted := StreamEvent{ID: EventID{seq, replayedN}, Kind: AcceptedEvent, Message: &question, MessageID: NewMessageID(seq + 1)}
	if len(turn.Replies) > 0 {
		first, err := turn.Replies[0].Message()
		if err != nil {
			return err
		}
		accepted.MessageID = first.ID
	}
	sent, why := turn.outcome()
	end, err := ending(EventID{seq, replayedN + 1}, turn.Replies, sent, why)
	st.ready = append([]StreamEvent{accepted}, end...)
	return err
}

func (st *Stream) look(ctx context.Context, after *EventID) (Log, error) {
	return st.service.store.Events(ctx, st.key.owner, st.key.id, after)
}

// knows reports whether the log has the event that a page follows, or by now would say that its turn was lost.
func knows(log Log) bool {
	if hasEnd(log) {
		return true
	}
	if log.Before == nil || log.Before.ID.Seq != log.After.Seq {
		return false
	}
	lost := log.Before.ID
	lost.N++
	return log.Before.ID == log.After || lost == log.After && log.Running != lost.Seq
}

// hasEnd reports whether the event that a page follows is among those for which an end stands, and not the last of them.
func hasEnd(log Log) bool {
	if len(log.Entries) == 0 {
		return false
	}
	first := log.Entries[0]
	return first.Kind == EndEntry && first.ID.Seq == log.After.Seq && first.First <= log.After.N
}

// start is the position at the beginning of a page.
func (p *position) start(log Log) {
	p.after = log.After
	p.isOpen = hasEnd(log) || log.Before != nil && log.Before.ID == log.After && log.Before.Kind != EndEntry
}

// take goes on by a page, and returns the events that it tells. A turn that neither ended nor runs was lost.
func (p *position) take(log Log) ([]StreamEvent, error) {
	var all []StreamEvent
	for _, entry := range log.Entries {
		if p.isOpen && entry.ID.Seq != p.after.Seq {
			all = append(all, p.lose())
		}
		events, err := entry.events()
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			if e.ID.Compare(p.after) > 0 {
				all = append(all, e)
				p.after, p.isOpen = e.ID, !e.isEnd()
			}
		}
	}
	if p.isOpen && !log.More && log.Running != p.after.Seq {
		all = append(all, p.lose())
	}
	return all, nil
}

// lose tells the end of a turn that was lost.
func (p *position) lose() StreamEvent {
	p.after.N++
	p.isOpen = false
	return StreamEvent{ID: p.after, Kind: ErrorEvent, Err: ErrTurnLost}
}

// Next returns the events that follow, at least one. It waits for them until ctx ends, and may be called again then. io.EOF: the stream has
// ended, because its turn has, the conversation is gone, or EndStreams was called. Any other error is the store's.
func (st *Stream) Next(ctx context.Context) ([]StreamEvent, error) {
	for !st.ended {
		events, err := st.read(ctx)
		if errors.Is(err, ErrNotFound) {
			if !st.at.isOpen {
				break
			}
			events, err = []StreamEvent{{Kind: ErrorEvent, Err: err}}, nil
			st.ended = true
		}
		if err != nil {
			return nil, err
		}
		if events = st.pass(events); len(events) > 0 {
			return events, nil
		}
	}
	st.ended = true
	return nil, io.EOF
}

// Close ends the reading.
func (st *Stream) Close() {
	if st.watch != nil {
		st.service.leave(st.key, st.watch)
		st.watch = nil
	}
}

// pass goes on by events, and ends the stream with the turn that it was to end with.
func (st *Stream) pass(events []StreamEvent) []StreamEvent {
	for i, e := range events {
		isKept := e.ID != EventID{}
		if isKept {
			st.at = position{e.ID, !e.isEnd()}
		}
		if st.until > 0 && e.isEnd() && (!isKept || e.ID.Seq >= st.until) {
			st.ended = true
			return events[:i+1]
		}
	}
	return events
}

// read returns the next events. When it returns none, there may be some elsewhere.
func (st *Stream) read(ctx context.Context) ([]StreamEvent, error) {
	if ready := st.ready; len(ready) > 0 {
		st.ready = nil
		return ready, nil
	}
	if st.turn == nil {
		if t := st.service.runningTurn(st.key); t != nil && st.at.leadsTo(t) {
			st.turn, st.next = t, t.watch(st.at.after)
		}
	}
	if st.turn != nil {
		events, err := st.turn.read(ctx, st.next)
		st.next += len(events)
		if err != nil || len(events) > 0 {
			return events, err
		}
		st.turn = nil
	}
	if st.watch == nil {
		st.watch = st.service.join(st)
	}
	return st.watch.read(ctx, st)
}

// leadsTo reports whether nothing stands between the position and the next events of a turn that has not told its end.
func (p position) leadsTo(t *turn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.isOver && (p.after.Seq == t.begun.Message.Seq || !p.isOpen && p.after.Compare(t.begun.Before) >= 0)
}
