package api

import (
	"maps"
	"net/http"
	"slices"

	"chatkeep/handler/chat"
)

type startRequest struct {
	Title    *string            `json:"title"`
	Metadata map[string]*string `json:"metadata"`
}

// start opens a conversation.
func (s *Server) start(w *response, r *http.Request, caller chat.Caller) error {
	req, err := decode[startRequest](w, r, true)
	if err != nil {
		return err
	}
	opening, err := req.opening(r)
	if err != nil {
		return err
	}
	started, err := s.chat.Start(r.Context(), caller, opening)
	if err != nil {
		return err
	}
	id := started.Conversation.ID
	markReplayed(w, started.Replayed)
	w.Header().Set("Location", "/api/chat/conversations/"+id)
	b := make([]byte, 0, conversationSize(started.Conversation)+messagesSize(started.Messages))
	b = appendString(append(b, `{"conversationId":`...), id)
	b = appendConversation(append(b, `,"conversation":`...), started.Conversation)
	b = appendMessages(append(b, `,"messages":`...), started.Messages)
	return respond(w, http.StatusCreated, append(b, "}\n"...))
}

func (req startRequest) opening(r *http.Request) (chat.Opening, error) {
	var o chat.Opening
	if req.Title != nil {
		o.Title = *req.Title
	}
	keys := slices.Sorted(maps.Keys(req.Metadata))
	if len(keys) > 0 {
		o.Metadata = make(map[string]string, len(keys))
	}
	for _, key := range keys {
		value := req.Metadata[key]
		if value == nil {
			return o, refuse("metadata."+key, "must be a string")
		}
		o.Metadata[key] = *value
	}
	var err error
	o.Idempotency.Key, err = keyOrCall(r)
	if o.Idempotency.Key != "" {
		asked := newFingerprint("start")
		asked.add(o.Title)
		for _, key := range keys {
			asked.add(key)
			asked.add(o.Metadata[key])
		}
		o.Idempotency.Fingerprint = asked.String()
	}
	return o, err
}
