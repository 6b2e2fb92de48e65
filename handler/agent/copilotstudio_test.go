package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/nodetest"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// studio is a Copilot Studio agent with all that it speaks to.
type studio struct {
	*CopilotStudio
	d2e   *d2e
	entra *entraServer
	log   *bytes.Buffer
}

func startStudio(t *testing.T) *studio {
	s := &studio{d2e: startD2E(t), entra: startEntra(t), log: &bytes.Buffer{}}
	s.CopilotStudio = NewCopilotStudio(s.d2e.endpoint(t), s.entra.onBehalfOf(t),
		Deadlines{Connect: 5 * time.Second, FirstByte: 5 * time.Second, Silence: 5 * time.Second}, slog.New(slog.NewTextHandler(s.log, nil)))
	t.Cleanup(s.post.client.CloseIdleConnections)
	return s
}

// told is what an agent emits.
type told struct {
	mu     sync.Mutex
	events []chat.Event
}

func (e *told) emit(event chat.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = append(e.events, event)
}

// text is the deltas of a message, joined.
func (e *told) text(index int) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all strings.Builder
	for _, event := range e.events {
		if event.Kind == chat.DeltaEvent && event.Index == index {
			all.WriteString(event.Text)
		}
	}
	return all.String()
}

// say asks in a conversation that it opens first.
func (s *studio) say(t *testing.T, caller chat.Caller, text string) (chat.Reply, *told, error) {
	t.Helper()
	opened, err := s.Open(t.Context(), caller, "id")
	require.NoError(t, err)
	var e told
	reply, err := s.Answer(t.Context(), caller, chat.Question{
		Message: chat.Message{Text: text}, AgentRef: opened.AgentRef, ExternalID: opened.ExternalID,
	}, e.emit)
	return reply, &e, err
}

func texts(reply chat.Reply) []string {
	var all []string
	for _, m := range reply.Messages {
		all = append(all, m.Text+string(m.CardJSON))
	}
	return all
}

func TestCopilotStudioGreetsAndAnswers(t *testing.T) {
	t.Parallel()
	s := startStudio(t)
	s.d2e.script["hi"] = func(a *d2eAnswer) {
		a.activity(`{"type":"typing"}`)
		a.activity(`{"type":"typing","text":"Searching","entities":[{"type":"streaminfo","streamType":"informative","streamSequence":1}]}`)
		a.activity(`{"type":"event","name":"DynamicPlanReceived","value":{"steps":[]}}`)
		a.delta(2, "Hel")
		a.delta(3, "lo ")
		a.delta(4, "you")
		a.activity(`{"type":"message","id":"a1","text":"Hello you!","entities":[{"type":"streaminfo","streamType":"final","streamId":"s1"}]}`)
		a.end()
	}
	opened, err := s.Open(t.Context(), user("ann"), "id")
	require.NoError(t, err)
	require.Equal(t, []chat.Message{{Kind: chat.Text, Text: "Hello, I am the agent."}}, opened.Messages)
	require.Equal(t, "c-1", opened.ExternalID)
	require.JSONEq(t, `{"conversationId":"c-1","tenantId":"`+tenant+`","objectId":"ann-object"}`, opened.AgentRef)

	var e told
	reply, err := s.Answer(t.Context(), user("ann"), chat.Question{Message: chat.Message{Text: "hi"}, AgentRef: opened.AgentRef}, e.emit)
	require.NoError(t, err)
	require.Equal(t, []chat.Message{{Kind: chat.Text, Text: "Hello you!"}}, reply.Messages)
	require.Equal(t, opened.AgentRef, reply.AgentRef)
	require.Equal(t, []chat.Event{
		{Kind: chat.StatusEvent, Text: "Searching"}, {Kind: chat.DeltaEvent, Text: "Hel"}, {Kind: chat.DeltaEvent, Text: "lo "}, {Kind: chat.DeltaEvent, Text: "you"},
	}, e.events)
	require.Len(t, s.entra.exchanges(), 1)
	require.Empty(t, s.log.String())

	_, err = s.Answer(t.Context(), user("ann"), chat.Question{
		Message: chat.Message{Text: "and", Value: []byte(`{"a":1}`)}, AgentRef: opened.AgentRef,
	}, e.emit)
	require.NoError(t, err)
	received := s.d2e.received()
	require.Len(t, received, 3)
	for i, want := range []struct{ path, body string }{
		{d2ePath, `{"emitStartConversationEvent":true}`},
		{d2ePath + "/c-1", `{"activity":{"type":"message","text":"hi"}}`},
		{d2ePath + "/c-1", `{"activity":{"type":"message","value":{"a":1}}}`},
	} {
		r := received[i]
		require.Equal(t, []string{"POST", want.path, "api-version=2022-03-01-preview", want.body}, []string{r.method, r.path, r.query, r.body})
		require.Equal(t, "Bearer for-ann", r.header.Get("Authorization"))
		require.Equal(t, "application/json", r.header.Get("Content-Type"))
		require.Equal(t, "text/event-stream", r.header.Get("Accept"))
	}
}

