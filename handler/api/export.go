package api

import (
	"net/http"
	"strconv"

	"chatkeep/handler/chat"
)

// export answers with all that the caller has, in lines of JSON. It ends with a line that counts the others, so that a file that was cut
// shows. An error that comes after the first line cuts the connection.
func (s *Server) export(w *response, r *http.Request, caller chat.Caller) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Content-Disposition", `attachment; filename="conversations.ndjson"`)
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	var conversations, messages, damaged int64
	var b []byte
	tell := func() {
		if _, err := w.Write(b); err != nil {
			panic(http.ErrAbortHandler) // nobody is there to read it
		}
		b = b[:0]
	}
	for part, err := range s.chat.Export(r.Context(), caller.Owner) {
		if err != nil {
			w.Header().Del("Content-Disposition")
			return err
		}
		switch {
		case part.Damaged:
			damaged++
			b = append(appendString(append(b, `{"type":"damaged","id":`...), part.Conversation.ID), "}\n"...)
		case part.Conversation != nil:
			conversations++
			b = append(b, `{"type":"conversation"`...)
			end := len(b)
			b = append(appendConversation(b, *part.Conversation), '\n')
			b[end] = ',' // in place of the brace
		}
		for _, m := range part.Messages {
			if len(b) > maxPiece {
				tell()
			}
			messages++
			b = append(b, `{"type":"message"`...)
			end := len(b)
			b = append(appendMessage(b, m), '\n')
			b[end] = ','
		}
		tell()
	}
	b = strconv.AppendInt(append(b, `{"type":"end","conversations":`...), conversations, 10)
	b = strconv.AppendInt(append(b, `,"messages":`...), messages, 10)
	b = strconv.AppendInt(append(b, `,"damaged":`...), damaged, 10)
	_, _ = w.Write(append(b, "}\n"...))
	return nil
}
