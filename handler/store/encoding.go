package store

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"chatkeep/handler/chat"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// encodeMetadata returns metadata as it is stored: a JSON object, or nothing.
func encodeMetadata(metadata map[string]string) (string, error) {
	if len(metadata) == 0 {
		return "", nil
	}
	text, err := json.Marshal(metadata, json.Deterministic(true))
	if err != nil {
		return "", fmt.Errorf("encode metadata: %w", err)
	}
	return string(text), nil
}

func decodeMetadata(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	metadata := make(map[string]string)
	if isFlat := eachMember(text, func(name, value string, isString bool) bool {
		metadata[name] = value
		return isString
	}); isFlat {
		return metadata, nil
	}
	clear(metadata)
	if err := json.Unmarshal([]byte(text), &metadata); err != nil {
		return nil, fmt.Errorf("metadata: %w", chat.ErrDamaged)
	}
	return metadata, nil
}

// shown are the attributes in the order in which prelude.lua shows them.
type shown []string

const attributesShown = 13

// conversation reads what callers see, and the seq of the message that is pending, or 0.
func (s shown) conversation(owner chat.Owner, id string) (c chat.Conversation, pending int64, err error) {
	if len(s) < attributesShown {
		return c, 0, fmt.Errorf("%d attributes: %w", len(s), chat.ErrDamaged)
	}
	var numbers [8]int64
	for i, text := range s[5:attributesShown] {
		if text != "" {
			if numbers[i], err = strconv.ParseInt(text, 10, 64); err != nil {
				return c, 0, fmt.Errorf("attribute: %w", chat.ErrDamaged)
			}
		}
	}
	metadata, err := decodeMetadata(s[3])
	if err != nil {
		return c, 0, err
	}
	c = chat.Conversation{
		ID: id, Owner: owner, ObjectID: s[0], ExternalID: s[1], Title: s[2], Metadata: metadata, Status: chat.Status(s[4]),
		MessageCount: numbers[0], Version: numbers[1], CreatedAt: fromMilli(numbers[2]), UpdatedAt: fromMilli(numbers[3]),
		LastAccessedAt: fromMilli(numbers[4]), ExpiresAt: fromMilli(numbers[5]),
	}
	if turnLeaseUntil := numbers[6]; turnLeaseUntil > 0 {
		pending = numbers[7]
	}
	return c, pending, nil
}

// summary is what list shows of a conversation, as prelude.lua writes it.
type summary struct {
	Title         string      `json:"title"`
	Status        chat.Status `json:"status"`
	ExternalID    string      `json:"externalId"`
	MessageCount  int64       `json:"messageCount"`
	Version       int64       `json:"version"`
	CreatedAt     int64       `json:"createdAt"`
	UpdatedAt     int64       `json:"updatedAt"`
	AccessedAt    int64       `json:"accessedAt"`
	ExpiresAt     int64       `json:"expiresAt"`
	MetadataBytes int64       `json:"metadataBytes"`
	LastRole      chat.Role   `json:"lastRole"`
	LastText      string      `json:"lastText"`
}

// set takes a member over, and returns whether it has the type that it must have.
func (s *summary) set(name, value string, isString bool) bool {
	var number *int64
	switch name {
	case "title":
		s.Title = value
		return isString
	case "status":
		s.Status = chat.Status(value)
		return isString
	case "externalId":
		s.ExternalID = value
		return isString
	case "lastRole":
		s.LastRole = chat.Role(value)
		return isString
	case "lastText":
		s.LastText = value
		return isString
	case "messageCount":
		number = &s.MessageCount
	case "version":
		number = &s.Version
	case "createdAt":
		number = &s.CreatedAt
	case "updatedAt":
		number = &s.UpdatedAt
	case "accessedAt":
		number = &s.AccessedAt
	case "expiresAt":
		number = &s.ExpiresAt
	case "metadataBytes":
		number = &s.MetadataBytes
	default:
		return true
	}
	var err error
	*number, err = strconv.ParseInt(value, 10, 64)
	return err == nil && !isString
}

// eachMember calls take for each member of a JSON object that is as simple as most are: a member at least, without spaces, with strings
// that have no escapes, and numbers of digits alone. It returns false when the text is anything else, or take does: then a decoder has
// to read it, at several times the cost. A name that appears twice is not noticed: no script writes one.
func eachMember(text string, take func(name, value string, isString bool) bool) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] == '\\' {
			return false
		}
	}
	if !utf8.ValidString(text) {
		return false
	}
	rest, good := strings.CutPrefix(text, "{")
	for good {
		var name, value string
		if rest, good = strings.CutPrefix(rest, `"`); !good {
			return false
		}
		if name, rest, good = strings.Cut(rest, `":`); !good || strings.Contains(name, `"`) {
			return false
		}
		isString := strings.HasPrefix(rest, `"`)
		if isString {
			value, rest, good = strings.Cut(rest[1:], `"`)
		} else {
			end := 0
			for end < len(rest) && '0' <= rest[end] && rest[end] <= '9' {
				end++
			}
			good = end == 1 || end > 1 && rest[0] != '0'
			value, rest = rest[:end], rest[end:]
		}
		if !good || !take(name, value, isString) {
			return false
		}
		if rest == "}" {
			return true
		}
		rest, good = strings.CutPrefix(rest, ",")
	}
	return false
}