// The client of Microsoft sends what we send, and reads what we read.
func TestMicrosoftsClientDoesTheSame(t *testing.T) {
	t.Parallel()
	s := startStudio(t)
	s.d2e.mu.Lock() // the client is another process, so nothing else orders this before its requests
	s.d2e.script["hi"] = func(a *d2eAnswer) {
		a.delta(1, "Hel")
		a.delta(2, "lo")
		a.activity(`{"type":"message","id":"a1","text":"Hello","entities":[{"type":"streaminfo","streamType":"final","streamId":"s1"}]}`)
		a.end()
	}
	s.d2e.mu.Unlock()
	theirs := nodetest.Command(t, "testdata/d2e-node", "client.mjs", s.d2e.URL+d2ePath+"/old?api-version=2022-03-01-preview", "for-ann")
	var stderr bytes.Buffer
	theirs.Stderr = &stderr
	output, err := theirs.Output()
	require.NoError(t, err, stderr.String())
	var read struct{ Greeting, Turn, Card []struct{ Type, Text string } }
	require.NoError(t, json.Unmarshal(output, &read, json.MatchCaseInsensitiveNames(true)), "%s", output)
	requests := s.d2e.received()

	opened, err := s.Open(t.Context(), user("ann"), "id")
	require.NoError(t, err)
	require.Equal(t, opened.Messages[0].Text, read.Greeting[0].Text)
	q := chat.Question{AgentRef: strings.Replace(opened.AgentRef, "c-2", "c-1", 1)} // theirs, which the same user has opened
	var e told
	q.Message = chat.Message{Text: "hi"}
	reply, err := s.Answer(t.Context(), user("ann"), q, e.emit)
	require.NoError(t, err)
	require.Equal(t, "Hello", reply.Messages[0].Text)
	require.Equal(t, "Hello", read.Turn[len(read.Turn)-1].Text)
	require.Equal(t, "Hello", e.text(0))
	require.Equal(t, "Hello", read.Turn[1].Text, "their deltas, joined")
	q.Message = chat.Message{Value: []byte(`{"a":{"b":1}}`)}
	_, err = s.Answer(t.Context(), user("ann"), q, e.emit)
	require.NoError(t, err)

	ours := s.d2e.received()[len(requests):]
	require.Len(t, requests, 3)
	require.Len(t, ours, 3)
	for i := range ours {
		require.Equal(t, requests[i].method, ours[i].method)
		require.Equal(t, requests[i].path, ours[i].path)
		require.Equal(t, requests[i].query, ours[i].query)
		require.JSONEq(t, requests[i].body, ours[i].body)
		for _, name := range []string{"Authorization", "Content-Type", "Accept"} {
			require.Equal(t, requests[i].header.Get(name), ours[i].header.Get(name), name)
		}
	}
}

