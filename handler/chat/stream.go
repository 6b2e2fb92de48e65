package chat

import (
	"context"
	"errors"
	"io"
)

// Stream tells what happens in a conversation. It is for one goroutine, which must Close it.
type Stream struct {
	Replayed bool // an earlier request with the same key or message id began the turn

	service *Service
	key     conversationKey
	at      EventID       // the last that Next has returned, or what it began after
	until   int64         // the stream ends with the turn of this question; 0: it does not
	ready   []StreamEvent // to be returned first
	turn    *turn         // of this process, which is read; nil: the log is
	next    int           // of the turn's events
	watch   *watch        // by which the log is read; nil until then
	ended   bool
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
		return stream, stream.openTurn(ctx, running.seq)
	case err != nil:
		return nil, err
	case t.begun.Replayed:
		stream.Replayed = true
		return stream, stream.openTurn(ctx, t.begun.Message.Seq)
	}
	stream.until, stream.turn, t.isWatched = t.begun.Message.Seq, t, true
	if !s.run(ctx, t) {
		return nil, errClosing
	}
	return stream, nil
}

// ErrNothing means that there is nothing for a stream to tell.
var ErrNothing = errors.New("nothing follows")

// Stream returns the rest of a turn after one of its events, or when that was the last the turn that runs, as after nil, from its beginning. It
// ends with the turn. ErrNothing: no turn runs either, or there is no such event.
//
// With follow it does not end, and goes on with all turns that have followed since and that will. An event that there is not is then none.
//
// Status and deltas are told until LogTime after their turn's end; replies and ends as long as the conversation lives.
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
	isKnown := after == nil || log.knows()
	switch {
	case follow && !isKnown:
		if log, err = st.look(ctx, nil); err != nil {
			return err
		}
	case follow:
	case !isKnown:
		return ErrNothing
	case !log.After.isOver():
		st.until = log.After.Seq
	case !log.IsLive:
		return ErrNothing
	default:
		st.until = log.Last
		if after != nil {
			if log, err = st.look(ctx, nil); err != nil {
				return err
			}
		}
	}
	return st.begin(log)
}

// openTurn begins with the turn of the question with the seq, and ends with it.
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
	return st.begin(log)
}

// begin begins with a page.
func (st *Stream) begin(log Log) (err error) {
	st.at = log.After
	st.ready, err = log.events()
	return err
}

func (st *Stream) look(ctx context.Context, after *EventID) (Log, error) {
	return st.service.store.Events(ctx, st.key.owner, st.key.id, after)
}

// Next returns the events that follow, at least one. It waits for them until ctx ends, and may be called again then. io.EOF: the stream has
// ended, because its turn has, the conversation is gone, or EndStreams was called. Any other error is the store's.
func (st *Stream) Next(ctx context.Context) ([]StreamEvent, error) {
	for !st.ended {
		events, err := st.read(ctx)
		if errors.Is(err, ErrNotFound) {
			if st.at.isOver() {
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
			st.at = e.ID
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
		if t := st.service.runningTurn(st.key); t != nil && t.follows(st.at) {
			st.turn, st.next = t, t.watch(st.at)
		}
	}
	if st.turn != nil {
		events, err := st.turn.read(ctx, st.next)
		st.next += len(events)
		if err != nil || len(events) > 0 {
			return after(st.at, events), err
		}
		st.turn = nil
	}
	if st.watch == nil {
		st.watch = st.service.join(st)
	}
	return st.watch.read(ctx, st)
}

// follows reports whether the turn's next events are the next after an event, and it has not told its end.
func (t *turn) follows(after EventID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isOver {
		return false
	}
	if after.Seq == t.begun.Message.Seq {
		return after.N >= t.begun.Attempt*attemptEvents
	}
	return after.isOver() && after.Seq >= t.begun.Before
}

// after leaves out the events up to one that was told: what is in the log may be read there before the turn itself tells it.
func after(told EventID, events []StreamEvent) []StreamEvent {
	for len(events) > 0 && events[0].ID != (EventID{}) && events[0].ID.Compare(told) <= 0 {
		events = events[1:]
	}
	return events
}
