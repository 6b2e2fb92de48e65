package chat_test

import (
	"context"
	"strings"
	"testing"

	"chatkeep/handler/agent"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/require"
)

func illFormedReplies() map[string]chat.Reply {
	say := func(m chat.Message) chat.Reply {
		return chat.Reply{Messages: []chat.Message{{Kind: chat.Text, Text: "fine"}, m}}
	}
	card := func(text string) chat.Reply {
		return say(chat.Message{Kind: chat.AdaptiveCard, CardJSON: []byte(text)})
	}
	return map[string]chat.Reply{
		"bad UTF-8":                       say(chat.Message{Kind: chat.Text, Text: "half \xc3"}),
		"a surrogate in UTF-8":            say(chat.Message{Kind: chat.Text, Text: "\xed\xa0\x80"}),
		"NUL":                             say(chat.Message{Kind: chat.Text, Text: "a\x00b"}),
		"neither text nor card":           say(chat.Message{Kind: chat.Text}),
		"a card without a card":           say(chat.Message{Kind: chat.AdaptiveCard}),
		"text and a card":                 say(chat.Message{Kind: chat.Text, Text: "a", CardJSON: []byte(`{}`)}),
		"a card and text":                 say(chat.Message{Kind: chat.AdaptiveCard, Text: "a", CardJSON: []byte(`{}`)}),
		"no kind":                         say(chat.Message{Text: "a"}),
		"an unknown kind":                 say(chat.Message{Kind: "image", Text: "a"}),
		"text of more than 1 MiB":         say(chat.Message{Kind: chat.Text, Text: strings.Repeat("x", 1<<20+1)}),
		"a card of more than 1 MiB":       card(`{"a":"` + strings.Repeat("x", 1<<20) + `"}`),
		"an empty card":                   card(``),
		"a card that is a list":           card(`[]`),
		"a card that is a text":           card(`"{}"`),
		"a card that is null":             card(`null`),
		"a card that is no JSON":          card(`{"a":}`),
		"a card cut short":                card(`{"a":1`),
		"two cards in one":                card(`{}{}`),
		"a card with a lone surrogate":    card(`{"a":"\ud83d"}`),
		"a card in bad UTF-8":             card("{\"a\":\"\xff\"}"),
		"a card with one name twice":      card(`{"a":1,"a":2}`),
		"a card with a NUL":               card("{\"a\":\"\x00\"}"),
		"a card id in bad UTF-8":          say(chat.Message{Kind: chat.AdaptiveCard, CardJSON: []byte(`{}`), CardID: "\xff"}),
		"a card id with NUL":              say(chat.Message{Kind: chat.AdaptiveCard, CardJSON: []byte(`{}`), CardID: "\x00"}),
		"a reference in bad UTF-8":        {AgentRef: "\xff"},
		"a reference that is too long":    {AgentRef: strings.Repeat("x", 4097)},
		"an external id with NUL":         {ExternalID: "\x00"},
		"an external id that is too long": {ExternalID: strings.Repeat("x", 4097)},
	}
}

func TestAnIllFormedAnswerIsNotStored(t *testing.T) {
	for name, reply := range illFormedReplies() {
		t.Run(name, func(t *testing.T) {
			s := serve(t, store.NewMemory(limits), agentFunc(func(context.Context, chat.Question) (chat.Reply, error) { return reply, nil }))
			id := start(t, s)
			_, err := s.Send(t.Context(), alice, id, keyed("key", "hello"))
			require.ErrorIs(t, err, chat.ErrAgentFailed)
			require.Less(t, len(err.Error()), 200, "the answer is quoted")
			require.Equal(t, []string{"user hello failed"}, history(t, s, id))
			_, err = s.Send(t.Context(), alice, id, keyed("key", "hello"))
			require.ErrorIs(t, err, chat.ErrAgentFailed)
			c, _, err := s.Get(t.Context(), alice.Owner, id, chat.Page{Limit: 1})
			require.NoError(t, err)
			require.Empty(t, c.ExternalID)
		})
	}
}

func TestAnIllFormedGreetingLeavesNoConversation(t *testing.T) {
	for name, reply := range illFormedReplies() {
		t.Run(name, func(t *testing.T) {
			s := serve(t, store.NewMemory(limits), greeter{open: func(context.Context) (chat.Reply, error) { return reply, nil }})
			_, err := s.Start(t.Context(), alice, chat.Opening{})
			require.ErrorIs(t, err, chat.ErrAgentFailed)
			all, _, err := s.ListConversations(t.Context(), alice.Owner, chat.List{Limit: 100})
			require.NoError(t, err)
			require.Empty(t, all)
		})
	}
}

func TestAWellFormedAnswerIsStoredWhole(t *testing.T) {
	long := strings.Repeat("é", 1<<19)
	reply := chat.Reply{
		Messages: []chat.Message{
			{Kind: chat.Text, Text: long},
			{Kind: chat.AdaptiveCard, CardJSON: []byte(" { \"a\" : [ 1 , \"\\ud83d\\ude00\" ] }\n"), CardID: "card"},
			{ID: "mine", Role: chat.User, Kind: chat.Text, Text: "😀", Value: []byte(`{}`), InReplyTo: "other"},
		},
		AgentRef: strings.Repeat("x", 4096), ExternalID: strings.Repeat("x", 4096),
	}
	s := serve(t, store.NewMemory(limits), agentFunc(func(context.Context, chat.Question) (chat.Reply, error) { return reply, nil }))
	id := start(t, s)
	sent, err := s.Send(t.Context(), alice, id, say("hello"))
	require.NoError(t, err)
	_, stored, err := s.Get(t.Context(), alice.Owner, id, chat.Page{Limit: 2})
	require.NoError(t, err)
	require.Equal(t, stored, sent.Replies[1:], "the answer differs from what get shows")

	require.Equal(t, long, read(t, sent.Replies[0]).Text)
	card := read(t, sent.Replies[1])
	require.JSONEq(t, `{"a":[1,"😀"]}`, string(card.CardJSON))
	require.NotContains(t, string(card.CardJSON), " ", "more was stored than the card")
	require.Equal(t, "card", card.CardID)
	last := read(t, sent.Replies[2])
	require.Equal(t, chat.Message{ID: last.ID, Role: chat.Assistant, Kind: chat.Text, Text: "😀", InReplyTo: read(t, sent.Message).ID}, last)
	for _, m := range sent.Replies {
		seq := chat.NewMessageID(m.Seq)
		require.Equal(t, seq[len(seq)-6:], read(t, m).ID[30:], "the id does not tell its place")
	}
}

func TestAnAnswerWithoutMessagesIsComplete(t *testing.T) {
	s := serve(t, store.NewMemory(limits), agentFunc(func(context.Context, chat.Question) (chat.Reply, error) { return chat.Reply{}, nil }))
	id := start(t, s)
	for range 2 {
		sent, err := s.Send(t.Context(), alice, id, keyed("key", "hello"))
		require.NoError(t, err)
		require.Equal(t, chat.Complete, sent.Message.State)
		require.Empty(t, sent.Replies)
	}
	require.Equal(t, []string{"user hello complete"}, history(t, s, id))
}

func TestASubmittedCardIsKeptAndAnswered(t *testing.T) {
	s := serve(t, store.NewMemory(limits), agent.Echo{})
	sent, err := s.Send(t.Context(), alice, start(t, s), chat.Input{Value: []byte(` {"a": 1} `)})
	require.NoError(t, err)
	require.Equal(t, `{"a":1}`, string(read(t, sent.Message).Value))
	require.Equal(t, `{"a":1}`, read(t, sent.Replies[0]).Text)
}
