package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"

	"chatkeep/handler/chat"
	"chatkeep/handler/logs"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// CopilotStudio answers by an agent of Copilot Studio, for each user as that user. It keeps nothing of a conversation: the agent's own id of it,
// and who opened it, are in the reply's reference. It is safe for concurrent use.
type CopilotStudio struct {
	endpoint CopilotStudioEndpoint
	tokens   *OnBehalfOf
	post     *poster
	log      *slog.Logger
}

// NewCopilotStudio returns the agent at an endpoint. It asks nobody yet.
func NewCopilotStudio(endpoint CopilotStudioEndpoint, tokens *OnBehalfOf, deadlines Deadlines, log *slog.Logger) *CopilotStudio {
	return &CopilotStudio{endpoint, tokens, newPoster(deadlines), log}
}

// agentRef is what Copilot Studio's side of a conversation is. It serves nobody but the user who opened it.
type agentRef struct {
	ConversationID string `json:"conversationId"`
	TenantID       string `json:"tenantId"`
	ObjectID       string `json:"objectId,omitzero"`
	Ended          string `json:"ended,omitzero"` // the code with which the agent said last that it has ended
}

// Open implements chat.Agent. What the agent says at the start is the greeting.
func (c *CopilotStudio) Open(ctx context.Context, caller chat.Caller, _ string) (chat.Reply, error) {
	var a answer
	id, err := c.ask(ctx, caller, c.endpoint.start(), []byte(`{"emitStartConversationEvent":true}`), &a)
	if err != nil {
		return chat.Reply{}, err
	}
	if id = cmp.Or(id, a.conversationID); !isConversationID(id) {
		return chat.Reply{}, failed("copilot studio", errors.New("it names no conversation"))
	}
	return a.reply(agentRef{id, caller.Owner.TenantID, caller.ObjectID, a.ended})
}

// Answer implements chat.Agent. A question with a card's data is that alone.
func (c *CopilotStudio) Answer(ctx context.Context, caller chat.Caller, q chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	var ref agentRef
	if err := json.Unmarshal([]byte(q.AgentRef), &ref); err != nil || !isConversationID(ref.ConversationID) {
		return chat.Reply{}, lost("it was begun with another agent")
	}
	isSameUser := ref.TenantID == caller.Owner.TenantID && (ref.ObjectID == caller.ObjectID || ref.ObjectID == "" || caller.ObjectID == "")
	if !isSameUser {
		return chat.Reply{}, lost("it was opened as another user")
	}
	body, err := turnBody(q.Message)
	if err != nil {
		return chat.Reply{}, failed("copilot studio", err)
	}
	a := answer{emit: emit}
	id, err := c.ask(ctx, caller, c.endpoint.turn(ref.ConversationID), body, &a)
	switch refused, ok := errors.AsType[*refusedError](err); {
	case ok && ref.Ended != "" && refused.status == http.StatusNotFound:
		err = lost("it has ended: " + refused.Error())
	case err == nil && id != "" && !strings.EqualFold(id, ref.ConversationID):
		err = lost("it answers in another conversation")
	}
	if err != nil {
		return chat.Reply{Messages: a.all()}, err
	}
	ref.ObjectID, ref.Ended = cmp.Or(ref.ObjectID, caller.ObjectID), a.ended
	return a.reply(ref)
}

// turnBody is what is sent for a question: its activity has the text or a card's data, and nothing else.
func turnBody(m chat.Message) ([]byte, error) {
	type activity struct {
		Type  string         `json:"type"`
		Text  string         `json:"text,omitzero"`
		Value jsontext.Value `json:"value,omitzero"`
	}
	said := activity{Type: "message", Text: m.Text}
	if m.Value != nil {
		said = activity{Type: "message", Value: m.Value}
	}
	return json.Marshal(struct {
		Activity activity `json:"activity"`
	}{said})
}

// ask sends a request as the caller, and gathers what the agent says. It returns the id that the answer's header, or else its body, gives the
// conversation. With an error, the answer holds what had come.
func (c *CopilotStudio) ask(ctx context.Context, caller chat.Caller, url string, body []byte, a *answer) (id string, err error) {
	token, err := c.tokens.tokenFor(ctx, caller)
	if err != nil {
		return "", err
	}
	header := http.Header{
		"Authorization": {"Bearer " + string(token)}, "Content-Type": {"application/json"}, "Accept": {"text/event-stream"},
	}
	response, err := c.post.do(ctx, url, header, body)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		if response.StatusCode == http.StatusUnauthorized {
			c.tokens.forget(caller)
		}
		return "", refused(response)
	}
	defer func() {
		if missed := a.missed(); missed != "" {
			c.log.WarnContext(ctx, "parts of the agent's answer have no place in a message", "parts", missed)
		}
	}()
	id = response.Header.Get("x-ms-conversationid")
	mediaType, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch {
	case err == nil && mediaType == "text/event-stream":
		return id, c.takeStream(ctx, response.Body, a)
	case err == nil && mediaType == "application/json":
		bodyID, err := takeJSON(response.Body, a)
		return cmp.Or(id, bodyID), c.post.failure(ctx, err)
	default:
		return "", failed("copilot studio", errors.New("its answer is neither a stream nor JSON"))
	}
}

