package chat_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// speaker answers by a function that says things meanwhile, and has no greeting.
type speaker func(ctx context.Context, q chat.Question, emit func(chat.Event)) (chat.Reply, error)

func (speaker) Open(context.Context, chat.Caller, string) (chat.Reply, error) {
	return chat.Reply{}, nil
}

func (f speaker) Answer(ctx context.Context, _ chat.Caller, q chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	return f(ctx, q, emit)
}

func delta(index int, text string) chat.Event {
	return chat.Event{Kind: chat.DeltaEvent, Index: index, Text: text}
}

// counter says as many words as the question says, a second apart, and answers with them. When it is stopped it returns no reply.
var counter = speaker(func(ctx context.Context, q chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	var n int
	if _, err := fmt.Sscan(q.Message.Text, &n); err != nil {
		return chat.Reply{}, err
	}
	var said strings.Builder
	for i := range n {
		word := fmt.Sprintf("%d ", i+1)
		emit(delta(0, word))
		said.WriteString(word)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return chat.Reply{}, ctx.Err()
		}
	}
	return saying(said.String()), nil
})

// tell begins a streamed turn.
func tell(t *testing.T, s *chat.Service, id string, in chat.Input) *chat.Stream {
	t.Helper()
	stream, err := s.Tell(t.Context(), alice, id, in)
	require.NoError(t, err)
	return stream
}

// open opens a stream after an event; the zero id is none.
func open(t *testing.T, s *chat.Service, id string, after chat.EventID, follow bool) *chat.Stream {
	t.Helper()
	var at *chat.EventID
	if after != (chat.EventID{}) {
		at = &after
	}
	stream, err := s.Stream(t.Context(), alice.Owner, id, at, follow)
	require.NoError(t, err)
	return stream
}

// left are events that take has read and not returned, by their stream: those that happen at one moment come together.
var left sync.Map

func leftOf(stream *chat.Stream) []chat.StreamEvent {
	events, _ := left.LoadAndDelete(stream)
	all, _ := events.([]chat.StreamEvent)
	return all
}

// take returns the next n events of a stream.
func take(t *testing.T, stream *chat.Stream, n int) []chat.StreamEvent {
	t.Helper()
	all := leftOf(stream)
	for len(all) < n {
		events, err := stream.Next(t.Context())
		require.NoError(t, err)
		all = append(all, events...)
	}
	if len(all) > n {
		left.Store(stream, all[n:])
	}
	return all[:n:n]
}

// rest returns all events of a stream that ends.
func rest(stream *chat.Stream) ([]chat.StreamEvent, error) {
	defer stream.Close()
	all := leftOf(stream)
	for {
		events, err := stream.Next(context.Background())
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, events...)
	}
}

func restOf(t *testing.T, stream *chat.Stream) []chat.StreamEvent {
	t.Helper()
	all, err := rest(stream)
	require.NoError(t, err)
	return all
}

// shown is an event as a test names it: what readers get but for ids and times.
func shown(events []chat.StreamEvent) []string {
	text := func(m chat.StoredMessage) string {
		message, err := m.Message()
		if err != nil {
			panic(err)
		}
		return fmt.Sprintf("%s %s", message.Text, m.State)
	}
	var all []string
	for _, e := range events {
		var what string
		switch {
		case e.Message != nil:
			what = text(*e.Message)
		case e.Sent != nil:
			what = text(e.Sent.Message)
			for _, reply := range e.Sent.Replies {
				what += ", " + text(reply)
			}
		case e.Err != nil:
			what = e.Err.Error()
		case e.Actions != nil:
			what = fmt.Sprint(e.Actions)
		default:
			what = e.Text
		}
		all = append(all, fmt.Sprintf("%s: %s", e.Kind, what))
	}
	return all
}

// ordered checks the ids of one turn's events.
func ordered(t *testing.T, events []chat.StreamEvent) {
	t.Helper()
	for i, e := range events {
		require.Positive(t, e.ID.N)
		if i > 0 {
			require.Negative(t, events[i-1].ID.Compare(e.ID), "%s, then %s", events[i-1].ID, e.ID)
		}
	}
}

