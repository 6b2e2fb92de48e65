package chat_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Streams of a turn of another process are served by one reader of its log, which looks seldom when nothing happens.
func TestOneLooksForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		between := &between{Store: memory}
		here, there := serve(t, memory, counter), serve(t, between, counter)
		id := start(t, here)
		turn := tell(t, here, id, say("20"))
		var all sync.WaitGroup
		var got [20][]chat.StreamEvent
		for i := range got {
			stream := open(t, there, id, chat.EventID{}, false)
			all.Go(func() {
				var err error
				got[i], err = rest(stream)
				assert.NoError(t, err)
			})
		}
		opened := between.count("events")
		want := restOf(t, turn)
		all.Wait()
		for i := range got {
			require.Equal(t, want, got[i])
		}
		looks := between.count("events") - opened
		t.Logf("%d looks in 20 s", looks)
		require.Less(t, looks, 20*9, "a word a second is 6 pauses from 30 to 500 ms")

		var idle sync.WaitGroup
		var streams [20]*chat.Stream
		for i := range streams {
			streams[i] = open(t, there, id, chat.EventID{}, true)
			idle.Go(func() {
				events, err := streams[i].Next(context.Background())
				assert.NoError(t, err)
				assert.NotEmpty(t, events)
				streams[i].Close()
			})
		}
		opened = between.count("events")
		time.Sleep(time.Hour)
		require.Less(t, between.count("events")-opened, 20+32, "one to begin with, and an idle look in 2 to 3 minutes")
		restOf(t, tell(t, here, id, say("1")))
		idle.Wait()
	})
}

// A reader that is slower than the others, and than two turns, misses nothing.
func TestAReaderThatFallsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		here, there := serve(t, memory, counter), serve(t, memory, counter)
		id := start(t, here)
		slow, quick := open(t, there, id, chat.EventID{}, true), open(t, there, id, chat.EventID{}, true)
		var all sync.WaitGroup
		all.Go(func() { _, _ = rest(quick) })
		turn := tell(t, here, id, say("2"))
		begun, err := slow.Next(t.Context())
		require.NoError(t, err)
		want := restOf(t, turn)[len(begun):]
		for range 3 {
			turn := restOf(t, tell(t, here, id, say("1")))
			want = append(want, turn[0], turn[2], turn[3])
		}
		last := restOf(t, tell(t, here, id, say("1")))
		want = append(want, last...)
		var got []chat.StreamEvent
		for len(got) == 0 || got[len(got)-1].ID != last[3].ID {
			events, err := slow.Next(t.Context())
			require.NoError(t, err)
			got = append(got, events...)
		}
		var without []chat.StreamEvent // of deltas, which the log keeps of two turns
		for _, events := range [][]chat.StreamEvent{got, want} {
			var some []chat.StreamEvent
			for _, e := range events {
				if e.Kind != chat.DeltaEvent {
					some = append(some, e)
				}
			}
			if without == nil {
				without = some
				continue
			}
			require.Equal(t, some, without)
		}
		slow.Close()
		there.EndStreams()
		all.Wait()
	})
}

func TestAFollowerOfAConversationThatEnds(t *testing.T) {
	for name, elsewhere := range map[string]bool{"in a turn of this process": false, "in a turn of another": true, "idle": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := store.NewMemory(limits)
				here := serve(t, memory, counter)
				s := here
				if elsewhere {
					s = serve(t, memory, counter)
				}
				id := start(t, here)
				stream := open(t, s, id, chat.EventID{}, true)
				var turn *chat.Stream
				if name != "idle" {
					turn = tell(t, here, id, say("30"))
					take(t, stream, 2)
				}
				_, err := here.Delete(t.Context(), alice.Owner, id, chat.Idempotency{})
				require.NoError(t, err)
				events := restOf(t, stream)
				if name == "idle" {
					require.Empty(t, events)
					return
				}
				require.ErrorIs(t, events[len(events)-1].Err, chat.ErrNotFound)
				ended := restOf(t, turn)
				require.ErrorIs(t, ended[len(ended)-1].Err, chat.ErrNotFound)
			})
		})
	}
}

