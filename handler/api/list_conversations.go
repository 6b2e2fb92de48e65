package api

import (
	"net/http"
	"strconv"

	"chatkeep/handler/chat"
)

type listRequest struct {
	Limit  *int    `json:"limit"`
	Cursor *string `json:"cursor"`
	Status *string `json:"status"`
}

// listConversations answers with a page of the caller's conversations.
func (s *Server) listConversations(w *response, r *http.Request, caller chat.Caller) error {
	req, err := decode[listRequest](w, r, false)
	if err != nil {
		return err
	}
	list, err := req.list(caller.Owner)
	if err != nil {
		return err
	}
	conversations, next, err := s.chat.ListConversations(r.Context(), caller.Owner, list)
	if err != nil {
		return err
	}
	size := 256
	for _, c := range conversations {
		size += conversationSize(c) + len(c.Last.Text) + 48
	}
	b := append(make([]byte, 0, size), `{"conversations":[`...)
	for i, c := range conversations {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendListed(b, c)
	}
	b = append(b, `],"nextCursor":`...)
	if next != nil {
		b = appendString(b, encodeCursor(*next, caller.Owner, list.Status))
	} else {
		b = append(b, "null"...)
	}
	b = strconv.AppendBool(append(b, `,"hasMore":`...), next != nil)
	return respond(w, http.StatusOK, append(b, "}\n"...))
}

// appendListed appends a conversation with the last message that has text.
func appendListed(b []byte, c chat.Conversation) []byte {
	b = appendConversation(b, c)
	b = append(b[:len(b)-len("}")], `,"lastMessage":`...)
	if c.Last == (chat.Preview{}) {
		return append(b, "null}"...)
	}
	b = appendString(append(b, `{"role":`...), string(c.Last.Role))
	b = appendString(append(b, `,"text":`...), c.Last.Text)
	return append(b, "}}"...)
}

func (req listRequest) list(owner chat.Owner) (chat.List, error) {
	list := chat.List{Limit: 20}
	if req.Limit != nil {
		list.Limit = *req.Limit
	}
	if req.Status != nil {
		list.Status = chat.Status(*req.Status)
		if list.Status == "" { // which is any, to package chat
			return list, refuse("status", "must not be empty")
		}
	}
	var err error
	if req.Cursor != nil {
		list.After, err = decodeCursor(*req.Cursor, owner, list.Status)
	}
	return list, err
}