func TestCopilotStudioAnswers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 600<<10)
	card := `{"type":"AdaptiveCard","body":[{"type":"TextBlock","text":"<b>&"}]}`
	adaptive := func(content string) string {
		return `{"contentType":"application/vnd.microsoft.card.adaptive","content":` + content + `}`
	}
	for name, row := range map[string]struct {
		script func(*d2eAnswer)
		want   []string // messages
		told   []string // the deltas of each, joined
		log    string
	}{
		"nothing": {func(a *d2eAnswer) { a.end() }, nil, nil, ""},
		"an end without data": {func(a *d2eAnswer) {
			a.activity(`{"type":"message","text":"a"}`)
			a.raw("event: end\ndata:\n\n")
		}, []string{"a"}, nil, ""},
		"several messages": {func(a *d2eAnswer) {
			a.delta(1, "on")
			a.activity(`{"type":"message","text":"one"}`)
			a.activity(`{"type":"typing","text":"tw","entities":[{"type":"streaminfo","streamType":"streaming","streamId":"s2","streamSequence":1}]}`)
			a.activity(`{"type":"message","text":"two","entities":[{"type":"streaminfo","streamType":"final","streamId":"s2"}]}`)
			a.end()
		}, []string{"one", "two"}, []string{"on", "tw"}, ""},
		"texts that grow together": {func(a *d2eAnswer) {
			two := func(n int, text string) {
				a.activity(fmt.Sprintf(`{"type":"typing","text":%q,"entities":[{"type":"streaminfo","streamType":"streaming","streamId":"s2","streamSequence":%d}]}`, text, n))
			}
			a.delta(1, "one ")
			two(1, "zwei ")
			a.delta(2, "more")
			two(2, "mehr")
			a.activity(`{"type":"message","text":"one more","entities":[{"type":"streaminfo","streamType":"final","streamId":"s1"}]}`)
			a.activity(`{"type":"message","text":"zwei mehr","entities":[{"type":"streaminfo","streamType":"final","streamId":"s2"}]}`)
			a.delta(3, "late")
			a.end()
		}, []string{"one more", "zwei mehr"}, []string{"one more", "zwei mehr"}, ""},
		"the older form, whose first piece has no stream": {func(a *d2eAnswer) {
			a.activity(`{"type":"typing","id":"x1","text":"1","channelData":{"streamType":"streaming","chunkType":"delta","streamSequence":1}}`)
			a.activity(`{"type":"typing","id":"x2","text":"10","channelData":{"streamType":"streaming","chunkType":"delta","streamId":"x1","streamSequence":2}}`)
			a.activity(`{"type":"message","text":"110","channelData":{"streamType":"final","streamId":"x1"}}`)
			a.end()
		}, []string{"110"}, []string{"110"}, ""},
		"the whole text again and again": {func(a *d2eAnswer) {
			a.delta(1, "I think,")
			a.delta(2, "I think, therefore")
			a.delta(3, "I think, therefore I am")
			a.activity(`{"type":"message","text":"I think, therefore I am."}`)
			a.end()
		}, []string{"I think, therefore I am."}, []string{"I think, therefore I am"}, ""},
		"the whole text from its first letter": {func(a *d2eAnswer) {
			a.delta(1, "I")
			a.delta(2, "I t")
			a.delta(3, "I think")
			a.delta(4, "I think so")
			a.activity(`{"type":"message","text":"I think so"}`)
			a.end()
		}, []string{"I think so"}, []string{"I think so"}, ""},
		"deltas that repeat": {func(a *d2eAnswer) {
			for i, text := range []string{"ha", "ha", " h", "a"} {
				a.delta(i+1, text)
			}
			a.activity(`{"type":"message","text":"haha ha"}`)
			a.end()
		}, []string{"haha ha"}, []string{"haha ha"}, ""},
		"deltas in disorder": {func(a *d2eAnswer) {
			a.delta(1, "a")
			a.delta(3, "c")
			a.delta(2, "b")
			a.end()
		}, []string{"abc"}, []string{"ac"}, ""},
		"a text without its message": {func(a *d2eAnswer) {
			a.delta(1, "all of it")
			a.end()
		}, []string{"all of it"}, []string{"all of it"}, ""},
		"a long line": {func(a *d2eAnswer) {
			a.activity(`{"type":"message","text":"` + long + `"}`)
			a.end()
		}, []string{long}, nil, ""},
		"what is broken and unknown": {func(a *d2eAnswer) {
			a.activity(`{"type":"message","text":`)
			a.event("surprise", "{}")
			a.raw(": comment\n\n")
			a.activity(`{"type":"trace","text":"not for you"}`)
			a.activity(`{"type":"message","id":"","text":"","name":""}`)
			a.activity(`{"type":"message","text":null,"from":{"role":"user"},"channelData":"x","entities":[1,{"type":"x"}],"text":"a"}`)
			a.end()
		}, []string{"a"}, nil, "1 frames"},
		"JSON, no stream": {func(a *d2eAnswer) {
			a.w.Header().Set("Content-Type", "application/json; charset=utf-8")
			a.raw(`{"activities":[{"type":"message","text":"a"},{"type":"message","text":"b"}],"conversationId":"c-1"}`)
		}, []string{"a", "b"}, nil, ""},
		"cards": {func(a *d2eAnswer) {
			text, _ := json.Marshal(card)
			a.activity(`{"type":"message","id":"a1","text":"look","attachments":[` + adaptive(card) + `,` + adaptive(string(text)) + `,` + adaptive("[]") +
				`,{"contentType":"image/png","contentUrl":"https://a.example/a.png"}]}`)
			a.end()
		}, []string{"look", card, card}, nil, "2 parts of messages"},
		"its end": {func(a *d2eAnswer) {
			a.activity(`{"type":"message","text":"bye"}`)
			a.activity(`{"type":"endOfConversation","code":"completedSuccessfully"}`)
			a.end()
		}, []string{"bye"}, nil, ""},
		"text that cannot be stored": {func(a *d2eAnswer) {
			a.activity("{\"type\":\"message\",\"text\":\"a\\u0000\xff\"}")
			a.end()
		}, []string{"a\uFFFD\uFFFD"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startStudio(t)
			s.d2e.script["x"] = row.script
			reply, e, err := s.say(t, user("ann"), "x")
			require.NoError(t, err)
			require.Equal(t, row.want, texts(reply))
			for i, want := range row.told {
				require.Equal(t, want, e.text(i))
			}
			if row.log == "" {
				require.Empty(t, s.log.String())
			} else {
				require.Contains(t, s.log.String(), row.log)
			}
			require.Equal(t, name == "its end", strings.Contains(reply.AgentRef, `"ended":"completedSuccessfully"`))
			require.Len(t, s.d2e.received(), 2)
		})
	}
}

