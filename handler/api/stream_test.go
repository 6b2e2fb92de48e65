package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/chat"
	"chatkeep/handler/contract"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/require"
)

// teller says what each test hands it, and answers with that.
type teller struct {
	agent.Echo
	words chan string // each a delta; closed at the end
	fails bool
}

func (a teller) Answer(ctx context.Context, _ chat.Caller, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	var said strings.Builder
	for {
		select {
		case word, ok := <-a.words:
			switch {
			case ok:
				said.WriteString(word)
				emit(chat.Event{Kind: chat.DeltaEvent, Text: word})
				continue
			case a.fails:
				return chat.Reply{}, chat.ErrContentFiltered
			case said.Len() == 0:
				return chat.Reply{}, nil
			}
			return chat.Reply{Messages: []chat.Message{
				{Kind: chat.Text, Text: said.String()},
				{Kind: chat.AdaptiveCard, CardJSON: []byte(`{"type":"AdaptiveCard"}`), CardID: "c"},
				{Kind: chat.Text, Text: "Well?", SuggestedActions: []chat.SuggestedAction{{Title: "Yes", Value: "yes"}}},
			}}, nil
		case <-ctx.Done():
			return chat.Reply{}, ctx.Err()
		}
	}
}

// event is one of a stream as it came over the wire.
type event struct {
	id, name, data string
	body           map[string]any
}

// eventReader reads a stream as strictly as the documentation has it.
type eventReader struct {
	t        testing.TB
	answer   *http.Response
	lines    *bufio.Reader
	comments int
	retry    string
}

// stream makes a request of alice whose answer is a stream.
func (s *service) stream(ctx context.Context, method, path, body string, headers ...string) *eventReader {
	s.t.Helper()
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	request.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, "alice", nil))
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Accept", "text/event-stream")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	answer, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = answer.Body.Close() })
	require.Equal(s.t, 200, answer.StatusCode)
	require.Equal(s.t, "text/event-stream; charset=utf-8", answer.Header.Get("Content-Type"))
	require.Equal(s.t, "no-cache, no-transform", answer.Header.Get("Cache-Control"))
	require.Equal(s.t, "no", answer.Header.Get("X-Accel-Buffering"))
	require.Empty(s.t, answer.Header.Get("Content-Length"))
	return &eventReader{t: s.t, answer: answer, lines: bufio.NewReader(answer.Body)}
}

// next returns the next event; false at the stream's end.
func (e *eventReader) next() (event, bool) {
	e.t.Helper()
	var next event
	var wire strings.Builder
	for {
		line, err := e.lines.ReadString('\n')
		if err == io.EOF && line == "" {
			return event{}, false
		}
		require.NoError(e.t, err)
		require.NotContains(e.t, line, "\r")
		wire.WriteString(line)
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "":
			switch {
			case strings.HasPrefix(line, ": "):
				e.comments++
			case next.name != "":
				require.NoError(e.t, json.Unmarshal([]byte(next.data), &next.body))
				require.NoError(e.t, contract.Load(e.t).Event("Event", wire.String()))
				return next, true
			default:
				wire.Reset()
			}
		case "id":
			next.id = value
		case "event":
			next.name = value
		case "data":
			require.Empty(e.t, next.data, "more than one line of data")
			next.data = value
		case "retry":
			e.retry = value
		default:
			require.Fail(e.t, "an unknown line", line)
		}
	}
}

func (e *eventReader) take() event {
	e.t.Helper()
	next, ok := e.next()
	require.True(e.t, ok, "the stream ended early")
	return next
}

func (e *eventReader) rest() []event {
	e.t.Helper()
	var all []event
	for {
		next, ok := e.next()
		if !ok {
			return all
		}
		all = append(all, next)
	}
}

func names(events []event) string {
	var all []string
	for _, e := range events {
		all = append(all, e.name)
	}
	return strings.Join(all, " ")
}

