package api

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"

	"chatkeep/handler/chat"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxBody     = 256 << 10              // bytes
	maxDrain    = 4 << 20                // bytes of a refused body that are still read, so that the answer reaches the client
	maxBodyTime = 30 * time.Second       // for a body to arrive
	drainTime   = 250 * time.Millisecond // for the rest of a body that is not wanted
	maxDepth    = 64                     // of a submitted value
)

// decode reads a JSON body strictly: names match exactly, and an unknown or repeated field, a wrong type, invalid UTF-8 or
// trailing data is a *refusal with the field's path. A null field is one that is not given. An empty body is a *refusal too,
// unless emptyAllowed.
func decode[T any](w *response, r *http.Request, emptyAllowed bool) (T, error) {
	var v T
	body, err := readJSON(w, r, maxBody, emptyAllowed)
	if err != nil || body == nil {
		return v, err
	}
	return v, invalidJSON(json.Unmarshal(body, &v, json.RejectUnknownMembers(true)))
}

// readJSON reads a body of at most most bytes that is to be a JSON object; nil when it is empty, and that is allowed.
func readJSON(w *response, r *http.Request, most int, emptyAllowed bool) ([]byte, error) {
	if err := checkEncoding(w, r); err != nil {
		return nil, err
	}
	body, err := readBody(w, r, most)
	if err != nil {
		return nil, err
	}
	if len(body) == 0 && emptyAllowed {
		return nil, nil
	}
	if err := checkMediaType(r); err != nil {
		return nil, err
	}
	if len(body) == 0 {
		return nil, refuse("body", "is empty: send a JSON object")
	}
	if jsontext.Value(body).Kind() == jsontext.KindNull { // which would be taken for an object without fields
		return nil, refuse("body", "must be an object")
	}
	return body, nil
}

// checkEncoding refuses a body that would have to be decompressed.
func checkEncoding(w http.ResponseWriter, r *http.Request) error {
	for _, header := range r.Header.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(header, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				w.Header().Set("Accept-Encoding", "identity")
				return errEncoding
			}
		}
	}
	return nil
}

// checkMediaType looks at the type alone; its parameters say nothing that could matter, and need not be well-formed.
func checkMediaType(r *http.Request) error {
	header, _, err := single(r, "Content-Type")
	if err != nil {
		return err
	}
	media, _, _ := strings.Cut(header, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	if media != "application/json" && (r.Method != http.MethodPatch || media != mergePatch) {
		return errMediaType
	}
	return nil
}

// readBody reads at most most bytes, and skips a byte order mark before them. Of a longer body it drops a bounded rest, for a
// host that sees its upload refused half-way reports that instead of the answer.
func readBody(w *response, r *http.Request, most int) ([]byte, error) {
	if r.Body == http.NoBody {
		return nil, nil
	}
	deadline := http.NewResponseController(w.ResponseWriter)
	_ = deadline.SetReadDeadline(w.bodyDeadline()) // not supported by a recorder in a test
	defer func() { _ = deadline.SetReadDeadline(time.Time{}) }()
	var body bytes.Buffer
	body.Grow(int(min(max(0, r.ContentLength), 16<<10)) + bytes.MinRead) // the rest when it has arrived
	_, err := body.ReadFrom(io.LimitReader(r.Body, int64(most)+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, errTooSlow
	case err != nil:
		return nil, refuse("body", "did not arrive as a whole")
	case body.Len() > most:
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
		return nil, errTooLarge
	default:
		w.bodyRead = true
		return bytes.TrimPrefix(body.Bytes(), []byte("\uFEFF")), nil
	}
}

// bodyDeadline is in bodyTime, and leaves of the call what its answer needs.
func (w *response) bodyDeadline() time.Time {
	deadline := time.Now().Add(w.bodyTime)
	if last := w.end.Add(-answerTime); last.Before(deadline) {
		deadline = last
	}
	return deadline
}

// invalidJSON makes a decoder's error one that may be shown.
func invalidJSON(err error) error {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntactic):
		return refuse(fieldPath(syntactic.JSONPointer), "appears more than once")
	case errors.Is(err, json.ErrUnknownName) && errors.As(err, &semantic):
		return refuse(fieldPath(semantic.JSONPointer), "is not a field of this request")
	case errors.As(err, &semantic):
		return refuse(fieldPath(semantic.JSONPointer), "must be "+typeName(semantic.GoType))
	case errors.As(err, &syntactic):
		return refuse(fieldPath(syntactic.JSONPointer), fmt.Sprintf("is not valid JSON in UTF-8 at byte %d", syntactic.ByteOffset))
	default:
		return refuse("body", "is not valid JSON in UTF-8")
	}
}

// fieldPath writes a JSON pointer as people do: "metadata.color".
func fieldPath(pointer jsontext.Pointer) string {
	var names []string
	for name := range pointer.Tokens() {
		names = append(names, name)
	}
	return cmp.Or(strings.Join(names, "."), "body")
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
	case t == reflect.TypeFor[lastOf]() || t.Kind() == reflect.Slice && t != reflect.TypeFor[object]():
		return "a list"
	case t == reflect.TypeFor[object]():
		return fmt.Sprintf("an object of at most %d bytes, at most %d levels deep", chat.MaxValueBytes, maxDepth)
	default:
		return "an object"
	}
}

// object is a JSON object of any content within chat.MaxValueBytes and maxDepth; nil is none.
type object []byte

var errObject = errors.New("not an object, or too large a one")

// UnmarshalJSONFrom reads the object as it stands. To find names that appear twice costs a multiple of reading, so the bounds come first.
func (o *object) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	kind := d.PeekKind()
	if kind == jsontext.KindBeginObject {
		if size, depth := measure(d.UnreadBuffer()); size > chat.MaxValueBytes || depth > maxDepth {
			return errObject
		}
	}
	value, err := d.ReadValue()
	switch {
	case err != nil:
		return err
	case kind == jsontext.KindNull:
		return nil
	case kind != jsontext.KindBeginObject:
		return errObject
	default:
		*o = bytes.Clone(value)
		return nil
	}
}

// measure looks at the first object or array in text: how many bytes it has without spaces between its tokens, and how deep it is nested.
// Of what is not well-formed it tells something.
func measure(text []byte) (size, depth int) {
	level, inString := 0, false
	for i := max(0, bytes.IndexAny(text, "{[")); i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			size++
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			size--
		case c == '{' || c == '[':
			level++
			depth = max(depth, level)
		case c == '}' || c == ']':
			level--
		}
		size++
		if level == 0 {
			return size, depth
		}
	}
	return size, depth
}
