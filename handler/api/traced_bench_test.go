package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/otlp"
	"chatkeep/handler/redistest"
	"chatkeep/handler/store"
	"chatkeep/handler/telemetry"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// BenchmarkTraced is what sends cost the processor when a tenth of them is traced, beside sends without telemetry: both in turn, over a real
// Redis, with the receiver of the spans in the same process.
func BenchmarkTraced(b *testing.B) {
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	b.Cleanup(collector.Close)
	addr := redistest.Start(b).Addr
	var sends [2]func()
	for i := range sends {
		client := store.NewClient(store.Connection{
			Network: "tcp", Addr: addr, DialTimeout: time.Second, CommandTimeout: time.Second, PoolTimeout: time.Second, PoolSize: 10,
		})
		b.Cleanup(func() { _ = client.Close() })
		recorder := &telemetry.Recorder{}
		kept := store.NewRedis(client, client, store.Options{Limits: endless(), Timeout: 5 * time.Second, Recorder: recorder}, slog.New(slog.DiscardHandler))
		b.Cleanup(kept.Close)
		s := openOver(b, kept, agent.Echo{}, Edge{}, authtest.New())
		if i == 1 {
			export := otlp.Start(otlp.Config{
				Traces: collector.URL, Metrics: collector.URL, Timeout: time.Second, Interval: time.Second, Sampler: sdktrace.TraceIDRatioBased(0.1),
			}, s.recorder, slog.New(slog.DiscardHandler))
			b.Cleanup(func() { export.Close(context.Background()) })
		}
		id, n, token := s.start("alice"), 0, "Bearer "+s.issuer.Token(tenant, "alice", nil)
		sends[i] = func() {
			if n++; n%400 == 0 {
				id = s.start("alice")
			}
			r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/api/chat/send",
				strings.NewReader(fmt.Sprintf(`{"conversationId":%q,"text":"Hello"}`, id)))
			r.Header.Set("Authorization", token)
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			s.server.ServeHTTP(w, r)
			require.Equal(b, 200, w.Code)
		}
	}
	var spent [2]time.Duration
	for b.Loop() {
		for i, send := range sends {
			before := processor(b)
			for range 50 {
				send()
			}
			spent[i] += processor(b) - before
		}
	}
	b.ReportMetric(float64(spent[0].Microseconds())/float64(50*b.N), "µs-off")
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "on/off")
}

// processor is the time that this process has had of processors.
func processor(b *testing.B) time.Duration {
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
