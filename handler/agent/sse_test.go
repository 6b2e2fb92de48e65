package agent

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

// eventsOf are the events of a stream, a name and data each, and how it ends.
func eventsOf(body io.Reader) (all []string, err error) {
	all = []string{}
	for events := newEventReader(body); ; {
		name, data, err := events.next()
		if err != nil {
			return all, err
		}
		all = append(all, name+"|"+string(data))
	}
}

// eventStreams are streams with their events, by the HTML standard but for one thing: a name alone makes an event.
var eventStreams = map[string]struct {
	stream string
	want   []string
}{
	"one":                         {"data: a\n\n", []string{"|a"}},
	"CRLF":                        {"event: x\r\ndata: a\r\n\r\n", []string{"x|a"}},
	"CR":                          {"event: x\rdata: a\r\rdata: b\r\r", []string{"x|a", "|b"}},
	"all three":                   {"data: a\r\ndata: b\rdata: c\n\r", []string{"|a\nb\nc"}},
	"an LF of its own after CRLF": {"data: a\r\n\ndata: b\n\n", []string{"|a", "|b"}},
	"a mark before":               {"\ufeffdata: a\n\n", []string{"|a"}},
	"a mark before nothing":       {"\ufeff\n\ndata: a\n\n", []string{"|a"}},
	"a mark later":                {"data: a\n\n\ufeffdata: b\n\n", []string{"|a"}},
	"two marks":                   {"\ufeff\ufeffdata: a\n\n", []string{}},
	"comments":                    {": hb\n\n:\ndata: a\n: more\ndata: b\n\n", []string{"|a\nb"}},
	"one space":                   {"data:  a\n\ndata:b\n\n", []string{"| a", "|b"}},
	"empty data":                  {"data\n\ndata\ndata\n\ndata:", []string{"|", "|\n"}},
	"a name without data":         {"event: x\n\ndata: a\n\n", []string{"x|", "|a"}},
	"the last name":               {"event: x\nevent: y\ndata: a\n\n", []string{"y|a"}},
	"a name of one event":         {"event: x\ndata: a\n\ndata: b\n\n", []string{"x|a", "|b"}},
	"other fields":                {"id: 1\nretry: 5\nDATA: x\n data: y\ndata: a:b\n\n", []string{"|a:b"}},
	"not ended":                   {"data: a\n\ndata: b\n", []string{"|a"}},
	"nothing":                     {"", []string{}},
	"long":                        {"data: " + strings.Repeat("é", 40_000) + "\n\n", []string{"|" + strings.Repeat("é", 40_000)}},
}

func TestStreamsAreReadAsTheStandardSays(t *testing.T) {
	for name, row := range eventStreams {
		got, err := eventsOf(strings.NewReader(row.stream))
		require.Equal(t, io.EOF, err, name)
		require.Equal(t, row.want, got, name)
	}
}

// pieces read a text in pieces of some bytes.
type pieces struct {
	text []byte
	rand *rand.Rand
}

func (p *pieces) Read(into []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	n := copy(into[:min(len(into), 1+p.rand.IntN(9))], p.text)
	p.text = p.text[n:]
	return n, nil
}

// However a stream is cut into pieces, its events are the same.
func TestEventsDoNotDependOnPieces(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	words := []string{"data: ", "data", "event: x", "é", ":", " ", "\n", "\r", "\r\n", "\n\n", "\r\r", "id: 1", "\ufeff", "\xff"}
	for range 2000 {
		var text []byte
		for range random.IntN(40) {
			text = append(text, words[random.IntN(len(words))]...)
		}
		requireSameEvents(t, text, random)
	}
}

func requireSameEvents(t *testing.T, text []byte, random *rand.Rand) {
	t.Helper()
	want, err := eventsOf(bytes.NewReader(text))
	require.Equal(t, io.EOF, err)
	for _, body := range []io.Reader{&pieces{text, random}, iotest.OneByteReader(bytes.NewReader(text)), iotest.DataErrReader(bytes.NewReader(text))} {
		got, err := eventsOf(body)
		require.Equal(t, io.EOF, err)
		require.Equal(t, want, got, "%q", text)
	}
	for _, event := range want {
		name, data, _ := strings.Cut(event, "|")
		require.NotContains(t, name, "\n")
		require.NotContains(t, data, "\r")
	}
}

func FuzzEvents(f *testing.F) {
	for _, row := range eventStreams {
		if len(row.stream) < 1000 {
			f.Add([]byte(row.stream), uint64(1))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		requireSameEvents(t, text, rand.New(rand.NewPCG(seed, seed)))
	})
}