// patient is a service whose agent may take its time.
func patient(t *testing.T, a chat.Agent) *service {
	t.Helper()
	few, unhurried := limits(), settings
	unhurried.AgentTimeout = time.Minute
	return openSet(t, store.NewMemory(few), a, Edge{}, authtest.New(), unhurried)
}

func TestASendIsStreamed(t *testing.T) {
	a := teller{words: make(chan string)}
	s := patient(t, a)
	id := s.start("alice")
	body := fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)
	e := s.stream(t.Context(), "POST", "/api/chat/send", body, "Idempotency-Key: k", "Accept: application/json, text/event-stream")
	accepted := e.take()
	require.Equal(t, "1000", e.retry)
	require.Equal(t, 1, e.comments)
	require.Equal(t, "1-1", accepted.id)
	require.Equal(t, id, accepted.body["conversationId"])
	require.Equal(t, "pending", accepted.body["message"].(map[string]any)["state"])

	resumed := s.stream(t.Context(), "GET", "/api/chat/conversations/"+id+"/stream", "", "Last-Event-ID: 1-1")
	a.words <- "Hello, "
	delta := e.take() // while the agent is at it
	require.Equal(t, "delta", delta.name)
	require.Equal(t, "Hello, ", delta.body["text"])
	a.words <- "world"
	close(a.words)
	events := append([]event{accepted, delta}, e.rest()...)
	require.Equal(t, "message.accepted delta delta message card message suggested done", names(events))
	require.Equal(t, events[1:], resumed.rest())

	get := s.send("GET", "/api/chat/conversations/"+id, "alice", "")
	stored := get.body["messages"].([]any)
	require.Equal(t, stored[1], any(events[3].body))
	require.Equal(t, stored[2], any(events[4].body))
	require.Equal(t, stored[3], any(events[5].body))
	require.Equal(t, events[3].body["id"], delta.body["messageId"])
	require.Equal(t, map[string]any{"messageId": events[5].body["id"], "suggestedActions": []any{map[string]any{"title": "Yes", "value": "yes"}}}, events[6].body)
	unstreamed := s.send("POST", "/api/chat/send", "alice", body, "Idempotency-Key: k")
	require.Equal(t, 200, unstreamed.status)
	require.Equal(t, strings.TrimSuffix(unstreamed.text, "\n"), events[7].data, "done is not what an unstreamed send answers")

	again := s.stream(t.Context(), "POST", "/api/chat/send", body, "Idempotency-Key: k")
	require.Equal(t, "true", again.answer.Header.Get("Idempotency-Replayed"))
	require.Equal(t, events, again.rest())
	for i := range events[:7] {
		require.Equal(t, events[i+1:], s.stream(t.Context(), "GET", "/api/chat/conversations/"+id+"/stream?after="+events[i].id, "").rest())
	}
	for _, after := range []string{"", "?after=1-19999", "?after=2-1", "?after=9-1"} {
		require.Equal(t, 204, s.send("GET", "/api/chat/conversations/"+id+"/stream"+after, "alice", "").status, after)
	}
}

// An agent may cut characters in two; readers get them whole.
func TestDeltasAreOfWholeCharacters(t *testing.T) {
	const said = "Grüße 👩‍🚀, 東京"
	s := open(t)
	var told strings.Builder
	for _, e := range s.stream(t.Context(), "POST", "/api/chat/send", fmt.Sprintf(`{"conversationId":%q,"text":"/half %s"}`, s.start("alice"), said)).rest() {
		if e.name == "delta" {
			text := e.body["text"].(string)
			require.NotContains(t, text, "\uFFFD")
			told.WriteString(text)
		}
	}
	require.Equal(t, said, told.String())
}

func TestAStreamedFailureIsAnEvent(t *testing.T) {
	a := teller{words: make(chan string, 9), fails: true}
	s := patient(t, a)
	id := s.start("alice")
	body := fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)
	a.words <- "half"
	close(a.words)
	events := s.stream(t.Context(), "POST", "/api/chat/send", body, "Idempotency-Key: k").rest()
	require.Equal(t, "message.accepted delta message error", names(events))
	require.Equal(t, "partial", events[2].body["state"])
	unstreamed := s.send("POST", "/api/chat/send", "alice", body, "Idempotency-Key: k")
	requireProblem(t, unstreamed, 422, "content_filtered")
	delete(events[3].body, "requestId")
	delete(unstreamed.body, "requestId")
	require.Equal(t, unstreamed.body, events[3].body)
}

