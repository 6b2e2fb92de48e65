package chat

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of an agent's reply.
const (
	maxReplyBytes = 1 << 20 // of a message's text or card
	maxStateBytes = 4096    // of an agent's reference, and of its id of the conversation
	maxActions    = 20      // of a message
	maxReplies    = 1000    // to a question
)

// encode returns the JSON forms of the reply's messages, each with the id of its index. A reply that is not well-formed is ErrAgentFailed.
func (r Reply) encode(id func(index int) string, inReplyTo string) ([][]byte, error) {
	if !storable(r.AgentRef) || !storable(r.ExternalID) || len(r.AgentRef) > maxStateBytes || len(r.ExternalID) > maxStateBytes {
		return nil, illFormed("its reference or external id", errors.New("not UTF-8 without NUL, or too long"))
	}
	all := make([][]byte, 0, len(r.Messages))
	for i, m := range r.Messages {
		if err := m.checkReply(); err != nil {
			return nil, illFormed(fmt.Sprintf("message %d", i+1), err)
		}
		text, err := Message{
			ID: id(i), Role: Assistant, InReplyTo: inReplyTo,
			Kind: m.Kind, Text: m.Text, CardJSON: m.CardJSON, CardID: m.CardID, SuggestedActions: m.SuggestedActions,
		}.encode()
		if err != nil {
			return nil, illFormed(fmt.Sprintf("message %d", i+1), errors.New("it has no JSON form"))
		}
		all = append(all, text)
	}
	return all, nil
}

// checkReply returns what is wrong with a message of an agent, without quoting it.
func (m Message) checkReply() error {
	switch {
	case m.Kind != Text && m.Kind != AdaptiveCard:
		return errors.New("unknown kind")
	case m.Kind == Text && (m.Text == "" || m.CardJSON != nil):
		return errors.New("not text alone")
	case m.Kind == AdaptiveCard && (m.Text != "" || m.CardJSON == nil):
		return errors.New("not a card alone")
	case len(m.SuggestedActions) > maxActions:
		return fmt.Errorf("more than %d suggested actions", maxActions)
	case len(m.Text)+len(m.CardJSON)+len(m.CardID)+m.actionBytes() > maxReplyBytes:
		return fmt.Errorf("longer than %d bytes", maxReplyBytes)
	case !storable(m.Text) || !storable(m.CardID):
		return errors.New("not UTF-8 without NUL")
	case m.CardJSON != nil && !isObject(m.CardJSON):
		return errors.New("the card is not a JSON object")
	}
	for _, action := range m.SuggestedActions {
		if action.Title == "" || !storable(action.Title) || !storable(action.Value) {
			return errors.New("a suggested action without a title, or not UTF-8 without NUL")
		}
	}
	return nil
}

func (m Message) actionBytes() int {
	n := 0
	for _, action := range m.SuggestedActions {
		n += len(action.Title) + len(action.Value)
	}
	return n
}

func illFormed(what string, why error) error {
	return &Failure{Code: ErrAgentFailed.Code, Err: fmt.Errorf("%s: %w", what, why)}
}

func isObject(text []byte) bool {
	value := jsontext.Value(text)
	return value.Kind() == jsontext.KindBeginObject && value.IsValid()
}

// stored returns messages as a store has appended them: the first at seq.
func stored(messages [][]byte, seq int64, state State, at time.Time) []StoredMessage {
	all := make([]StoredMessage, 0, len(messages))
	for i, text := range messages {
		all = append(all, StoredMessage{Seq: seq + int64(i), State: state, CreatedAt: at, JSON: text})
	}
	return all
}
