package api

import (
	"net/http"
	"strings"

	"chatkeep/handler/chat"
)

// delete ends a conversation.
func (s *Server) delete(w *response, r *http.Request, caller chat.Caller) error {
	id := strings.ToLower(r.PathValue("conversationId"))
	var i chat.Idempotency
	var err error
	if i.Key, err = keyOrCall(r); err != nil {
		return err
	}
	if i.Key != "" {
		asked := newFingerprint("delete")
		asked.add(id)
		i.Fingerprint = asked.String()
	}
	replayed, err := s.chat.Delete(r.Context(), caller.Owner, id, i)
	if err != nil {
		return err
	}
	markReplayed(w, replayed)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
