package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"

	"chatkeep/handler/chat"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxBody     = 256 << 10        // bytes
	maxDrain    = 4 << 20          // bytes of a refused body that are still read, so that the answer reaches the client
	maxBodyTime = 30 * time.Second // for a body to arrive
	maxDepth    = 64               // of a submitted value
)

// decode reads a JSON body strictly: names match exactly, and an unknown or repeated field, a null, a wrong type, invalid UTF-8 or
// trailing data is an *chat.InvalidError with the field's path. An empty body is one too, unless T allows it.
func decode[T any](w http.ResponseWriter, r *http.Request, emptyAllowed bool) (T, error) {
	var v T
	body, err := readBody(w, r)
	if err != nil {
		return v, err
	}
	if len(body) == 0 && emptyAllowed {
		return v, nil
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return v, errMediaType
	}
	if len(body) == 0 {
		return v, chat.Invalid("body", "is empty: send a JSON object")
	}
	err = json.Unmarshal(body, &v, json.RejectUnknownMembers(true), json.WithUnmarshalers(refuseNull))
	return v, invalidJSON(err)
}

// readBody reads at most maxBody bytes. Of a longer body it drops a bounded rest, for a host that sees its upload refused
// half-way reports that instead of the answer.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	deadline := http.NewResponseController(w)
	_ = deadline.SetReadDeadline(time.Now().Add(maxBodyTime)) // not supported by a recorder in a test
	defer func() { _ = deadline.SetReadDeadline(time.Time{}) }()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, chat.Invalid("body", "did not arrive as a whole")
	}
	if len(body) > maxBody {
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
		return nil, errTooLarge
	}
	return body, nil
}

var errNull = errors.New("must not be null")

// refuseNull refuses null for every field; otherwise it would silently mean "empty".
var refuseNull = json.UnmarshalFromFunc(func(d *jsontext.Decoder, _ any) error {
	if d.PeekKind() == 'n' {
		return errNull
	}
	return errors.ErrUnsupported // read it as usual
})

// invalidJSON makes a decoder's error one that may be shown.
func invalidJSON(err error) error {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntactic):
		return chat.Invalid(fieldPath(syntactic.JSONPointer), "appears more than once")
	case errors.Is(err, errNull) && errors.As(err, &semantic):
		return chat.Invalid(fieldPath(semantic.JSONPointer), errNull.Error())
	case errors.Is(err, json.ErrUnknownName) && errors.As(err, &semantic):
		return chat.Invalid(fieldPath(semantic.JSONPointer), "is not a field of this request")
	case errors.As(err, &semantic):
		return chat.Invalid(fieldPath(semantic.JSONPointer), "must be "+typeName(semantic.GoType))
	case errors.As(err, &syntactic):
		return chat.Invalid(fieldPath(syntactic.JSONPointer), fmt.Sprintf("is not valid JSON in UTF-8 at byte %d", syntactic.ByteOffset))
	default:
		return chat.Invalid("body", "is not valid JSON in UTF-8")
	}
}

// fieldPath writes a JSON pointer as people do: "metadata.color". A name is the caller's own, and cut where it is endless.
func fieldPath(pointer jsontext.Pointer) string {
	var names []string
	for name := range pointer.Tokens() {
		names = append(names, name)
	}
	dotted := strings.ToValidUTF8(strings.Join(names, "."), "\uFFFD")
	if dotted == "" {
		return "body"
	}
	return dotted[:min(len(dotted), 200)]
}

func typeName(t reflect.Type) string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil:
		return "of another type"
	case t.Kind() == reflect.String:
		return "a string"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t == reflect.TypeFor[object]():
		return fmt.Sprintf("an object at most %d levels deep", maxDepth)
	default:
		return "an object"
	}
}

// object is a JSON object of any content, at most maxDepth deep.
type object []byte

var errObject = errors.New("not an object")

