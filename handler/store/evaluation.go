package store

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"chatkeep/handler/logs"
	"chatkeep/handler/telemetry"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// evaluation is one of a script, as the Recorder has it.
type evaluation struct {
	recorder *telemetry.Recorder
	script   string
	began    time.Time
	span     trace.Span
	trips    *atomic.Int64 // nil: the span is not recorded
}

func (r *Redis) beginEvaluation(ctx context.Context, script string) (context.Context, evaluation) {
	e := evaluation{recorder: r.recorder, script: script, began: time.Now()}
	ctx, e.span = telemetry.Begin(ctx, script, trace.SpanKindClient)
	if e.span.IsRecording() {
		e.trips = new(atomic.Int64)
		ctx = context.WithValue(ctx, tripsKey{}, e.trips)
	}
	return ctx, e
}

func (e evaluation) end(err error) {
	failure := failureOf(err)
	e.recorder.StoreCall(telemetry.StoreCall{Script: e.script, Failure: failure}, time.Since(e.began))
	if e.trips != nil {
		e.span.SetAttributes(
			attribute.String("db.system.name", "redis"), attribute.String("db.operation.name", e.script), attribute.Int64("chatkeep.store.round_trips", e.trips.Load()),
		)
	}
	telemetry.End(e.span, failure)
}

// failureOf is the cause of a call's failure; empty: Redis answered, if only with a refusal of ours.
func failureOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.Canceled):
		return "cancelled"
	}
	_, cause := classOf(err)
	return string(cmp.Or(cause, logs.CauseOf(err)))
}

// State tells how the client is.
func (r *Redis) State() telemetry.Client {
	pool := r.client.PoolStats()
	return telemetry.Client{Down: r.breaker.admit() != nil, Waits: int64(pool.WaitCount), Waited: time.Duration(pool.WaitDurationNs)}
}

// CountTrips has a client count the round trips of calls whose span is recorded, as it makes them: one that it repeats by itself counts once.
func CountTrips(client redis.UniversalClient) { client.AddHook(trips{}) }

// tripsKey is of a context with the *atomic.Int64 that counts its round trips.
type tripsKey struct{}

// trips is a redis.Hook.
type trips struct{}

func (trips) count(ctx context.Context) {
	if n, ok := ctx.Value(tripsKey{}).(*atomic.Int64); ok {
		n.Add(1)
	}
}

// DialHook implements redis.Hook.
func (trips) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (t trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		t.count(ctx)
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements redis.Hook.
func (t trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		t.count(ctx)
		return next(ctx, commands)
	}
}
