package api

import (
	"net/http"
	"strconv"
	"strings"

	"chatkeep/handler/chat"
)

type cancelRequest struct {
	MessageID *string `json:"messageId"`
}

// cancel ends the turn that runs. It is idempotent by itself; a key only has a repeated call told what the first was.
func (s *Server) cancel(w *response, r *http.Request, caller chat.Caller) error {
	id := strings.ToLower(r.PathValue("conversationId"))
	key, err := keyOrCall(r)
	if err != nil {
		return err
	}
	req, err := decode[cancelRequest](w, r, true)
	if err != nil {
		return err
	}
	if req.MessageID != nil {
		*req.MessageID = strings.ToLower(*req.MessageID)
	}
	cancelled, err := s.chat.Cancel(r.Context(), caller.Owner, id, req.MessageID, key)
	if err != nil {
		return err
	}
	b := appendString(append(make([]byte, 0, 96), `{"conversationId":`...), id)
	b = strconv.AppendBool(append(b, `,"cancelled":`...), cancelled)
	return respond(w, http.StatusOK, append(b, "}\n"...))
}
