package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/nodetest"

	"github.com/stretchr/testify/require"
)

// model plays an OpenAI-compatible service, and keeps what it is sent.
type model struct {
	*httptest.Server
	requests []string // path and body
	headers  []http.Header
}

func newModel(t *testing.T, answer http.HandlerFunc) *model {
	t.Helper()
	m := &model{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		m.requests, m.headers = append(m.requests, r.URL.Path+" "+string(body)), append(m.headers, r.Header)
		answer(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

// streams answers with a stream.
func streams(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, text)
	}
}

func refuses(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

var quick = Deadlines{Connect: time.Second, FirstByte: 10 * time.Second, Silence: 2 * time.Second}

func (m *model) ask(t *testing.T, q chat.Question, change func(*OpenAIConfig)) (reply chat.Reply, told string, err error) {
	t.Helper()
	config := OpenAIConfig{BaseURL: m.URL + "/v1", Model: "m", Key: "secret-key", ContextTokens: 1000}
	if change != nil {
		change(&config)
	}
	reply, err = NewOpenAI(config, quick).Answer(t.Context(), chat.Caller{}, q, func(e chat.Event) { told += e.Text })
	if err != nil {
		require.NotContains(t, err.Error(), "secret", "it tells the key, or a text")
	}
	return reply, told, err
}

func responses(c *OpenAIConfig) { c.Responses = true }

func chunk(content string) string {
	return fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q},\"finish_reason\":null}]}\n\n", content)
}

// What is sent to a model, byte by byte: whole turns that were answered, within the tokens.
func TestWhatAModelIsSent(t *testing.T) {
	stored := func(state chat.State, m string) chat.StoredMessage {
		return chat.StoredMessage{State: state, JSON: []byte(m)}
	}
	q := chat.Question{
		Message: chat.Message{Text: "and now?", Value: []byte(`{"n":1}`)},
		History: []chat.StoredMessage{
			stored(chat.Complete, `{"id":"0","role":"assistant","kind":"text","text":"of a turn that is cut off","inReplyTo":"x"}`),
			stored(chat.Complete, `{"id":"1","role":"user","kind":"text","text":"first"}`),
			stored(chat.Complete, `{"id":"2","role":"assistant","kind":"text","text":"one","inReplyTo":"1"}`),
			stored(chat.Complete, `{"id":"3","role":"assistant","kind":"adaptiveCard","cardJson":{},"inReplyTo":"1"}`),
			stored(chat.Failed, `{"id":"4","role":"user","kind":"text","text":"failed"}`),
			stored(chat.Partial, `{"id":"5","role":"assistant","kind":"text","text":"par","inReplyTo":"4"}`),
			stored(chat.Cancelled, `{"id":"6","role":"user","kind":"text","text":"cancelled"}`),
			stored(chat.Complete, `{"id":"7","role":"user","kind":"text","value":{"card":true}}`),
			stored(chat.Complete, `{"id":"8","role":"assistant","kind":"text","text":"two","inReplyTo":"7"}`),
		},
	}
	m := newModel(t, streams("data: [DONE]\n\n"))
	for want, change := range map[string]func(*OpenAIConfig){
		`/v1/chat/completions {"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"first"},{"role":"assistant","content":"one"},` +
			`{"role":"user","content":"{\"card\":true}"},{"role":"assistant","content":"two"},{"role":"user","content":"and now?\n{\"n\":1}"}],"stream":true}`: func(c *OpenAIConfig) { c.Instructions = "Be brief." },
		`/v1/chat/completions {"model":"m","messages":[{"role":"user","content":"{\"card\":true}"},{"role":"assistant","content":"two"},` +
			`{"role":"user","content":"and now?\n{\"n\":1}"}],"stream":true}`: func(c *OpenAIConfig) { c.ContextTokens = 15 },
		`/v1/chat/completions {"model":"m","messages":[{"role":"user","content":"and now?\n{\"n\":1}"}],"stream":true}`: func(c *OpenAIConfig) { c.ContextTokens = 0 },
	} {
		m.requests = nil
		_, _, err := m.ask(t, q, change)
		require.NoError(t, err)
		require.Equal(t, []string{want}, m.requests)
	}
	require.Equal(t, "Bearer secret-key", m.headers[0].Get("Authorization"))
	require.Equal(t, "text/event-stream", m.headers[0].Get("Accept"))
	var sent []string
	for name := range m.headers[0] {
		sent = append(sent, name)
	}
	require.ElementsMatch(t, []string{"Accept", "Authorization", "Content-Length", "Content-Type", "User-Agent"}, sent)

	m = newModel(t, streams("data: {\"type\":\"response.completed\"}\n\n"))
	_, _, err := m.ask(t, chat.Question{Message: chat.Message{Text: "hi"}}, func(c *OpenAIConfig) {
		c.Responses, c.Instructions, c.Key = true, "Be brief.", ""
		c.Token = func(context.Context) (string, error) { return "token", nil }
	})
	require.NoError(t, err)
	require.Equal(t, []string{`/v1/responses {"model":"m","instructions":"Be brief.","input":[{"role":"user","content":"hi"}],"stream":true,"store":false}`}, m.requests)
	require.Equal(t, "Bearer token", m.headers[0].Get("Authorization"))
}

