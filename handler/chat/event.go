package chat

import (
	"cmp"
	"errors"
	"regexp"
	"strconv"
	"strings"
)

// EventID names an event of a conversation for ever. Later events have higher ids.
type EventID struct {
	Seq int64 // of the question whose turn it is
	N   int64 // its place in that turn, from 1, with gaps
}

var eventIDText = regexp.MustCompile(`^[1-9][0-9]{0,14}-[1-9][0-9]{0,14}$`)

// ParseEventID reads what String wrote. It returns false for any other text.
func ParseEventID(text string) (id EventID, ok bool) {
	if !eventIDText.MatchString(text) {
		return EventID{}, false
	}
	seq, n, _ := strings.Cut(text, "-")
	id.Seq, _ = strconv.ParseInt(seq, 10, 64)
	id.N, _ = strconv.ParseInt(n, 10, 64)
	return id, true
}

func (e EventID) String() string {
	return strconv.FormatInt(e.Seq, 10) + "-" + strconv.FormatInt(e.N, 10)
}

// Compare returns what cmp.Compare does: ids are in the order in which their events happened.
func (e EventID) Compare(other EventID) int {
	return cmp.Or(cmp.Compare(e.Seq, other.Seq), cmp.Compare(e.N, other.N))
}

// The kinds of what a stream tells, beside StatusEvent and DeltaEvent. A turn's events are one AcceptedEvent; then status and delta in any
// order; then for each reply a MessageEvent or a CardEvent, and a SuggestedEvent when it has suggested actions; and one DoneEvent or
// ErrorEvent, which is the last.
const (
	AcceptedEvent  EventKind = "message.accepted" // the question is stored, and its turn has begun
	MessageEvent   EventKind = "message"          // a reply with text
	CardEvent      EventKind = "card"             // a reply with a card
	SuggestedEvent EventKind = "suggested"        // what the user may choose to say after a reply
	DoneEvent      EventKind = "done"             // what Send returned
	ErrorEvent     EventKind = "error"            // likewise
)

// StreamEvent is a part of a turn as its readers get it. Everybody who reads a turn, wherever and whenever, gets the same events under the
// same ids, and its deltas joined are the text of their messages, unless a MessageEvent corrects them.
type StreamEvent struct {
	ID        EventID // zero only of an ErrorEvent that the conversation does not keep: the turn's end is not known to the store
	Kind      EventKind
	Text      string            // of status and delta
	MessageID string            // of delta and suggested: the reply's; of accepted: the first reply's, if there will be one
	Message   *StoredMessage    // of accepted, message and card; as accepted it is Pending
	Actions   []SuggestedAction // of suggested
	Sent      *Sent             // of done
	Err       error             // of error: what Send returns
}

func (e StreamEvent) isEnd() bool { return e.Kind == DoneEvent || e.Kind == ErrorEvent }

// N of a turn's events. They tell where in the turn an event stands, so that all but status and deltas can be told from what is stored, under
// the same ids, for as long as the conversation lives.
const (
	firstTold     = 2      // of status and deltas; the event before has accepted the question
	firstReply    = 10_000 // of replies
	lastEvent     = 19_999 // of the end
	attemptEvents = 20_000 // more for each time that the question was asked before
)

// isOver reports whether the id is that of a turn's last event.
func (e EventID) isOver() bool { return e.N%attemptEvents == lastEvent || e.Seq == 0 }

// Entry is what the log of a conversation holds: a status or a delta.
type Entry struct {
	ID        EventID
	Kind      EventKind // StatusEvent or DeltaEvent
	Text      string
	MessageID string // of a delta: the reply's
}

func (e Entry) event() StreamEvent {
	return StreamEvent{ID: e.ID, Kind: e.Kind, Text: e.Text, MessageID: e.MessageID}
}

// accepted is the first event of a turn whose first reply has, or will have, the given id.
func accepted(question StoredMessage, attempt int64, replyID string) StreamEvent {
	question.State, question.Failure = Pending, ""
	return StreamEvent{ID: EventID{question.Seq, attempt*attemptEvents + 1}, Kind: AcceptedEvent, Message: &question, MessageID: replyID}
}

