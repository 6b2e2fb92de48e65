package telemetry

import (
	"context"
	"log/slog"
	"math"
	"time"
)

const vitalsEvery = time.Minute

// Run logs the vitals once a minute, quiet ones too, until ctx ends: then it logs those of the last part of a minute.
func (r *Recorder) Run(ctx context.Context, log *slog.Logger) {
	ticker := time.NewTicker(vitalsEvery)
	defer ticker.Stop()
	before := sumUp(r.Figures())
	for ended := false; !ended; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			ended = true
		}
		now := sumUp(r.Figures())
		log.LogAttrs(context.WithoutCancel(ctx), slog.LevelInfo, "vitals", now.since(before)...)
		before = now
	}
}

// vitals are the figures that tell how the process is.
type vitals struct {
	figures    Figures
	requests   Distribution // of callers
	errors     uint64       // of them answered with 5xx
	quick      Distribution // requests that wait for neither agent nor reader
	storeCalls Distribution
}

func sumUp(f Figures) vitals {
	v := vitals{figures: f}
	for kind, d := range f.Requests {
		if kind.Probe {
			continue
		}
		v.requests = v.requests.plus(d)
		if kind.Status >= 500 {
			v.errors += d.Count()
		}
		if !kind.Waits {
			v.quick = v.quick.plus(d)
		}
	}
	for _, d := range f.StoreCalls {
		v.storeCalls = v.storeCalls.plus(d)
	}
	return v
}

// since are the attributes of a line: what was counted since then, and what is now. A p95 of nothing is 0.
func (v vitals) since(then vitals) []slog.Attr {
	now, before := v.figures, then.figures
	var client, clientBefore Client
	if now.Client != nil && before.Client != nil {
		client, clientBefore = *now.Client, *before.Client
	}
	var open, wait int64
	var waited time.Duration
	if client.Down {
		open = 1
	}
	if wait = client.Waits - clientBefore.Waits; wait > 0 {
		waited = (client.Waited - clientBefore.Waited) / time.Duration(wait)
	}
	return []slog.Attr{
		slog.Uint64("requests", v.requests.minus(then.requests).Count()),
		slog.Uint64("errors5xx", v.errors-then.errors),
		p95("requestP95Ms", v.quick.minus(then.quick)),
		p95("sendOwnP95Ms", now.Own.minus(before.Own)),
		p95("storeP95Ms", v.storeCalls.minus(then.storeCalls)),
		slog.Int64("turnsRunning", now.TurnsRunning),
		p95("firstDeltaP95Ms", now.FirstDelta.minus(before.FirstDelta)),
		slog.Int64("replays", now.Replays-before.Replays),
		slog.Int64("rateLimited", now.RateLimited-before.RateLimited),
		slog.Int64("quotaRefusals", now.QuotaRefusals-before.QuotaRefusals),
		slog.Int64("breakerOpen", open),
		milliseconds("poolWaitMs", waited),
		slog.Int64("droppedEvents", now.DroppedEvents-before.DroppedEvents),
	}
}

func p95(name string, d Distribution) slog.Attr { return milliseconds(name, d.Quantile(0.95)) }

// milliseconds rounds to hundredths.
func milliseconds(name string, d time.Duration) slog.Attr {
	return slog.Float64(name, math.Round(float64(d)/float64(time.Millisecond)*100)/100)
}
