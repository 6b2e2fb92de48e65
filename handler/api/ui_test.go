package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/contract"

	"github.com/stretchr/testify/require"
)

// submit is what useChat sends when its user has said something.
func submit(conversation, id, text string) string {
	return fmt.Sprintf(`{"id":%q,"messages":[{"id":"old","role":"assistant","parts":[]},{"id":%q,"role":"user","parts":[{"type":"text","text":%q}]}],"trigger":"submit-message"}`,
		conversation, id, text)
}

func regenerate(conversation string) string {
	return fmt.Sprintf(`{"id":%q,"messages":[],"trigger":"regenerate-message"}`, conversation)
}

// uiFrames are the frames of a UI message stream, which must be whole.
func uiFrames(e *eventReader) []map[string]any {
	e.t.Helper()
	require.Equal(e.t, "v1", e.answer.Header.Get("x-vercel-ai-ui-message-stream"))
	var all []map[string]any
	for {
		frame := uiFrame(e)
		if frame == nil {
			_, more := e.next()
			require.False(e.t, more, "something follows [DONE]")
			return all
		}
		all = append(all, frame)
	}
}

// uiFrame is the next frame; nil is [DONE].
func uiFrame(e *eventReader) (frame map[string]any) {
	e.t.Helper()
	for {
		line, err := e.lines.ReadString('\n')
		require.NoError(e.t, err, "the stream ended without [DONE]")
		require.NoError(e.t, contract.Load(e.t).Event("UIFrame", line))
		if line == "data: [DONE]\n" {
			end, err := e.lines.ReadString('\n')
			require.NoError(e.t, err)
			require.Equal(e.t, "\n", end)
			return nil
		}
		if text, ok := strings.CutPrefix(line, "data: "); ok {
			require.NoError(e.t, json.Unmarshal([]byte(text), &frame))
			return frame
		}
		require.True(e.t, line == "\n" || strings.HasPrefix(line, ": "), line)
	}
}

func types(frames []map[string]any) string {
	var all []string
	for _, f := range frames {
		all = append(all, f["type"].(string))
	}
	return strings.Join(all, " ")
}

// history are the messages that a page begins with.
func (s *service) history(id, query string) (messages []map[string]any, link string) {
	s.t.Helper()
	a := s.read("/api/chat/ui/"+id+query, "alice")
	defer func() { _ = a.Body.Close() }()
	require.Equal(s.t, 200, a.StatusCode)
	require.NoError(s.t, json.NewDecoder(a.Body).Decode(&messages))
	return messages, a.Header.Get("Link")
}

func (s *service) read(path, user string) *http.Response {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), "GET", s.url+path, nil)
	require.NoError(s.t, err)
	request.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, user, nil))
	a, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = a.Body.Close() })
	return a
}

// status is that of an answer whose body does not matter.
func (s *service) status(path, user string) int {
	a := s.read(path, user)
	_ = a.Body.Close()
	return a.StatusCode
}

// The frames are those events, in useChat's terms, of the sender, of who resumes, and of who sends the same again.
func TestUITurn(t *testing.T) {
	a := teller{words: make(chan string)}
	s := patient(t, a)
	id := s.start("alice")
	question := "01890a5d-ac96-774b-bcce-b302099a8057"
	e := s.stream(t.Context(), "POST", "/api/chat/ui", submit(strings.ToUpper(id), question, "hi"), "Accept: */*")
	start := uiFrame(e) // before the agent says anything
	own := s.stream(t.Context(), "GET", "/api/chat/conversations/"+id+"/stream", "", "Last-Event-ID: 1-1")
	a.words <- "Hello, "
	first := []map[string]any{uiFrame(e), uiFrame(e)}
	resumed := s.stream(t.Context(), "GET", "/api/chat/ui/"+id+"/stream", "")
	running, _ := s.history(id, "")
	require.Len(t, running, 1, "a turn that runs has no answer")
	require.Equal(t, question, running[0]["id"])
	a.words <- "world"
	close(a.words)
	frames := append([]map[string]any{start}, append(first, uiFrames(e)...)...)
	require.Equal(t, "start text-start text-delta text-delta text-end data-adaptivecard text-start text-delta text-end data-suggested finish", types(frames))
	require.Equal(t, frames, uiFrames(resumed))

	events := own.rest()
	require.Equal(t, "delta delta message card message suggested done", names(events))
	reply := events[2].body["id"]
	require.Equal(t, map[string]any{"type": "start", "messageId": reply}, frames[0])
	require.Equal(t, map[string]any{"type": "text-delta", "id": reply, "delta": "Hello, "}, frames[2])
	require.Equal(t, map[string]any{"type": "data-adaptivecard", "id": "c", "data": map[string]any{"type": "AdaptiveCard"}}, frames[5])
	actions := []any{map[string]any{"title": "Yes", "value": "yes"}}
	require.Equal(t, map[string]any{"type": "data-suggested", "id": events[4].body["id"], "data": actions}, frames[9])
	require.Equal(t, map[string]any{"type": "finish", "finishReason": "stop"}, frames[10])

	again := s.stream(t.Context(), "POST", "/api/chat/ui", submit(id, question, "hi"))
	require.Equal(t, "true", again.answer.Header.Get("Idempotency-Replayed"))
	require.Equal(t, frames, uiFrames(again))
	require.Equal(t, 204, s.status("/api/chat/ui/"+id+"/stream", "alice"))
	requireProblem(t, s.send("POST", "/api/chat/ui", "alice", submit(id, question, "an edit")), 422, "idempotency_key_reused")

	messages, link := s.history(id, "")
	require.Empty(t, link)
	require.Len(t, messages, 2)
	require.Equal(t, []any{map[string]any{"type": "text", "state": "done", "text": "hi"}}, messages[0]["parts"])
	require.Equal(t, reply, messages[1]["id"])
	require.Equal(t, []any{
		map[string]any{"type": "text", "state": "done", "text": "Hello, world"}, any(frames[5]),
		map[string]any{"type": "text", "state": "done", "text": "Well?"}, any(frames[9]),
	}, messages[1]["parts"])
}