// MarshalJSONTo writes the object as it stands.
func (o object) MarshalJSONTo(e *jsontext.Encoder) error {
	if o == nil {
		return e.WriteToken(jsontext.Null)
	}
	return e.WriteValue(jsontext.Value(o))
}

// UnmarshalJSONFrom reads the object as it stands.
func (o *object) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '{' {
		return errObject
	}
	value, err := d.ReadValue()
	if err != nil {
		return err
	}
	*o = bytes.Clone(value)
	for inner := jsontext.NewDecoder(bytes.NewReader(value)); ; {
		if _, err := inner.ReadToken(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if inner.StackDepth() > maxDepth {
			return errObject
		}
	}
}

// stamp is a time as the API writes it: RFC 3339 in UTC with milliseconds.
type stamp time.Time

// MarshalText implements encoding.TextMarshaler.
func (s stamp) MarshalText() ([]byte, error) {
	return []byte(time.Time(s).UTC().Format("2006-01-02T15:04:05.000Z07:00")), nil
}

// conversationJSON is a conversation as the API shows it.
type conversationJSON struct {
	ID             string            `json:"id"`
	ExternalID     string            `json:"externalId"`
	Title          string            `json:"title"`
	Status         chat.Status       `json:"status"`
	Metadata       map[string]string `json:"metadata"`
	MessageCount   int64             `json:"messageCount"`
	UserID         string            `json:"userId"`
	TenantID       string            `json:"tenantId"`
	CreatedAt      stamp             `json:"createdAt"`
	UpdatedAt      stamp             `json:"updatedAt"`
	LastAccessedAt stamp             `json:"lastAccessedAt"`
	ExpiresAt      stamp             `json:"expiresAt"`
	Version        int64             `json:"version"`
}

func conversationOf(c chat.Conversation) conversationJSON {
	return conversationJSON{
		ID: c.ID, ExternalID: c.ExternalID, Title: c.Title, Status: c.Status, Metadata: c.Metadata, MessageCount: c.MessageCount,
		UserID: c.Owner.UserID, TenantID: c.Owner.TenantID, CreatedAt: stamp(c.CreatedAt), UpdatedAt: stamp(c.UpdatedAt),
		LastAccessedAt: stamp(c.LastAccessedAt), ExpiresAt: stamp(c.ExpiresAt), Version: c.Version,
	}
}

// messageJSON is a message as the API shows it.
type messageJSON struct {
	ID        string         `json:"id"`
	Seq       int64          `json:"seq"`
	Role      chat.Role      `json:"role"`
	Kind      chat.Kind      `json:"kind"`
	Text      string         `json:"text,omitzero"`
	CardJSON  jsontext.Value `json:"cardJson,omitzero"`
	CardID    string         `json:"cardId,omitzero"`
	Value     jsontext.Value `json:"value,omitzero"`
	InReplyTo string         `json:"inReplyTo,omitzero"`
	State     chat.State     `json:"state"`
	CreatedAt stamp          `json:"createdAt"`
}

func messageOf(m chat.Message) messageJSON {
	return messageJSON{
		ID: m.ID, Seq: m.Seq, Role: m.Role, Kind: m.Kind, Text: m.Text, CardJSON: m.CardJSON, CardID: m.CardID, Value: m.Value,
		InReplyTo: m.InReplyTo, State: m.State, CreatedAt: stamp(m.CreatedAt),
	}
}

func messagesOf(messages []chat.Message) []messageJSON {
	all := make([]messageJSON, 0, len(messages))
	for _, m := range messages {
		all = append(all, messageOf(m))
	}
	return all
}

// respond answers with JSON.
func respond(w http.ResponseWriter, status int, body any) error {
	write(w, status, "application/json", body)
	return nil
}

// write sends a body. A client that does not take it is nobody's error.
func write(w http.ResponseWriter, status int, contentType string, body any) {
	text, err := json.Marshal(body, json.Deterministic(true))
	if err != nil {
		panic(err) // our own types always encode
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}
