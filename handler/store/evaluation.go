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

// CountTrips has all clients of the process count the round trips of calls whose span is recorded: also those that repeat one that failed, and
// those that a new connection begins with.
func CountTrips() { redis.SetOTelRecorder(trips{}) }

// tripsKey is of a context with the *atomic.Int64 that counts its round trips.
type tripsKey struct{}

// trips is a redis.OTelRecorder that counts round trips, and nothing else.
type trips struct{}

func (trips) add(ctx context.Context, attempts int) {
	if n, ok := ctx.Value(tripsKey{}).(*atomic.Int64); ok {
		n.Add(int64(attempts))
	}
}

// RecordOperationDuration implements redis.OTelRecorder.
func (t trips) RecordOperationDuration(ctx context.Context, _ time.Duration, _ redis.Cmder, attempts int, _ error, _ redis.ConnInfo, _ int) {
	t.add(ctx, attempts)
}

// RecordPipelineOperationDuration implements redis.OTelRecorder.
func (t trips) RecordPipelineOperationDuration(ctx context.Context, _ time.Duration, _ string, _ int, attempts int, _ error, _ redis.ConnInfo, _ int) {
	t.add(ctx, attempts)
}

// What else a redis.OTelRecorder is told does not matter here.

func (trips) RecordConnectionCreateTime(context.Context, time.Duration, redis.ConnInfo)           {}
func (trips) RecordConnectionRelaxedTimeout(context.Context, int, redis.ConnInfo, string, string) {}
func (trips) RecordConnectionHandoff(context.Context, redis.ConnInfo, string)                     {}
func (trips) RecordError(context.Context, string, redis.ConnInfo, string, bool, int)              {}
func (trips) RecordMaintenanceNotification(context.Context, redis.ConnInfo, string)               {}
func (trips) RecordConnectionWaitTime(context.Context, time.Duration, redis.ConnInfo)             {}
func (trips) RecordConnectionClosed(context.Context, redis.ConnInfo, string, error)               {}
func (trips) RecordPubSubMessage(context.Context, redis.ConnInfo, string, string, bool)           {}
func (trips) RecordStreamLag(context.Context, time.Duration, redis.ConnInfo, string, string, string) {
}
