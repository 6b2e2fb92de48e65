package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"chatkeep/handler/chat"
)

// stream sends what follows an event of a conversation.
func (s *Server) stream(w *response, r *http.Request, caller chat.Caller) error {
	id := strings.ToLower(r.PathValue("conversationId"))
	after, err := lastEventID(r)
	if err != nil {
		return err
	}
	follow, err := flag(r, "follow")
	if err != nil {
		return err
	}
	stream, err := s.chat.Stream(r.Context(), caller.Owner, id, after, follow)
	if errors.Is(err, chat.ErrNothing) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err != nil {
		return err
	}
	if follow {
		ctx, cancel := context.WithTimeout(r.Context(), s.limits.Stream)
		defer cancel()
		r = r.WithContext(ctx)
	}
	return s.serveStream(w, r, stream, ownEvents{server: s, w: w, r: r, conversationID: id})
}

// lastEventID is the event after which a client wants to go on, or nil.
func lastEventID(r *http.Request) (*chat.EventID, error) {
	text, given, err := single(r, "Last-Event-ID")
	name := "Last-Event-ID"
	if query := r.URL.Query()["after"]; err == nil && !given && len(query) > 0 { // a client's own header is newer than its address
		text, given, name = query[0], len(query) == 1 && query[0] != "", "after"
		if len(query) > 1 {
			err = refuse(name, "must be given once")
		}
	}
	if err != nil || !given || text == "" { // of which a client makes an empty header
		return nil, err
	}
	id, ok := chat.ParseEventID(text)
	if !ok {
		return nil, refuse(name, "must be the id of an event, such as 3-12")
	}
	return &id, nil
}

// flag reads a query parameter that is true or false; where it is not given it is false.
func flag(r *http.Request, name string) (bool, error) {
	values := r.URL.Query()[name]
	switch {
	case len(values) == 0:
		return false, nil
	case len(values) > 1 || values[0] != "true" && values[0] != "false":
		return false, refuse(name, "must be true or false")
	default:
		return values[0] == "true", nil
	}
}
