package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strings"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/logs"

	"github.com/go-json-experiment/json"
)

// OpenAIConfig says which model answers.
type OpenAIConfig struct {
	BaseURL       string // with the version, without a slash at the end
	Responses     bool   // the API is responses, not chat completions
	Model         string // or the deployment's name
	Key           chat.Secret
	Token         func(context.Context) (string, error) // in place of a key; nil: there is one
	Instructions  string
	ContextTokens int // of earlier turns, estimated
}

// OpenAI answers by a model behind an OpenAI-compatible API. Each question brings the turns before it along, and the service is asked to store
// nothing. It is safe for concurrent use.
type OpenAI struct {
	config    OpenAIConfig
	firstByte time.Duration // for a token too
	post      *poster
}

// NewOpenAI returns the agent. It asks nobody yet.
func NewOpenAI(c OpenAIConfig, deadlines Deadlines) *OpenAI {
	return &OpenAI{c, deadlines.FirstByte, newPoster(deadlines)}
}

// Open implements chat.Agent. There is no greeting.
func (*OpenAI) Open(context.Context, chat.Caller, string) (chat.Reply, error) {
	return chat.Reply{}, nil
}

// Answer implements chat.Agent. The answer is one text.
func (o *OpenAI) Answer(ctx context.Context, _ chat.Caller, q chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	body, path, err := o.request(q)
	if err != nil {
		return chat.Reply{}, err
	}
	key := string(o.config.Key)
	if o.config.Token != nil {
		limited, cancel := context.WithTimeoutCause(ctx, o.firstByte, chat.ErrAgentTimeout)
		defer cancel()
		if key, err = o.config.Token(limited); limited.Err() != nil {
			return chat.Reply{}, context.Cause(limited)
		} else if err != nil {
			return chat.Reply{}, failed("openai", logs.Because(logs.Auth, fmt.Errorf("no token: %T", err))) // what it says may quote one
		}
	}
	header := http.Header{"Authorization": {"Bearer " + key}, "Content-Type": {"application/json"}, "Accept": {"text/event-stream"}}
	response, err := o.post.do(ctx, o.config.BaseURL+path, header, body)
	if err != nil {
		return chat.Reply{}, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return chat.Reply{}, modelRefusal(response)
	}
	if media, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil || media != "text/event-stream" {
		return chat.Reply{}, failed("openai", errors.New("its answer is no stream"))
	}
	text := modelText{emit: emit}
	err = o.read(ctx, response.Body, &text)
	return text.reply(), err
}

// said is a message as both APIs take it.
type said struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// request returns the body and the path of a question.
func (o *OpenAI) request(q chat.Question) (body []byte, path string, err error) {
	turns, err := o.context(q)
	if err != nil {
		return nil, "", err
	}
	if o.config.Responses {
		body, err = json.Marshal(struct {
			Model        string `json:"model"`
			Instructions string `json:"instructions,omitzero"`
			Input        []said `json:"input"`
			Stream       bool   `json:"stream"`
			Store        bool   `json:"store"`
		}{o.config.Model, o.config.Instructions, turns, true, false})
		return body, "/responses", err
	}
	if o.config.Instructions != "" {
		turns = append([]said{{"system", o.config.Instructions}}, turns...)
	}
	body, err = json.Marshal(struct {
		Model    string `json:"model"`
		Messages []said `json:"messages"`
		Stream   bool   `json:"stream"`
	}{o.config.Model, turns, true})
	return body, "/chat/completions", err
}

// context returns the question with as many of the newest whole turns before it as have ContextTokens. A turn that failed, was cancelled or is
// cut by the start of the history is left out.
func (o *OpenAI) context(q chat.Question) ([]said, error) {
	var turns [][]said
	var questionID string // of the last turn in turns
	for _, stored := range q.History {
		m, err := stored.Message()
		if err != nil {
			return nil, err
		}
		switch {
		case stored.State != chat.Complete:
			questionID = ""
		case m.Role == chat.User:
			turns, questionID = append(turns, []said{{"user", wordsOf(m)}}), m.ID
		case m.InReplyTo == questionID && questionID != "" && m.Kind == chat.Text:
			turns[len(turns)-1] = append(turns[len(turns)-1], said{"assistant", m.Text})
		}
	}
	first, left := len(turns), o.config.ContextTokens
	for first > 0 {
		if left -= tokens(turns[first-1]); left < 0 {
			break
		}
		first--
	}
	var all []said
	for _, turn := range turns[first:] {
		all = append(all, turn...)
	}
	return append(all, said{"user", wordsOf(q.Message)}), nil
}

// wordsOf is what the user said: a text, a card's data, or both.
func wordsOf(m chat.Message) string {
	if m.Text == "" {
		return string(m.Value)
	}
	if m.Value != nil {
		return m.Text + "\n" + string(m.Value)
	}
	return m.Text
}

// tokens estimates how many tokens a turn has: one in three bytes, which is more than most texts have, and four for each message.
func tokens(turn []said) int {
	n := 0
	for _, m := range turn {
		n += len(m.Content)/3 + 4
	}
	return n
}

