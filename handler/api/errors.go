package api

import (
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
	"chatkeep/handler/logs"
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
	Claims    string         `json:"claims,omitzero"` // in base64, that the user must sign in with

	retryAfter string // seconds
	quota      int64  // turns a minute, when they are used up
	challenge  string // WWW-Authenticate
}

// fieldProblem says what is wrong with one field of the request.
type fieldProblem struct {
	Path    string `json:"path"`
	Message string `json:"message"`
}

// refusal means that a request cannot be read. Like a *chat.InvalidError it is made to be shown to the caller.
type refusal struct{ fieldProblem }

func (e *refusal) Error() string { return e.Path + " " + e.Message }

// refuse returns a *refusal. The path may be any text of the caller's own.
func refuse(path, message string) error { return &refusal{fieldProblem{shown(path), message}} }

// Refusals of the HTTP layer itself.
var (
	errNoRoute   = errors.New("no such path")
	errMethod    = errors.New("method not allowed")
	errTooSlow   = errors.New("body did not arrive in time")
	errTooLarge  = errors.New("body too large")
	errTooLong   = errors.New("body with too long a history")
	errMediaType = errors.New("not JSON")
	errEncoding  = errors.New("an encoded body")
	errForbidden = errors.New("not through our Front Door")

	errTooManyAtOnce = errors.New("too many requests in progress")
	errTimeout       = logs.Because(logs.Timeout, errors.New("the call took too long"))
	errOldHost       = logs.Because(logs.Host, errors.New("it knows no enableProxyingHttpRequest of host.json, and calls functions in its own JSON; "+
		"update the Functions runtime of the app, or locally azure-functions-core-tools"))
)

// problems says how each error is answered; the first that matches counts. Details say what to do next.
var problems = []struct {
	err error
	problem
}{
	{errForbidden, problem{Status: 403, Code: "forbidden", Detail: "Call this API through its public address."}},
	{errNoRoute, problem{Status: 404, Code: "not_found", Detail: "There is nothing at this path."}},
	{errMethod, problem{Status: 405, Code: "method_not_allowed", Detail: "Use a method that the Allow header names."}},
	{errTooSlow, problem{Status: 408, Code: "request_timeout", Detail: "The body did not arrive in time. Send it within 30 seconds."}},
	{errTooLarge, problem{Status: 413, Code: "payload_too_large", Detail: "The body may have at most 262144 bytes."}},
	{errTooLong, problem{Status: 413, Code: "payload_too_large", Detail: "The body is too large. Send the last message only: prepareSendMessagesRequest of useChat's transport can leave out the others."}},
	{errMediaType, problem{Status: 415, Code: "unsupported_media_type", Detail: "Send JSON, with Content-Type: application/json."}},
	{errEncoding, problem{Status: 415, Code: "unsupported_media_type", Detail: "Send the body as it is, without Content-Encoding."}},
	{errTooManyAtOnce, problem{Status: 429, Code: "rate_limited", Detail: "You have as many requests in progress as are allowed. Send this one again when another is answered.", retryAfter: "1"}},
	{errOldHost, problem{Status: 501, Code: "host_too_old", Detail: "The Functions host of this app is too old for it. Its operator finds in the log what to update."}},
	{errTimeout, problem{Status: 503, Code: "timeout", Detail: "There was no answer in time. What you sent may be stored: repeat it with the same Idempotency-Key or messageId, or read the conversation first.", retryAfter: "1"}},

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
	{chat.ErrQuota, problem{Status: 409, Code: "quota_exceeded", Detail: "You have as many bytes as are allowed. Wait until a conversation expires."}},
	{chat.ErrMessageIDTaken, problem{Status: 409, Code: "message_id_taken", Detail: "The conversation has a message with this messageId. Give each message its own."}},
	{chat.ErrTurnComplete, problem{Status: 409, Code: "turn_complete", Detail: "The last message has its answer. Send another message."}},
	{chat.ErrTransition, problem{Status: 409, Code: "invalid_transition", Detail: "An archived conversation can become active, and not completed."}},
	{chat.ErrVersion, problem{Status: 412, Code: "version_mismatch", Detail: "The conversation has changed since. Read it again, then decide."}},
	{chat.ErrKeyReused, problem{Status: 422, Code: "idempotency_key_reused", Detail: "This Idempotency-Key or messageId belongs to another request. Give each request its own."}},
	{chat.ErrUnavailable, problem{Status: 503, Code: "store_unavailable", Detail: "Conversations cannot be reached at the moment. Try again.", retryAfter: "1"}},
}

