package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"chatkeep/handler/auth"
	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

func TestProblems(t *testing.T) {
	s := open(t)
	for name, row := range map[string]struct {
		err    error
		status int
		code   string
		header map[string]string
	}{
		"message id taken": {chat.ErrMessageIDTaken, 409, "message_id_taken", nil},
		"another version":  {chat.ErrVersion, 412, "version_mismatch", nil},
		"key reused":       {chat.ErrKeyReused, 422, "idempotency_key_reused", nil},
		"busy":             {&chat.BusyError{Left: time.Minute}, 409, "turn_in_progress", map[string]string{"Retry-After": "1"}},
		"quota":            {chat.ErrQuota, 409, "quota_exceeded", nil},
		"too fast": {&chat.RateError{Left: 2500 * time.Millisecond, Quota: 300}, 429, "rate_limited", map[string]string{
			"Retry-After": "3", "RateLimit-Policy": `"turns";q=300;w=60`, "RateLimit": `"turns";r=0;t=3`,
		}},
		"unavailable":           {chat.ErrUnavailable, 503, "store_unavailable", map[string]string{"Retry-After": "1"}},
		"damaged":               {chat.ErrDamaged, 500, "internal", nil},
		"agent failed":          {chat.ErrAgentFailed, 502, "agent_failed", nil},
		"agent timeout":         {chat.ErrAgentTimeout, 504, "agent_timeout", nil},
		"turn lost":             {chat.ErrTurnLost, 504, "agent_timeout", nil},
		"never shown":           {chat.ErrNotAsked, 502, "agent_failed", nil},
		"a code not known here": {&chat.Failure{Code: "later"}, 502, "agent_failed", nil},
		"a failure's cause is not the answer": {
			&chat.Failure{Code: "agent_failed", Err: fmt.Errorf("tool: %w", chat.ErrUnavailable)}, 502, "agent_failed", nil,
		},
		"to be tried later":       {&chat.Failure{Code: "agent_failed", RetryAfter: 1100 * time.Millisecond}, 502, "agent_failed", map[string]string{"Retry-After": "2"}},
		"to be tried in a moment": {&chat.Failure{Code: "agent_timeout", RetryAfter: time.Millisecond}, 504, "agent_timeout", map[string]string{"Retry-After": "1"}},
		"an old sign-in":          {chat.ErrInsufficientClaims, 401, "insufficient_claims", map[string]string{"WWW-Authenticate": `Bearer error="invalid_token"`}},
		"with claims to sign in with, whatever its cause": {
			&chat.Failure{Code: "insufficient_claims", Claims: "eyJhIjoxfQ==", Err: auth.ErrExpired},
			401, "insufficient_claims", map[string]string{"WWW-Authenticate": `Bearer error="insufficient_claims", claims="eyJhIjoxfQ=="`},
		},
		"repeated": {&chat.ReplayedError{Err: chat.ErrAgentTimeout}, 504, "agent_timeout", map[string]string{replayedHeader: "true"}},
	} {
		t.Run(name, func(t *testing.T) {
			recorder := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/", http.NoBody)
			s.server.end(&response{ResponseWriter: recorder, request: r}, r, fmt.Errorf("send: %w", row.err))
			require.Equal(t, row.status, recorder.Code)
			require.Contains(t, recorder.Body.String(), fmt.Sprintf(`"code":%q`, row.code))
			for _, header := range []string{"Retry-After", "WWW-Authenticate", replayedHeader, "RateLimit", "RateLimit-Policy"} {
				require.Equal(t, row.header[header], recorder.Header().Get(header), header)
			}
		})
	}
}

func TestFieldsOfChatHaveTheNamesOfTheAPI(t *testing.T) {
	p := problemOf(&chat.InvalidError{Fields: []chat.FieldError{
		{Field: chat.ConversationIDField, Message: "a"}, {Field: chat.MessageIDField, Message: "b"}, {Field: chat.TitleField, Message: "c"},
		{Field: chat.MetadataField, Message: "d"}, {Field: chat.MetadataField, Key: "color", Message: "e"}, {Field: chat.TextField, Message: "f"},
		{Field: chat.ValueField, Message: "g"}, {Field: chat.StatusField, Message: "h"}, {Field: chat.LimitField, Message: "i"},
		{Field: chat.BeforeField, Message: "j"},
	}})
	require.Equal(t, []fieldProblem{
		{"conversationId", "a"}, {"messageId", "b"}, {"title", "c"}, {"metadata", "d"}, {"metadata.color", "e"}, {"text", "f"},
		{"value", "g"}, {"status", "h"}, {"limit", "i"}, {"before", "j"},
	}, p.Errors)
	require.Equal(t, 400, p.Status)
	require.Contains(t, p.Detail, "metadata.color e; text f")
}