func TestSuggestedActionsOfCopilotStudio(t *testing.T) {
	t.Parallel()
	s := startStudio(t)
	s.d2e.script["x"] = func(a *d2eAnswer) {
		a.activity(strings.ReplaceAll(`{"type":"message","id":"a1","text":"which?","attachments":[{"contentType":"application/vnd.microsoft.card.adaptive","content":{}}],
			"suggestedActions":{"actions":[{"type":"imBack","title":"Yes","value":"yes"},{"type":"postBack","value":"no"},{"type":"messageBack","title":"M","text":"said","value":{"a":1}},
			{"type":"messageBack","title":"V","value":"v"},{"type":"openUrl","title":"Open","value":"https://a.example"},{"type":"postBack","title":"Object","value":{}}]}}`, "\n", ""))
		a.end()
	}
	s.d2e.script["many"] = func(a *d2eAnswer) {
		a.activity(`{"type":"message","text":"which?"}`)
		a.activity(`{"type":"message","suggestedActions":{"actions":[` + strings.Repeat(`{"type":"imBack","title":"A","value":"a"},`, 24) + `{"type":"imBack","title":"A","value":"a"}]}}`)
		a.end()
	}
	reply, _, err := s.say(t, user("ann"), "x")
	require.NoError(t, err)
	require.Len(t, reply.Messages, 2)
	require.Empty(t, reply.Messages[0].SuggestedActions)
	require.Equal(t, "a1", reply.Messages[1].CardID)
	require.Equal(t, []chat.SuggestedAction{{Title: "Yes", Value: "yes"}, {Title: "no", Value: "no"}, {Title: "M", Value: "said"}, {Title: "V", Value: "v"}}, reply.Messages[1].SuggestedActions)
	reply, _, err = s.say(t, user("ann"), "many")
	require.NoError(t, err)
	require.Len(t, reply.Messages[0].SuggestedActions, 20)
}

