package agent

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"chatkeep/handler/chat"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// activity is what a Copilot Studio agent says, as far as it is read. All that the agent sends is its own, whatever from.role says.
type activity struct {
	Type         string `json:"type"`
	ID           string `json:"id"`
	Text         string `json:"text"`
	Conversation struct {
		ID string `json:"id"`
	} `json:"conversation"`
	Attachments      []attachment `json:"attachments"`
	SuggestedActions struct {
		Actions []cardAction `json:"actions"`
	} `json:"suggestedActions"`
	Entities    []jsontext.Value `json:"entities"`    // objects of many kinds
	ChannelData jsontext.Value   `json:"channelData"` // anything
	Code        string           `json:"code"`        // of endOfConversation
}

type attachment struct {
	ContentType string         `json:"contentType"`
	Content     jsontext.Value `json:"content"`
}

type cardAction struct {
	Type  string         `json:"type"`
	Title string         `json:"title"`
	Value jsontext.Value `json:"value"`
	Text  string         `json:"text"`
}

// streamInfo says which text an activity is a piece of. It is an entity, or in an older form the channel's data.
type streamInfo struct {
	Type      string  `json:"type"`
	Kind      string  `json:"streamType"` // informative, streaming or final
	ID        string  `json:"streamId"`
	Sequence  float64 `json:"streamSequence"`
	ChunkType string  `json:"chunkType"`
}

// lenient reads what others write: a name that is given twice, and text that is not UTF-8, spoil nothing.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// stream returns the activity's streamInfo; Kind is empty when there is none.
func (a activity) stream() streamInfo {
	for _, entity := range a.Entities {
		var info streamInfo
		if json.Unmarshal(entity, &info, lenient) == nil && info.Type == "streaminfo" && info.Kind != "" {
			return info
		}
	}
	var info streamInfo
	if json.Unmarshal(a.ChannelData, &info, lenient) != nil {
		return streamInfo{}
	}
	return info
}

// Bounds of an answer, in bytes; chat.Reply has the same of a message.
const (
	maxMessageBytes = 1 << 20
	maxAnswerBytes  = 16 << 20
	maxMessages     = 1000
	maxTexts        = 16 // that grow at a time
	maxActions      = 20 // of a message
)

var errTooLong = errors.New("its answer is too long")

const adaptiveCard = "application/vnd.microsoft.card.adaptive"

// answer gathers what an agent says in a turn.
type answer struct {
	emit           func(chat.Event) // nil: nobody listens
	messages       []chat.Message
	texts          []*growing      // whose message has not come; the first is told
	closed         map[string]bool // texts whose message has come
	bytes          int             // of messages
	conversationID string          // the first that an activity has
	ended          string          // the code of the conversation's end, if there was one
	unread, hidden int             // frames that are no activity; parts that have no place in a message
}

// take reads an activity. Its error is final.
func (a *answer) take(text []byte) error {
	var said activity
	if isActivity := json.Unmarshal(text, &said, lenient) == nil; !isActivity {
		a.unread++
		return nil
	}
	a.conversationID = cmp.Or(a.conversationID, said.Conversation.ID)
	switch said.Type {
	case "message":
		return a.takeMessage(said)
	case "typing":
		return a.takeTyping(said)
	case "endOfConversation":
		a.ended = cmp.Or(said.Code, "unknown")
	}
	return nil
}

func (a *answer) takeTyping(said activity) error {
	info := said.stream()
	switch {
	case said.Text == "":
	case info.Kind == "informative":
		a.tell(chat.Event{Kind: chat.StatusEvent, Text: said.Text})
	case info.Kind == "streaming":
		key := cmp.Or(info.ID, said.ID)
		if a.closed[key] {
			return nil
		}
		text := a.text(key)
		if text == nil && len(a.texts) == maxTexts {
			a.hidden++
			return nil
		}
		if text == nil {
			text = &growing{key: key}
			a.texts = append(a.texts, text)
		}
		text.add(piece{info.Sequence, said.Text}, info.ChunkType == "delta")
		if len(text.whole) > maxMessageBytes {
			return errTooLong
		}
		a.tellText()
	}
	return nil
}

// takeMessage takes a message, which ends its text that was growing: it is the truth about it.
func (a *answer) takeMessage(said activity) error {
	if info := said.stream(); info.ID != "" {
		a.close(info.ID)
	} else if len(a.texts) > 0 {
		a.close(a.texts[0].key)
	}
	before := len(a.messages)
	if said.Text != "" {
		a.messages = append(a.messages, chat.Message{Kind: chat.Text, Text: clean(said.Text)})
		a.bytes += len(said.Text)
	}
	isTooLong := len(said.Text) > maxMessageBytes
	cards := 0
	for _, part := range said.Attachments {
		card, ok := part.card()
		if !ok {
			a.hidden++
			continue
		}
		cards++
		a.bytes += len(card)
		isTooLong = isTooLong || len(card) > maxMessageBytes
		a.messages = append(a.messages, chat.Message{Kind: chat.AdaptiveCard, CardJSON: card, CardID: cardID(said.ID, cards)})
	}
	if isTooLong || a.bytes > maxAnswerBytes || len(a.messages) > maxMessages || len(a.closed) > maxMessages {
		a.messages = a.messages[:before]
		return errTooLong
	}
	actions := a.suggested(said.SuggestedActions.Actions)
	switch {
	case len(a.messages) > before:
		a.messages[len(a.messages)-1].SuggestedActions = actions
	case len(actions) > 0 && before > 0:
		a.messages[before-1].SuggestedActions = actions // that came without a word
	default:
		a.hidden += len(actions)
	}
	a.tellText()
	return nil
}

