package api

import (
	"net/http"
	"strconv"
	"strings"

	"chatkeep/handler/chat"
)

// uiHistory answers with the UIMessage[] that useChat begins with: a page of get in its terms.
func (s *Server) uiHistory(w *response, r *http.Request, caller chat.Caller) error {
	id := strings.ToLower(r.PathValue("conversationId"))
	page, err := pageOf(r)
	if err != nil {
		return err
	}
	_, messages, err := s.chat.Get(r.Context(), caller.Owner, id, page)
	if err != nil {
		return err
	}
	messages, err = wholeTurns(messages)
	if err != nil {
		return err
	}
	if len(messages) > 0 && messages[0].Seq > 1 { // an array has no place for it
		older := "/api/chat/ui/" + id + "?before=" + strconv.FormatInt(messages[0].Seq, 10) + "&limit=" + strconv.Itoa(page.Limit)
		w.Header().Set("Link", "<"+older+`>; rel="next"`)
	}
	b, err := appendUIMessages(make([]byte, 0, messagesSize(messages)), messages)
	if err != nil {
		return err
	}
	return respond(w, http.StatusOK, append(b, '\n'))
}

// wholeTurns leaves out the replies at a page's beginning whose question is on the page before, unless there is nothing else.
func wholeTurns(messages []chat.StoredMessage) ([]chat.StoredMessage, error) {
	if len(messages) == 0 || messages[0].Seq == 1 {
		return messages, nil
	}
	for i, stored := range messages {
		m, err := stored.Message()
		if err != nil {
			return nil, err
		}
		if m.Role == chat.User {
			return messages[i:], nil
		}
	}
	return messages, nil
}

// appendUIMessages writes a message for each of the user, and one for all replies to it.
func appendUIMessages(b []byte, messages []chat.StoredMessage) ([]byte, error) {
	b = append(b, '[')
	begun, isReply := false, false
	for _, stored := range messages {
		m, err := stored.Message()
		if err != nil {
			return nil, err
		}
		if begun && isReply && m.Role == chat.Assistant {
			b = append(b, ',')
		} else {
			if begun {
				b = append(b, "]},"...)
			}
			b = appendString(append(b, `{"id":`...), m.ID)
			b = appendString(append(b, `,"role":`...), string(m.Role))
			b = appendString(append(b, `,"metadata":{"state":`...), string(stored.State))
			b = appendTime(append(b, `,"createdAt":`...), stored.CreatedAt)
			b = append(b, `},"parts":[`...)
		}
		b = appendUIParts(b, m)
		begun, isReply = true, m.Role == chat.Assistant
	}
	if begun {
		b = append(b, "]}"...)
	}
	return append(b, ']'), nil
}

// appendUIParts writes the parts of a message, of which it has one at least.
func appendUIParts(b []byte, m chat.Message) []byte {
	first := len(b)
	if m.Text != "" {
		b = append(appendString(append(b, `{"type":"text","state":"done","text":`...), m.Text), "},"...)
	}
	if m.Value != nil {
		b = append(append(append(b, `{"type":"data-value","data":`...), m.Value...), "},"...)
	}
	if m.Kind == chat.AdaptiveCard {
		b = append(appendUICard(b, m), ',')
	}
	if len(m.SuggestedActions) > 0 {
		b = append(appendUISuggested(b, m.ID, m.SuggestedActions), ',')
	}
	return b[:max(first, len(b)-1)]
}

// appendUICard writes a card, which another with the same id replaces.
func appendUICard(b []byte, m chat.Message) []byte {
	id := m.CardID
	if id == "" {
		id = m.ID
	}
	b = appendString(append(b, `{"type":"data-adaptivecard","id":`...), id)
	return append(append(append(b, `,"data":`...), m.CardJSON...), '}')
}

func appendUISuggested(b []byte, messageID string, actions []chat.SuggestedAction) []byte {
	b = appendString(append(b, `{"type":"data-suggested","id":`...), messageID)
	return append(appendActions(append(b, `,"data":`...), actions), '}')
}