// modelText gathers the text of an answer.
type modelText struct {
	emit func(chat.Event)
	text strings.Builder
}

var errLongText = errors.New("its answer is longer than a message may be")

func (t *modelText) add(delta string) error {
	if delta == "" {
		return nil
	}
	if t.text.Len()+len(delta) > maxMessageBytes {
		return failed("openai", errLongText)
	}
	t.text.WriteString(delta)
	t.emit(chat.Event{Kind: chat.DeltaEvent, Text: delta})
	return nil
}

func (t *modelText) reply() chat.Reply {
	if t.text.Len() == 0 {
		return chat.Reply{}
	}
	return chat.Reply{Messages: []chat.Message{{Kind: chat.Text, Text: t.text.String()}}}
}

// read reads a stream to its end marker. One that ends without it is no whole answer.
func (o *OpenAI) read(ctx context.Context, body io.Reader, text *modelText) error {
	take := text.takeChunk
	if o.config.Responses {
		take = text.takeEvent
	}
	events := newEventReader(body)
	for {
		_, data, err := events.next()
		switch {
		case errors.Is(err, io.EOF):
			return failed("openai", errors.New("its stream ends without an end"))
		case err != nil:
			return o.post.failure(ctx, err)
		}
		isEnd, err := take(data)
		if err != nil || isEnd {
			return err
		}
	}
}

// takeChunk reads a chunk of chat completions. Azure sends some without choices, and choices without a delta.
func (t *modelText) takeChunk(data []byte) (isEnd bool, err error) {
	if string(data) == "[DONE]" {
		return true, nil
	}
	var chunk struct {
		Choices []struct {
			Delta struct {
				Content string `json:"content"`
				Refusal string `json:"refusal"`
			} `json:"delta"`
			FinishReason string `json:"finish_reason"`
		} `json:"choices"`
		Error *modelError `json:"error"`
	}
	if err := json.Unmarshal(data, &chunk, lenient); err != nil {
		return false, failed("openai", errors.New("a chunk is not JSON"))
	}
	if chunk.Error != nil {
		return false, chunk.Error.failure(http.StatusOK)
	}
	for _, choice := range chunk.Choices[:min(1, len(chunk.Choices))] {
		if err := t.add(choice.Delta.Content + choice.Delta.Refusal); err != nil {
			return false, err
		}
		if choice.FinishReason == contentFilter {
			return false, filtered
		}
	}
	return false, nil
}

// takeEvent reads an event of responses.
func (t *modelText) takeEvent(data []byte) (isEnd bool, err error) {
	if string(data) == "[DONE]" { // which some servers send, but only after the end
		return false, nil
	}
	var event struct {
		Type  string `json:"type"`
		Delta string `json:"delta"`
		modelError
		Error    *modelError `json:"error"` // where there is no type
		Response struct {
			Error             *modelError `json:"error"`
			IncompleteDetails struct {
				Reason string `json:"reason"`
			} `json:"incomplete_details"`
		} `json:"response"`
	}
	if err := json.Unmarshal(data, &event, lenient); err != nil {
		return false, failed("openai", errors.New("an event is not JSON"))
	}
	switch event.Type {
	case "response.output_text.delta", "response.refusal.delta":
		return false, t.add(event.Delta)
	case "response.completed":
		return true, nil
	case "response.incomplete":
		if event.Response.IncompleteDetails.Reason == contentFilter {
			return false, filtered
		}
		return true, nil
	case "response.failed":
		if event.Response.Error != nil {
			return false, event.Response.Error.failure(http.StatusOK)
		}
		return false, failed("openai", errors.New("it failed"))
	case "error":
		return false, event.failure(http.StatusOK)
	case "":
		if event.Error != nil {
			return false, event.Error.failure(http.StatusOK)
		}
	}
	return false, nil
}

const contentFilter = "content_filter"

var filtered = &chat.Failure{Code: chat.ErrContentFiltered.Code, Err: errors.New("openai: the content filter stopped the answer")}

// modelError is what the service says of an error. Its message may quote the user, and is not read.
type modelError struct {
	Code any    `json:"code"` // a word, or a number
	Kind string `json:"type"`
}

// plainWord is what a code looks like that may be logged.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

func (e modelError) failure(status int) *chat.Failure {
	code := fmt.Sprint(e.Code)
	if !plainWord.MatchString(code) {
		code = "unknown"
	}
	f := &chat.Failure{Code: chat.ErrAgentFailed.Code, Err: logs.Because(logs.Status, fmt.Errorf("openai: status %d %s", status, code))}
	switch {
	case code == contentFilter:
		f.Code = chat.ErrContentFiltered.Code
	case code == "rate_limit_exceeded" || status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		f.Code = chat.ErrAgentBusy.Code
	}
	return f
}

// modelRefusal says what an answer means that is not 200.
func modelRefusal(response *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxRefusal))
	var refusal struct {
		Error modelError `json:"error"`
	}
	_ = json.Unmarshal(text, &refusal, lenient) // or nothing is known but the status
	f := refusal.Error.failure(response.StatusCode)
	if f.Code == chat.ErrAgentBusy.Code {
		f.RetryAfter = retryAfter(response.Header)
	}
	return f
}
