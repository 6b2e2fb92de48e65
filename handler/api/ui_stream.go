package api

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"net/http"
	"strings"

	"chatkeep/handler/chat"
)

// uiStream sends the turn that runs, from its beginning.
func (s *Server) uiStream(w *response, r *http.Request, caller chat.Caller) error {
	stream, err := s.chat.Stream(r.Context(), caller.Owner, strings.ToLower(r.PathValue("conversationId")), nil, false)
	if errors.Is(err, chat.ErrNothing) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err != nil {
		return err
	}
	return s.serveUI(w, r, stream, false)
}

// serveUI sends a turn as a UI message stream of the AI SDK, version 1. reports: its failure is this request's.
func (s *Server) serveUI(w *response, r *http.Request, stream *chat.Stream, reports bool) error {
	w.Header().Set("x-vercel-ai-ui-message-stream", "v1")
	return s.serveStream(w, r, stream, &uiEvents{server: s, w: w, r: r, reports: reports, said: make(map[string]*uiText)})
}

// uiEvents are the encoding of the AI SDK: frames of one line of JSON, of which its client reads no other types than it knows.
type uiEvents struct {
	server  *Server
	w       *response
	r       *http.Request
	reports bool
	said    map[string]*uiText // by message id
	open    []string           // the messages whose text has begun and not ended, as they began
	isOver  bool               // the end is told
}

// uiText is the text of a message as far as it was sent. The client cannot take it back, so it is only compared.
type uiText struct {
	digest hash.Hash
	length int
}

func (*uiEvents) begin() []byte { return []byte(": ok\n\n") }

func (u *uiEvents) append(b []byte, e chat.StreamEvent) ([]byte, error) {
	switch e.Kind {
	case chat.AcceptedEvent:
		b = frame(b, func(b []byte) []byte {
			return append(appendString(append(b, `{"type":"start","messageId":`...), e.MessageID), '}')
		})
	case chat.StatusEvent:
		b = frame(b, func(b []byte) []byte {
			return append(appendString(append(b, `{"type":"data-status","transient":true,"data":{"text":`...), e.Text), "}}"...)
		})
	case chat.DeltaEvent:
		b = u.say(b, e.MessageID, e.Text)
	case chat.MessageEvent:
		m, err := e.Message.Message()
		if err != nil {
			return b, err
		}
		b = u.end(u.complete(b, m), m.ID)
	case chat.CardEvent:
		m, err := e.Message.Message()
		if err != nil {
			return b, err
		}
		b = frame(b, func(b []byte) []byte { return appendUICard(b, m) })
	case chat.SuggestedEvent:
		b = frame(b, func(b []byte) []byte { return appendUISuggested(b, e.MessageID, e.Actions) })
	case chat.DoneEvent:
		reason := "stop"
		if e.Sent.Message.State == chat.Cancelled {
			reason = "other"
		}
		u.isOver = true
		b = u.endAll(b)
		b = append(b, `data: {"type":"finish","finishReason":"`+reason+"\"}\n\ndata: [DONE]\n\n"...)
	case chat.ErrorEvent:
		if u.reports {
			b = u.fail(b, u.server.outcome(u.w, u.r, e.Err))
		} else {
			b = u.fail(b, u.server.problem(u.w, e.Err))
		}
	}
	return b, nil
}

// breakOff tells why: to the client a stream that just ends is a whole answer.
func (u *uiEvents) breakOff(why error) []byte {
	if u.isOver {
		return nil
	}
	return u.fail(nil, u.server.problem(u.w, why))
}

// say adds to the text of a message.
func (u *uiEvents) say(b []byte, messageID, text string) []byte {
	if u.said[messageID] == nil {
		u.said[messageID] = &uiText{digest: sha256.New()}
		u.open = append(u.open, messageID)
		b = frame(b, func(b []byte) []byte {
			return append(appendString(append(b, `{"type":"text-start","id":`...), messageID), '}')
		})
	}
	said := u.said[messageID]
	said.digest.Write([]byte(text))
	said.length += len(text)
	return frame(b, func(b []byte) []byte {
		b = appendString(append(b, `{"type":"text-delta","id":`...), messageID)
		return append(appendString(append(b, `,"delta":`...), text), '}')
	})
}

// complete says what a message has beyond its deltas. A message that corrects them is told beside them, for those who listen: a second text
// would stand below the first.
func (u *uiEvents) complete(b []byte, m chat.Message) []byte {
	said := u.said[m.ID]
	switch {
	case said == nil:
		return u.say(b, m.ID, m.Text)
	case said.length <= len(m.Text) && said.is(m.Text[:said.length]):
		if said.length < len(m.Text) {
			b = u.say(b, m.ID, m.Text[said.length:])
		}
		return b
	default:
		return frame(b, func(b []byte) []byte {
			b = appendString(append(b, `{"type":"data-correction","transient":true,"data":{"messageId":`...), m.ID)
			return append(appendString(append(b, `,"text":`...), m.Text), "}}"...)
		})
	}
}

func (t *uiText) is(text string) bool {
	sum := sha256.Sum256([]byte(text))
	return bytes.Equal(t.digest.Sum(nil), sum[:])
}

// end ends the text of a message, if it is open.
func (u *uiEvents) end(b []byte, messageID string) []byte {
	for i, id := range u.open {
		if id == messageID {
			u.open = append(u.open[:i], u.open[i+1:]...)
			return frame(b, func(b []byte) []byte { return append(appendString(append(b, `{"type":"text-end","id":`...), id), '}') })
		}
	}
	return b
}

func (u *uiEvents) endAll(b []byte) []byte {
	for len(u.open) > 0 {
		b = u.end(b, u.open[0])
	}
	return b
}

// fail tells a problem: its code and request id to the application, and its detail as the error that the client throws.
func (u *uiEvents) fail(b []byte, p problem) []byte {
	u.isOver = true
	b = u.endAll(b)
	b = frame(b, func(b []byte) []byte {
		b = appendString(append(b, `{"type":"data-error","transient":true,"data":{"code":`...), p.Code)
		b = appendString(append(b, `,"requestId":`...), p.RequestID)
		if p.Claims != "" {
			b = appendString(append(b, `,"claims":`...), p.Claims)
		}
		return append(b, "}}"...)
	})
	b = frame(b, func(b []byte) []byte {
		return append(appendString(append(b, `{"type":"error","errorText":`...), p.Detail), '}')
	})
	return append(b, "data: [DONE]\n\n"...)
}

// frame writes a frame whose JSON text appends.
func frame(b []byte, text func([]byte) []byte) []byte {
	b = append(b, "data: "...)
	start := len(b)
	b = text(b)
	oneLine(b[start:])
	return append(b, "\n\n"...)
}
