package agent_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

func TestEchoSaysWhatWasSaid(t *testing.T) {
	greeting, err := agent.Echo{}.Open(t.Context(), chat.Caller{}, "id")
	require.NoError(t, err)
	require.Empty(t, greeting)
	for want, m := range map[string]chat.Message{
		"hello":       {Text: "hello"},
		`{"a":1}`:     {Value: []byte(`{"a":1}`)},
		"a few words": {Text: "a few words"},
		"both":        {Text: "both", Value: []byte(`{"a":1}`)},
	} {
		var told string
		reply, err := agent.Echo{}.Answer(t.Context(), chat.Caller{}, chat.Question{Message: m}, func(e chat.Event) { told += e.Text })
		require.NoError(t, err)
		require.Equal(t, want, told)
		require.Equal(t, chat.Reply{Messages: []chat.Message{{Kind: chat.Text, Text: want}}}, reply)
	}
}

// What its commands have an echo do, as docs/agents.md lists them.
func TestEchoDoesAsItIsTold(t *testing.T) {
	say := func(ctx context.Context, text string) (reply chat.Reply, events []chat.Event, err error) {
		reply, err = agent.Echo{Delay: time.Millisecond, Greeting: "Welcome"}.Answer(ctx, chat.Caller{}, chat.Question{Message: chat.Message{Text: text}},
			func(e chat.Event) { events = append(events, e) })
		return reply, events, err
	}
	greeting, err := agent.Echo{Greeting: "Welcome"}.Open(t.Context(), chat.Caller{}, "id")
	require.NoError(t, err)
	require.Equal(t, "Welcome", greeting.Messages[0].Text)

	reply, events, err := say(t.Context(), "/fail after two")
	require.Error(t, err)
	require.Equal(t, "after two", reply.Messages[0].Text, "what had arrived")
	require.Len(t, events, 2)
	require.Panics(t, func() { _, _, _ = say(t.Context(), "/panic") })
	reply, _, err = say(t.Context(), "/none")
	require.NoError(t, err)
	require.Empty(t, reply.Messages)
	reply, events, _ = say(t.Context(), "/half ü")
	require.Equal(t, "ü", reply.Messages[0].Text)
	require.Equal(t, []chat.Event{{Kind: chat.DeltaEvent, Text: "\xc3"}, {Kind: chat.DeltaEvent, Text: "\xbc"}}, events)
	_, events, _ = say(t.Context(), "/status x")
	require.Equal(t, chat.StatusEvent, events[0].Kind)
	reply, _, _ = say(t.Context(), "/card")
	require.True(t, json.Valid(reply.Messages[0].CardJSON))
	reply, _, _ = say(t.Context(), "/suggest")
	require.Len(t, reply.Messages[0].SuggestedActions, 2)

	ended, end := context.WithCancelCause(t.Context())
	end(chat.ErrAgentTimeout)
	_, _, err = say(ended, "/stall")
	require.ErrorIs(t, err, chat.ErrAgentTimeout)
	reply, _, err = say(ended, "one two three")
	require.ErrorIs(t, err, chat.ErrAgentTimeout)
	require.Equal(t, "one ", reply.Messages[0].Text)
}
