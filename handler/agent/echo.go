// Package agent answers; each agent has a file of its own.
package agent

import (
	"context"
	"errors"
	"strings"
	"time"

	"chatkeep/handler/chat"
)

// Echo answers with the message itself, word by word: the text, or a submitted card's data. It needs nothing, and is there for tests and demos:
// a text that begins with one of its commands has it do something else.
type Echo struct {
	Delay    time.Duration // between two words
	Greeting string        // empty: none
}

// Open implements chat.Agent.
func (e Echo) Open(context.Context, chat.Caller, string) (chat.Reply, error) {
	if e.Greeting == "" {
		return chat.Reply{}, nil
	}
	return textReply(e.Greeting), nil
}

// Answer implements chat.Agent.
func (e Echo) Answer(ctx context.Context, _ chat.Caller, q chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	text := q.Message.Text
	if text == "" {
		text = string(q.Message.Value)
	}
	switch command, rest, _ := strings.Cut(text, " "); command {
	case "/fail": // after the words that follow
		reply, err := e.say(ctx, rest, emit)
		if err == nil {
			err = errors.New("it was told to fail")
		}
		return reply, err
	case "/stall":
		<-ctx.Done()
		return chat.Reply{}, context.Cause(ctx)
	case "/panic":
		panic("it was told to panic")
	case "/none":
		return chat.Reply{}, nil
	case "/half": // characters
		for i := range len(rest) {
			emit(chat.Event{Kind: chat.DeltaEvent, Text: rest[i : i+1]})
		}
		return e.say(ctx, rest, func(chat.Event) {})
	case "/status":
		emit(chat.Event{Kind: chat.StatusEvent, Text: "Thinking…"})
		return e.say(ctx, rest, emit)
	case "/card":
		return chat.Reply{Messages: []chat.Message{{Kind: chat.AdaptiveCard, CardID: "echo", CardJSON: []byte(echoCard)}}}, nil
	case "/suggest":
		reply := textReply("Choose:")
		reply.Messages[0].SuggestedActions = []chat.SuggestedAction{{Title: "Yes", Value: "yes"}, {Title: "No", Value: "no"}}
		return reply, nil
	}
	return e.say(ctx, text, emit)
}

const echoCard = `{"type":"AdaptiveCard","version":"1.5","body":[{"type":"TextBlock","text":"A room in Rome","weight":"bolder","size":"medium","wrap":true},` +
	`{"type":"Input.Number","id":"nights","label":"How many nights?","min":1,"value":2}],"actions":[{"type":"Action.Submit","title":"Send"}]}`

// say tells a text word by word.
func (e Echo) say(ctx context.Context, text string, emit func(chat.Event)) (chat.Reply, error) {
	if text == "" {
		return chat.Reply{}, nil
	}
	for rest := text; rest != ""; {
		n := strings.IndexByte(rest, ' ') + 1
		if n == 0 {
			n = len(rest)
		}
		emit(chat.Event{Kind: chat.DeltaEvent, Text: rest[:n]})
		if rest = rest[n:]; rest != "" && e.Delay > 0 {
			select {
			case <-time.After(e.Delay):
			case <-ctx.Done():
				return textReply(text[:len(text)-len(rest)]), context.Cause(ctx)
			}
		}
	}
	return textReply(text), nil
}

func textReply(text string) chat.Reply {
	return chat.Reply{Messages: []chat.Message{{Kind: chat.Text, Text: text}}}
}