func TestCopilotStudioStarts(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		script func(*d2eAnswer)
		id     string
		want   error
	}{
		"the id in the header, and no word": {func(a *d2eAnswer) { a.end() }, "c-1", nil},
		"the id in an activity alone": {func(a *d2eAnswer) {
			a.stream()
			a.activity(`{"type":"event","conversation":{"id":""}}`)
			a.activity(`{"type":"message","text":"hi","conversation":{"id":"c 9/1"}}`)
			a.end()
		}, "c 9/1", nil},
		"the id in JSON": {func(a *d2eAnswer) {
			a.w.Header().Set("Content-Type", "application/json")
			a.raw(`{"activities":[],"conversationId":"c-7"}`)
		}, "c-7", nil},
		"no id": {func(a *d2eAnswer) {
			a.stream()
			a.activity(`{"type":"message","text":"hi"}`)
			a.end()
		}, "", chat.ErrAgentFailed},
		"an id that leads elsewhere": {func(a *d2eAnswer) {
			a.conversationID = ".."
			a.end()
		}, "", chat.ErrAgentFailed},
		"no end": {func(a *d2eAnswer) { a.activity(`{"type":"message","text":"hi"}`) }, "", chat.ErrAgentFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startStudio(t)
			s.d2e.script[""] = row.script
			reply, err := s.Open(t.Context(), user("ann"), "id")
			require.ErrorIs(t, err, row.want)
			require.Equal(t, row.id, reply.ExternalID)
			if row.want != nil {
				require.Empty(t, reply)
			}
			require.Len(t, s.d2e.received(), 1)
		})
	}
}

