package api

import (
	"net/http"
	"strings"

	"chatkeep/handler/chat"
)

type sendRequest struct {
	ConversationID string  `json:"conversationId"`
	MessageID      *string `json:"messageId"`
	Text           *string `json:"text"`
	Value          object  `json:"value"`
}

// send stores a message and answers with the agent's replies, or with events while the agent makes them.
func (s *Server) send(w *response, r *http.Request, caller chat.Caller) error {
	req, err := decode[sendRequest](w, r, false)
	if err != nil {
		return err
	}
	id := strings.ToLower(req.ConversationID)
	input, err := req.input(r)
	if err != nil {
		return err
	}
	if wantsEvents(r) {
		stream, err := s.chat.Tell(r.Context(), caller, id, input)
		if err != nil {
			return err
		}
		return s.serveStream(w, r, stream, ownEvents{server: s, w: w, r: r, conversationID: id, reports: !stream.Replayed})
	}
	sent, err := s.chat.Send(r.Context(), caller, id, input)
	if err != nil {
		return err
	}
	markReplayed(w, sent.Replayed)
	b := make([]byte, 0, 256+len(sent.Message.JSON)+messagesSize(sent.Replies))
	return respond(w, http.StatusOK, append(appendSent(b, id, sent), '\n'))
}

// appendSent writes what a turn came to.
func appendSent(b []byte, conversationID string, sent chat.Sent) []byte {
	b = appendString(append(b, `{"conversationId":`...), conversationID)
	b = appendMessage(append(b, `,"message":`...), sent.Message)
	b = appendMessages(append(b, `,"messages":`...), sent.Replies)
	return append(b, '}')
}

func (req sendRequest) input(r *http.Request) (chat.Input, error) {
	in := chat.Input{Text: req.Text, Value: req.Value}
	if req.MessageID != nil {
		id := strings.ToLower(*req.MessageID)
		in.MessageID = &id
	}
	var err error
	in.Idempotency.Key, err = idempotencyKey(r)
	if in.Idempotency.Key != "" || in.MessageID != nil {
		in.Idempotency.Fingerprint = sendFingerprint(strings.ToLower(req.ConversationID), in)
	}
	return in, err
}

func sendFingerprint(conversationID string, in chat.Input) string {
	asked := newFingerprint("send")
	asked.add(conversationID)
	asked.addOptional(in.MessageID)
	asked.addOptional(in.Text)
	asked.addObject(in.Value)
	return asked.String()
}
