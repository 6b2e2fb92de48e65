package api

import (
	"errors"
	"fmt"
	"io"
	"iter"
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
	err := WriteExport(w, s.chat.Export(r.Context(), caller.Owner))
	if errors.Is(err, errUnwritten) {
		panic(http.ErrAbortHandler) // nobody is there to read it
	}
	if err != nil {
		w.Header().Del("Content-Disposition")
	}
	return err
}

// errUnwritten means that the reader of an export does not take it.
var errUnwritten = errors.New("the export cannot be written")

// WriteExport writes an export as the API answers with it, line by line. An error of the parts leaves it without its last line.
func WriteExport(w io.Writer, parts iter.Seq2[chat.Exported, error]) error {
	var conversations, messages, damaged int64
	var b []byte
	tell := func() error {
		_, err := w.Write(b)
		b = b[:0]
		if err != nil {
			return fmt.Errorf("%w: %w", errUnwritten, err)
		}
		return nil
	}
	for part, err := range parts {
		if err != nil {
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
				if err := tell(); err != nil {
					return err
				}
			}
			messages++
			b = append(b, `{"type":"message"`...)
			end := len(b)
			b = append(appendMessage(b, m), '\n')
			b[end] = ','
		}
		if err := tell(); err != nil {
			return err
		}
	}
	b = strconv.AppendInt(append(b, `{"type":"end","conversations":`...), conversations, 10)
	b = strconv.AppendInt(append(b, `,"messages":`...), messages, 10)
	b = strconv.AppendInt(append(b, `,"damaged":`...), damaged, 10)
	b = append(b, "}\n"...)
	return tell()
}
