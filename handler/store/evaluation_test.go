package store

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"
	"chatkeep/handler/telemetry"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// Each evaluation of a script has a span that says which, how many round trips it took, and how it failed. It says nothing else.
func TestEvaluationsHaveSpans(t *testing.T) {
	for name, c := range map[string]Connection{
		"alone":     {Addr: redistest.Start(t).Addr},
		"a cluster": {Addr: redistest.StartCluster(t, 3, 0).Addrs[0], Cluster: true},
	} {
		t.Run(name, func(t *testing.T) {
			client := connect(t, c)
			CountTrips(client)
			r := newRedis(t, client, limits, 2*time.Second)
			ctx, spans := recording(t)
			owner, id := someone(), newID()
			evaluate := func() sdktrace.ReadOnlySpan {
				spans.Reset()
				_, _, err := r.Get(ctx, owner, id, page)
				require.ErrorIs(t, err, chat.ErrNotFound)
				require.Len(t, spans.Ended(), 1)
				return spans.Ended()[0]
			}
			first, then := evaluate(), evaluate()
			require.Equal(t, "get", then.Name())
			require.Equal(t, trace.SpanKindClient, then.SpanKind())
			require.Equal(t, trace.SpanContextFromContext(ctx).SpanID(), then.Parent().SpanID())
			require.Equal(t, map[attribute.Key]any{"db.system.name": "redis", "db.operation.name": "get", "chatkeep.store.round_trips": int64(1)}, attributesOf(then))
			require.Greater(t, attributesOf(first)["chatkeep.store.round_trips"], int64(1), "the script was not there")
		})
	}
}

func attributesOf(span sdktrace.ReadOnlySpan) map[attribute.Key]any {
	all := make(map[attribute.Key]any)
	for _, a := range span.Attributes() {
		all[a.Key] = a.Value.AsInterface()
	}
	return all
}

// recording returns a context with a span, and where the spans within it end.
func recording(t *testing.T) (context.Context, *tracetest.SpanRecorder) {
	spans := tracetest.NewSpanRecorder()
	ctx, _ := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test").Start(t.Context(), "whole")
	return ctx, spans
}

func TestEvaluationsAreCounted(t *testing.T) {
	server := redistest.Start(t)
	client := connect(t, Connection{Addr: server.Addr})
	recorder := &telemetry.Recorder{}
	r := NewRedis(client, client, Options{Limits: limits, Timeout: 300 * time.Millisecond, Recorder: recorder}, slog.New(slog.DiscardHandler))
	t.Cleanup(r.Close)
	w := &world{Store: r, t: t, owner: someone()}
	id := w.start()
	w.turn(id, "Hello")
	counts := func() map[telemetry.StoreCall]uint64 {
		all := make(map[telemetry.StoreCall]uint64)
		for kind, d := range recorder.Figures().StoreCalls {
			require.Positive(t, d.Sum)
			all[kind] = d.Count()
		}
		return all
	}
	require.Equal(t, map[telemetry.StoreCall]uint64{{Script: "start"}: 1, {Script: "begin"}: 1, {Script: "finish"}: 1}, counts())
	require.Equal(t, telemetry.Client{}, r.State())

	server.Pause()
	ctx, spans := recording(t)
	for range breakerFailures {
		_, _, err := r.Get(ctx, w.owner, id, page)
		require.ErrorIs(t, err, chat.ErrUnavailable)
	}
	require.Eventually(t, func() bool { return r.State().Down }, 10*time.Second, time.Millisecond)
	_, _, err := r.Get(ctx, w.owner, id, page)
	require.ErrorIs(t, err, chat.ErrUnavailable)
	require.EqualValues(t, breakerFailures, counts()[telemetry.StoreCall{Script: "get", Failure: "timeout"}], "what was not tried is not counted")
	require.Len(t, spans.Ended(), breakerFailures)
	require.Equal(t, "timeout", attributesOf(spans.Ended()[0])["error.type"])
	server.Resume()
	require.Eventually(t, func() bool { return !r.State().Down }, 10*time.Second, time.Millisecond)
}

func TestWaitsForAConnectionAreCounted(t *testing.T) {
	link := redistest.NewLink(t, redistest.Start(t).Addr)
	link.Delay(20 * time.Millisecond)
	client := NewClient(Connection{
		Network: "tcp", Addr: link.Addr, DialTimeout: 5 * time.Second, CommandTimeout: 5 * time.Second, PoolTimeout: 5 * time.Second, PoolSize: 1,
	})
	t.Cleanup(func() { _ = client.Close() })
	r := newRedis(t, client, limits, 10*time.Second)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			_, _, err := r.Get(t.Context(), someone(), newID(), page)
			assert.ErrorIs(t, err, chat.ErrNotFound)
		})
	}
	all.Wait()
	require.Positive(t, r.State().Waits)
	require.Positive(t, r.State().Waited)
}

// What is not recorded costs no memory.
func TestCountingAnEvaluationAllocatesNothing(t *testing.T) {
	r := &Redis{recorder: &telemetry.Recorder{}}
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		_, e := r.beginEvaluation(ctx, "get")
		e.end(nil)
	}))
}
