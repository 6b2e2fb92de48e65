package api

import (
	"net/http"
	"strconv"

	"chatkeep/handler/chat"
)

// erase ends everything that the caller has. An Idempotency-Key is checked and not remembered: nothing is, of whom everything was erased.
// A repetition is done anew, and finds nothing.
func (s *Server) erase(w *response, r *http.Request, caller chat.Caller) error {
	if _, err := idempotencyKey(r); err != nil {
		return err
	}
	done, err := s.chat.Erase(r.Context(), caller.Owner)
	if err != nil {
		return err
	}
	b := strconv.AppendInt([]byte(`{"deleted":`), int64(done.Deleted), 10)
	b = strconv.AppendInt(append(b, `,"keysRemaining":`...), int64(done.KeysRemaining), 10)
	return respond(w, http.StatusOK, append(b, "}\n"...))
}