// demanding asks of each question for another sign-in, until a user has one.
type demanding struct {
	agent.Echo
	asked *atomic.Int32
}

func (a demanding) Answer(ctx context.Context, c chat.Caller, q chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	n := a.asked.Add(1)
	if n > 4 {
		return a.Echo.Answer(ctx, c, q, emit)
	}
	return chat.Reply{}, &chat.Failure{Code: chat.ErrInsufficientClaims.Code, Claims: fmt.Sprintf("e30%d", n)}
}

// What to sign in with is told where the failure is: in the problem and in both kinds of streams. Repeated, the request asks the agent anew, and what is
// told is of that moment; a stream that is resumed has none of it.
func TestWhatToSignInWithIsTold(t *testing.T) {
	s := patient(t, demanding{asked: new(atomic.Int32)})
	id, ui := s.start("alice"), s.start("alice")
	body := fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)
	plain := s.send("POST", "/api/chat/send", "alice", body, "Idempotency-Key: k")
	requireProblem(t, plain, 401, "insufficient_claims")
	require.Equal(t, "e301", plain.body["claims"])
	require.Equal(t, `Bearer error="insufficient_claims", claims="e301"`, plain.header.Get("WWW-Authenticate"))

	events := s.stream(t.Context(), "POST", "/api/chat/send", body, "Idempotency-Key: k").rest()
	require.Equal(t, "message.accepted error", names(events))
	again := s.send("POST", "/api/chat/send", "alice", body, "Idempotency-Key: k")
	require.Equal(t, "e302", events[1].body["claims"])
	require.Equal(t, "e303", again.body["claims"])
	for _, problem := range []map[string]any{plain.body, events[1].body, again.body} {
		delete(problem, "requestId")
		delete(problem, "claims")
	}
	require.Equal(t, plain.body, events[1].body, "an error is exactly the problem")
	require.Equal(t, plain.body, again.body)

	resumed := s.stream(t.Context(), "GET", "/api/chat/conversations/"+id+"/stream?after=1-40001", "").rest()
	require.Equal(t, "error", names(resumed))
	require.Equal(t, "insufficient_claims", resumed[0].body["code"])
	require.NotContains(t, resumed[0].body, "claims", "a challenge of the past")

	frames := uiFrames(s.stream(t.Context(), "POST", "/api/chat/ui", submit(ui, "m", "hi")))
	require.Equal(t, "start data-error error", types(frames))
	require.Equal(t, "e304", frames[1]["data"].(map[string]any)["claims"])

	sent := s.send("POST", "/api/chat/send", "alice", body, "Idempotency-Key: k")
	require.Equal(t, 200, sent.status)
	require.Empty(t, sent.header.Get(replayedHeader))
	frames = uiFrames(s.stream(t.Context(), "POST", "/api/chat/ui", submit(ui, "m", "hi")))
	require.Equal(t, "finish", frames[len(frames)-1]["type"])
}

