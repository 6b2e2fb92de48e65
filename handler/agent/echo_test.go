package agent_test

import (
	"testing"

	"chatkeep/handler/agent"
	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

func TestEchoSaysWhatWasSaid(t *testing.T) {
	noEvents := func(chat.Event) { t.Error("an event") }
	greeting, err := agent.Echo{}.Open(t.Context(), chat.Caller{}, "id")
	require.NoError(t, err)
	require.Empty(t, greeting)
	for want, m := range map[string]chat.Message{
		"hello":   {Text: "hello"},
		`{"a":1}`: {Value: []byte(`{"a":1}`)},
		"both":    {Text: "both", Value: []byte(`{"a":1}`)},
	} {
		reply, err := agent.Echo{}.Answer(t.Context(), chat.Caller{}, chat.Question{Message: m}, noEvents)
		require.NoError(t, err)
		require.Equal(t, chat.Reply{Messages: []chat.Message{{Kind: chat.Text, Text: want}}}, reply)
	}
}