func TestEventIDs(t *testing.T) {
	for _, text := range []string{"1-1", "12-345", "999999999999999-999999999999999"} {
		id, ok := chat.ParseEventID(text)
		require.True(t, ok)
		require.Equal(t, text, id.String())
	}
	for _, text := range []string{"", "1", "1-", "-1", "0-1", "1-0", "01-1", "1-1 ", "1-1-1", "+1-1", "1-1000000000000000", "a-b", "1–1"} {
		_, ok := chat.ParseEventID(text)
		require.False(t, ok, text)
	}
	require.Negative(t, chat.EventID{Seq: 1, N: 9}.Compare(chat.EventID{Seq: 2, N: 1}))
	require.Positive(t, chat.EventID{Seq: 2, N: 10}.Compare(chat.EventID{Seq: 2, N: 9}))
}

func TestAStreamTellsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		actions := []chat.SuggestedAction{{Title: "Yes", Value: "yes"}}
		s := serve(t, store.NewMemory(limits), speaker(func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
			emit(chat.Event{Kind: chat.StatusEvent, Text: "thinking"})
			for _, event := range []chat.Event{delta(0, "one "), delta(0, "two "), delta(0, "three"), delta(2, "four")} {
				time.Sleep(time.Second)
				emit(event)
			}
			time.Sleep(time.Second)
			return chat.Reply{Messages: []chat.Message{
				{Kind: chat.Text, Text: "one two three"},
				{Kind: chat.AdaptiveCard, CardJSON: []byte(`{"type":"AdaptiveCard"}`), CardID: "c1"},
				{Kind: chat.Text, Text: "four", SuggestedActions: actions},
			}}, nil
		}))
		id := start(t, s)
		events := restOf(t, tell(t, s, id, keyed("key", "go")))
		require.Equal(t, []string{
			"message.accepted: go pending", "status: thinking", "delta: one ", "delta: two ", "delta: three", "delta: four",
			"message: one two three complete", "card:  complete", "message: four complete", "suggested: [{Yes yes}]",
			"done: go complete, one two three complete,  complete, four complete",
		}, shown(events))
		ordered(t, events)
		require.Equal(t, chat.EventID{Seq: 1, N: 1}, events[0].ID)
		_, messages, err := s.Get(t.Context(), alice.Owner, id, chat.Page{Limit: 10})
		require.NoError(t, err)
		for i, at := range []int{6, 7, 8} {
			require.Equal(t, messages[1+i], *events[at].Message, "not as it is stored")
		}
		first, last := read(t, messages[1]).ID, read(t, messages[3]).ID
		for i, want := range map[int]string{0: first, 2: first, 3: first, 4: first, 5: last, 9: last} {
			require.Equal(t, want, events[i].MessageID, "%d", i)
		}
		sent, err := s.Send(t.Context(), alice, id, keyed("key", "go"))
		require.NoError(t, err)
		sent.Replayed = false
		require.Equal(t, sent, *events[10].Sent, "not what an unstreamed send returns")
	})
}

