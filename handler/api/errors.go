package api

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/http"
	"regexp"
	"strings"

	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
)

// problem is an error as the caller sees it: RFC 9457, application/problem+json, and nothing internal.
type problem struct {
	Type      string         `json:"type"`
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail"`
	Code      string         `json:"code"`
	RequestID string         `json:"requestId"`
	Errors    []fieldProblem `json:"errors,omitzero"`

	retryAfter string // seconds
}

// fieldProblem says what is wrong with one field of the request.
type fieldProblem struct {
	Path    string `json:"path"`
	Message string `json:"message"`
}

// Refusals of the HTTP layer itself.
var (
	errTooLarge  = errors.New("body too large")
	errMediaType = errors.New("not JSON")
	errForbidden = errors.New("not through our Front Door")
)

// problems says how each error is answered; the first that matches counts. Details say what to do next.
var problems = []struct {
	err error
	problem
}{
	{errForbidden, problem{Status: 403, Code: "forbidden", Detail: "Call this API through its public address."}},
	{errNoRoute, problem{Status: 404, Code: "not_found", Detail: "There is nothing at this path."}},
	{errMethod, problem{Status: 405, Code: "method_not_allowed", Detail: "Use a method that the Allow header names."}},
	{errTooLarge, problem{Status: 413, Code: "payload_too_large", Detail: "The body may have at most 262144 bytes."}},
	{errMediaType, problem{Status: 415, Code: "unsupported_media_type", Detail: "Send JSON, with Content-Type: application/json."}},

	{auth.ErrNoToken, problem{Status: 401, Code: "unauthenticated", Detail: "Send an access token: Authorization: Bearer <token>."}},
	{auth.ErrBadRequest, problem{Status: 400, Code: "invalid_request", Detail: "Send one well-formed Authorization header."}},
	{auth.ErrExpired, problem{Status: 401, Code: "unauthenticated", Detail: "The access token has expired. Get a new one."}},
	{auth.ErrInvalidToken, problem{Status: 401, Code: "unauthenticated", Detail: "The access token is not valid here. Get a new one."}},
	{auth.ErrInsufficientScope, problem{Status: 403, Code: "insufficient_scope", Detail: "The access token lacks the scope that this API requires."}},
	{auth.ErrKeysUnavailable, problem{Status: 503, Code: "identity_unavailable", Detail: "Tokens cannot be checked at the moment. Try again.", retryAfter: "5"}},

	{chat.ErrNotFound, problem{Status: 404, Code: "not_found", Detail: "There is no such conversation."}},
	{chat.ErrClosed, problem{Status: 409, Code: "conversation_closed", Detail: "The conversation is not active. Start a new one."}},
	{chat.ErrFull, problem{Status: 409, Code: "conversation_full", Detail: "The conversation has no room for another message. Start a new one."}},
	{chat.ErrTooMany, problem{Status: 409, Code: "too_many_conversations", Detail: "You have as many conversations as are allowed. Use one of them, or wait until one expires."}},
	{chat.ErrKeyReused, problem{Status: 422, Code: "idempotency_key_reused", Detail: "This Idempotency-Key or messageId belongs to another request. Give each request its own."}},
	{chat.ErrAgentTimeout, problem{Status: 504, Code: "agent_timeout", Detail: "The agent took too long. If you sent a message, it is kept as failed; try again."}},
	{chat.ErrTurnLost, problem{Status: 504, Code: "agent_timeout", Detail: "The turn took too long. Your message is kept as failed; send it again."}},
	{chat.ErrAgentFailed, problem{Status: 502, Code: "agent_failed", Detail: "The agent gave no answer. If you sent a message, it is kept as failed; try again."}},
	{chat.ErrUnavailable, problem{Status: 503, Code: "store_unavailable", Detail: "Conversations cannot be reached at the moment. Try again.", retryAfter: "1"}},
}

// problemOf translates an error; what it does not know is internal.
func problemOf(err error) problem {
	if invalid, ok := errors.AsType[*chat.InvalidError](err); ok {
		p := problem{Status: 400, Code: "invalid_request", Detail: "The request is not valid: " + invalid.Error() + "."}
		for _, f := range invalid.Fields {
			p.Errors = append(p.Errors, fieldProblem(f))
		}
		return p
	}
	if _, ok := errors.AsType[*chat.BusyError](err); ok {
		return problem{
			Status: 409, Code: "turn_in_progress", retryAfter: "1",
			Detail: "An earlier request is still being answered. This one has stored nothing; send it again.",
		}
	}
	for _, known := range problems {
		if errors.Is(err, known.err) {
			return known.problem
		}
	}
	return problem{Status: 500, Code: "internal", Detail: "Something went wrong here. The request id helps to find out what."}
}

// answer ends a request: it writes the error, if any, and alone logs those that someone should look at.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, err error) {
	if err == nil || errors.Is(err, context.Canceled) && r.Context().Err() != nil { // nobody is there to read it
		return
	}
	p := problemOf(err)
	p.Type, p.Title, p.RequestID = "urn:chatkeep:problem:"+p.Code, http.StatusText(p.Status), w.Header().Get("X-Request-Id")
	if challenge := s.auth.Challenge(err); challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	if p.retryAfter != "" {
		w.Header().Set("Retry-After", p.retryAfter)
	}
	_, replayed := errors.AsType[*chat.ReplayedError](err)
	if replayed {
		w.Header().Set(replayedHeader, "true")
	}
	if p.Status >= 500 && !replayed {
		s.log.ErrorContext(r.Context(), "request failed",
			"method", r.Method, "route", r.Pattern, "status", p.Status, "code", p.Code,
			"requestId", p.RequestID, "traceId", traceID(r), "caller", s.callers.of(err), "err", err)
	}
	if p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden { // why is for operators, who ask for it; it quotes nothing
		s.log.DebugContext(r.Context(), "request refused",
			"route", r.Pattern, "status", p.Status, "code", p.Code, "requestId", p.RequestID, "err", err)
	}
	write(w, p.Status, "application/problem+json", p)
}

// callError is an error of a request whose caller is known.
type callError struct {
	caller auth.User
	err    error
}

func (e *callError) Error() string { return e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// callerNames give callers names in the log: the same for all requests of a user to this process, and telling nobody who it is.
type callerNames struct{ key []byte }

func newCallerNames() callerNames {
	return callerNames{key: []byte(rand.Text())}
}

// of names the caller that an error knows, or nobody.
func (c callerNames) of(err error) string {
	call, ok := errors.AsType[*callError](err)
	if !ok {
		return ""
	}
	digest := hmac.New(sha256.New, c.key)
	for _, part := range []string{call.caller.TenantID, call.caller.ID} {
		digest.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		digest.Write([]byte(part))
	}
	return hex.EncodeToString(digest.Sum(nil)[:6])
}

var traceparent = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}`)

// traceID is the trace that the request belongs to (W3C Trace Context), for finding it again; nothing is decided by it.
func traceID(r *http.Request) string {
	match := traceparent.FindStringSubmatch(strings.TrimSpace(r.Header.Get("traceparent")))
	if match == nil {
		return ""
	}
	return match[1]
}