// ending are the last events of a turn: of its replies, and of what Send returns.
func ending(attempt int64, sent Sent, why error) ([]StreamEvent, error) {
	sent.Replayed = false // is said of a stream as a whole
	id := EventID{sent.Message.Seq, attempt*attemptEvents + firstReply}
	var all []StreamEvent
	tell := func(e StreamEvent) {
		e.ID = id
		all = append(all, e)
		id.N++
	}
	for i := range sent.Replies {
		m, err := sent.Replies[i].Message()
		if err != nil {
			return nil, err
		}
		kind := MessageEvent
		if m.Kind == AdaptiveCard {
			kind = CardEvent
		}
		tell(StreamEvent{Kind: kind, Message: &sent.Replies[i]})
		if len(m.SuggestedActions) > 0 {
			tell(StreamEvent{Kind: SuggestedEvent, MessageID: m.ID, Actions: m.SuggestedActions})
		}
	}
	id.N = attempt*attemptEvents + lastEvent
	if why != nil {
		tell(StreamEvent{Kind: ErrorEvent, Err: why})
	} else {
		tell(StreamEvent{Kind: DoneEvent, Sent: &sent})
	}
	return all, nil
}

// events are what a stream tells of a page that follows log.After.
func (log Log) events() ([]StreamEvent, error) {
	var all []StreamEvent
	add := func(events ...StreamEvent) {
		for _, e := range events {
			if e.ID.Compare(log.After) > 0 {
				all = append(all, e)
			}
		}
	}
	entries := log.Entries
	for rest := log.Messages; len(rest) > 0; {
		question := rest[0]
		n := 1
		var firstID string
		for ; n < len(rest); n++ {
			m, err := rest[n].Message()
			if err != nil {
				return nil, err
			}
			if m.Role == User {
				break
			}
			if n == 1 {
				firstID = m.ID
			}
		}
		replies := rest[1:n]
		rest = rest[n:]
		m, err := question.Message()
		if err != nil {
			return nil, err
		}
		if m.Role != User { // a greeting, or what is left of a turn that was told
			continue
		}

		attempt := int64(0)
		if question.Seq == log.After.Seq {
			attempt = log.After.N / attemptEvents
		}
		isLast := question.Seq == log.Last
		if isLast {
			attempt = log.Attempt
		}
		if firstID == "" {
			firstID = replyID(m.ID, question.Seq, 0)
			if isLast {
				firstID = replyID(log.Token, question.Seq, 0)
			}
		}
		add(accepted(question, attempt, firstID))
		for len(entries) > 0 && entries[0].ID.Seq <= question.Seq {
			if entries[0].ID.Seq == question.Seq {
				add(entries[0].event())
			}
			entries = entries[1:]
		}
		if len(entries) == 0 && log.MoreEntries || isLast && log.IsLive {
			return all, nil
		}
		turn := Turn{Message: question, Replies: replies, Failure: question.Failure}
		sent, why := turn.outcome()
		if replayed, ok := errors.AsType[*ReplayedError](why); ok {
			why = replayed.Err
		}
		sent.Message, sent.Replies = question, replies
		end, err := ending(attempt, sent, why)
		if err != nil {
			return nil, err
		}
		add(end...)
	}
	return all, nil
}

// knows reports whether what a page follows is an event of the conversation.
func (log Log) knows() bool {
	attempt, n := log.After.N/attemptEvents, log.After.N%attemptEvents
	isLast := log.After.Seq == log.Last
	isRunning := isLast && log.IsLive && attempt == log.Attempt
	switch {
	case log.After.Seq > log.Last || isLast && attempt > log.Attempt:
		return false
	case log.IsThere:
		return true
	case log.After.isOver():
		return !isRunning
	case len(log.Messages) == 0 || log.Messages[0].Seq != log.After.Seq:
		return false
	}
	question, err := log.Messages[0].Message()
	return err == nil && question.Role == User && (n <= 1 || !isRunning) // of a turn that is over, entries may be gone
}