// Whoever reads a turn gets the same events under the same ids: from the process that runs it and from another, while it runs and afterwards,
// from its beginning and from any of its events.
func TestAllReadersGetTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		here, there := serve(t, memory, counter), serve(t, memory, counter)
		id := start(t, here)
		sender := tell(t, here, id, keyed("key", "5"))
		var all sync.WaitGroup
		got := make(map[string][]chat.StreamEvent)
		var mu sync.Mutex
		readAll := func(name string, stream *chat.Stream) {
			all.Go(func() {
				events, err := rest(stream)
				assert.NoError(t, err)
				mu.Lock()
				defer mu.Unlock()
				got[name] = events
			})
		}
		time.Sleep(2500 * time.Millisecond)
		for name, s := range map[string]*chat.Service{"here": here, "there": there} {
			readAll(name+", resumed", open(t, s, id, chat.EventID{}, false))
			readAll(name+", repeated", tell(t, s, id, keyed("key", "5")))
			readAll(name+", resumed by another", open(t, s, id, chat.EventID{Seq: 1, N: 3}, false))
		}
		events := restOf(t, sender)
		require.Len(t, events, 8)
		all.Wait()
		for _, s := range []*chat.Service{here, there} {
			for i := range events[:7] {
				require.Equal(t, events[i+1:], restOf(t, open(t, s, id, events[i].ID, false)), "after %s", events[i].ID)
			}
			_, err := s.Stream(t.Context(), alice.Owner, id, &events[7].ID, false)
			require.ErrorIs(t, err, chat.ErrNothing)
			_, err = s.Stream(t.Context(), alice.Owner, id, nil, false)
			require.ErrorIs(t, err, chat.ErrNothing)
			again := tell(t, s, id, keyed("key", "5"))
			require.True(t, again.Replayed)
			require.Equal(t, events, restOf(t, again))
		}
		for name, mine := range got {
			want := events
			if strings.HasSuffix(name, "another") {
				want = events[3:]
			}
			require.Equal(t, want, mine, name)
		}
		require.Equal(t, []string{"user 5 complete", "assistant 1 2 3 4 5  complete"}, history(t, here, id))
	})
}

func TestAnEventThatIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, store.NewMemory(limits), counter)
		id := start(t, s)
		var turns [3][]chat.StreamEvent
		for i, text := range []string{"1", "2", "3"} {
			turns[i] = restOf(t, tell(t, s, id, say(text)))
		}
		unknown := []chat.EventID{{Seq: 2, N: 1}, {Seq: 6, N: 2}, {Seq: 5, N: 20_001}, {Seq: 7, N: 1}}
		for _, after := range append(unknown, turns[0][3].ID, turns[2][5].ID) {
			_, err := s.Stream(t.Context(), alice.Owner, id, &after, false)
			require.ErrorIs(t, err, chat.ErrNothing, after.String())
		}
		stream := tell(t, s, id, say("2"))
		take(t, stream, 2)
		for _, after := range append(unknown[:2], chat.EventID{Seq: 7, N: 99}, chat.EventID{Seq: 7, N: 19_999}) {
			_, err := s.Stream(t.Context(), alice.Owner, id, &after, false)
			require.ErrorIs(t, err, chat.ErrNothing, after.String())
		}
		last := append(restOf(t, open(t, s, id, turns[0][3].ID, false)), restOf(t, stream)...)
		require.Equal(t, "message.accepted: 2 pending", shown(last)[0], "a turn that runs follows one that was told")
		_, err := s.Stream(t.Context(), alice.Owner, "01890a5d-ac96-774b-bcce-b302099a8057", nil, true)
		require.ErrorIs(t, err, chat.ErrNotFound)
	})
}

// When the log is gone, what is stored is told, under the same ids.
func TestATurnIsToldWithoutItsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, store.NewMemory(limits), counter)
		id := start(t, s)
		events := restOf(t, tell(t, s, id, keyed("key", "2")))
		next := restOf(t, tell(t, s, id, say("1")))
		time.Sleep(chat.LogTime + 6*time.Minute)
		want := []chat.StreamEvent{events[0], events[3], events[4]}
		require.Equal(t, []string{"message.accepted: 2 pending", "message: 1 2  complete", "done: 2 complete, 1 2  complete"}, shown(want))
		require.Equal(t, want, restOf(t, tell(t, s, id, keyed("key", "2"))))
		require.Equal(t, want[1:], restOf(t, open(t, s, id, events[1].ID, false)))
		follower := open(t, s, id, events[1].ID, true)
		require.Equal(t, append(want[1:], next[0], next[2], next[3]), take(t, follower, 5))
		follower.Close()
		_, err := s.Tell(t.Context(), alice, id, keyed("key", "3"))
		require.ErrorIs(t, err, chat.ErrKeyReused)
	})
}

func TestFollowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		here, there := serve(t, memory, counter), serve(t, memory, counter)
		id := start(t, here)
		restOf(t, tell(t, here, id, say("1")))
		var all sync.WaitGroup
		var got [2][]chat.StreamEvent
		for i, s := range []*chat.Service{here, there} {
			stream := open(t, s, id, chat.EventID{}, true)
			all.Go(func() {
				events, err := rest(stream)
				assert.NoError(t, err)
				got[i] = events
			})
		}
		time.Sleep(time.Hour / 2)
		var want []chat.StreamEvent
		for _, s := range []*chat.Service{here, there, there, here} {
			want = append(want, restOf(t, tell(t, s, id, say("3")))...)
		}
		time.Sleep(time.Second)
		here.EndStreams()
		there.EndStreams()
		all.Wait()
		require.Equal(t, want, got[0])
		require.Equal(t, want, got[1])
	})
}

// A stream that comes again with its last event misses nothing.
func TestFollowingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		here, there := serve(t, memory, counter), serve(t, memory, counter)
		id := start(t, here)
		first := restOf(t, tell(t, here, id, say("2")))
		for _, s := range []*chat.Service{here, there} {
			second := restOf(t, tell(t, here, id, say("2")))
			stream := open(t, s, id, first[2].ID, true)
			require.Equal(t, append(first[3:], second...), take(t, stream, len(first)-3+len(second)))
			stream.Close()
			ahead := open(t, s, id, chat.EventID{Seq: 99, N: 1}, true)
			third := restOf(t, tell(t, here, id, say("1")))
			require.Equal(t, third, take(t, ahead, len(third)), "an id of a time to come hides what comes")
			ahead.Close()
			first = third
		}
	})
}

func TestATurnWhoseProcessDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		s := serve(t, memory, counter)
		id := start(t, s)
		_, err := memory.Begin(t.Context(), alice.Owner, id, theirs())
		require.NoError(t, err)
		_, err = memory.Append(t.Context(), alice.Owner, id, chat.Append{Token: "theirs", Lease: settings.TurnLease, Entries: []chat.Entry{
			{ID: chat.EventID{Seq: 1, N: 2}, Kind: chat.DeltaEvent, Text: "half", MessageID: "x"},
		}})
		require.NoError(t, err)
		began := time.Now()
		events := restOf(t, open(t, s, id, chat.EventID{}, false))
		require.Equal(t, []string{"message.accepted: theirs pending", "delta: half", "error: turn_lost"}, shown(events))
		require.InDelta(t, settings.TurnLease.Seconds(), time.Since(began).Seconds(), 0.6)
		ordered(t, events)
		_, err = s.Stream(t.Context(), alice.Owner, id, &events[2].ID, false)
		require.ErrorIs(t, err, chat.ErrNothing)
		follower := open(t, s, id, events[1].ID, true)
		next := restOf(t, tell(t, s, id, say("1")))
		require.Equal(t, append(events[2:], next...), take(t, follower, 1+len(next)))
		follower.Close()
	})
}

