package api

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"

	"chatkeep/handler/chat"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// replayedHeader says that the answer is that of an earlier request.
const replayedHeader = "Idempotency-Replayed"

var idempotencyKey = regexp.MustCompile(`^[!-~]{1,255}$`)

// once reads the Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07, but for any visible ASCII in place of a quoted string),
// and digests the request: its function, and the body that was decoded. How a body is written does not count.
func once(r *http.Request, function string, body any) (chat.Once, error) {
	var o chat.Once
	keys := r.Header.Values("Idempotency-Key")
	if len(keys) > 1 || len(keys) == 1 && !idempotencyKey.MatchString(keys[0]) {
		return o, chat.Invalid("Idempotency-Key", "must be one header of 1 to 255 visible ASCII characters")
	}
	if len(keys) == 1 {
		o.Key = keys[0]
	}
	text, err := json.Marshal(body, json.Deterministic(true))
	if err != nil {
		return o, fmt.Errorf("digest: %w", err)
	}
	asked := jsontext.Value(text)
	if err := asked.Format(jsontext.ReorderRawObjects(true)); err != nil {
		return o, fmt.Errorf("digest: %w", err)
	}
	digest := sha256.Sum256(append([]byte(function+" "), asked...))
	o.Request = base64.RawURLEncoding.EncodeToString(digest[:])
	return o, nil
}

// replayed marks an answer that is a repetition.
func replayed(w http.ResponseWriter, is bool) {
	if is {
		w.Header().Set(replayedHeader, "true")
	}
}