func TestFailuresOfCopilotStudio(t *testing.T) {
	t.Parallel()
	says := func(status int, body string, header ...string) func(*d2eAnswer) {
		return func(a *d2eAnswer) {
			for i := 0; i < len(header); i += 2 {
				a.w.Header().Set(header[i], header[i+1])
			}
			a.status(status, body)
		}
	}
	for name, row := range map[string]struct {
		script func(*d2eAnswer)
		want   chat.Failure
		kept   []string
		posts  int32
	}{
		"an end of file after a delta":   {func(a *d2eAnswer) { a.delta(1, "par") }, *chat.ErrAgentFailed, []string{"par"}, 1},
		"an end of file after a message": {func(a *d2eAnswer) { a.activity(`{"type":"message","text":"a"}`) }, *chat.ErrAgentFailed, []string{"a"}, 1},
		"an end of file at once":         {func(a *d2eAnswer) { a.header() }, *chat.ErrAgentFailed, nil, 1},
		"a reset within a frame": {func(a *d2eAnswer) {
			a.activity(`{"type":"message","text":"a"}`)
			a.delta(1, "b")
			a.raw("event: activity\ndata: {\"type\":\"mess")
			a.reset()
		}, *chat.ErrAgentFailed, []string{"a", "b"}, 1},
		"a reset before the first byte": {func(a *d2eAnswer) { a.reset() }, *chat.ErrAgentFailed, nil, 1},
		"401":                           {says(401, `{}`), *chat.ErrAgentFailed, nil, 1},
		"more claims": {
			says(401, ``, "WWW-Authenticate", `Bearer realm="", error="insufficient_claims", claims="eyJhIjoxfQ=="`),
			chat.Failure{Code: "insufficient_claims", Claims: "eyJhIjoxfQ=="}, nil, 1,
		},
		"403":                      {says(403, `{"error":{"code":"Forbidden"}}`), *chat.ErrAgentForbidden, nil, 1},
		"denied":                   {says(400, `D2EAccessDenied`), *chat.ErrAgentForbidden, nil, 1},
		"another user's":           {says(403, `{"error":{"code":"CallerIdentityMismatch"}}`), *chat.ErrAgentConversationLost, nil, 1},
		"another type of identity": {says(400, `{"code":"CallerIdentityTypeMismatch"}`), *chat.ErrAgentConversationLost, nil, 1},
		"not found":                {says(404, `{"error":{"code":"ConversationNotFound"}}`), *chat.ErrAgentConversationLost, nil, 1},
		"the agent is not found":   {says(404, `{"error":{"code":"BotContentNotFound"}}`), *chat.ErrAgentFailed, nil, 1},
		"405": {
			says(405, `Feature ThirdPartyAuthenticatedPublishedBotController.EnableS2SAuthFeature (Feature) not enabled.`), *chat.ErrAgentFailed, nil, 1,
		},
		"throttled for long":    {says(429, ``, "Retry-After", "60"), chat.Failure{Code: "agent_busy", RetryAfter: time.Minute}, nil, 1},
		"throttled for a while": {says(429, ``), *chat.ErrAgentBusy, nil, 1},
		"500":                   {says(500, `ann said x`), *chat.ErrAgentFailed, nil, 1},
		"an error in the stream": {func(a *d2eAnswer) {
			a.delta(1, "par")
			a.event("error", `{"error":{"code":"InternalServerError","message":"ann said x"}}`)
		}, *chat.ErrAgentFailed, []string{"par"}, 1},
		"a filter in the stream": {func(a *d2eAnswer) { a.event("error", `{"error":{"code":"ContentFiltered"}}`) }, *chat.ErrContentFiltered, nil, 1},
		"another conversation": {func(a *d2eAnswer) {
			a.conversationID = "c-99"
			a.activity(`{"type":"message","text":"who are you?"}`)
			a.end()
		}, *chat.ErrAgentConversationLost, []string{"who are you?"}, 1},
		"HTML": {func(a *d2eAnswer) {
			a.w.Header().Set("Content-Type", "text/html")
			a.raw("<html>")
		}, *chat.ErrAgentFailed, nil, 1},
		"broken JSON": {func(a *d2eAnswer) {
			a.w.Header().Set("Content-Type", "application/json")
			a.raw("{")
		}, *chat.ErrAgentFailed, nil, 1},
		"a message that is too long": {func(a *d2eAnswer) {
			a.activity(`{"type":"message","text":"a"}`)
			a.activity(`{"type":"message","text":"` + strings.Repeat("b", 1<<20+1) + `"}`)
			a.end()
		}, *chat.ErrAgentFailed, []string{"a"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startStudio(t)
			s.d2e.script["x"] = row.script
			caller := user("ann")
			reply, _, err := s.say(t, caller, "x")
			failure, ok := errors.AsType[*chat.Failure](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, row.want.Code, failure.Code, "%v", err)
			require.Equal(t, row.want.Claims, failure.Claims)
			require.Equal(t, row.want.RetryAfter, failure.RetryAfter)
			require.Equal(t, row.kept, texts(reply))
			require.Len(t, s.d2e.received(), 1+int(row.posts))
			for _, secret := range []string{"s3cret", string(caller.Token), "for-ann", "ann said", s.d2e.URL} {
				require.NotContains(t, err.Error(), secret)
				require.NotContains(t, s.log.String(), secret)
			}
		})
	}
}

