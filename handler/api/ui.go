package api

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"chatkeep/handler/chat"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The functions here speak as useChat of the AI SDK does: its requests, its messages, and its UI message stream v1.

const maxUIID = 200 // bytes of a message's id

// uiRequest is what we read of a request. useChat and those who build on it send more; it counts for nothing.
type uiRequest struct {
	ID       string  `json:"id"` // of the conversation
	Trigger  *string `json:"trigger"`
	Messages lastOf  `json:"messages"`
}

// lastOf is the last element of a JSON array.
type lastOf struct {
	index int // -1: there is none
	value jsontext.Value
}

var errArray = errors.New("not an array")

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (l *lastOf) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	l.index = -1
	kind := d.PeekKind()
	if kind != jsontext.KindBeginArray {
		if err := d.SkipValue(); err != nil || kind == jsontext.KindNull {
			return err
		}
		return errArray
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for ; d.PeekKind() != jsontext.KindEndArray; l.index++ {
		value, err := d.ReadValue()
		if err != nil {
			return err
		}
		l.value = append(l.value[:0], value...)
	}
	_, err := d.ReadToken()
	return err
}

// uiMessage is a UIMessage of the AI SDK, as far as it is read.
type uiMessage struct {
	ID    string   `json:"id"`
	Role  string   `json:"role"`
	Parts []uiPart `json:"parts"`
}

type uiPart struct {
	Type string  `json:"type"`
	Text *string `json:"text"`
	Data object  `json:"data"`
}

// ui stores the last message of a request, or asks the last one again, and answers with a UI message stream.
func (s *Server) ui(w *response, r *http.Request, caller chat.Caller) error {
	body, err := readJSON(w, r, s.limits.UIBody, false)
	if errors.Is(err, errTooLarge) {
		return errTooLong
	}
	if err != nil {
		return err
	}
	req := uiRequest{Messages: lastOf{index: -1}}
	if err := invalidJSON(json.Unmarshal(body, &req)); err != nil {
		return err
	}
	id := strings.ToLower(req.ID)
	path := "messages"
	var stream *chat.Stream
	switch {
	case req.Trigger == nil || *req.Trigger == "submit-message":
		if req.Messages.index < 0 {
			return refuse(path, "must have a message at its end")
		}
		path += "." + strconv.Itoa(req.Messages.index)
		var in chat.Input
		if in, err = req.input(id, path); err != nil {
			return err
		}
		stream, err = s.chat.Tell(r.Context(), caller, id, in)
	case *req.Trigger == "regenerate-message":
		stream, err = s.chat.TellAgain(r.Context(), caller, id)
	default:
		return refuse("trigger", "must be submit-message or regenerate-message")
	}
	if err != nil {
		return uiRefusal(err, path)
	}
	return s.serveUI(w, r, stream, !stream.Replayed)
}

// input is the last message, which is at the path. Its id names the request; when it is a UUID, it becomes the message's.
func (req uiRequest) input(conversationID, path string) (chat.Input, error) {
	var m uiMessage
	if len(req.Messages.value) > maxBody {
		return chat.Input{}, refuse(path, "must have at most "+strconv.Itoa(maxBody)+" bytes")
	}
	if req.Messages.value.Kind() != jsontext.KindBeginObject {
		return chat.Input{}, refuse(path, "must be an object")
	}
	if err := invalidJSON(json.Unmarshal(req.Messages.value, &m)); err != nil {
		refused, ok := errors.AsType[*refusal](err)
		if !ok {
			return chat.Input{}, err
		}
		return chat.Input{}, refuse(path+"."+refused.Path, refused.Message)
	}
	switch {
	case m.Role != "user":
		return chat.Input{}, refuse(path+".role", "must be user")
	case m.ID == "" || len(m.ID) > maxUIID || strings.ContainsRune(m.ID, 0):
		return chat.Input{}, refuse(path+".id", "must be 1 to "+strconv.Itoa(maxUIID)+" bytes long, without NUL")
	}
	in, err := m.content(path)
	if err != nil {
		return chat.Input{}, err
	}
	if chat.IsID(m.ID) {
		in.MessageID = &m.ID
	} else {
		in.Idempotency.Key = "ui " + conversationID + " " + m.ID // the space keeps it apart from callers' keys
	}
	in.Idempotency.Fingerprint = sendFingerprint(conversationID, in)
	return in, nil
}

// content is the text of all text parts, or the data of a submitted card.
func (m uiMessage) content(path string) (chat.Input, error) {
	var in chat.Input
	for i, part := range m.Parts {
		at := path + ".parts." + strconv.Itoa(i)
		switch {
		case part.Type == "text" && part.Text != nil && in.Value == nil:
			text := *part.Text
			if in.Text != nil {
				text = *in.Text + text
			}
			in.Text = &text
		case part.Type == "data-value" && part.Data != nil && len(m.Parts) == 1:
			in.Value = part.Data
		case part.Type == "text" && part.Text == nil:
			return in, refuse(at+".text", "is missing")
		case part.Type == "data-value" && part.Data == nil:
			return in, refuse(at+".data", "is missing")
		default:
			return in, refuse(at, "is not taken: a message is text, or one data-value")
		}
	}
	return in, nil
}

// uiRefusal has a refusal name fields as useChat does. An id that the conversation has is that of a message from its history: an edit.
func uiRefusal(err error, message string) error {
	if errors.Is(err, chat.ErrMessageIDTaken) {
		return chat.ErrKeyReused
	}
	invalid, ok := errors.AsType[*chat.InvalidError](err)
	if !ok {
		return err
	}
	if invalid.Fields[0].Field == chat.ConversationIDField {
		return refuse("id", invalid.Fields[0].Message)
	}
	return refuse(message+".parts", invalid.Fields[0].Message)
}
