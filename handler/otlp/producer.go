package otlp

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"chatkeep/handler/panics"
	"chatkeep/handler/telemetry"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// producer is an sdkmetric.Producer of a recorder's figures.
type producer struct {
	recorder *telemetry.Recorder
	started  time.Time
	log      *slog.Logger
}

// Produce implements sdkmetric.Producer.
func (p *producer) Produce(ctx context.Context) (all []metricdata.ScopeMetrics, err error) {
	err = panics.Recover(ctx, p.log, func() error { // in a goroutine of the SDK's
		all = []metricdata.ScopeMetrics{{
			Scope: instrumentation.Scope{Name: telemetry.Scope}, Metrics: period{p.started, time.Now()}.metrics(p.recorder.Figures()),
		}}
		return nil
	})
	return all, err
}

// The bounds that the semantic conventions propose, and such for turns.
var (
	requestBounds = durations("5ms", "10ms", "25ms", "50ms", "75ms", "100ms", "250ms", "500ms", "750ms", "1s", "2.5s", "5s", "7.5s", "10s")
	storeBounds   = durations("1ms", "5ms", "10ms", "50ms", "100ms", "500ms", "1s", "5s", "10s")
	turnBounds    = durations("10ms", "25ms", "50ms", "100ms", "250ms", "500ms", "1s", "2.5s", "5s", "10s", "25s", "50s", "100s", "200s")
)

func durations(texts ...string) (all []time.Duration) {
	for _, text := range texts {
		d, err := time.ParseDuration(text)
		if err != nil {
			panic(err)
		}
		all = append(all, d)
	}
	return all
}

// period is what figures are about.
type period struct{ start, end time.Time }

// metrics names figures, by the semantic conventions where these have a name.
func (p period) metrics(f telemetry.Figures) []metricdata.Metrics {
	var requests, calls, turns []metricdata.HistogramDataPoint[float64]
	for kind, d := range f.Requests {
		requests = append(requests, p.histogram(d, requestBounds, ofRequest(kind)...))
	}
	for kind, d := range f.StoreCalls {
		attributes := []attribute.KeyValue{attribute.String("db.system.name", "redis"), attribute.String("db.operation.name", kind.Script)}
		if kind.Failure != "" {
			attributes = append(attributes, attribute.String("error.type", kind.Failure))
		}
		calls = append(calls, p.histogram(d, storeBounds, attributes...))
	}
	for state, d := range f.Turns {
		turns = append(turns, p.histogram(d, turnBounds, attribute.String("chatkeep.turn.state", state)))
	}
	all := []metricdata.Metrics{
		inSeconds("http.server.request.duration", "Duration of requests.", requests),
		inSeconds("db.client.operation.duration", "Duration of calls of the store, by script.", calls),
		inSeconds("chatkeep.turn.duration", "Duration of turns, by what they came to.", turns),
		inSeconds("chatkeep.turn.own_duration", "Duration of turns and their beginning, without their agent's part.",
			[]metricdata.HistogramDataPoint[float64]{p.histogram(f.Own, storeBounds)}),
		inSeconds("chatkeep.turn.time_to_first_delta", "From the beginning of a turn to the first text of its answer.",
			[]metricdata.HistogramDataPoint[float64]{p.histogram(f.FirstDelta, turnBounds)}),
		p.now("chatkeep.turn.running", "Turns that run.", "{turn}", f.TurnsRunning),
		p.counter("chatkeep.request.replays", "Requests answered with what an earlier one had come to.", "{request}", f.Replays),
		p.counter("chatkeep.request.rate_limited", "Requests refused because their caller makes too many.", "{request}", f.RateLimited),
		p.counter("chatkeep.request.quota_refusals", "Requests refused because their caller has too much.", "{request}", f.QuotaRefusals),
		p.counter("chatkeep.event.dropped", "Events of running answers that their readers do not get.", "{event}", f.DroppedEvents),
	}
	if f.Client != nil {
		all = append(all, p.client(*f.Client)...)
	}
	return all
}

func (p period) client(c telemetry.Client) []metricdata.Metrics {
	open := int64(0)
	if c.Down {
		open = 1
	}
	waits := metricdata.HistogramDataPoint[float64]{ // how long each took is not known
		Attributes: attribute.NewSet(attribute.String("db.client.connection.pool.name", "store")),
		StartTime:  p.start, Time: p.end, Count: uint64(c.Waits), Sum: c.Waited.Seconds(), BucketCounts: []uint64{uint64(c.Waits)},
	}
	return []metricdata.Metrics{
		{
			Name: "chatkeep.store.breaker.open", Description: "1 while calls fail at once, for the store does not answer.", Unit: "1",
			Data: metricdata.Gauge[int64]{DataPoints: []metricdata.DataPoint[int64]{{Time: p.end, Value: open}}},
		},
		inSeconds("db.client.connection.wait_time", "Time that calls waited for a free connection.", []metricdata.HistogramDataPoint[float64]{waits}),
	}
}

func ofRequest(kind telemetry.Request) []attribute.KeyValue {
	attributes := []attribute.KeyValue{attribute.String("http.request.method", kind.Method), attribute.String("url.scheme", "http")}
	if kind.Route != "" {
		attributes = append(attributes, attribute.String("http.route", kind.Route))
	}
	if kind.Status != 0 {
		attributes = append(attributes, attribute.Int("http.response.status_code", kind.Status))
	}
	if kind.Status >= 500 {
		attributes = append(attributes, attribute.String("error.type", strconv.Itoa(kind.Status)))
	}
	return attributes
}

func (p period) histogram(d telemetry.Distribution, bounds []time.Duration, attributes ...attribute.KeyValue) metricdata.HistogramDataPoint[float64] {
	point := metricdata.HistogramDataPoint[float64]{
		Attributes: attribute.NewSet(attributes...), StartTime: p.start, Time: p.end,
		Count: d.Count(), Sum: d.Sum.Seconds(), BucketCounts: d.UpTo(bounds),
	}
	for _, bound := range bounds {
		point.Bounds = append(point.Bounds, bound.Seconds())
	}
	return point
}

func inSeconds(name, description string, points []metricdata.HistogramDataPoint[float64]) metricdata.Metrics {
	return metricdata.Metrics{
		Name: name, Description: description, Unit: "s",
		Data: metricdata.Histogram[float64]{DataPoints: points, Temporality: metricdata.CumulativeTemporality},
	}
}

func (p period) counter(name, description, unit string, n int64) metricdata.Metrics {
	return p.sum(name, description, unit, n, true)
}

// now is of what comes and goes.
func (p period) now(name, description, unit string, n int64) metricdata.Metrics {
	return p.sum(name, description, unit, n, false)
}

func (p period) sum(name, description, unit string, n int64, isMonotonic bool) metricdata.Metrics {
	return metricdata.Metrics{Name: name, Description: description, Unit: unit, Data: metricdata.Sum[int64]{
		Temporality: metricdata.CumulativeTemporality, IsMonotonic: isMonotonic,
		DataPoints: []metricdata.DataPoint[int64]{{StartTime: p.start, Time: p.end, Value: n}},
	}}
}