// card returns an Adaptive Card, which may come as an object or as its text.
func (p attachment) card() (jsontext.Value, bool) {
	if p.ContentType != adaptiveCard {
		return nil, false
	}
	card := p.Content
	if card.Kind() == jsontext.KindString {
		var text string
		if err := json.Unmarshal(card, &text); err != nil {
			return nil, false
		}
		card = jsontext.Value(text)
	}
	return bytes.TrimSpace(card), card.Kind() == jsontext.KindBeginObject && card.IsValid()
}

// cardID names the nth card of an activity.
func cardID(activityID string, n int) string {
	if activityID == "" || n == 1 {
		return clean(activityID)
	}
	return clean(activityID) + "-" + strconv.Itoa(n)
}

// suggested are the actions that say something. The others, such as opening a page, are not for a conversation.
func (a *answer) suggested(actions []cardAction) []chat.SuggestedAction {
	var all []chat.SuggestedAction
	for _, action := range actions {
		var value string
		switch action.Type {
		case "imBack", "postBack":
			_ = json.Unmarshal(action.Value, &value) // an object is no text
		case "messageBack":
			if value = action.Text; value == "" {
				_ = json.Unmarshal(action.Value, &value)
			}
		}
		title := cmp.Or(action.Title, value)
		if value == "" || len(all) == maxActions {
			a.hidden++
			continue
		}
		all = append(all, chat.SuggestedAction{Title: clean(title), Value: clean(value)})
	}
	return all
}

// text finds a text that is growing, or nil.
func (a *answer) text(key string) *growing {
	for _, text := range a.texts {
		if text.key == key {
			return text
		}
	}
	return nil
}

func (a *answer) close(key string) {
	if a.closed == nil {
		a.closed = map[string]bool{}
	}
	a.closed[key] = true
	a.texts = slices.DeleteFunc(a.texts, func(text *growing) bool { return text.key == key })
}

func (a *answer) tell(e chat.Event) {
	if a.emit != nil {
		a.emit(e)
	}
}

// tellText tells what has come of the first text that is growing: it is the next message.
func (a *answer) tellText() {
	if len(a.texts) == 0 {
		return
	}
	if text := a.texts[0].news(len(a.messages)); text != "" {
		a.tell(chat.Event{Kind: chat.DeltaEvent, Index: len(a.messages), Text: text})
	}
}

// all are the messages, and the texts whose message has not come.
func (a *answer) all() []chat.Message {
	all := slices.Clone(a.messages)
	for _, text := range a.texts {
		if len(text.whole) > 0 {
			all = append(all, chat.Message{Kind: chat.Text, Text: clean(string(text.whole))})
		}
	}
	return all
}

// missed says how much was not understood, for the log; empty: nothing.
func (a *answer) missed() string {
	if a.unread == 0 && a.hidden == 0 {
		return ""
	}
	return fmt.Sprintf("%d frames, %d parts of messages", a.unread, a.hidden)
}

// clean is text as it can be stored.
func clean(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// growing is a text that comes in pieces. The pieces are deltas, or each is the whole text so far: some agents send those.
type growing struct {
	key      string
	pieces   []piece // in order
	isDeltas bool    // for sure
	isWholes bool    // for sure
	whole    []byte  // what the pieces come to
	index    int     // of the message as which it is told
	told     []byte  // of it
}

// piece is a part of a text, or all of it so far. Its sequence is 0 when it has none.
type piece struct {
	sequence float64
	text     string
}

// sureBytes of a text are not repeated by chance.
const sureBytes = 8

func (g *growing) add(p piece, isDelta bool) {
	at := len(g.pieces)
	for at > 0 && p.sequence > 0 && g.pieces[at-1].sequence > p.sequence {
		at--
	}
	g.pieces = slices.Insert(g.pieces, at, p)
	if g.isDeltas && at == len(g.pieces)-1 {
		g.whole = append(g.whole, p.text...)
		return
	}
	g.isDeltas = g.isDeltas || isDelta
	if !g.isDeltas && !g.isWholes && len(g.pieces) > 1 {
		g.isDeltas = !g.isRepeated()
		g.isWholes = !g.isDeltas && (len(g.pieces) > 2 || len(g.pieces[0].text) >= sureBytes)
	}
	g.whole = nil
	if !g.isDeltas {
		if g.isWholes {
			g.pieces = g.pieces[len(g.pieces)-1:]
		}
		g.whole = []byte(g.pieces[len(g.pieces)-1].text)
		return
	}
	for _, p := range g.pieces {
		g.whole = append(g.whole, p.text...)
	}
}

// isRepeated reports whether each piece begins with the one before, and goes on.
func (g *growing) isRepeated() bool {
	for i, p := range g.pieces[1:] {
		if p.text == g.pieces[i].text || !strings.HasPrefix(p.text, g.pieces[i].text) {
			return false
		}
	}
	return true
}

// news is what is to be told of the text as the message of an index. Of a text that was changed where it had been told there is no news: its
// message corrects it.
func (g *growing) news(index int) string {
	if index != g.index {
		g.index, g.told = index, nil
	}
	isSure := g.isDeltas || g.isWholes || len(g.pieces) == 1
	if !isSure || !bytes.HasPrefix(g.whole, g.told) {
		return ""
	}
	news := g.whole[len(g.told):]
	g.told = append(g.told, news...)
	return string(news)
}