// What each answer comes to: the text, and the failure's code.
func TestWhatAModelAnswers(t *testing.T) {
	const hello, done = "Hello world", "data: [DONE]\n\n"
	both := chunk("Hello ") + chunk("world")
	event := func(text string) string { return "event: x\ndata: " + text + "\n\n" }
	deltas := event(`{"type":"response.created"}`) + event(`{"type":"response.output_text.delta","delta":"Hello "}`) + event(`{"type":"response.output_text.delta","delta":"world"}`)
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		change func(*OpenAIConfig)
		text   string
		code   string
		posts  int
	}{
		"chunks":                       {streams(both + done), nil, hello, "", 1},
		"what Azure adds":              {streams("data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n: x\n\n" + both + "data: {\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":null}\n\n" + done), nil, hello, "", 1},
		"a refusal of the model":       {streams("data: {\"choices\":[{\"delta\":{\"refusal\":\"No.\"}}]}\n\n" + done), nil, "No.", "", 1},
		"no text":                      {streams(done), nil, "", "", 1},
		"too few tokens":               {streams(both + "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n" + done), nil, hello, "", 1},
		"no end":                       {streams(both), nil, hello, "agent_failed", 1},
		"nothing":                      {streams(""), nil, "", "agent_failed", 1},
		"cut in a chunk":               {streams(both + "data: {\"cho"), nil, hello, "agent_failed", 1},
		"not JSON":                     {streams(both + "data: secret\n\n"), nil, hello, "agent_failed", 1},
		"an error in the stream":       {streams(both + "data: {\"error\":{\"message\":\"secret\",\"code\":\"server_error\"}}\n\n"), nil, hello, "agent_failed", 1},
		"too much in the stream":       {streams("data: {\"error\":{\"code\":\"rate_limit_exceeded\"}}\n\n"), nil, "", "agent_busy", 1},
		"filtered in the stream":       {streams(both + "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n" + done), nil, hello, "content_filtered", 1},
		"a line beyond 4 MiB":          {streams("data: " + strings.Repeat("x", maxLine) + "\n\n"), nil, "", "agent_failed", 1},
		"a text beyond 1 MiB":          {streams(chunk("a") + chunk(strings.Repeat("x", 1<<20)) + done), nil, "a", "agent_failed", 1},
		"no stream":                    {refuses(200, `{"choices":[]}`, "Content-Type", "application/json"), nil, "", "agent_failed", 1},
		"filtered":                     {refuses(400, `{"error":{"code":"content_filter","message":"secret"}}`), nil, "", "content_filtered", 1},
		"a bad request":                {refuses(400, `{"error":{"code":"secret words","message":"secret"}}`), nil, "", "agent_failed", 1},
		"a bad key":                    {refuses(401, `secret`), nil, "", "agent_failed", 1},
		"a numbered code":              {refuses(404, `{"error":{"code":404}}`), nil, "", "agent_failed", 1},
		"5xx":                          {refuses(500, ""), nil, "", "agent_failed", 1},
		"a redirect":                   {refuses(307, "", "Location", "https://elsewhere.example/"), nil, "", "agent_failed", 1},
		"busy for long":                {refuses(429, "", "Retry-After", "60"), nil, "", "agent_busy", 1},
		"busy without a time":          {refuses(503, ""), nil, "", "agent_busy", 1},
		"busy for a second, and again": {refuses(429, "", "Retry-After", "1"), nil, "", "agent_busy", 3},
		"responses":                    {streams(deltas + event(`{"type":"response.completed","response":{}}`)), responses, hello, "", 1},
		"responses, cut by tokens":     {streams(deltas + event(`{"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"}}}`)), responses, hello, "", 1},
		"responses, filtered":          {streams(deltas + event(`{"type":"response.incomplete","response":{"incomplete_details":{"reason":"content_filter"}}}`)), responses, hello, "content_filtered", 1},
		"responses, failed":            {streams(deltas + event(`{"type":"response.failed","response":{"error":{"code":"server_error","message":"secret"}}}`)), responses, hello, "agent_failed", 1},
		"responses, an error":          {streams(event(`{"type":"error","code":"rate_limit_exceeded","message":"secret"}`)), responses, "", "agent_busy", 1},
		"responses, [DONE] is no end":  {streams(deltas + done), responses, hello, "agent_failed", 1},
		"responses, an untyped error":  {streams("data: {\"error\":{\"code\":\"server_error\",\"message\":\"secret\"}}\n\n"), responses, "", "agent_failed", 1},
		"responses, no end":            {streams(deltas), responses, hello, "agent_failed", 1},
		"a token that cannot be had": {streams(both + done), func(c *OpenAIConfig) {
			c.Token = func(context.Context) (string, error) { return "", errors.New("secret") }
		}, "", "agent_failed", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newModel(t, row.answer)
			reply, told, err := m.ask(t, chat.Question{Message: chat.Message{Text: "a secret question"}}, row.change)
			var text strings.Builder
			for _, message := range reply.Messages {
				text.WriteString(message.Text)
			}
			require.Equal(t, row.text, text.String())
			require.Equal(t, row.text, told, "the deltas are not the text")
			require.Len(t, m.requests, row.posts)
			if row.code == "" {
				require.NoError(t, err)
				return
			}
			failure, ok := errors.AsType[*chat.Failure](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, row.code, failure.Code, "%v", err)
			if name == "busy for long" {
				require.Equal(t, time.Minute, failure.RetryAfter)
			}
		})
	}
}