func TestCancelling(t *testing.T) {
	for name, elsewhere := range map[string]bool{"in the same process": false, "in another": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := store.NewMemory(limits)
				here := serve(t, memory, counter)
				by := here
				if elsewhere {
					by = serve(t, memory, counter)
				}
				id := start(t, here)
				cancel := func(messageID *string, key string) bool {
					cancelled, err := by.Cancel(t.Context(), alice.Owner, id, messageID, key)
					require.NoError(t, err)
					return cancelled
				}
				require.False(t, cancel(nil, ""), "nothing runs")
				stream := tell(t, here, id, keyed("key", "100"))
				var sent chat.Sent
				var waiting sync.WaitGroup
				waiting.Go(func() {
					var err error
					sent, err = here.Send(t.Context(), alice, id, keyed("key", "100"))
					assert.NoError(t, err)
				})
				begun, err := stream.Next(t.Context()) // with the first delta, or before it
				require.NoError(t, err)
				question := read(t, *begun[0].Message)
				time.Sleep(3500 * time.Millisecond)
				require.False(t, cancel(new("01890a5d-ac96-774b-bcce-b302099a8057"), ""), "another message's turn")
				asked := time.Now()
				require.True(t, cancel(&question.ID, "call"))
				require.False(t, cancel(nil, ""))
				events := slices.Concat(begun[1:], restOf(t, stream))
				said, want := "1 2 3 4 ", []string{"delta: 1 ", "delta: 2 ", "delta: 3 ", "delta: 4 "}
				if elsewhere {
					require.LessOrEqual(t, time.Since(asked), time.Second)
					said, want = said+"5 ", append(want, "delta: 5 ")
				} else {
					require.LessOrEqual(t, time.Since(asked), 50*time.Millisecond)
				}
				require.Equal(t, append(want, "message: "+said+" partial", "done: 100 cancelled, "+said+" partial"), shown(events))
				last := len(events) - 1
				require.Equal(t, events[0].MessageID, read(t, *events[last-1].Message).ID)
				require.True(t, cancel(nil, "call"), "the same call")
				require.False(t, cancel(nil, ""), "nothing runs any more")
				waiting.Wait()
				require.True(t, sent.Replayed)
				sent.Replayed = false
				require.Equal(t, sent, *events[last].Sent)
				require.Equal(t, []string{"user 100 cancelled", "assistant " + said + " partial"}, history(t, here, id))

				next := restOf(t, tell(t, here, id, say("1")))
				require.Equal(t, "done: 1 complete, 1  complete", shown(next)[len(next)-1])
				require.False(t, cancel(nil, "call"), "a newer turn")
			})
		})
	}
}

// A cancellation that was acknowledged a moment before the answer was stored counts.
func TestACancellationAtTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		var id string
		var once sync.Once
		s := serve(t, &between{Store: memory, before: func(ctx context.Context, call string) error {
			if call == "finish" {
				once.Do(func() {
					cancelled, err := memory.Cancel(ctx, alice.Owner, id, chat.Cancellation{Token: "x"})
					assert.NoError(t, err)
					assert.True(t, cancelled)
				})
			}
			return nil
		}}, counter)
		id = start(t, s)
		sent, err := s.Send(t.Context(), alice, id, say("2"))
		require.NoError(t, err)
		require.Equal(t, chat.Cancelled, sent.Message.State)
		require.Equal(t, []string{"user 2 cancelled", "assistant 1 2  partial"}, history(t, s, id))
	})
}

// What had arrived when a turn failed is kept: what the agent returned, or what it said.
func TestWhatHadArrivedIsKept(t *testing.T) {
	cannot := errors.New("cannot")
	for name, c := range map[string]struct {
		answer speaker
		want   []string
	}{
		"what the agent returned": {func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
			emit(delta(0, "said"))
			return saying("returned", "both"), cannot
		}, []string{"assistant returned partial", "assistant both partial"}},
		"what it said": {func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
			emit(delta(0, "a"))
			emit(delta(0, "b"))
			emit(delta(2, "c"))
			return chat.Reply{}, cannot
		}, []string{"assistant ab partial", "assistant c partial"}},
		"what it said before it panicked": {func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
			emit(delta(0, "a"))
			panic("bug")
		}, []string{"assistant a partial"}},
		"what it said before an ill-formed answer": {func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
			emit(delta(0, "a"))
			return saying("\xff"), nil
		}, []string{"assistant a partial"}},
		"what it said in ill-formed characters": {func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
			emit(delta(0, "\xe2\x82"))
			emit(delta(0, "\xac\x00\xff"))
			emit(delta(0, "\xe2"))
			return chat.Reply{}, cannot
		}, []string{"assistant €\uFFFD\uFFFD\uFFFD partial"}},
		"nothing": {func(context.Context, chat.Question, func(chat.Event)) (chat.Reply, error) {
			return chat.Reply{}, cannot
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, store.NewMemory(limits), c.answer)
			id := start(t, s)
			stream := restOf(t, tell(t, s, id, keyed("key", "go")))
			require.Equal(t, chat.ErrorEvent, stream[len(stream)-1].Kind)
			require.ErrorIs(t, stream[len(stream)-1].Err, chat.ErrAgentFailed)
			require.Equal(t, append([]string{"user go failed"}, c.want...), history(t, s, id))
			_, err := s.Send(t.Context(), alice, id, keyed("key", "go"))
			require.ErrorIs(t, err, chat.ErrAgentFailed)
			again := restOf(t, tell(t, s, id, keyed("key", "go")))
			require.Equal(t, shown(stream[:len(stream)-1]), shown(again[:len(again)-1]))
		})
	}
}

