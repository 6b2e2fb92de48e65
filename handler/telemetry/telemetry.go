// Package telemetry counts what the process does, and begins the spans of what it does for a request.
package telemetry

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Recorder counts, for the vitals and for whoever asks for the Figures. Its zero value is ready, and counting allocates nothing but for the
// first of a kind. It is safe for concurrent use once its Tracer and Client are set.
//
// What it is given must tell nothing of a person: no text, no token, no id of a user or a conversation, and no key of the store.
type Recorder struct {
	Tracer trace.Tracer  // begins the spans of requests; nil: there are none
	Client func() Client // tells how the store's client is; nil: the store has none

	TurnsRunning  atomic.Int64 // now
	Replays       atomic.Int64 // requests that were answered with what an earlier one had come to
	RateLimited   atomic.Int64 // requests refused for too many turns a minute, or too many requests at once
	QuotaRefusals atomic.Int64 // requests refused for too many bytes or conversations
	DroppedEvents atomic.Int64 // of running answers, that their readers do not get; the answers themselves they do

	requests family[Request]
	calls    family[StoreCall]
	turns    family[string]
	own      histogram
	first    histogram
}

// Request is a kind of request.
type Request struct {
	Method, Route string // Route is a pattern, empty where there is none
	Status        int    // 0: nobody was there for an answer
	Waits         bool   // it takes as long as an agent or a reader takes
	Probe         bool   // a probe's, not a caller's
}

// StoreCall is a kind of call of the store.
type StoreCall struct {
	Script  string
	Failure string // a class of failures; empty: it was answered
}

// Client is how the store's client is.
type Client struct {
	Down   bool // calls fail at once, for the store is known not to answer
	Waits  int64
	Waited time.Duration // by those Waits for a free connection, in all
}

// Turn is a turn that has ended.
type Turn struct {
	State      string        // of its question
	Took       time.Duration // from its beginning
	Own        time.Duration // without its agent's part, but with what beginning it took
	FirstDelta time.Duration // from its beginning to the first text of the answer; 0: none came before the answer
	Dropped    int           // events that readers do not get
}

// Request counts a request that has been answered.
func (r *Recorder) Request(kind Request, took time.Duration) { r.requests.of(kind).add(took) }

// StoreCall counts a call of the store.
func (r *Recorder) StoreCall(kind StoreCall, took time.Duration) { r.calls.of(kind).add(took) }

// Turn counts a turn that has ended.
func (r *Recorder) Turn(t Turn) {
	r.turns.of(t.State).add(t.Took)
	r.own.add(t.Own)
	if t.FirstDelta > 0 {
		r.first.add(t.FirstDelta)
	}
	r.DroppedEvents.Add(int64(t.Dropped))
}

// Figures are what a Recorder has counted since the start, and what is now.
type Figures struct {
	Requests   map[Request]Distribution
	StoreCalls map[StoreCall]Distribution
	Turns      map[string]Distribution // by state
	Own        Distribution            // of turns, without their agent's part
	FirstDelta Distribution

	TurnsRunning, Replays, RateLimited, QuotaRefusals, DroppedEvents int64

	Client *Client // nil: the store has none
}

// Figures returns what was counted.
func (r *Recorder) Figures() Figures {
	f := Figures{
		Requests: r.requests.now(), StoreCalls: r.calls.now(), Turns: r.turns.now(), Own: r.own.now(), FirstDelta: r.first.now(),
		TurnsRunning: r.TurnsRunning.Load(), Replays: r.Replays.Load(), RateLimited: r.RateLimited.Load(),
		QuotaRefusals: r.QuotaRefusals.Load(), DroppedEvents: r.DroppedEvents.Load(),
	}
	if r.Client != nil {
		client := r.Client()
		f.Client = &client
	}
	return f
}

// Scope is the name under which spans and metrics are told.
const Scope = "chatkeep"

// Begin begins a span within the one of ctx, for End. Where that is not recorded, neither is this, and it costs nothing.
func Begin(ctx context.Context, name string, kind trace.SpanKind) (context.Context, trace.Span) {
	around := trace.SpanFromContext(ctx)
	if !around.SpanContext().IsSampled() {
		return ctx, noop.Span{}
	}
	return around.TracerProvider().Tracer(Scope).Start(ctx, name, trace.WithSpanKind(kind))
}

// End ends a span, with the class of its failure; empty: it did not fail.
func End(span trace.Span, failure string) {
	if failure != "" && span.IsRecording() {
		span.SetStatus(codes.Error, "")
		span.SetAttributes(attribute.String("error.type", failure))
	}
	span.End()
}
