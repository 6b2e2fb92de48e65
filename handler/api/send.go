package api

import (
	"net/http"

	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
)

type sendRequest struct {
	ConversationID string  `json:"conversationId"`
	MessageID      *string `json:"messageId"`
	Text           *string `json:"text"`
	Value          object  `json:"value"`
}

type sendResponse struct {
	ConversationID string        `json:"conversationId"`
	Message        messageJSON   `json:"message"`
	Messages       []messageJSON `json:"messages"`
}

// send stores a message and answers with the agent's replies.
func (s *Server) send(w http.ResponseWriter, r *http.Request, u auth.User) error {
	req, err := decode[sendRequest](w, r, false)
	if err != nil {
		return err
	}
	once, err := once(r, "send", req)
	if err != nil {
		return err
	}
	sent, err := s.chat.Send(r.Context(), ownerOf(u), req.ConversationID, chat.Said{
		Once: once, MessageID: req.MessageID, Text: req.Text, Value: req.Value,
	})
	if err != nil {
		return err
	}
	replayed(w, sent.Replayed)
	return respond(w, http.StatusOK, sendResponse{req.ConversationID, messageOf(sent.Message), messagesOf(sent.Replies)})
}
