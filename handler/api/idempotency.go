package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"
)

// replayedHeader says that the answer is that of an earlier request.
const replayedHeader = "Idempotency-Replayed"

// idempotencyKey reads the Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07, but for any visible ASCII in place of a
// quoted string); empty: none. A comma in it would be two keys that a proxy joined.
func idempotencyKey(r *http.Request) (string, error) {
	key, given, err := single(r, "Idempotency-Key")
	if err != nil || !given {
		return "", err
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' || key[i] == ',' {
			return "", refuse("Idempotency-Key", "must be visible ASCII characters without a comma")
		}
	}
	if len(key) < 1 || len(key) > 255 {
		return "", refuse("Idempotency-Key", "must have 1 to 255 characters")
	}
	return key, nil
}

// keyOrCall is the caller's idempotency key, or in place of it the Functions host's name of the call when the request has no body: the host
// sends such a request again when the connection ends without an answer, under the same invocation id. The space keeps that apart from
// what callers may choose. Empty: neither.
func keyOrCall(r *http.Request) (string, error) {
	key, err := idempotencyKey(r)
	if id := invocationID(r); err == nil && key == "" && id != "" && r.Body == http.NoBody {
		key = "call " + id
	}
	return key, err
}

// fingerprint digests a request: its function and what was decoded, part by part in a fixed order. How a body is written does not count.
type fingerprint struct{ hash.Hash }

func newFingerprint(function string) fingerprint {
	f := fingerprint{sha256.New()}
	f.add(function)
	return f
}

// add digests a part with its length, so that no two lists of parts are digested alike.
func (f fingerprint) add(part string) {
	f.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))+1))
	f.Write([]byte(part))
}

// addOptional digests a part that may be missing, which is another thing than empty.
func (f fingerprint) addOptional(part *string) {
	if part == nil {
		f.Write(binary.BigEndian.AppendUint64(nil, 0))
		return
	}
	f.add(*part)
}

// addObject digests a JSON object, whatever its spaces, escapes and order of members; nil is a missing one.
func (f fingerprint) addObject(o object) {
	if o == nil {
		f.addOptional(nil)
		return
	}
	canonical := jsontext.Value(o).Clone()
	err := canonical.Format(jsontext.ReorderRawObjects(true), jsontext.AllowDuplicateNames(true)) // there are none, which need not be found again
	if err != nil {
		panic(err) // it was decoded
	}
	f.add(string(canonical))
}

func (f fingerprint) String() string {
	return base64.RawURLEncoding.EncodeToString(f.Sum(nil))
}

// markReplayed marks an answer that is a repetition.
func markReplayed(w http.ResponseWriter, is bool) {
	if is {
		w.Header().Set(replayedHeader, "true")
	}
}