// An event is there with the first byte of the empty line that ends it: a CR waits for no LF.
func TestAnEventWaitsForNothing(t *testing.T) {
	for _, end := range []string{"\n\n", "\r\r", "\r\n\r"} {
		events := newEventReader(io.MultiReader(strings.NewReader("data: a"+end), iotest.ErrReader(errors.New("nothing more yet"))))
		_, data, err := events.next()
		require.NoError(t, err)
		require.Equal(t, "a", string(data))
	}
}

func TestALineMayHave4MiB(t *testing.T) {
	most := "data: " + strings.Repeat("a", maxLine-len("data: "))
	for name, row := range map[string]struct {
		stream string
		events int
		want   error
	}{
		"the longest line":   {most + "\n\n", 1, io.EOF},
		"two of them":        {strings.Repeat(most+"\n\n", 2), 2, io.EOF},
		"a longer one":       {most + "a\n\n", 0, errLine},
		"one without end":    {most + strings.Repeat("a", maxLine), 0, errLine},
		"a long comment":     {":" + most + "\n\n", 0, errLine},
		"long in many lines": {strings.Repeat("data: "+strings.Repeat("a", 1<<20)+"\n", 5), 0, errLine},
	} {
		events, err := eventsOf(strings.NewReader(row.stream))
		require.Equal(t, row.want, err, name)
		require.Len(t, events, row.events, name)
	}
}

// A stream that is cut, at whichever byte and with or without a word, gives the events that were whole, and is no whole answer: what had come is a
// beginning of the answer, and kept.
func TestAStreamThatIsCutAnywhere(t *testing.T) {
	const hello = "Hello «wörld»"
	typing := `event: activity` + "\r\n" + `data: {"type":"typing","text":"%","channelData":{"streamType":"streaming","streamSequence":1,"streamId":"s"}}` + "\r\n\r\n"
	for name, row := range map[string]struct {
		stream string
		read   func(io.Reader) (chat.Reply, error)
	}{
		"chat": {
			": x\n\n" + chunk("Hello ") + chunk("«wörld»") + "data: [DONE]\n\n",
			func(body io.Reader) (chat.Reply, error) {
				o, text := NewOpenAI(OpenAIConfig{}, quick), modelText{emit: func(chat.Event) {}}
				err := o.read(t.Context(), body, &text)
				return text.reply(), err
			},
		},
		"responses": {
			"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\ndata: \"delta\":\"Hello \"}\n\n" +
				"data: {\"type\":\"response.output_text.delta\",\"delta\":\"«wörld»\"}\n\ndata: {\"type\":\"response.completed\"}\n\n",
			func(body io.Reader) (chat.Reply, error) {
				o, text := NewOpenAI(OpenAIConfig{Responses: true}, quick), modelText{emit: func(chat.Event) {}}
				err := o.read(t.Context(), body, &text)
				return text.reply(), err
			},
		},
		"copilot studio": {
			strings.Replace(typing, "%", "Hello ", 1) + "event: activity\r\ndata: {\"type\":\"message\",\"text\":\"Hello «wörld»\"}\r\n\r\nevent: end\r\ndata: end\r\n\r\n",
			func(body io.Reader) (chat.Reply, error) {
				c, a := NewCopilotStudio(CopilotStudioEndpoint{}, nil, quick, slog.New(slog.DiscardHandler)), answer{emit: func(chat.Event) {}}
				err := c.takeStream(t.Context(), body, &a)
				return chat.Reply{Messages: a.all()}, err
			},
		},
	} {
		whole, err := eventsOf(strings.NewReader(row.stream))
		require.Equal(t, io.EOF, err)
		longest := ""
		for n := range len(row.stream) - 1 {
			for _, how := range []error{io.EOF, io.ErrUnexpectedEOF, errors.New("reset")} {
				events, err := eventsOf(io.MultiReader(strings.NewReader(row.stream[:n]), iotest.ErrReader(how)))
				require.Equal(t, how, err)
				require.Equal(t, whole[:len(events)], events)
				reply, err := row.read(io.MultiReader(strings.NewReader(row.stream[:n]), iotest.ErrReader(how)))
				require.ErrorIs(t, err, chat.ErrAgentFailed, "%s: %q", name, row.stream[:n])
				var said strings.Builder
				for _, m := range reply.Messages {
					said.WriteString(m.Text)
				}
				require.True(t, strings.HasPrefix(hello, said.String()) && len(said.String()) >= len(longest), "%s: %q", name, said.String())
				longest = said.String()
			}
		}
		require.Equal(t, hello, longest, name)
		_, err = row.read(strings.NewReader(row.stream))
		require.NoError(t, err, name)
	}
}
