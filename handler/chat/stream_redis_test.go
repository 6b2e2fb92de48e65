package chat_test

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"
	"chatkeep/handler/store"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Streams over a real Redis, in real time.

// serveOn serves with a connection pool of its own, as another process does.
func serveOn(t testing.TB, server *redistest.Server, a chat.Agent) *chat.Service {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr, PoolSize: 20})
	t.Cleanup(func() { _ = client.Close() })
	kept := store.NewRedis(client, client, store.Options{Limits: limits, Timeout: 5 * time.Second}, slog.New(slog.DiscardHandler))
	t.Cleanup(kept.Close)
	service := chat.NewService(kept, a, settings, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { service.Close(context.Background()) })
	t.Cleanup(service.EndStreams)
	return service
}

// quickly says as many words as the question says, 5 ms apart.
var quickly = speaker(func(ctx context.Context, q chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	n, _ := strconv.Atoi(q.Message.Text)
	var said strings.Builder
	for i := range n {
		word := fmt.Sprintf("%d ", i+1)
		emit(delta(0, word))
		said.WriteString(word)
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return chat.Reply{}, ctx.Err()
		}
	}
	return saying(said.String()), nil
})

// calls are the calls of commands that Redis has executed: those that match, or all.
func calls(t testing.TB, server *redistest.Server, pattern string) int {
	t.Helper()
	sum := 0
	for _, match := range regexp.MustCompile(`cmdstat_([^:]+):calls=(\d+)`).FindAllStringSubmatch(server.CLI("info", "commandstats"), -1) {
		if n, err := strconv.Atoi(match[2]); err == nil && regexp.MustCompile(pattern).MatchString(match[1]) {
			sum += n
		}
	}
	return sum
}

func TestATurnInTwoProcesses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	here, there := serveOn(t, server, quickly), serveOn(t, server, quickly)
	id := start(t, here)
	restOf(t, tell(t, here, id, say("1"))) // loads the scripts
	asked, before := time.Now(), calls(t, server, "evalsha")
	alone := restOf(t, tell(t, here, id, say("100")))
	took := time.Since(asked)
	trips := calls(t, server, "evalsha") - before
	t.Logf("%d events in %v: %d round trips", len(alone), took.Round(time.Millisecond), trips)
	require.LessOrEqual(t, trips, int(took/(30*time.Millisecond))+3, "more than one in 30 ms and the two of the turn")

	follower := open(t, there, id, chat.EventID{}, true)
	var following sync.WaitGroup
	var followed []chat.StreamEvent
	following.Go(func() {
		events, err := rest(follower)
		assert.NoError(t, err)
		followed = events
	})
	turn := tell(t, here, id, keyed("key", "100"))
	events := take(t, turn, 1)
	resumed, repeated := open(t, there, id, events[0].ID, false), tell(t, there, id, keyed("key", "100"))
	var all sync.WaitGroup
	var got [2][]chat.StreamEvent
	for i, stream := range []*chat.Stream{resumed, repeated} {
		all.Go(func() {
			var err error
			got[i], err = rest(stream)
			assert.NoError(t, err)
		})
	}
	events = append(events, restOf(t, turn)...)
	all.Wait()
	require.Equal(t, events[1:], got[0])
	require.Equal(t, events, got[1])
	var joined strings.Builder
	for _, e := range events {
		if e.Kind == chat.DeltaEvent {
			joined.WriteString(e.Text)
		}
	}
	last := events[len(events)-1].Sent
	require.Equal(t, read(t, last.Replies[0]).Text, joined.String())
	long := tell(t, here, id, say("10000"))
	said := take(t, long, 1)
	asked = time.Now()
	cancelled, err := there.Cancel(t.Context(), alice.Owner, id, nil, "")
	require.NoError(t, err)
	require.True(t, cancelled)
	said = append(said, restOf(t, long)...)
	require.Less(t, time.Since(asked), 10*time.Second)
	done := said[len(said)-1].Sent
	require.Equal(t, chat.Cancelled, done.Message.State)
	require.Equal(t, chat.Partial, done.Replies[0].State)
	events = append(events, said...)
	there.EndStreams()
	following.Wait()
	require.Equal(t, events[:len(followed)], followed)
	require.Greater(t, len(followed), len(events)-20, "it was not told of the last turn")
}

