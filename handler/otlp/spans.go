package otlp

import (
	"context"

	"chatkeep/handler/panics"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// What follows has the form of opentelemetry/proto in JSON: ids in hex, 64-bit numbers as strings, enumerations as numbers.

type tracesRequest struct {
	ResourceSpans []resourceSpans `json:"resourceSpans"`
}

type resourceSpans struct {
	Resource   resourceOf   `json:"resource"`
	ScopeSpans []scopeSpans `json:"scopeSpans"`
}

type resourceOf struct {
	Attributes []keyValue `json:"attributes"`
}

type scopeSpans struct {
	Scope scope  `json:"scope"`
	Spans []span `json:"spans"`
}

type scope struct {
	Name string `json:"name"`
}

type span struct {
	TraceID           string     `json:"traceId"`
	SpanID            string     `json:"spanId"`
	ParentSpanID      string     `json:"parentSpanId,omitzero"`
	Flags             uint32     `json:"flags"`
	Name              string     `json:"name"`
	Kind              int        `json:"kind"`
	Start             int64      `json:"startTimeUnixNano,string"`
	End               int64      `json:"endTimeUnixNano,string"`
	Attributes        []keyValue `json:"attributes,omitempty"`
	DroppedAttributes int        `json:"droppedAttributesCount,omitzero"`
	Status            status     `json:"status"`
}

type status struct {
	Code int `json:"code,omitzero"`
}

type keyValue struct {
	Key   string `json:"key"`
	Value value  `json:"value"`
}

// value has one of its fields.
type value struct {
	String *string  `json:"stringValue,omitzero"`
	Bool   *bool    `json:"boolValue,omitzero"`
	Int    *int64   `json:"intValue,omitzero,string"`
	Double *float64 `json:"doubleValue,omitzero"`
}

// spanExporter is an sdktrace.SpanExporter.
type spanExporter struct{ *sender }

// ExportSpans implements sdktrace.SpanExporter.
func (e *spanExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	return panics.Recover(ctx, e.log, func() error { return e.send(ctx, tracesOf(spans)) }) // in a goroutine of the SDK's
}

// Shutdown implements sdktrace.SpanExporter.
func (e *spanExporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// tracesOf writes spans of one resource.
func tracesOf(spans []sdktrace.ReadOnlySpan) tracesRequest {
	byScope := make(map[instrumentation.Scope]*scopeSpans)
	request := resourceSpans{}
	for _, s := range spans {
		if len(request.Resource.Attributes) == 0 {
			request.Resource = resourceFrom(s.Resource())
		}
		at, ok := byScope[s.InstrumentationScope()]
		if !ok {
			at = &scopeSpans{Scope: scope{s.InstrumentationScope().Name}}
			byScope[s.InstrumentationScope()] = at
		}
		at.Spans = append(at.Spans, spanOf(s))
	}
	for _, at := range byScope {
		request.ScopeSpans = append(request.ScopeSpans, *at)
	}
	return tracesRequest{[]resourceSpans{request}}
}

const (
	knowsRemote = 0x100 // in flags: whether the parent is of another process is told
	isRemote    = 0x200
)

func spanOf(s sdktrace.ReadOnlySpan) span {
	out := span{
		TraceID: s.SpanContext().TraceID().String(), SpanID: s.SpanContext().SpanID().String(),
		Flags: uint32(s.SpanContext().TraceFlags()) | knowsRemote, Name: s.Name(), Kind: int(s.SpanKind()),
		Start: s.StartTime().UnixNano(), End: s.EndTime().UnixNano(),
		Attributes: attributesOf(s.Attributes()), DroppedAttributes: s.DroppedAttributes(),
	}
	if s.Parent().HasSpanID() {
		out.ParentSpanID = s.Parent().SpanID().String()
	}
	if s.Parent().IsRemote() {
		out.Flags |= isRemote
	}
	switch s.Status().Code {
	case codes.Ok:
		out.Status.Code = 1
	case codes.Error:
		out.Status.Code = 2
	case codes.Unset:
	}
	return out
}

func resourceFrom(r *resource.Resource) resourceOf {
	return resourceOf{attributesOf(r.Attributes())}
}

func attributesOf(attributes []attribute.KeyValue) []keyValue {
	all := make([]keyValue, 0, len(attributes))
	for _, a := range attributes {
		all = append(all, keyValue{string(a.Key), valueOf(a.Value)})
	}
	return all
}

// valueOf writes a value; what is neither a truth nor a number is text.
func valueOf(v attribute.Value) value {
	switch v.Type() { //nolint:exhaustive // the rest is text
	case attribute.BOOL:
		return value{Bool: new(v.AsBool())}
	case attribute.INT64:
		return value{Int: new(v.AsInt64())}
	case attribute.FLOAT64:
		return value{Double: new(v.AsFloat64())}
	default:
		return value{String: new(v.String())}
	}
}