func TestABusyAgentIsAskedAgainTwice(t *testing.T) {
	t.Parallel()
	s := startStudio(t)
	var asked atomic.Int32
	s.d2e.script["twice"] = func(a *d2eAnswer) {
		if asked.Add(1) < 3 {
			a.w.Header().Set("Retry-After", "1")
			a.status(503, "")
			return
		}
		a.activity(`{"type":"message","text":"at last"}`)
		a.end()
	}
	reply, _, err := s.say(t, user("ann"), "twice")
	require.NoError(t, err)
	require.Equal(t, []string{"at last"}, texts(reply))
	asked.Store(-9)
	_, _, err = s.say(t, user("ann"), "twice")
	require.ErrorIs(t, err, chat.ErrAgentBusy)
	require.Equal(t, int32(-6), asked.Load(), "three times")
}

func TestASilentAgentIsLeft(t *testing.T) {
	t.Parallel()
	s := startStudio(t)
	s.post = newPoster(Deadlines{Connect: time.Second, FirstByte: 200 * time.Millisecond, Silence: 200 * time.Millisecond})
	left := make(chan struct{}, 2)
	wait := func(a *d2eAnswer) {
		<-a.r.Context().Done()
		left <- struct{}{}
	}
	s.d2e.script["nothing"] = wait
	s.d2e.script["a word"] = func(a *d2eAnswer) {
		a.delta(1, "word")
		wait(a)
	}
	_, _, err := s.say(t, user("ann"), "nothing")
	require.ErrorIs(t, err, chat.ErrAgentTimeout)
	<-left
	reply, _, err := s.say(t, user("ann"), "a word")
	require.ErrorIs(t, err, chat.ErrAgentTimeout)
	require.Equal(t, []string{"word"}, texts(reply))
	<-left

	s.post = newPoster(Deadlines{Connect: time.Minute, FirstByte: time.Minute, Silence: time.Minute})
	opened, err := s.Open(t.Context(), user("ann"), "id")
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	reply, err = s.Answer(ctx, user("ann"), chat.Question{Message: chat.Message{Text: "a word"}, AgentRef: opened.AgentRef},
		func(chat.Event) { cancel(chat.ErrCancelled) })
	require.ErrorIs(t, err, chat.ErrCancelled)
	require.Equal(t, []string{"word"}, texts(reply))
	<-left
}