// An id that is no UUID names its request within its conversation. A card's data is sent as such.
func TestUIMessages(t *testing.T) {
	s := open(t)
	id, other := s.start("alice"), s.start("alice")
	first := uiFrames(s.stream(t.Context(), "POST", "/api/chat/ui", submit(id, "m", "hi")))
	require.Equal(t, "start text-start text-delta text-end finish", types(first))
	require.Equal(t, first, uiFrames(s.stream(t.Context(), "POST", "/api/chat/ui", submit(id, "m", "hi"))))
	requireProblem(t, s.send("POST", "/api/chat/ui", "alice", submit(id, "m", "an edit")), 422, "idempotency_key_reused")
	require.NotEqual(t, first, uiFrames(s.stream(t.Context(), "POST", "/api/chat/ui", submit(other, "m", "hi"))))

	card := fmt.Sprintf(`{"id":%q,"tools":{},"messages":[{"id":"n","role":"user","metadata":{},"parts":[{"type":"data-value","data":{"a":1}}]}]}`, id)
	require.Equal(t, `{"a":1}`, uiFrames(s.stream(t.Context(), "POST", "/api/chat/ui", card))[2]["delta"])
	parts := fmt.Sprintf(`{"id":%q,"trigger":null,"messages":[{"id":"o","role":"user","parts":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}`, id)
	require.Equal(t, "ab", uiFrames(s.stream(t.Context(), "POST", "/api/chat/ui", parts))[2]["delta"])
	messages, _ := s.history(id, "")
	require.Len(t, messages, 6)
	require.Equal(t, []any{map[string]any{"type": "data-value", "data": map[string]any{"a": 1.0}}}, messages[2]["parts"])
	stored := messages[2]["id"].(string) // which we made
	requireProblem(t, s.send("POST", "/api/chat/ui", "alice", submit(id, stored, "an edit")), 422, "idempotency_key_reused")
	requireProblem(t, s.send("POST", "/api/chat/ui", "alice", regenerate(id)), 409, "turn_complete")
	requireProblem(t, s.send("POST", "/api/chat/ui", "alice", regenerate(s.start("alice"))), 409, "turn_complete")

	page, link := s.history(id, "?limit=3") // whose first is a reply
	require.Equal(t, messages[4:], page)
	require.Equal(t, "</api/chat/ui/"+id+`?before=5&limit=3>; rel="next"`, link)
	page, link = s.history(id, "?before=5&limit=4")
	require.Equal(t, messages[:4], page)
	require.Empty(t, link)
}

// A turn that has failed tells why, keeps what it has, and can be asked again once.
func TestUIFailureAndRegenerate(t *testing.T) {
	words := make(chan string, 9)
	s := patient(t, teller{words: words, fails: true})
	id := s.start("alice")
	words <- "half"
	close(words)
	for n, body := range []string{submit(id, "m", "hi"), fmt.Sprintf(`{"id":%q,"messages":null,"trigger":"regenerate-message"}`, id)} {
		e := s.stream(t.Context(), "POST", "/api/chat/ui", body)
		frames := uiFrames(e)
		if n == 0 {
			require.Equal(t, "start text-start text-delta text-end data-error error", types(frames))
		} else {
			require.Equal(t, "start data-error error", types(frames))
		}
		told := frames[len(frames)-2]
		require.Equal(t, map[string]any{"code": "content_filtered", "requestId": e.answer.Header.Get("X-Request-Id")}, told["data"])
		require.Equal(t, true, told["transient"])
		require.Equal(t, failures["content_filtered"].Detail, frames[len(frames)-1]["errorText"])
	}
	messages, _ := s.history(id, "")
	require.Len(t, messages, 3)
	require.Equal(t, "failed", messages[0]["metadata"].(map[string]any)["state"])
	require.Equal(t, "partial", messages[1]["metadata"].(map[string]any)["state"])
	require.Equal(t, messages[0]["parts"], messages[2]["parts"], "another question was asked")
}

