package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
)

// lines are the lines of a log, without their time.
func lines(t *testing.T, log *bytes.Buffer) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(log.String()) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &fields))
		delete(fields, "time")
		all = append(all, fields)
	}
	return all
}

// Each line has what was counted since the line before, as numbers.
func TestVitals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var client atomic.Pointer[Client]
		client.Store(&Client{Waits: 100, Waited: time.Hour})
		r := &Recorder{Client: func() Client { return *client.Load() }}
		r.Request(Request{Status: 500}, time.Hour) // before the first minute
		ctx, end := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx, slog.New(slog.NewJSONHandler(&log, nil))) })
		synctest.Wait()

		for range 95 {
			r.Request(Request{Method: "GET", Route: "/quick", Status: 200}, 2*time.Millisecond)
		}
		for range 5 {
			r.Request(Request{Method: "GET", Route: "/quick", Status: 503}, time.Second)
		}
		r.Request(Request{Route: "/slow", Status: 200, Waits: true}, time.Minute)
		r.Request(Request{Route: "/health", Status: 503, Probe: true}, time.Minute)
		r.StoreCall(StoreCall{Script: "begin"}, 300*time.Microsecond)
		r.StoreCall(StoreCall{Script: "begin", Failure: "unknown"}, time.Second)
		r.Turn(Turn{State: "complete", Took: time.Minute, Own: 4 * time.Millisecond, FirstDelta: 200 * time.Millisecond, Dropped: 3})
		r.Turn(Turn{State: "failed", Took: time.Minute, Own: 4 * time.Millisecond})
		r.TurnsRunning.Add(2)
		r.Replays.Add(7)
		r.RateLimited.Add(8)
		r.QuotaRefusals.Add(9)
		client.Store(&Client{Down: true, Waits: 104, Waited: time.Hour + 100*time.Millisecond})
		time.Sleep(time.Minute)
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		r.Request(Request{Status: 200}, time.Millisecond)
		end()
		running.Wait()

		quiet := map[string]any{
			"level": "INFO", "msg": "vitals", "requests": 0.0, "errors5xx": 0.0, "requestP95Ms": 0.0, "sendOwnP95Ms": 0.0, "storeP95Ms": 0.0,
			"turnsRunning": 2.0, "firstDeltaP95Ms": 0.0, "replays": 0.0, "rateLimited": 0.0, "quotaRefusals": 0.0, "breakerOpen": 1.0,
			"poolWaitMs": 0.0, "droppedEvents": 0.0,
		}
		busy := map[string]any{
			"level": "INFO", "msg": "vitals", "requests": 101.0, "errors5xx": 5.0, "requestP95Ms": 2.0, "sendOwnP95Ms": 3.95, "storeP95Ms": 975.0,
			"turnsRunning": 2.0, "firstDeltaP95Ms": 197.5, "replays": 7.0, "rateLimited": 8.0, "quotaRefusals": 9.0, "breakerOpen": 1.0,
			"poolWaitMs": 25.0, "droppedEvents": 3.0,
		}
		all := lines(t, &log)
		require.Len(t, all, 3)
		require.Equal(t, busy, all[0])
		require.Equal(t, quiet, all[1])
		require.InDelta(t, 1, all[2]["requests"], 0, "what came after the last whole minute")
	})
}

func TestQuantiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		var h histogram
		var all []time.Duration
		for range 1 + random.IntN(1000) {
			d := time.Duration(random.ExpFloat64() * float64(50*time.Millisecond))
			h.add(d)
			all = append(all, d)
		}
		slices.Sort(all)
		d := h.now()
		require.EqualValues(t, len(all), d.Count())
		for _, q := range []float64{0.5, 0.95, 1} {
			exact := all[max(0, int(q*float64(len(all))+0.999999)-1)]
			require.InDelta(t, float64(exact), float64(d.Quantile(q)), float64(exact)/3+float64(bounds[0]), "%v of %d", q, len(all))
		}
	}
	require.Zero(t, Distribution{}.Quantile(0.95))
	var h histogram
	h.add(time.Hour)
	require.Equal(t, 300*time.Second, h.now().Quantile(0.95), "the longest that is told apart")
	require.Len(t, bounds, parts-1)
}

// Counting is for every request, so it allocates nothing, and so do spans that are not recorded.
func TestCountingAllocatesNothing(t *testing.T) {
	var r Recorder
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		_, span := Begin(ctx, "agent answer", trace.SpanKindClient)
		End(span, "agent_failed")
		r.Request(Request{Method: "POST", Route: "/api/chat/send", Status: 200, Waits: true}, time.Millisecond)
		r.StoreCall(StoreCall{Script: "begin"}, time.Millisecond)
		r.Turn(Turn{State: "complete", Took: time.Second, FirstDelta: time.Second})
		r.Replays.Add(1)
	}))
}

// All count at once, and nothing is lost.
func TestCountingAtOnce(t *testing.T) {
	var r Recorder
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for i := range 1000 {
				r.Request(Request{Status: 200 + (i+n)%5}, time.Duration(i)*time.Millisecond)
				r.Figures()
			}
		})
	}
	all.Wait()
	f := r.Figures()
	require.Len(t, f.Requests, 5)
	require.EqualValues(t, 8000, sumUp(f).requests.Count())
}

// BenchmarkCounting is what a send's counting costs, with its two store calls.
func BenchmarkCounting(b *testing.B) {
	var r Recorder
	b.ReportAllocs()
	for b.Loop() {
		began := time.Now()
		for range 2 {
			began := time.Now()
			r.StoreCall(StoreCall{Script: "begin"}, time.Since(began))
		}
		r.Turn(Turn{State: "complete", Took: time.Since(began), Own: time.Since(began), FirstDelta: time.Since(began)})
		r.Request(Request{Method: "POST", Route: "/api/chat/send", Status: 200, Waits: true}, time.Since(began))
	}
}