func TestALineWithoutEndIsNotHeld(t *testing.T) {
	s := startStudio(t)
	stopped := make(chan struct{})
	s.d2e.script["x"] = func(a *d2eAnswer) {
		defer close(stopped)
		a.delta(1, "word")
		a.raw("event: activity\ndata: ")
		for piece := strings.Repeat("a", 64<<10); a.r.Context().Err() == nil; {
			a.raw(piece)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	reply, _, err := s.say(t, user("ann"), "x")
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, chat.ErrAgentFailed)
	require.Contains(t, err.Error(), "too long")
	require.Equal(t, []string{"word"}, texts(reply))
	<-stopped
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
}

// Neither a redirect nor a header of an answer chooses where a token goes.
func TestNothingLeadsElsewhere(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request elsewhere") }))
	defer elsewhere.Close()
	s := startStudio(t)
	s.d2e.script["redirect"] = func(a *d2eAnswer) {
		a.w.Header().Set("Location", elsewhere.URL)
		a.w.WriteHeader(http.StatusTemporaryRedirect)
	}
	s.d2e.script["island"] = func(a *d2eAnswer) {
		a.w.Header().Set("x-ms-d2e-experimental", elsewhere.URL)
		a.end()
	}
	_, _, err := s.say(t, user("ann"), "redirect")
	require.ErrorIs(t, err, chat.ErrAgentFailed)
	for range 2 {
		_, _, err = s.say(t, user("ann"), "island")
		require.NoError(t, err)
	}
}

func TestUsersDoNotMix(t *testing.T) {
	t.Parallel()
	s := startStudio(t)
	var all sync.WaitGroup
	for _, name := range []string{"ann", "bob"} {
		all.Go(func() {
			caller := userUntil(name, time.Unix(4e9, 0))
			opened, err := s.Open(t.Context(), caller, name)
			if !assert.NoError(t, err) {
				return
			}
			for i := range 20 {
				text := fmt.Sprintf("%s %d", name, i)
				var e told
				reply, err := s.Answer(t.Context(), caller, chat.Question{Message: chat.Message{Text: text}, AgentRef: opened.AgentRef}, e.emit)
				assert.NoError(t, err)
				assert.Equal(t, []string{"You said: " + text}, texts(reply))
				assert.Equal(t, opened.ExternalID, reply.ExternalID)
			}
		})
	}
	all.Wait()
	conversations := map[string]string{} // by token
	for _, r := range s.d2e.received() {
		token := r.header.Get("Authorization")
		id, isTurn := strings.CutPrefix(r.path, d2ePath+"/")
		if !isTurn {
			continue
		}
		require.Contains(t, r.body, strings.TrimPrefix(token, "Bearer for-"))
		if conversations[token] == "" {
			conversations[token] = id
		}
		require.Equal(t, conversations[token], id)
	}
	require.Len(t, conversations, 2)
	require.NotEqual(t, conversations["Bearer for-ann"], conversations["Bearer for-bob"])
	require.Len(t, s.entra.exchanges(), 2)
}

func TestAConversationServesWhoOpenedIt(t *testing.T) {
	t.Parallel()
	s := startStudio(t)
	opened, err := s.Open(t.Context(), user("ann"), "id")
	require.NoError(t, err)
	other, nameless, foreign := user("ann"), user("ann"), user("ann")
	other.ObjectID, nameless.ObjectID, foreign.Owner.TenantID = "another", "", "bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee"
	ask := func(caller chat.Caller, ref string) error {
		_, err := s.Answer(t.Context(), caller, chat.Question{Message: chat.Message{Text: "x"}, AgentRef: ref, ExternalID: "c-1"}, func(chat.Event) {})
		return err
	}
	require.NoError(t, ask(nameless, opened.AgentRef), "a token without oid")
	asked := len(s.d2e.received())
	require.ErrorIs(t, ask(other, opened.AgentRef), chat.ErrAgentConversationLost)
	require.ErrorIs(t, ask(foreign, opened.AgentRef), chat.ErrAgentConversationLost)
	for _, ref := range []string{"", "resp_1", `{}`, `{"conversationId":".."}`, `{"conversationId":"a\nb"}`} {
		require.ErrorIs(t, ask(user("ann"), ref), chat.ErrAgentConversationLost, ref)
	}
	require.Len(t, s.d2e.received(), asked, "nothing was asked")

	s.d2e.script["x"] = func(a *d2eAnswer) { a.status(404, "") }
	require.ErrorIs(t, ask(user("ann"), opened.AgentRef), chat.ErrAgentFailed)
	ended := strings.Replace(opened.AgentRef, `{`, `{"ended":"completedSuccessfully",`, 1)
	require.ErrorIs(t, ask(user("ann"), ended), chat.ErrAgentConversationLost)
}

func TestATokenThatIsNotTakenIsExchangedAnew(t *testing.T) {
	t.Parallel()
	s := startStudio(t)
	s.d2e.script["x"] = func(a *d2eAnswer) { a.status(401, "") }
	caller := user("ann")
	_, _, err := s.say(t, caller, "x")
	require.ErrorIs(t, err, chat.ErrAgentFailed)
	_, _, err = s.say(t, caller, "y")
	require.NoError(t, err)
	require.Len(t, s.entra.exchanges(), 2)
}

func TestAnAgentThatIsNotThere(t *testing.T) {
	t.Parallel()
	s := startStudio(t)
	s.d2e.Close()
	_, err := s.Open(t.Context(), user("ann"), "id")
	require.ErrorIs(t, err, chat.ErrAgentFailed)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}

// Pieces that are alike are pieces all the same, and not the text so far.
func TestPiecesThatAreAlike(t *testing.T) {
	t.Parallel()
	s := startStudio(t)
	s.d2e.script["x"] = func(a *d2eAnswer) {
		for i := range 12 {
			a.delta(i+1, "a")
		}
		a.end()
	}
	_, e, err := s.say(t, user("ann"), "x")
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("a", 12), e.text(0))
}
