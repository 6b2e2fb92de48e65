package chat

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
)

// EventID names an event of a conversation for ever. Later events have higher ids.
type EventID struct {
	Seq int64 // of the question whose turn it is
	N   int64 // its place among the events of that turn, from 1; there may be gaps
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

// Entry is what the log of a conversation holds of a turn. The log never holds a message: an entry refers to those that are stored.
type Entry struct {
	ID        EventID // of an end: that of the turn's last event
	Kind      EntryKind
	Text      string // of status and delta
	MessageID string // of delta: the reply's; of accepted: the first reply's

	// As the store returns them.
	Message StoredMessage   // of accepted and end: the question
	Replies []StoredMessage // of end
	First   int64           // of end: N of its first event
	Failure string          // of end: the code, when the question Failed; empty: the turn was lost
}

// EntryKind says what an Entry is.
type EntryKind string

// The kinds of an entry.
const (
	AcceptedEntry EntryKind = "accepted"
	StatusEntry   EntryKind = "status"
	DeltaEntry    EntryKind = "delta"
	EndEntry      EntryKind = "end" // stands for all events from the first reply to the last
)

// size is what an entry counts for in the bounds of a log.
func (e Entry) size() int { return EntryBytes + len(e.Text) }

// events are what a stream tells of an entry.
func (e Entry) events() ([]StreamEvent, error) {
	switch e.Kind {
	case AcceptedEntry:
		question := e.Message
		question.State = Pending
		return []StreamEvent{{ID: e.ID, Kind: AcceptedEvent, Message: &question, MessageID: e.MessageID}}, nil
	case StatusEntry:
		return []StreamEvent{{ID: e.ID, Kind: StatusEvent, Text: e.Text}}, nil
	case DeltaEntry:
		return []StreamEvent{{ID: e.ID, Kind: DeltaEvent, Text: e.Text, MessageID: e.MessageID}}, nil
	}
	turn := Turn{Message: e.Message, Replies: e.Replies, Failure: e.Failure}
	sent, err := turn.outcome()
	return ending(EventID{Seq: e.ID.Seq, N: e.First}, e.Replies, sent, err)
}

// ending are the events of a turn's end: of its replies, and of what Send returns. The first has the given id, and the others follow.
func ending(id EventID, replies []StoredMessage, sent Sent, why error) ([]StreamEvent, error) {
	sent.Replayed = false // is said of a stream as a whole
	var all []StreamEvent
	tell := func(e StreamEvent) {
		e.ID = id
		all = append(all, e)
		id.N++
	}
	for i := range replies {
		m, err := replies[i].Message()
		if err != nil {
			return nil, err
		}
		kind := MessageEvent
		if m.Kind == AdaptiveCard {
			kind = CardEvent
		}
		tell(StreamEvent{Kind: kind, Message: &replies[i]})
		if len(m.SuggestedActions) > 0 {
			tell(StreamEvent{Kind: SuggestedEvent, MessageID: m.ID, Actions: m.SuggestedActions})
		}
	}
	if why != nil {
		tell(StreamEvent{Kind: ErrorEvent, Err: why})
	} else {
		tell(StreamEvent{Kind: DoneEvent, Sent: &sent})
	}
	return all, nil
}