// takeStream reads a stream to its end marker. One that ends without it is no whole answer.
func (c *CopilotStudio) takeStream(ctx context.Context, body io.Reader, a *answer) error {
	events := newEventReader(body)
	for {
		name, data, err := events.next()
		switch {
		case errors.Is(err, io.EOF):
			return failed("copilot studio", errors.New("its stream ends without an end"))
		case err != nil:
			return c.post.failure(ctx, err)
		case name == "end":
			return nil
		case name == "error":
			return refusalOf(http.StatusOK, data)
		case name == "activity":
			if err := a.take(data); err != nil {
				return failed("copilot studio", err)
			}
		}
	}
}

// takeJSON reads an answer that is no stream. It returns the conversation's id in it.
func takeJSON(body io.Reader, a *answer) (id string, err error) {
	text, err := io.ReadAll(io.LimitReader(body, maxLine+1))
	if err != nil {
		return "", err
	}
	var all struct {
		Activities     []jsontext.Value `json:"activities"`
		ConversationID string           `json:"conversationId"`
		Action         string           `json:"action"`
	}
	if len(text) > maxLine {
		return "", failed("copilot studio", errTooLong)
	}
	if err := json.Unmarshal(text, &all, lenient); err != nil {
		return "", failed("copilot studio", errors.New("its answer is not JSON"))
	}
	for _, activity := range all.Activities {
		if err := a.take(activity); err != nil {
			return "", failed("copilot studio", err)
		}
	}
	if all.Action == "continue" {
		return "", failed("copilot studio", errors.New("its answer is a part of one"))
	}
	return all.ConversationID, nil
}

// reply is the whole answer. A text whose message never came is a message: the user has read it.
func (a *answer) reply(ref agentRef) (chat.Reply, error) {
	text, err := json.Marshal(ref)
	if err != nil {
		return chat.Reply{}, failed("copilot studio", err)
	}
	return chat.Reply{Messages: a.all(), AgentRef: string(text), ExternalID: ref.ConversationID}, nil
}

// isConversationID reports whether an id of the agent's can be a part of a URL's path, and be stored.
func isConversationID(id string) bool {
	isControl := func(r rune) bool { return r < ' ' || r == 0x7f }
	return 1 <= len(id) && len(id) <= 512 && id != "." && id != ".." && utf8.ValidString(id) && !strings.ContainsFunc(id, isControl)
}

// refusedError is what the agent's service said in place of an answer. It quotes none of its text, which may quote the user.
type refusedError struct {
	status int
	code   string // as the service has it; empty: none that is known
}

func (e *refusedError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("copilot studio: status %d %s", e.status, e.code))
}

// Cause is for the log.
func (e *refusedError) Cause() logs.Cause { return logs.Status }

const maxRefusal = 64 << 10 // bytes of a refusal that are read

var (
	knownCodes = regexp.MustCompile(`\b(ConversationNotFound|CallerIdentityMismatch|CallerIdentityTypeMismatch|D2EAccessDenied|` +
		`S2SDirectEngineRequiresNoAuthentication|InvalidOperation|MissingRequiredField|InvalidOperationForState|Unauthorized|Throttled|` +
		`BotContentNotFound|TopicNotFound|InternalServerError|ContentFiltered|EnableS2SAuthFeature)\b`)
	claimsOf = regexp.MustCompile(`\bclaims="([A-Za-z0-9+/_=-]+)"`)
)

// refused says what an answer means that is not 200.
func refused(response *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxRefusal))
	challenge := strings.Join(response.Header.Values("WWW-Authenticate"), ", ")
	claims := claimsOf.FindStringSubmatch(challenge)
	err := refusalOf(response.StatusCode, text)
	if response.StatusCode == http.StatusUnauthorized && claims != nil && strings.Contains(challenge, "insufficient_claims") {
		return &chat.Failure{Code: chat.ErrInsufficientClaims.Code, Claims: claims[1], Err: err}
	}
	if err.Code == chat.ErrAgentBusy.Code {
		err.RetryAfter = retryAfter(response.Header)
	}
	return err
}

// refusalOf says what a status means with what the service says about it, whose form is documented nowhere: its codes are words of it.
func refusalOf(status int, text []byte) *chat.Failure {
	e := &refusedError{status, string(knownCodes.Find(text))}
	f := &chat.Failure{Code: chat.ErrAgentFailed.Code, Err: e}
	switch e.code {
	case "ConversationNotFound", "CallerIdentityMismatch", "CallerIdentityTypeMismatch":
		f.Code = chat.ErrAgentConversationLost.Code
		return f
	case "ContentFiltered":
		f.Code = chat.ErrContentFiltered.Code
		return f
	case "Throttled":
		f.Code = chat.ErrAgentBusy.Code
		return f
	case "D2EAccessDenied":
		f.Code = chat.ErrAgentForbidden.Code
		return f
	}
	switch status {
	case http.StatusForbidden:
		f.Code = chat.ErrAgentForbidden.Code
	case http.StatusGone:
		f.Code = chat.ErrAgentConversationLost.Code
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		f.Code = chat.ErrAgentBusy.Code
	}
	return f
}

func lost(why string) error {
	return &chat.Failure{Code: chat.ErrAgentConversationLost.Code, Err: errors.New("copilot studio: " + why)}
}
