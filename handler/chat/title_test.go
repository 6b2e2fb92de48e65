package chat_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/require"
)

// What a conversation is called and shows, by what is said in it.
func TestWhatIsSaidNamesTheConversation(t *testing.T) {
	card := chat.Message{Kind: chat.AdaptiveCard, CardJSON: []byte("{}")}
	s := serve(t, store.NewMemory(limits), agentFunc(func(_ context.Context, q chat.Question) (chat.Reply, error) {
		words := chat.Message{Kind: chat.Text, Text: "re " + q.Message.Text}
		switch q.Message.Text {
		case "":
			return chat.Reply{Messages: []chat.Message{card}}, nil
		case "fail":
			return chat.Reply{Messages: []chat.Message{words}}, errors.New("half")
		default:
			return chat.Reply{Messages: []chat.Message{words, card}}, nil
		}
	}))
	started, err := s.Start(t.Context(), alice, chat.Opening{})
	require.NoError(t, err)
	id := started.Conversation.ID
	send := func(in chat.Input) {
		_, err := s.Send(t.Context(), alice, id, in)
		if in.Text == nil || *in.Text != "fail" {
			require.NoError(t, err)
		}
	}
	shows := func(title string, role chat.Role, text string) {
		t.Helper()
		all, _, err := s.ListConversations(t.Context(), alice.Owner, chat.List{Limit: 1})
		require.NoError(t, err)
		require.Equal(t, title, all[0].Title)
		require.Equal(t, chat.Preview{Role: role, Text: text}, all[0].Last)
	}
	send(chat.Input{Value: []byte(`{"choice":"one"}`)})
	shows("", "", "")
	long := strings.Repeat("word ", 30)
	send(chat.Input{Text: &long})
	shows(strings.TrimSpace(long[:60]), chat.Assistant, ("re " + long)[:120])
	send(chat.Input{Value: []byte(`{"choice":"two"}`)})
	shows(strings.TrimSpace(long[:60]), chat.Assistant, ("re " + long)[:120])
	send(chat.Input{Text: new("fail")})
	shows(strings.TrimSpace(long[:60]), chat.Assistant, "re fail")
}
