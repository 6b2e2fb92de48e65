// Package agent answers; each file holds one agent.
package agent

import (
	"context"

	"chatkeep/handler/chat"
)

// Echo answers with the message itself: the text, or a submitted card's data. It needs nothing and never fails.
type Echo struct{}

// Open implements chat.Agent. There is no greeting.
func (Echo) Open(context.Context, chat.Caller, string) (chat.Reply, error) {
	return chat.Reply{}, nil
}

// Answer implements chat.Agent.
func (Echo) Answer(_ context.Context, _ chat.Caller, q chat.Question, _ func(chat.Event)) (chat.Reply, error) {
	text := q.Message.Text
	if text == "" {
		text = string(q.Message.Value)
	}
	return chat.Reply{Messages: []chat.Message{{Kind: chat.Text, Text: text}}}, nil
}