// A turn that was cancelled ends with finish; asked again by many at once, it runs once.
func TestUICancelAndRegenerate(t *testing.T) {
	a := teller{words: make(chan string)}
	s := patient(t, a)
	id := s.start("alice")
	e := s.stream(t.Context(), "POST", "/api/chat/ui", submit(id, "m", "hi"))
	a.words <- "half"
	begun := []map[string]any{uiFrame(e), uiFrame(e), uiFrame(e)}
	requireProblem(t, s.send("POST", "/api/chat/ui", "alice", regenerate(id)), 409, "turn_in_progress")
	require.Equal(t, true, s.send("POST", "/api/chat/conversations/"+id+"/cancel", "alice", "").body["cancelled"])
	frames := slices.Concat(begun, uiFrames(e))
	require.Equal(t, "start text-start text-delta text-end finish", types(frames))
	require.Equal(t, "other", frames[4]["finishReason"])

	const many = 8
	answers := make(chan *http.Response, many)
	token := "Bearer " + s.issuer.Token(tenant, "alice", nil)
	for range many {
		go func() {
			request := httptest.NewRequestWithContext(t.Context(), "POST", "/api/chat/ui", strings.NewReader(regenerate(id)))
			request.Header.Set("Authorization", token)
			request.Header.Set("Content-Type", "application/json")
			recorder := httptest.NewRecorder()
			s.server.ServeHTTP(recorder, request)
			answers <- recorder.Result()
		}()
	}
	require.Eventually(t, func() bool { return s.status("/api/chat/ui/"+id+"/stream", "alice") == 200 }, 10*time.Second, time.Millisecond)
	following := s.stream(t.Context(), "GET", "/api/chat/ui/"+id+"/stream", "")
	require.NotEqual(t, frames[0], uiFrame(following))
	close(a.words)
	require.Equal(t, "finish", types(uiFrames(following)))
	streamed := 0
	for range many {
		answer := <-answers
		if answer.StatusCode == 200 {
			streamed++
		} else {
			require.Equal(t, 409, answer.StatusCode)
		}
	}
	require.Positive(t, streamed)
	requireProblem(t, s.send("POST", "/api/chat/ui", "alice", regenerate(id)), 409, "turn_complete")
	messages, _ := s.history(id, "")
	require.Len(t, messages, 3)
}

