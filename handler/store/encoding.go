package store

import (
	"fmt"
	"strconv"
	"time"

	"chatkeep/handler/chat"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// What Redis holds as JSON. These are formats on disk: a field may be added, none may change its meaning.

// record is what a conversation is given at its start.
type record struct {
	Title     string            `json:"title,omitzero"`
	Metadata  map[string]string `json:"metadata,omitzero"`
	ObjectID  string            `json:"objectId,omitzero"`
	CreatedAt int64             `json:"createdAt"` // ms
}

// message is one message without what its place in the list says.
type message struct {
	ID        string         `json:"id"`
	Role      chat.Role      `json:"role"`
	Kind      chat.Kind      `json:"kind"`
	Text      string         `json:"text,omitzero"`
	CardJSON  jsontext.Value `json:"cardJson,omitzero"`
	CardID    string         `json:"cardId,omitzero"`
	Value     jsontext.Value `json:"value,omitzero"`
	InReplyTo string         `json:"inReplyTo,omitzero"`
}

func encodeOwner(owner chat.Owner) (string, error) {
	return encode([]string{owner.TenantID, owner.UserID})
}

func encodeRecord(c chat.Conversation, now time.Time) (string, error) {
	return encode(record{Title: c.Title, Metadata: c.Metadata, ObjectID: c.ObjectID, CreatedAt: now.UnixMilli()})
}

func encodeMessage(m chat.Message) (string, error) {
	return encode(message{
		ID: m.ID, Role: m.Role, Kind: m.Kind, Text: m.Text, CardJSON: m.CardJSON, CardID: m.CardID, Value: m.Value,
		InReplyTo: m.InReplyTo,
	})
}

func encodeMessages(messages []chat.Message) ([]any, error) {
	all := make([]any, 0, len(messages))
	for _, m := range messages {
		text, err := encodeMessage(m)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, nil
}

func encode(v any) (string, error) {
	text, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return "", fmt.Errorf("encode: %w", err)
	}
	return string(text), nil
}

// decodeSummary reads a conversation from its summary, as conversation.lua writes it.
func decodeSummary(owner chat.Owner, id, text string) (chat.Conversation, error) {
	var fields []string
	if err := json.Unmarshal([]byte(text), &fields); err != nil || len(fields) != 9 {
		return chat.Conversation{}, fmt.Errorf("summary: %w", chat.ErrDamaged)
	}
	if want, err := encodeOwner(owner); err != nil || fields[0] != want {
		return chat.Conversation{}, fmt.Errorf("summary of another owner: %w", chat.ErrDamaged)
	}
	var r record
	if err := json.Unmarshal([]byte(fields[1]), &r); err != nil {
		return chat.Conversation{}, fmt.Errorf("record: %w", chat.ErrDamaged)
	}
	numbers := make([]int64, 5)
	for i, field := range fields[4:] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return chat.Conversation{}, fmt.Errorf("summary: %w", chat.ErrDamaged)
		}
		numbers[i] = n
	}
	return chat.Conversation{
		ID: id, Owner: owner, ObjectID: r.ObjectID, ExternalID: fields[2], Title: r.Title, Status: chat.Status(fields[3]),
		Metadata: r.Metadata, MessageCount: numbers[0], Version: numbers[1], CreatedAt: fromMilli(r.CreatedAt),
		UpdatedAt: fromMilli(numbers[2]), LastAccessedAt: fromMilli(numbers[3]), ExpiresAt: fromMilli(numbers[4]),
	}, nil
}

// decodeTurn reads the reply of begin.lua.
func decodeTurn(reply []string) (chat.Turn, error) {
	seq, err := strconv.ParseInt(reply[1], 10, 64)
	if err != nil {
		return chat.Turn{}, err
	}
	turn := chat.Turn{AgentRef: reply[2], ExternalID: reply[3]}
	if reply[0] == "over" {
		turn.Over, turn.Failure = true, chat.Failure(reply[4])
		all, err := decodeMessages(reply[5:], seq)
		if err != nil {
			return chat.Turn{}, err
		}
		turn.Message, turn.Replies = all[0], all[1:]
		return turn, nil
	}
	all, err := decodeMessages(reply[4:], seq+1-int64(len(reply[4:])))
	if err != nil {
		return chat.Turn{}, err
	}
	last := len(all) - 1
	turn.Message, turn.History = all[last], all[:last]
	return turn, nil
}

// decodeMessages reads neighbouring elements of a message list, the first of which has the Seq first.
func decodeMessages(elements []string, first int64) ([]chat.Message, error) {
	all := make([]chat.Message, 0, len(elements))
	for i, element := range elements {
		var parts [3]jsontext.Value
		var state chat.State
		var at int64
		var m message
		err := json.Unmarshal([]byte(element), &parts)
		for part, into := range []any{&state, &at, &m} {
			if err == nil {
				err = json.Unmarshal(parts[part], into)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", first+int64(i), chat.ErrDamaged)
		}
		all = append(all, chat.Message{
			ID: m.ID, Seq: first + int64(i), Role: m.Role, Kind: m.Kind, Text: m.Text, CardJSON: m.CardJSON, CardID: m.CardID,
			Value: m.Value, InReplyTo: m.InReplyTo, State: state, CreatedAt: fromMilli(at),
		})
	}
	return all, nil
}

func fromMilli(ms int64) time.Time {
	return time.UnixMilli(ms).UTC()
}