// failures says how each code of a chat.Failure is answered. A code that is not here is answered as agent_failed.
var failures = map[string]problem{
	chat.ErrAgentFailed.Code:           {Status: 502, Code: "agent_failed", Detail: "The agent gave no answer. If you sent a message, it is kept as failed; try again."},
	chat.ErrAgentTimeout.Code:          {Status: 504, Code: "agent_timeout", Detail: "The agent took too long. If you sent a message, it is kept as failed; try again."},
	chat.ErrAgentBusy.Code:             {Status: 503, Code: "agent_busy", Detail: "The agent has too much to do at the moment. Try again when Retry-After says.", retryAfter: "5"},
	chat.ErrAgentForbidden.Code:        {Status: 403, Code: "agent_forbidden", Detail: "The agent does not serve you. Ask its owner for access."},
	chat.ErrAgentConversationLost.Code: {Status: 410, Code: "agent_conversation_lost", Detail: "The agent no longer knows this conversation. Start a new one."},
	chat.ErrConsentRequired.Code:       {Status: 403, Code: "consent_required", Detail: "Nobody has consented to this API's calling the agent for you. Ask your administrator."},
	chat.ErrContentFiltered.Code:       {Status: 422, Code: "content_filtered", Detail: "A content filter refused your message or its answer. Say it in other words."},
	chat.ErrInsufficientClaims.Code:    {Status: 401, Code: "insufficient_claims", Detail: "The agent asks for a newer sign-in. Sign in again, then repeat the request.", challenge: `Bearer error="invalid_token"`},
	chat.ErrTurnLost.Code:              {Status: 504, Code: "agent_timeout", Detail: "The turn took too long. Your message is kept as failed; send it again."},
}

// problemOf translates an error; what it does not know is internal.
func problemOf(err error) problem {
	if fields := fieldProblems(err); fields != nil {
		return invalidRequest(fields)
	}
	if failure, ok := errors.AsType[*chat.Failure](err); ok { // before anything that its cause may be
		return problemOfFailure(failure)
	}
	if _, ok := errors.AsType[*chat.BusyError](err); ok {
		return problem{
			Status: 409, Code: "turn_in_progress", retryAfter: "1",
			Detail: "An earlier request is still being answered. This one has stored nothing; send it again.",
		}
	}
	if tooMany, ok := errors.AsType[*chat.RateError](err); ok {
		return problem{
			Status: 429, Code: "rate_limited", retryAfter: seconds(tooMany.Left), quota: tooMany.Quota,
			Detail: "You have begun as many turns as a minute allows. Try again when Retry-After says.",
		}
	}
	for _, known := range problems {
		if errors.Is(err, known.err) {
			return known.problem
		}
	}
	return problem{Status: 500, Code: "internal", Detail: "Something went wrong here. The request id helps to find out what."}
}

func problemOfFailure(f *chat.Failure) problem {
	p, ok := failures[f.Code]
	if !ok {
		p = failures[chat.ErrAgentFailed.Code]
	}
	if f.RetryAfter > 0 {
		p.retryAfter = seconds(f.RetryAfter)
	}
	if f.Claims != "" {
		p.Claims, p.challenge = f.Claims, `Bearer error="insufficient_claims", claims="`+f.Claims+`"`
		p.Detail = "The agent asks for more than this sign-in. Sign in again with the claims given here, then repeat the request."
	}
	return p
}

// seconds writes a duration as Retry-After has it, rounded up.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

func invalidRequest(fields []fieldProblem) problem {
	p := problem{Status: 400, Code: "invalid_request", Errors: fields}
	var all []string
	for _, f := range fields {
		all = append(all, f.Path+" "+f.Message)
	}
	p.Detail = "The request is not valid: " + strings.Join(all, "; ") + "."
	return p
}

// maxFields is how many fields an answer finds fault with, at most.
const maxFields = 20

// paths are what the fields of package chat are called here, in bodies, paths and queries.
var paths = map[chat.Field]string{
	chat.ConversationIDField: "conversationId",
	chat.MessageIDField:      "messageId",
	chat.TitleField:          "title",
	chat.MetadataField:       "metadata",
	chat.TextField:           "text",
	chat.ValueField:          "value",
	chat.StatusField:         "status",
	chat.LimitField:          "limit",
	chat.BeforeField:         "before",
}

// fieldProblems are the fields that an error finds fault with, or nil.
func fieldProblems(err error) []fieldProblem {
	if refused, ok := errors.AsType[*refusal](err); ok {
		return []fieldProblem{refused.fieldProblem}
	}
	invalid, ok := errors.AsType[*chat.InvalidError](err)
	if !ok {
		return nil
	}
	var all []fieldProblem
	for _, f := range invalid.Fields[:min(len(invalid.Fields), maxFields)] {
		path := paths[f.Field]
		if f.Key != "" {
			path += "." + f.Key
		}
		all = append(all, fieldProblem{shown(path), f.Message})
	}
	return all
}

// shown makes a text of the caller's own one that can be shown: UTF-8, and short.
func shown(text string) string {
	return cut(strings.ToValidUTF8(text, string(utf8.RuneError)), 200)
}

// cut returns at most n bytes of a text, cut between characters.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}