// While the store cannot be reached, a stream waits as long as a lease; then it fails, and its client comes again.
func TestAStreamWithoutItsStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		var down atomic.Bool
		between := &between{Store: memory, before: func(_ context.Context, call string) error {
			if down.Load() && call == "events" {
				return chat.ErrUnavailable
			}
			return nil
		}}
		here, there := serve(t, memory, counter), serve(t, between, counter)
		id := start(t, here)
		turn := tell(t, here, id, say("100"))
		stream := open(t, there, id, chat.EventID{}, false)
		take(t, stream, 2)
		down.Store(true)
		time.Sleep(10 * time.Second)
		time.AfterFunc(time.Second, func() { down.Store(false) })
		require.Len(t, take(t, stream, 11), 11)
		down.Store(true)
		failed := time.Now()
		_, err := rest(stream)
		require.ErrorIs(t, err, chat.ErrUnavailable)
		require.InDelta(t, settings.TurnLease.Seconds(), time.Since(failed).Seconds(), 2)
		_, err = there.Stream(t.Context(), alice.Owner, id, nil, false)
		require.ErrorIs(t, err, chat.ErrUnavailable)
		restOf(t, turn)
	})
}

// Streams that wait for turns elsewhere, or for none, end at once when the process ends; those of its own turns end with these.
func TestStreamsEndWithTheirProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		here, there := serve(t, memory, counter), serve(t, memory, counter)
		id, quiet := start(t, here), start(t, here)
		turn := tell(t, here, id, say("5"))
		elsewhere, idle := open(t, there, id, chat.EventID{}, false), open(t, there, quiet, chat.EventID{}, true)
		take(t, elsewhere, 2)
		began := time.Now()
		there.EndStreams()
		here.EndStreams()
		for _, stream := range []*chat.Stream{elsewhere, idle} {
			_, err := stream.Next(t.Context())
			require.ErrorIs(t, err, io.EOF)
			stream.Close()
		}
		require.Zero(t, time.Since(began))
		events := restOf(t, turn)
		require.Equal(t, "done: 5 complete, 1 2 3 4 5  complete", shown(events)[7])

		long := tell(t, here, quiet, say("100"))
		take(t, long, 2)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		here.Close(ended)
		last := restOf(t, long)
		require.ErrorIs(t, last[len(last)-1].Err, chat.ErrTurnLost)
		require.Equal(t, []string{"user 100 failed", "assistant 1  partial"}, history(t, there, quiet))
	})
}

// What has just come into the log may be read there before its turn tells it: it is told once.
func TestWhatIsInTheLogAlreadyIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &between{Store: store.NewMemory(limits), after: func(_ context.Context, call string) error {
			if call == "append" {
				time.Sleep(500 * time.Millisecond)
			}
			return nil
		}}, counter)
		id := start(t, s)
		turn := tell(t, s, id, say("5"))
		time.Sleep(1200 * time.Millisecond)
		stream := open(t, s, id, chat.EventID{}, false)
		events := restOf(t, stream)
		require.Equal(t, restOf(t, turn), events)
	})
}

// A reader that leaves, and comes back, leaves nothing behind and misses nothing.
func TestReadersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory(limits)
		services := []*chat.Service{serve(t, memory, counter), serve(t, memory, counter)}
		id := start(t, services[0])
		turn := tell(t, services[0], id, say("60"))
		var got []chat.StreamEvent
		var after chat.EventID
		for i := 0; len(got) == 0 || got[len(got)-1].Kind != chat.DoneEvent; i++ {
			stream := open(t, services[i%2], id, after, i%3 == 0)
			ctx, cancel := context.WithTimeout(t.Context(), 1700*time.Millisecond)
			for {
				events, err := stream.Next(ctx)
				if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) {
					break
				}
				require.NoError(t, err)
				got = append(got, events...)
				after = got[len(got)-1].ID
			}
			cancel()
			stream.Close()
		}
		require.Equal(t, restOf(t, turn), got)
	})
}
