package api

import (
	"net/http"

	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
)

type startRequest struct {
	Title    string            `json:"title"`
	Metadata map[string]string `json:"metadata"`
}

type startResponse struct {
	ConversationID string           `json:"conversationId"`
	Conversation   conversationJSON `json:"conversation"`
	Messages       []messageJSON    `json:"messages"`
}

// start opens a conversation.
func (s *Server) start(w http.ResponseWriter, r *http.Request, u auth.User) error {
	req, err := decode[startRequest](w, r, true)
	if err != nil {
		return err
	}
	once, err := once(r, "start", req)
	if err != nil {
		return err
	}
	started, err := s.chat.Start(r.Context(), ownerOf(u), chat.Opening{
		Once: once, Title: req.Title, Metadata: req.Metadata, ObjectID: u.ObjectID,
	})
	if err != nil {
		return err
	}
	id := started.Conversation.ID
	replayed(w, started.Replayed)
	w.Header().Set("Location", "/api/chat/conversations/"+id)
	return respond(w, http.StatusCreated, startResponse{id, conversationOf(started.Conversation), messagesOf(started.Messages)})
}

func ownerOf(u auth.User) chat.Owner {
	return chat.Owner{TenantID: u.TenantID, UserID: u.ID}
}
