package api

import (
	"slices"
	"strconv"
	"time"

	"chatkeep/handler/chat"

	"github.com/go-json-experiment/json/jsontext"
)

// The functions here append JSON to an answer, member by member as the README names them.

func appendConversation(b []byte, c chat.Conversation) []byte {
	b = appendString(append(b, `{"id":`...), c.ID)
	b = appendString(append(b, `,"externalId":`...), c.ExternalID)
	b = appendString(append(b, `,"title":`...), c.Title)
	b = appendString(append(b, `,"status":`...), string(c.Status))
	b = appendMetadata(append(b, `,"metadata":`...), c.Metadata)
	b = strconv.AppendInt(append(b, `,"messageCount":`...), c.MessageCount, 10)
	b = appendString(append(b, `,"userId":`...), c.Owner.UserID)
	b = appendString(append(b, `,"tenantId":`...), c.Owner.TenantID)
	b = appendTime(append(b, `,"createdAt":`...), c.CreatedAt)
	b = appendTime(append(b, `,"updatedAt":`...), c.UpdatedAt)
	b = appendTime(append(b, `,"lastAccessedAt":`...), c.LastAccessedAt)
	b = appendTime(append(b, `,"expiresAt":`...), c.ExpiresAt)
	b = strconv.AppendInt(append(b, `,"version":`...), c.Version, 10)
	return append(b, '}')
}

func appendMetadata(b []byte, metadata map[string]string) []byte {
	keys := make([]string, 0, 16) // on the stack
	for key := range metadata {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	b = append(b, '{')
	for i, key := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, key), ':')
		b = appendString(b, metadata[key])
	}
	return append(b, '}')
}

// appendMessage puts a message's place before the members of its stored JSON, which it leaves unread.
func appendMessage(b []byte, m chat.StoredMessage) []byte {
	b = strconv.AppendInt(append(b, `{"seq":`...), m.Seq, 10)
	b = appendString(append(b, `,"state":`...), string(m.State))
	b = appendTime(append(b, `,"createdAt":`...), m.CreatedAt)
	b = append(b, ',')
	return append(b, m.JSON[1:]...)
}

func appendMessages(b []byte, messages []chat.StoredMessage) []byte {
	b = append(b, '[')
	for i, m := range messages {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendMessage(b, m)
	}
	return append(b, ']')
}

func appendActions(b []byte, actions []chat.SuggestedAction) []byte {
	b = append(b, '[')
	for i, action := range actions {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"title":`...), action.Title)
		b = append(appendString(append(b, `,"value":`...), action.Value), '}')
	}
	return append(b, ']')
}

// appendTime writes RFC 3339 in UTC with milliseconds. Package time formats RFC3339 itself several times as fast as any other layout.
func appendTime(b []byte, t time.Time) []byte {
	b = t.UTC().AppendFormat(append(b, '"'), time.RFC3339)
	ms := t.Nanosecond() / 1_000_000
	return append(b[:len(b)-len("Z")], '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z', '"')
}

func appendString(b []byte, text string) []byte {
	b, _ = jsontext.AppendQuote(b, text) // what is not UTF-8 is replaced
	return b
}

// conversationSize and messagesSize are about how many bytes the above append, so that an answer is made in one piece.

func conversationSize(c chat.Conversation) int {
	size := 416 + len(c.Title) + len(c.Owner.UserID) + len(c.ExternalID)
	for key, value := range c.Metadata {
		size += len(key) + len(value) + 6
	}
	return size
}

func messagesSize(messages []chat.StoredMessage) int {
	size := 2
	for _, m := range messages {
		size += len(m.JSON) + 80
	}
	return size
}