// Until the turn has begun, a refusal is a plain problem with its status.
func TestAStreamIsRefusedAsAnyRequest(t *testing.T) {
	a := teller{words: make(chan string)}
	s := patient(t, a)
	id := s.start("alice")
	send := func(user, body string, headers ...string) answer {
		return s.send("POST", "/api/chat/send", user, body, append(headers, "Accept: text/event-stream")...)
	}
	running := s.stream(t.Context(), "POST", "/api/chat/send", fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id))
	requireProblem(t, send("alice", fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)), 409, "turn_in_progress")
	requireProblem(t, send("alice", fmt.Sprintf(`{"conversationId":%q}`, id)), 400, "invalid_request")
	requireProblem(t, send("bob", fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)), 404, "not_found")
	requireProblem(t, send(nobody, fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)), 401, "unauthenticated")
	close(a.words)
	require.Equal(t, "message.accepted done", names(running.rest()))

	for header, path := range map[string]string{"Last-Event-ID: x": "Last-Event-ID", "Last-Event-ID: 1-1, 1-2": "Last-Event-ID", "X: x": "after"} {
		got := s.send("GET", "/api/chat/conversations/"+id+"/stream?after=1", "alice", "", header)
		requireProblem(t, got, 400, "invalid_request")
		require.Equal(t, path, got.body["errors"].([]any)[0].(map[string]any)["path"])
	}
	for _, query := range []string{"follow=yes", "follow=true&follow=true", "after=1-1&after=1-2"} {
		requireProblem(t, s.send("GET", "/api/chat/conversations/"+id+"/stream?"+query, "alice", ""), 400, "invalid_request")
	}
	requireProblem(t, s.send("GET", "/api/chat/conversations/"+id+"/stream?follow=true", "bob", ""), 404, "not_found")
	require.Equal(t, 204, s.send("HEAD", "/api/chat/conversations/"+id+"/stream", "alice", "").status)
	require.Equal(t, 200, s.send("HEAD", "/api/chat/conversations/"+id+"/stream?follow=true", "alice", "").status)
}

func TestCancel(t *testing.T) {
	a := teller{words: make(chan string)}
	s := patient(t, a)
	id := s.start("alice")
	e := s.stream(t.Context(), "POST", "/api/chat/send", fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id))
	question := e.take().body["message"].(map[string]any)["id"].(string)
	a.words <- "half"
	e.take()
	cancel := func(body string, headers ...string) bool {
		got := s.send("POST", "/api/chat/conversations/"+strings.ToUpper(id)+"/cancel", "alice", body, headers...)
		require.Equal(t, 200, got.status, got.text)
		require.Equal(t, id, got.body["conversationId"])
		return got.body["cancelled"].(bool)
	}
	require.False(t, cancel(`{"messageId":"01890a5d-ac96-774b-bcce-b302099a8057"}`))
	host := "X-Azure-Functions-InvocationId: 0fc0aa1f-4cf4-4b42-9b7c-6f4b2f4c1c6e"
	require.True(t, cancel("", host))
	require.True(t, cancel("", host), "the host sends a request again when its answer was lost")
	require.False(t, cancel(""))
	require.False(t, cancel(fmt.Sprintf(`{"messageId":%q}`, strings.ToUpper(question))))
	events := e.rest()
	require.Equal(t, "message done", names(events))
	require.Equal(t, "cancelled", events[1].body["message"].(map[string]any)["state"])
	require.Equal(t, "partial", events[1].body["messages"].([]any)[0].(map[string]any)["state"])
	require.False(t, cancel(""))
	requireProblem(t, s.send("POST", "/api/chat/conversations/"+id+"/cancel", "alice", `{"messageId":"x"}`), 400, "invalid_request")
	requireProblem(t, s.send("POST", "/api/chat/conversations/"+id+"/cancel", "bob", ""), 404, "not_found")
}

func TestAStreamThatIsQuietShowsThatItLives(t *testing.T) {
	a := teller{words: make(chan string)}
	s := patient(t, a)
	s.server.maxQuiet = 5 * time.Millisecond
	id := s.start("alice")
	sender := s.stream(t.Context(), "POST", "/api/chat/send", fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id))
	follower := s.stream(t.Context(), "GET", "/api/chat/conversations/"+id+"/stream?follow=true", "")
	for _, e := range []*eventReader{sender, follower} {
		require.Equal(t, "message.accepted", e.take().name)
		for beats := 0; beats < 2; {
			line, err := e.lines.ReadString('\n')
			require.NoError(t, err)
			if line == ": hb\n" {
				beats++
			}
		}
	}
	close(a.words)
	require.Equal(t, "done", follower.take().name)
	require.Equal(t, "done", sender.take().name)
}