// TestIdleStreamsCostNothing has a thousand streams follow as many conversations, and counts what that costs.
func TestIdleStreamsCostNothing(t *testing.T) {
	const streams = 1000
	server := redistest.Start(t)
	s := serveOn(t, server, quickly)
	var opened, all sync.WaitGroup
	ids := make([]string, streams)
	began := make(chan string, streams)
	ctx, end := context.WithCancel(t.Context())
	memory, goroutines := used()
	for i := range ids {
		started, err := s.Start(t.Context(), alice, chat.Opening{})
		require.NoError(t, err)
		ids[i] = started.Conversation.ID
		stream := open(t, s, ids[i], chat.EventID{}, true)
		opened.Add(1)
		all.Go(func() {
			defer stream.Close()
			opened.Done()
			events, err := stream.Next(ctx)
			if err == nil {
				began <- fmt.Sprint(ids[i], " ", events[0].Kind)
			}
		})
	}
	opened.Wait()
	require.Eventually(t, func() bool { return len(strings.Fields(server.CLI("pubsub", "channels"))) == streams },
		20*time.Second, 100*time.Millisecond, "they are not subscribed to")
	settled := calls(t, server, ".")
	require.Eventually(t, func() bool { // those that are woken when they are subscribed to look once
		before := settled
		settled = calls(t, server, ".")
		return settled-before < 50
	}, 20*time.Second, time.Second)
	before := calls(t, server, ".")
	asked := time.Now()
	time.Sleep(2 * time.Second)
	rate := float64(calls(t, server, ".")-before-1) / time.Since(asked).Seconds()
	after, more := used()
	t.Logf("%d idle streams: %.1f commands a second, %d KB and %.1f goroutines each", streams, rate, (after-memory)/streams>>10, float64(more-goroutines)/streams)
	require.Less(t, rate, 50.0)
	require.LessOrEqual(t, more-goroutines, streams+100, "more than the test's own")
	require.Less(t, after-memory, int64(streams*32<<10))

	sent, err := s.Send(t.Context(), alice, ids[7], say("1"))
	require.NoError(t, err)
	require.Equal(t, chat.Complete, sent.Message.State)
	require.Equal(t, ids[7]+" message.accepted", <-began)
	end()
	all.Wait()
}

// used is how much memory and how many goroutines there are.
func used() (memory int64, goroutines int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse), runtime.NumGoroutine()
}

// TestManyStreams has 200 turns stream at once.
func TestManyStreams(t *testing.T) {
	const streams = 200
	server := redistest.Start(t)
	s := serveOn(t, server, speaker(func(ctx context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
		for range 20 {
			emit(delta(0, strings.Repeat("x", 1000)))
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return chat.Reply{}, ctx.Err()
			}
		}
		return saying(strings.Repeat("x", 20_000)), nil
	}))
	memory, goroutines := used()
	var all sync.WaitGroup
	for range streams {
		id := start(t, s)
		stream := tell(t, s, id, say("go"))
		all.Go(func() {
			events, err := rest(stream)
			assert.NoError(t, err)
			if assert.NotEmpty(t, events) {
				assert.Equal(t, chat.DoneEvent, events[len(events)-1].Kind)
			}
		})
	}
	after, more := used()
	t.Logf("%d streams: %d KB and %.1f goroutines each", streams, (after-memory)/streams>>10, float64(more-goroutines)/streams)
	require.Less(t, after-memory, int64(streams*256<<10))
	require.LessOrEqual(t, more-goroutines, 4*streams+100)
	all.Wait()
}

// A connection that is lost is made anew, and what began meanwhile is told.
func TestAFollowerWhoseConnectionIsCut(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	link := redistest.NewLink(t, server.Addr)
	here := serveOn(t, server, quickly)
	there := serveOn(t, &redistest.Server{Addr: link.Addr}, quickly)
	id := start(t, here)
	stream := open(t, there, id, chat.EventID{}, true)
	got := make(chan chat.StreamEvent, 100)
	var all sync.WaitGroup
	ctx, end := context.WithCancel(t.Context())
	all.Go(func() {
		defer stream.Close()
		for {
			events, err := stream.Next(ctx)
			if err != nil {
				return
			}
			for _, e := range events {
				got <- e
			}
		}
	})
	require.Eventually(t, func() bool { return server.CLI("pubsub", "channels") != "" }, 10*time.Second, 10*time.Millisecond)
	link.Cut(true)
	want := restOf(t, tell(t, here, id, say("1")))
	link.Cut(false)
	for _, e := range want {
		select {
		case told := <-got:
			require.Equal(t, e, told)
		case <-time.After(20 * time.Second):
			require.Fail(t, "nobody was told")
		}
	}
	end()
	all.Wait()
}

// BenchmarkFirstDelta is what a first delta takes beyond the agent's own time, in a send over Redis: from the request to its reader, and from the
// agent to its reader.
func BenchmarkFirstDelta(b *testing.B) {
	type times struct{ asked, said time.Time }
	of := make(chan times, 1)
	s := serveOn(b, redistest.Start(b), speaker(func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
		asked := time.Now()
		time.Sleep(time.Millisecond)
		of <- times{asked, time.Now()}
		emit(delta(0, "x"))
		time.Sleep(5 * time.Millisecond)
		return saying("x"), nil
	}))
	started, err := s.Start(b.Context(), alice, chat.Opening{})
	require.NoError(b, err)
	var whole, way []time.Duration
	for b.Loop() {
		began := time.Now()
		stream, err := s.Tell(b.Context(), alice, started.Conversation.ID, say("go"))
		require.NoError(b, err)
		for told := false; !told; {
			events, err := stream.Next(b.Context())
			require.NoError(b, err)
			told = events[len(events)-1].Kind == chat.DeltaEvent
		}
		told, agents := time.Now(), <-of
		whole, way = append(whole, told.Sub(began)-agents.said.Sub(agents.asked)), append(way, told.Sub(agents.said))
		_, _ = rest(stream)
	}
	for name, took := range map[string][]time.Duration{"request": whole, "agent": way} {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs/p50-from-"+name)
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs/p99-from-"+name)
	}
}