// decodeSummary reads a conversation from its summary, without its metadata, and says how many bytes of that it has.
func decodeSummary(owner chat.Owner, id, text string) (c chat.Conversation, metadataBytes int64, err error) {
	s := summary{Status: chat.Active, Version: 1}
	if !eachMember(text, s.set) {
		s = summary{Status: chat.Active, Version: 1}
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			return c, 0, fmt.Errorf("summary: %w", chat.ErrDamaged)
		}
	}
	return chat.Conversation{
		ID: id, Owner: owner, ExternalID: s.ExternalID, Title: s.Title, Status: s.Status, MessageCount: s.MessageCount, Version: s.Version,
		CreatedAt: fromMilli(s.CreatedAt), UpdatedAt: fromMilli(s.UpdatedAt), LastAccessedAt: fromMilli(s.AccessedAt),
		ExpiresAt: fromMilli(s.ExpiresAt), Last: chat.Preview{Role: s.LastRole, Text: s.LastText},
	}, s.MetadataBytes, nil
}

// decodeTurn reads the reply of begin.lua.
func decodeTurn(reply []string) (chat.Turn, error) {
	if len(reply) < 8 {
		return chat.Turn{}, fmt.Errorf("turn: %w", chat.ErrDamaged)
	}
	seq, err := strconv.ParseInt(reply[1], 10, 64)
	if err != nil {
		return chat.Turn{}, err
	}
	turn := chat.Turn{AgentRef: reply[2], ExternalID: reply[3]}
	if turn.Message, err = decodeMessage(reply[7], seq, 0); err != nil {
		return chat.Turn{}, err
	}
	around := reply[8:]
	if reply[0] == "replayed" {
		turn.Replayed, turn.Failure = true, reply[4]
		turn.Replies, err = decodeMessages(around, seq+1, 0)
		return turn, err
	}
	for i, into := range []*int64{&turn.Attempt, &turn.Before} {
		if *into, err = strconv.ParseInt(reply[5+i], 10, 64); err != nil {
			return chat.Turn{}, err
		}
	}
	turn.Message.State = chat.Pending
	turn.History, err = decodeMessages(around, seq-int64(len(around)), 0)
	return turn, err
}

// decodeMessages reads neighbouring elements of a message list, the first of which has the seq first.
func decodeMessages(elements []string, first, pending int64) ([]chat.StoredMessage, error) {
	all := make([]chat.StoredMessage, len(elements))
	var err error
	for i, element := range elements {
		if all[i], err = decodeMessage(element, first+int64(i), pending); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// decodeMessage reads an element of a message list: an object with the members state, unless it is complete, and createdAt, before those of
// the message. Of the message nothing is read.
func decodeMessage(element string, seq, pending int64) (chat.StoredMessage, error) {
	m := chat.StoredMessage{Seq: seq, State: chat.Complete}
	rest, good := strings.CutPrefix(element, "{")
	if state, ok := strings.CutPrefix(rest, `"state":"`); ok {
		state, rest, good = strings.Cut(state, `",`)
		m.State = chat.State(state)
		if failure, ok := strings.CutPrefix(rest, `"failure":"`); ok && good {
			m.Failure, rest, good = strings.Cut(failure, `",`)
		}
	}
	at, isNext := strings.CutPrefix(rest, `"createdAt":`)
	at, body, isFollowed := strings.Cut(at, ",")
	ms, err := strconv.ParseInt(at, 10, 64)
	if !good || !isNext || !isFollowed || err != nil {
		return decodeAnyMessage(element, seq, pending)
	}
	m.CreatedAt = fromMilli(ms)
	if seq == pending {
		m.State, m.Failure = chat.Pending, ""
	}
	m.JSON = make([]byte, 0, 1+len(body))
	m.JSON = append(append(m.JSON, '{'), body...)
	return m, nil
}

// decodeAnyMessage reads an element whose members stand in another order, as another version may write them.
func decodeAnyMessage(element string, seq, pending int64) (chat.StoredMessage, error) {
	var members map[string]jsontext.Value
	var at int64
	state, failure := chat.Complete, ""
	err := json.Unmarshal([]byte(element), &members)
	for name, into := range map[string]any{"state": &state, "failure": &failure, "createdAt": &at} {
		if value, ok := members[name]; ok && err == nil {
			err = json.Unmarshal(value, into)
		}
		delete(members, name)
	}
	if err != nil {
		return chat.StoredMessage{}, fmt.Errorf("message %d: %w", seq, chat.ErrDamaged)
	}
	if seq == pending {
		state, failure = chat.Pending, ""
	}
	text, err := json.Marshal(members, json.Deterministic(true))
	if err != nil {
		return chat.StoredMessage{}, fmt.Errorf("message %d: %w", seq, chat.ErrDamaged)
	}
	return chat.StoredMessage{Seq: seq, State: state, CreatedAt: fromMilli(at), JSON: text, Failure: failure}, nil
}

func fromMilli(ms int64) time.Time {
	return time.UnixMilli(ms).UTC()
}
