package agent

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
)

// d2e plays Copilot Studio's "direct to engine". What it says to a message is scripted by the message's text; what it says at a start is
// scripted by the empty text. It keeps a conversation for the token that has opened it.
type d2e struct {
	*httptest.Server
	script map[string]func(*d2eAnswer)

	mu            sync.Mutex
	requests      []d2eRequest
	conversations map[string]string // whose token opened it
}

// d2eRequest is a request as it arrived.
type d2eRequest struct {
	method, path, query, body string
	header                    http.Header
}

// d2eAnswer is the answer to one request.
type d2eAnswer struct {
	w              http.ResponseWriter
	r              *http.Request
	conversationID string
	text           string // of the user
}

const d2ePath = "/copilotstudio/dataverse-backed/authenticated/bots/cr123_agent/conversations"

func startD2E(t *testing.T) *d2e {
	s := &d2e{conversations: map[string]string{}, script: map[string]func(*d2eAnswer){
		"": func(a *d2eAnswer) {
			a.activity(`{"type":"message","id":"g1","text":"Hello, I am the agent.","from":{"id":"b","role":"bot"},"conversation":{"id":"` + a.conversationID + `"}}`)
			a.end()
		},
	}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *d2e) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	token := r.Header.Get("Authorization")
	s.mu.Lock()
	s.requests = append(s.requests, d2eRequest{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, string(body), r.Header})
	var turn struct {
		Activity struct{ Type, Text string }
	}
	_ = json.Unmarshal(body, &turn, json.MatchCaseInsensitiveNames(true))
	id := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, d2ePath), "/")
	if id == "" {
		id = fmt.Sprintf("c-%d", len(s.conversations)+1)
	}
	if s.conversations[id] == "" { // an id that it does not know opens a conversation
		s.conversations[id] = token
	}
	isOthers := s.conversations[id] != token
	script := s.script[turn.Activity.Text]
	s.mu.Unlock()
	a := &d2eAnswer{w, r, id, turn.Activity.Text}
	switch {
	case isOthers:
		a.status(http.StatusForbidden, `{"error":{"code":"CallerIdentityMismatch","message":"not yours"}}`)
	case script == nil:
		a.header()
		a.activity(`{"type":"message","text":"You said: ` + a.text + `"}`)
		a.end()
	default:
		script(a)
	}
}

// received are the requests so far.
func (s *d2e) received() []d2eRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// connection is the agent's connection string.
func (s *d2e) endpoint(t *testing.T) CopilotStudioEndpoint {
	e, err := CopilotStudioDirect(s.URL + d2ePath + "?api-version=2022-03-01-preview")
	require.NoError(t, err)
	return e
}

// header begins a stream, with the conversation's id.
func (a *d2eAnswer) header() {
	a.w.Header().Set("x-ms-conversationid", a.conversationID)
	a.stream()
}

func (a *d2eAnswer) stream() {
	a.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	a.w.WriteHeader(http.StatusOK)
	a.flush()
}

func (a *d2eAnswer) activity(activity string) { a.event("activity", activity) }

func (a *d2eAnswer) event(name, data string) {
	if a.w.Header().Get("Content-Type") == "" {
		a.header()
	}
	a.raw("event: " + name + "\ndata: " + data + "\n\n")
}

// delta is a piece of the text of the stream s1.
func (a *d2eAnswer) delta(sequence int, text string) {
	a.activity(fmt.Sprintf(
		`{"type":"typing","text":%q,"entities":[{"type":"streaminfo","streamType":"streaming","streamId":"s1","streamSequence":%d}]}`, text, sequence))
}

func (a *d2eAnswer) end() { a.event("end", "end") }

func (a *d2eAnswer) raw(text string) {
	_, _ = io.WriteString(a.w, text)
	a.flush()
}

func (a *d2eAnswer) flush() { _ = http.NewResponseController(a.w).Flush() }

func (a *d2eAnswer) status(status int, body string) {
	a.w.Header().Set("Content-Type", "application/json")
	a.w.WriteHeader(status)
	_, _ = io.WriteString(a.w, body)
}

// reset breaks the connection.
func (a *d2eAnswer) reset() { panic(http.ErrAbortHandler) }