// Deltas are told in whole characters, however the agent cuts them.
func TestHalfCharacters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := "a€😀é\u0301 end"
		s := serve(t, store.NewMemory(limits), speaker(func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
			for i := range len(text) {
				emit(delta(0, text[i:i+1]))
				time.Sleep(time.Second)
			}
			return saying(text), nil
		}))
		var joined strings.Builder
		for _, e := range restOf(t, tell(t, s, start(t, s), say("go"))) {
			if e.Kind == chat.DeltaEvent {
				require.NotContains(t, e.Text, "\uFFFD")
				joined.WriteString(e.Text)
			}
		}
		require.Equal(t, text, joined.String())
	})
}

// What is said within 30 ms is one event, and what is said first is told at once.
func TestDeltasAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		between := &between{Store: store.NewMemory(limits)}
		s := serve(t, between, speaker(func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
			for range 100 {
				emit(delta(0, "x"))
				time.Sleep(3 * time.Millisecond)
			}
			return saying(strings.Repeat("x", 100)), nil
		}))
		id := start(t, s)
		stream := tell(t, s, id, say("go"))
		began := time.Now()
		take(t, stream, 2)
		require.Zero(t, time.Since(began), "the first was held back")
		events := restOf(t, stream)
		require.InDelta(t, 10, between.count("append"), 1, "one in 30 ms")
		require.InDelta(t, 12, len(events), 2)

		before := between.count("append")
		_, err := s.Send(t.Context(), alice, id, say("go"))
		require.NoError(t, err)
		require.InDelta(t, 10, between.count("append")-before, 1)
	})
}

// A turn that nobody reads and that is soon over costs what it did without a log.
func TestAShortAnswerIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		between := &between{Store: store.NewMemory(limits)}
		s := serve(t, between, speaker(func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
			emit(delta(0, "x"))
			return saying("x"), nil
		}))
		id := start(t, s)
		_, err := s.Send(t.Context(), alice, id, say("go"))
		require.NoError(t, err)
		require.Zero(t, between.count("append"))
		require.Empty(t, between.finished.Entries)
		events := restOf(t, tell(t, s, id, say("go")))
		require.Equal(t, []string{"message.accepted: go pending", "delta: x", "message: x complete", "done: go complete, x complete"}, shown(events))
	})
}

// Past the bounds of a turn its deltas are dropped for everybody alike, and nothing else.
func TestATurnTellsSoMuch(t *testing.T) {
	for name, say1 := range map[string]func(emit func(chat.Event)){
		"bytes":   func(emit func(chat.Event)) { emit(delta(0, strings.Repeat("x", 30_000))) },
		"entries": func(emit func(chat.Event)) { emit(chat.Event{Kind: chat.StatusEvent, Text: "x"}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := store.NewMemory(limits)
				here := serve(t, memory, speaker(func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
					for i := range 9000 {
						say1(emit)
						if i%100 == 0 {
							time.Sleep(time.Second)
						}
					}
					return saying("the end"), nil
				}))
				there := serve(t, memory, counter)
				id := start(t, here)
				stream := tell(t, here, id, say("go"))
				take(t, stream, 1)
				var elsewhere []chat.StreamEvent
				var all sync.WaitGroup
				other := open(t, there, id, chat.EventID{}, false)
				all.Go(func() { elsewhere, _ = rest(other) })
				events := restOf(t, stream)
				all.Wait()
				require.Equal(t, events, elsewhere[1:])
				last := shown(events[len(events)-2:])
				require.Equal(t, []string{"message: the end complete", "done: go complete, the end complete"}, last)
				bytes := 0
				for _, e := range events {
					bytes += len(e.Text) + chat.EntryBytes
				}
				require.LessOrEqual(t, bytes, 1<<20+1000)
				require.LessOrEqual(t, len(events), 8192+2)
				require.Greater(t, max(bytes, len(events)*(1<<20)/8192), 1<<20-40_000, "it tells too little")
			})
		})
	}
}

