package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"chatkeep/handler/chat"
)

const (
	maxQuiet  = 10 * time.Second // after which a stream without events shows that it lives
	retryTime = "1000"           // ms after which a client whose stream was cut should come again
)

// eventEncoder writes the events of a stream as one of its encodings has them.
type eventEncoder interface {
	// begin returns what is sent at once.
	begin() []byte
	// append adds what is sent for an event.
	append(b []byte, e chat.StreamEvent) ([]byte, error)
	// breakOff returns what is sent when the stream ends for a reason of ours, which matters unless its turn has told its end.
	breakOff(why error) []byte
}

// serveStream sends a stream until it ends, the call may last no longer, or nobody takes it. It closes the stream.
//
// What breaks a stream off, but for its own error event, is nobody's error: it ends in order, a client knows by the last event, and comes again.
func (s *Server) serveStream(w *response, r *http.Request, stream *chat.Stream, encoding eventEncoder) error {
	defer stream.Close()
	header := w.Header()
	header.Set("Content-Type", "text/event-stream; charset=utf-8")
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
	markReplayed(w, stream.Replayed)
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	flush := http.NewResponseController(w.ResponseWriter).Flush
	b := encoding.begin()
	for {
		if _, err := w.Write(b); err != nil || flush() != nil {
			return nil
		}
		b = b[:0]
		quiet, cancel := context.WithTimeoutCause(r.Context(), s.maxQuiet, errQuiet)
		events, err := stream.Next(quiet)
		cancel()
		for _, e := range events {
			if b, err = encoding.append(b, e); err != nil {
				break
			}
		}
		switch {
		case errors.Is(err, errQuiet):
			b = append(b, ": hb\n\n"...)
			continue
		case err == nil:
			continue
		case errors.Is(err, io.EOF): // the turn has ended, or the process does
			err = chat.ErrUnavailable
		case r.Context().Err() != nil:
			err = context.Cause(r.Context())
		default:
			s.outcome(w, r, err)
		}
		_, _ = w.Write(encoding.breakOff(err))
		return nil
	}
}

var errQuiet = errors.New("nothing has happened")

// ownEvents are our own encoding: an event has an id, a name and one line of JSON.
type ownEvents struct {
	server         *Server
	w              *response
	r              *http.Request
	conversationID string
	reports        bool // the failure of the turn is this request's
}

func (ownEvents) begin() []byte { return []byte(": ok\n\nretry: " + retryTime + "\n\n") }

func (o ownEvents) append(b []byte, e chat.StreamEvent) ([]byte, error) {
	if e.ID != (chat.EventID{}) {
		b = append(append(append(b, "id: "...), e.ID.String()...), '\n')
	}
	b = append(append(append(b, "event: "...), e.Kind...), "\ndata: "...)
	start := len(b)
	switch e.Kind {
	case chat.AcceptedEvent:
		b = appendString(append(b, `{"conversationId":`...), o.conversationID)
		b = append(appendMessage(append(b, `,"message":`...), *e.Message), '}')
	case chat.StatusEvent:
		b = append(appendString(append(b, `{"text":`...), e.Text), '}')
	case chat.DeltaEvent:
		b = appendString(append(b, `{"messageId":`...), e.MessageID)
		b = append(appendString(append(b, `,"text":`...), e.Text), '}')
	case chat.MessageEvent, chat.CardEvent:
		b = appendMessage(b, *e.Message)
	case chat.SuggestedEvent:
		b = appendString(append(b, `{"messageId":`...), e.MessageID)
		b = append(appendActions(append(b, `,"suggestedActions":`...), e.Actions), '}')
	case chat.DoneEvent:
		b = appendSent(b, o.conversationID, *e.Sent)
	case chat.ErrorEvent:
		var p problem
		if o.reports {
			p = o.server.outcome(o.w, o.r, e.Err)
		} else {
			p = o.server.problem(o.w, e.Err)
		}
		b = append(b, p.encode()...)
	}
	oneLine(b[start:])
	return append(b, "\n\n"...), nil
}

// breakOff says nothing: a client sees that the last event was no end.
func (ownEvents) breakOff(error) []byte { return nil }

// oneLine makes one line of JSON: between its tokens a line's end is a space.
func oneLine(text []byte) {
	if bytes.IndexByte(text, '\n') < 0 && bytes.IndexByte(text, '\r') < 0 {
		return
	}
	for i, c := range text {
		if c == '\n' || c == '\r' {
			text[i] = ' '
		}
	}
}

// wantsEvents reports whether a client would rather read events than wait for all of an answer.
func wantsEvents(r *http.Request) bool {
	for _, header := range r.Header.Values("Accept") {
		for media := range strings.SplitSeq(header, ",") {
			media, parameters, _ := strings.Cut(media, ";")
			refused := strings.ReplaceAll(parameters, " ", "")
			if strings.EqualFold(strings.TrimSpace(media), "text/event-stream") && refused != "q=0" {
				return true
			}
		}
	}
	return false
}