// Until the turn has begun, a refusal is a plain problem, with the path as useChat names it.
func TestUIRefusals(t *testing.T) {
	s := open(t)
	id := s.start("alice")
	message := func(text string) string { return fmt.Sprintf(`{"id":%q,"messages":[1,%s]}`, id, text) }
	for body, path := range map[string]string{
		`{}`:                                          "messages",
		`{"id":"x","messages":{}}`:                    "messages",
		`{"id":"x","messages":[]}`:                    "messages",
		submit("x", "m", "hi"):                        "id",
		message(`{}`):                                 "messages.1.role",
		message(`7`):                                  "messages.1",
		message(`{"role":7}`):                         "messages.1.role",
		message(`{"role":"assistant"}`):               "messages.1.role",
		message(`{"role":"user"}`):                    "messages.1.id",
		message(`{"role":"user","id":""}`):            "messages.1.id",
		message(`{"role":"user","id":"m","parts":7}`): "messages.1.parts",
		message(`{"role":"user","id":"m"}`):           "messages.1.parts",
		message(`{"role":"user","id":"m","parts":[{"type":"text","text":""}]}`):                                       "messages.1.parts",
		message(`{"role":"user","id":"m","parts":[{"type":"text"}]}`):                                                 "messages.1.parts.0.text",
		message(`{"role":"user","id":"m","parts":[{"type":"data-value"}]}`):                                           "messages.1.parts.0.data",
		message(`{"role":"user","id":"m","parts":[{"type":"data-value","data":7}]}`):                                  "messages.1.parts.0.data",
		message(`{"role":"user","id":"m","parts":[{"type":"text","text":"a"},{"type":"file","url":"data:"}]}`):        "messages.1.parts.1",
		message(`{"role":"user","id":"m","parts":[{"type":"text","text":"a"},{"type":"data-value","data":{}}]}`):      "messages.1.parts.1",
		message(`{"role":"user","id":"` + strings.Repeat("m", maxUIID+1) + `","parts":[{"type":"text","text":"a"}]}`): "messages.1.id",
		message(`{"role":"user","id":"m","x":"` + strings.Repeat("x", maxBody) + `"}`):                                "messages.1",
		fmt.Sprintf(`{"id":%q,"trigger":"x","messages":[]}`, id):                                                      "trigger",
	} {
		a := s.send("POST", "/api/chat/ui", "alice", body)
		requireProblem(t, a, 400, "invalid_request")
		require.Equal(t, path, a.body["errors"].([]any)[0].(map[string]any)["path"], "%.200s", body)
	}
	missing := "01890a5d-ac96-774b-bcce-b302099a8057"
	for _, body := range []string{submit(missing, "m", "hi"), regenerate(missing)} {
		requireProblem(t, s.send("POST", "/api/chat/ui", "alice", body), 404, "not_found")
	}
	large := s.send("POST", "/api/chat/ui", "alice", submit(id, "m", strings.Repeat("x", s.server.limits.UIBody)))
	requireProblem(t, large, 413, "payload_too_large")
	require.Contains(t, large.body["detail"], "Send the last message only: prepareSendMessagesRequest")
	past := `{"id":"old","role":"user","parts":[{"type":"text","text":"` + strings.Repeat("x", 900<<10) + `"}]},`
	long := strings.Replace(submit(id, "m", "hi"), `"messages":[`, `"messages":[`+past, 1)
	require.Equal(t, "hi", uiFrames(s.stream(t.Context(), "POST", "/api/chat/ui", long))[2]["delta"])
	messages, _ := s.history(id, "")
	require.Len(t, messages, 2, "a refused message was stored")
}

// Whatever a turn's final texts are, a text that was begun is completed, or the correction is told; never is a part of it told twice.
func TestUITextsThatDifferFromTheirDeltas(t *testing.T) {
	message := func(id, text string) chat.StreamEvent {
		b, err := json.Marshal(map[string]any{"id": id, "role": "assistant", "kind": "text", "text": text})
		require.NoError(t, err)
		return chat.StreamEvent{Kind: chat.MessageEvent, Message: &chat.StoredMessage{JSON: b}}
	}
	delta := func(id, text string) chat.StreamEvent {
		return chat.StreamEvent{Kind: chat.DeltaEvent, MessageID: id, Text: text}
	}
	done := chat.StreamEvent{Kind: chat.DoneEvent, Sent: &chat.Sent{}}
	for name, test := range map[string]struct {
		events []chat.StreamEvent
		want   string
	}{
		"more than its deltas": {[]chat.StreamEvent{delta("a", "x"), message("a", "xy"), done}, "text-start:a text-delta:a=x text-delta:a=y text-end:a finish:"},
		"corrected":            {[]chat.StreamEvent{delta("a", "x"), message("a", "y"), done}, "text-start:a text-delta:a=x data-correction: text-end:a finish:"},
		"shorter":              {[]chat.StreamEvent{delta("a", "xy"), message("a", "x"), done}, "text-start:a text-delta:a=xy data-correction: text-end:a finish:"},
		"no message at all":    {[]chat.StreamEvent{delta("a", "x"), done}, "text-start:a text-delta:a=x text-end:a finish:"},
		"two at once": {
			[]chat.StreamEvent{delta("a", "x"), delta("b", "z"), message("a", "xy"), message("b", "z"), done},
			"text-start:a text-delta:a=x text-start:b text-delta:b=z text-delta:a=y text-end:a text-end:b finish:",
		},
		"status": {
			[]chat.StreamEvent{{Kind: chat.StatusEvent, Text: "one\nmoment"}, done}, "data-status: finish:",
		},
	} {
		u := &uiEvents{said: make(map[string]*uiText)}
		var b []byte
		for _, e := range test.events {
			var err error
			b, err = u.append(b, e)
			require.NoError(t, err)
		}
		var got []string
		for frame := range strings.SplitSeq(strings.TrimSuffix(string(b), "data: [DONE]\n\n"), "\n\n") {
			if frame == "" {
				continue
			}
			var f struct{ Type, ID, Delta string }
			require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(frame, "data: ")), &f))
			text := f.Type + ":" + f.ID
			if f.Delta != "" {
				text += "=" + f.Delta
			}
			got = append(got, text)
		}
		require.Equal(t, test.want, strings.Join(got, " "), name)
	}
}