// Nobody sees what is not in the log; when the store cannot be reached for a while, it is told later.
func TestNothingIsToldThatIsNotInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		var down sync.Map
		s := serve(t, &between{Store: memory,
			before: func(context.Context, string) error {
				if _, is := down.Load("before"); is {
					return chat.ErrUnavailable
				}
				return nil
			},
			after: func(_ context.Context, call string) error {
				if _, is := down.Load("after"); is && call == "append" {
					return chat.ErrUnavailable
				}
				return nil
			},
		}, counter)
		id := start(t, s)
		stream := tell(t, s, id, say("9"))
		seen := take(t, stream, 2)
		for _, how := range []string{"before", "after"} {
			down.Store(how, true)
			ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
			_, err := stream.Next(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded, "it tells what may not be in the log")
			down.Delete(how)
			events, err := stream.Next(t.Context())
			require.NoError(t, err)
			seen = append(seen, events...)
		}
		seen = append(seen, restOf(t, stream)...)
		require.Equal(t, seen[1:], restOf(t, open(t, s, id, seen[0].ID, false)))
		require.Equal(t, "done: 9 complete, 1 2 3 4 5 6 7 8 9  complete", shown(seen)[len(seen)-1])
	})
}

// Hanging up stops nothing, and a reader that is slow misses nothing.
func TestReadersDoNotMatter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, store.NewMemory(limits), counter)
		id := start(t, s)
		ctx, hangUp := context.WithCancel(t.Context())
		stream, err := s.Tell(ctx, alice, id, say("5"))
		require.NoError(t, err)
		_, err = stream.Next(ctx)
		require.NoError(t, err)
		hangUp()
		stream.Close()
		slow := open(t, s, id, chat.EventID{}, false)
		time.Sleep(time.Minute)
		events := restOf(t, slow)
		require.Len(t, events, 8)
		require.Equal(t, []string{"user 5 complete", "assistant 1 2 3 4 5  complete"}, history(t, s, id))
	})
}

func TestAStreamedSendIsRefusedAsAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, store.NewMemory(limits), counter)
		id := start(t, s)
		stream := tell(t, s, id, keyed("key", "30"))
		_, err := s.Tell(t.Context(), alice, id, say("1"))
		isBusy(t, err)
		_, err = s.Tell(t.Context(), alice, "nonsense", chat.Input{})
		_, isInvalid := errors.AsType[*chat.InvalidError](err)
		require.True(t, isInvalid)
		_, err = s.Tell(t.Context(), alice, id, keyed("key", "31"))
		require.ErrorIs(t, err, chat.ErrKeyReused)
		require.Len(t, restOf(t, stream), 33)
	})
}

// Two requests that are the same, and find another turn running, share one turn.
func TestADoubleClickSharesATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		here, there := serve(t, memory, counter), serve(t, memory, counter)
		id := start(t, here)
		first := tell(t, here, id, say("5"))
		var got [3][]chat.StreamEvent
		var all sync.WaitGroup
		for i, s := range []*chat.Service{here, here, there} {
			all.Go(func() {
				stream, err := s.Tell(t.Context(), alice, id, keyed("key", "3"))
				if assert.NoError(t, err) {
					got[i], err = rest(stream)
					assert.NoError(t, err)
				}
			})
		}
		restOf(t, first)
		all.Wait()
		require.Len(t, got[0], 6)
		require.Equal(t, got[0], got[1])
		require.Equal(t, got[0], got[2])
	})
}
