// Package otlp sends spans and figures to an OpenTelemetry collector, as OTLP/HTTP in JSON.
package otlp

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"chatkeep/handler/panics"
	"chatkeep/handler/telemetry"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Config says where to send to, and what.
type Config struct {
	Traces     string            // URL; empty: no spans are recorded
	Metrics    string            // URL; empty: no metrics are sent
	Headers    map[string]string // of each request; they may hold a secret
	Timeout    time.Duration     // for one request with its retries
	Interval   time.Duration     // between two sendings of the metrics
	Sampler    sdktrace.Sampler  // of the requests whose spans are recorded
	Attributes []attribute.KeyValue

	transport http.RoundTripper // nil: the network
}

// IsOn reports whether anything is sent.
func (c Config) IsOn() bool { return c.Traces != "" || c.Metrics != "" }

// Export is what is sent until it is closed.
type Export struct {
	signals []signal
	log     *slog.Logger
}

// signal is traces or metrics, while they are sent.
type signal struct {
	*sender
	end func(context.Context) error
}

const (
	maxWaiting = 2048            // spans; what comes beyond them is lost
	maxBatch   = 512             // spans of one request
	spansEvery = 5 * time.Second // unless a batch is full before
)

// Start has the recorder's spans and figures sent from now on. Nothing waits for a collector: what it does not take in time is lost, which
// is logged once. Close it.
func Start(c Config, recorder *telemetry.Recorder, log *slog.Logger) *Export {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Debug("telemetry", "err", err) })) // or it would write to stderr
	about := resource.NewSchemaless(c.Attributes...)
	e := &Export{log: log}
	if c.Traces != "" {
		sender := newSender(c, c.Traces, "traces", log)
		traces := sdktrace.NewTracerProvider(
			sdktrace.WithResource(about), sdktrace.WithSampler(c.Sampler),
			sdktrace.WithBatcher(&spanExporter{sender},
				sdktrace.WithMaxQueueSize(maxWaiting), sdktrace.WithMaxExportBatchSize(maxBatch), sdktrace.WithBatchTimeout(spansEvery),
				sdktrace.WithExportTimeout(c.Timeout)),
		)
		e.signals = append(e.signals, signal{sender, traces.Shutdown})
		recorder.Tracer = traces.Tracer(telemetry.Scope)
	}
	if c.Metrics != "" {
		sender := newSender(c, c.Metrics, "metrics", log)
		metrics := sdkmetric.NewMeterProvider(
			sdkmetric.WithResource(about),
			sdkmetric.WithReader(sdkmetric.NewPeriodicReader(&metricExporter{sender},
				sdkmetric.WithInterval(c.Interval), sdkmetric.WithTimeout(c.Timeout),
				sdkmetric.WithProducer(&producer{recorder: recorder, started: time.Now(), log: log}))),
		)
		e.signals = append(e.signals, signal{sender, metrics.Shutdown})
	}
	return e
}

// Close sends what waits, until ctx ends.
func (e *Export) Close(ctx context.Context) {
	var all sync.WaitGroup
	for _, s := range e.signals {
		panics.Go(&all, e.log, func() {
			if err := s.end(ctx); err != nil {
				s.lost(ctx, err)
			}
		})
	}
	all.Wait()
}
