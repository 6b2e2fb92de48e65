package chat_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/store"
	"chatkeep/handler/telemetry"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// recorded is a Service that counts.
func recorded(t *testing.T, s chat.Store, a chat.Agent) (*chat.Service, *telemetry.Recorder) {
	t.Helper()
	r := &telemetry.Recorder{}
	with := settings
	with.Recorder = r
	return serveWith(t, s, a, with, slog.DiscardHandler), r
}

// Of a turn's time its agent has its part, and the wait for another turn is nobody's.
func TestTurnsAreTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slowly := &between{Store: store.NewMemory(limits), before: func(_ context.Context, call string) error {
			switch call {
			case "begin":
				time.Sleep(time.Second)
			case "finish":
				time.Sleep(2 * time.Second)
			}
			return nil
		}}
		s, r := recorded(t, slowly, speaker(func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
			emit(chat.Event{Kind: chat.StatusEvent, Text: "thinking"})
			time.Sleep(300 * time.Millisecond)
			emit(delta(0, "a"))
			time.Sleep(700 * time.Millisecond)
			return saying("a"), nil
		}))
		id := start(t, s)
		var all sync.WaitGroup
		for range 3 { // that wait for each other
			all.Go(func() {
				_, err := s.Send(t.Context(), alice, id, say("go"))
				assert.NoError(t, err)
			})
		}
		time.Sleep(1500 * time.Millisecond)
		require.EqualValues(t, 1, r.TurnsRunning.Load())
		all.Wait()
		require.Zero(t, r.TurnsRunning.Load())
		f := r.Figures()
		require.Len(t, f.Turns, 1)
		require.EqualValues(t, 3, f.Turns["complete"].Count())
		require.Equal(t, 3*3*time.Second, f.Turns["complete"].Sum)
		require.Equal(t, 3*3*time.Second, f.Own.Sum)
		require.Equal(t, 3*300*time.Millisecond, f.FirstDelta.Sum)
		require.Zero(t, f.DroppedEvents)
	})
}

func TestTurnsAreCountedByTheirEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := recorded(t, store.NewMemory(limits), agentFunc(func(ctx context.Context, q chat.Question) (chat.Reply, error) {
			switch q.Message.Text {
			case "fail":
				return chat.Reply{}, errors.New("no")
			case "panic":
				panic("no")
			case "wait":
				<-ctx.Done()
				return chat.Reply{}, ctx.Err()
			}
			return saying("done"), nil
		}))
		id := start(t, s)
		for _, text := range []string{"fail", "panic", "go"} {
			_, _ = s.Send(t.Context(), alice, id, say(text))
		}
		var all sync.WaitGroup
		all.Go(func() { _, _ = s.Send(t.Context(), alice, id, say("wait")) })
		synctest.Wait()
		_, err := s.Cancel(t.Context(), alice.Owner, id, nil, "")
		require.NoError(t, err)
		all.Wait()
		_, err = s.Send(t.Context(), alice, id, keyed("key", "go"))
		require.NoError(t, err)
		_, err = s.Send(t.Context(), alice, id, keyed("key", "go"))
		require.NoError(t, err)
		f := r.Figures()
		counts := make(map[string]uint64)
		for state, d := range f.Turns {
			counts[state] = d.Count()
		}
		require.Equal(t, map[string]uint64{"complete": 2, "failed": 2, "cancelled": 1}, counts, "a repetition is no turn")
		require.EqualValues(t, 5, f.Own.Count())
		require.Zero(t, f.FirstDelta.Count())
		require.Zero(t, f.TurnsRunning)
	})
}

func TestDroppedEventsAreCounted(t *testing.T) {
	for name, row := range map[string]struct {
		events  int
		dropped int64
	}{"all told": {8192, 0}, "too many": {9000, 808}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, r := recorded(t, store.NewMemory(limits), speaker(func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
					for i := range row.events {
						emit(chat.Event{Kind: chat.StatusEvent, Text: "x"})
						if i%100 == 0 {
							time.Sleep(time.Second)
						}
					}
					return saying("the end"), nil
				}))
				_, err := s.Send(t.Context(), alice, start(t, s), say("go"))
				require.NoError(t, err)
				require.Equal(t, row.dropped, r.DroppedEvents.Load())
			})
		})
	}
}

// What the log drops for an owner who has too much there is counted too.
func TestEventsThatTheLogDropsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := recorded(t, dropping{store.NewMemory(limits)}, speaker(func(_ context.Context, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
			for range 5 {
				emit(chat.Event{Kind: chat.StatusEvent, Text: "x"})
				time.Sleep(time.Second)
			}
			return saying("the end"), nil
		}))
		events := restOf(t, tell(t, s, start(t, s), say("go")))
		require.Equal(t, []string{"message.accepted: go pending", "message: the end complete", "done: go complete, the end complete"}, shown(events))
		synctest.Wait()
		require.EqualValues(t, 5, r.DroppedEvents.Load())
	})
}

// dropping is a store whose log takes nothing.
type dropping struct{ chat.Store }

func (d dropping) Append(ctx context.Context, owner chat.Owner, id string, a chat.Append) (chat.Appended, error) {
	a.Entries = nil
	appended, err := d.Store.Append(ctx, owner, id, a)
	appended.Dropped = true
	return appended, err
}

// The agent's calls have spans of the trace that the request is of, with the class of a failure and nothing of what was said.
func TestAgentCallsHaveSpans(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	for text, want := range map[string]string{
		"go": "", "fail": "agent_failed", "filter": "content_filtered", "wait": "agent_timeout",
	} {
		t.Run(text, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _ := recorded(t, store.NewMemory(limits), agentFunc(func(ctx context.Context, q chat.Question) (chat.Reply, error) {
					switch q.Message.Text {
					case "fail":
						return chat.Reply{}, errors.New("alice said fail")
					case "filter":
						return chat.Reply{}, chat.ErrContentFiltered
					case "wait":
						<-ctx.Done()
						return chat.Reply{}, ctx.Err()
					}
					return saying("done"), nil
				}))
				id := start(t, s)
				spans.Reset()
				ctx, whole := tracer.Start(t.Context(), "whole")
				_, _ = s.Send(ctx, alice, id, say(text))
				whole.End()
				ended := spans.Ended()
				require.Len(t, ended, 2)
				span := ended[0]
				require.Equal(t, "agent answer", span.Name())
				require.Equal(t, whole.SpanContext().SpanID(), span.Parent().SpanID())
				if want == "" {
					require.Empty(t, span.Attributes())
				} else {
					require.Equal(t, []attribute.KeyValue{attribute.String("error.type", want)}, span.Attributes())
				}
				require.Empty(t, span.Status().Description)
				require.Empty(t, span.Events())
			})
		})
	}
}