// A model that says nothing is given up, before its answer and within it.
func TestAModelThatIsSilent(t *testing.T) {
	for name, text := range map[string]string{"before": "", "within": chunk("Hello")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			left := make(chan struct{})
			m := newModel(t, func(w http.ResponseWriter, r *http.Request) {
				if text != "" {
					streams(text)(w, r)
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
				close(left)
			})
			impatient := Deadlines{Connect: time.Second, FirstByte: 100 * time.Millisecond, Silence: 100 * time.Millisecond}
			config := OpenAIConfig{BaseURL: m.URL, Model: "m", Key: "k"}
			reply, err := NewOpenAI(config, impatient).Answer(t.Context(), chat.Caller{}, chat.Question{Message: chat.Message{Text: "hi"}}, func(chat.Event) {})
			require.ErrorIs(t, err, chat.ErrAgentTimeout)
			require.Equal(t, text != "", len(reply.Messages) == 1, "what had arrived")
			<-left
		})
	}
}

// The npm package aimock is a service that others made: chat, responses, the paths of Azure, refusals, and a connection that breaks.
func TestOpenAIByAIMock(t *testing.T) {
	fixtures := t.TempDir() + "/fixtures.json"
	require.NoError(t, os.WriteFile(fixtures, []byte(`{"fixtures":[
		{"match":{"userMessage":"hello"},"response":{"content":"Hello from the mock, word by word."}},
		{"match":{"userMessage":"busy"},"response":{"error":{"message":"secret","type":"rate_limit_error","code":"rate_limit_exceeded"},"status":429},"retryAfter":60},
		{"match":{"userMessage":"cut"},"response":{"content":"`+strings.Repeat("This answer is cut. ", 20)+`"},"latency":5,"truncateAfterChunks":10}
	]}`), 0o600))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	listener := httptest.NewServer(nil) // for a free port
	addr := strings.TrimPrefix(listener.URL, "http://")
	listener.Close()
	port := addr[strings.LastIndex(addr, ":")+1:]
	mock := nodetest.Command(t, "testdata/aimock-node", "node_modules/@copilotkit/aimock/dist/cli.js", "-p", port, "-f", fixtures, "--strict", "--log-level", "silent", "--chunk-size", "8")
	var said bytes.Buffer
	mock.Stdout, mock.Stderr = &said, &said
	require.NoError(t, mock.Start())
	t.Cleanup(func() { _ = mock.Process.Kill(); _ = mock.Wait() })
	require.Eventually(t, func() bool {
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+"/health", http.NoBody)
		answer, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = answer.Body.Close()
		}
		return err == nil
	}, 20*time.Second, 20*time.Millisecond, "aimock does not start: %s", &said)

	for _, base := range []string{"/v1", "/openai/v1"} {
		for _, isResponses := range []bool{false, true} {
			config := OpenAIConfig{BaseURL: "http://127.0.0.1:" + port + base, Responses: isResponses, Model: "m", Key: "k"}
			ask := func(text string) (chat.Reply, string, error) {
				var told string
				reply, err := NewOpenAI(config, quick).Answer(ctx, chat.Caller{}, chat.Question{Message: chat.Message{Text: text}}, func(e chat.Event) { told += e.Text })
				return reply, told, err
			}
			reply, told, err := ask("hello")
			require.NoError(t, err, "%s %t", base, isResponses)
			require.Equal(t, "Hello from the mock, word by word.", reply.Messages[0].Text)
			require.Equal(t, told, reply.Messages[0].Text)
			_, _, err = ask("busy")
			require.ErrorIs(t, err, chat.ErrAgentBusy)
			reply, told, err = ask("cut")
			require.ErrorIs(t, err, chat.ErrAgentFailed)
			require.NotEmpty(t, told)
			require.Equal(t, told, reply.Messages[0].Text)
			_, _, err = ask("unknown")
			require.Error(t, err)
		}
	}
}
