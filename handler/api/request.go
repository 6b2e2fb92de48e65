package api

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
)

// callerOf is the signed-in user as package chat knows callers.
func callerOf(u auth.User) chat.Caller {
	return chat.Caller{Owner: chat.Owner{TenantID: u.TenantID, UserID: u.ID}, ObjectID: u.ObjectID, Token: chat.Secret(u.Token)}
}

// checkQuery refuses a query of which a part cannot be read, rather than to drop that part in silence as net/url does.
func checkQuery(query string) error {
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		_, nameErr := url.QueryUnescape(name)
		_, valueErr := url.QueryUnescape(value)
		if nameErr != nil || valueErr != nil || strings.Contains(part, ";") {
			name, _, _ = strings.Cut(name, ";")
			return refuse(cmp.Or(name, "query"), "must be written as name=value, percent-encoded, with & between two of them")
		}
	}
	return nil
}

// number reads a query parameter that counts something; where it is not given, the value is absent.
func number(query url.Values, name string, absent int64) (int64, error) {
	values := query[name]
	if len(values) == 0 {
		return absent, nil
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || n < 1 || len(values) > 1 {
		return 0, refuse(name, "must be one whole number above 0")
	}
	return n, nil
}

// single reads a header that may be given once. Of one that is given twice, proxies make one line with a comma.
func single(r *http.Request, name string) (value string, given bool, err error) {
	values := r.Header.Values(name)
	switch {
	case len(values) == 0:
		return "", false, nil
	case len(values) > 1:
		return "", true, refuse(name, "must be given once")
	default:
		return values[0], true, nil
	}
}

// requestID is the id under which the Functions host logs the request, or without a host a random one.
func requestID(r *http.Request) string {
	if id := invocationID(r); id != "" {
		return id
	}
	return rand.Text()
}

// invocationID is the Functions host's name for the call; empty without a host.
func invocationID(r *http.Request) string {
	if id := r.Header.Get("X-Azure-Functions-InvocationId"); isPlain(id) {
		return id
	}
	return ""
}

func isPlain(id string) bool {
	for i := range len(id) {
		if c := id[i] | 0x20; (c < 'a' || c > 'z') && (id[i] < '0' || id[i] > '9') && id[i] != '-' {
			return false
		}
	}
	return 1 <= len(id) && len(id) <= 64
}

// traceID is the trace that the request belongs to (W3C Trace Context), for finding it again; nothing is decided by it. Empty: it has none.
func traceID(r *http.Request) string {
	_, rest, _ := strings.Cut(r.Header.Get("traceparent"), "-")
	id, _, _ := strings.Cut(rest, "-")
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || strings.Trim(id, "0") == "" {
		return ""
	}
	return id
}

// callerNames give callers names in the log: the same for all requests of a user to this process, and telling nobody who it is.
type callerNames struct{ key []byte }

func newCallerNames() callerNames {
	return callerNames{key: []byte(rand.Text())}
}

// of names a caller; the empty owner is nobody.
func (c callerNames) of(owner chat.Owner) string {
	if owner == (chat.Owner{}) {
		return ""
	}
	digest := hmac.New(sha256.New, c.key)
	for _, part := range []string{owner.TenantID, owner.UserID} {
		digest.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		digest.Write([]byte(part))
	}
	return hex.EncodeToString(digest.Sum(nil)[:6])
}
