package otlp

import (
	"context"
	"fmt"

	"chatkeep/handler/panics"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

type metricsRequest struct {
	ResourceMetrics []resourceMetrics `json:"resourceMetrics"`
}

type resourceMetrics struct {
	Resource     resourceOf     `json:"resource"`
	ScopeMetrics []scopeMetrics `json:"scopeMetrics"`
}

type scopeMetrics struct {
	Scope   scope    `json:"scope"`
	Metrics []metric `json:"metrics"`
}

// metric has one of Sum, Gauge and Histogram.
type metric struct {
	Name        string  `json:"name"`
	Description string  `json:"description"`
	Unit        string  `json:"unit"`
	Sum         *points `json:"sum,omitzero"`
	Gauge       *points `json:"gauge,omitzero"`
	Histogram   *points `json:"histogram,omitzero"`
}

type points struct {
	DataPoints  []point `json:"dataPoints"`
	Temporality int     `json:"aggregationTemporality,omitzero"`
	IsMonotonic bool    `json:"isMonotonic,omitzero"`
}

// point is of a number, which has Int, or of a histogram, which has the last four.
type point struct {
	Attributes []keyValue `json:"attributes,omitempty"`
	Start      int64      `json:"startTimeUnixNano,string,omitzero"`
	Time       int64      `json:"timeUnixNano,string"`
	Int        *int64     `json:"asInt,string,omitzero"`
	Count      *uint64    `json:"count,string,omitzero"`
	Sum        *float64   `json:"sum,omitzero"`
	Counts     []string   `json:"bucketCounts,omitempty"`
	Bounds     []float64  `json:"explicitBounds,omitempty"`
}

// metricExporter is an sdkmetric.Exporter.
type metricExporter struct{ *sender }

// Export implements sdkmetric.Exporter.
func (e *metricExporter) Export(ctx context.Context, metrics *metricdata.ResourceMetrics) error {
	return panics.Recover(ctx, e.log, func() error { // in a goroutine of the SDK's
		request, err := metricsOf(metrics)
		if err != nil {
			return err
		}
		return e.send(ctx, request)
	})
}

// Temporality implements sdkmetric.Exporter.
func (e *metricExporter) Temporality(sdkmetric.InstrumentKind) metricdata.Temporality {
	return metricdata.CumulativeTemporality
}

// Aggregation implements sdkmetric.Exporter.
func (e *metricExporter) Aggregation(kind sdkmetric.InstrumentKind) sdkmetric.Aggregation {
	return sdkmetric.DefaultAggregationSelector(kind)
}

// ForceFlush implements sdkmetric.Exporter.
func (e *metricExporter) ForceFlush(context.Context) error { return nil }

// Shutdown implements sdkmetric.Exporter.
func (e *metricExporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// metricsOf writes what a producer makes; other kinds of metrics are an error.
func metricsOf(metrics *metricdata.ResourceMetrics) (metricsRequest, error) {
	out := resourceMetrics{Resource: resourceFrom(metrics.Resource)}
	for _, in := range metrics.ScopeMetrics {
		of := scopeMetrics{Scope: scope{in.Scope.Name}}
		for _, m := range in.Metrics {
			written := metric{Name: m.Name, Description: m.Description, Unit: m.Unit}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				written.Sum = &points{numbersOf(data.DataPoints), temporalityOf(data.Temporality), data.IsMonotonic}
			case metricdata.Gauge[int64]:
				written.Gauge = &points{DataPoints: numbersOf(data.DataPoints)}
			case metricdata.Histogram[float64]:
				written.Histogram = &points{DataPoints: histogramsOf(data.DataPoints), Temporality: temporalityOf(data.Temporality)}
			default:
				return metricsRequest{}, fmt.Errorf("no form for %s, a %T", m.Name, m.Data)
			}
			of.Metrics = append(of.Metrics, written)
		}
		out.ScopeMetrics = append(out.ScopeMetrics, of)
	}
	return metricsRequest{[]resourceMetrics{out}}, nil
}

func temporalityOf(t metricdata.Temporality) int {
	if t == metricdata.DeltaTemporality {
		return 1
	}
	return 2
}

func numbersOf(in []metricdata.DataPoint[int64]) []point {
	var all []point
	for _, p := range in {
		out := point{Attributes: attributesOf(p.Attributes.ToSlice()), Time: p.Time.UnixNano(), Int: &p.Value}
		if !p.StartTime.IsZero() {
			out.Start = p.StartTime.UnixNano()
		}
		all = append(all, out)
	}
	return all
}

func histogramsOf(in []metricdata.HistogramDataPoint[float64]) []point {
	var all []point
	for _, p := range in {
		out := point{
			Attributes: attributesOf(p.Attributes.ToSlice()), Start: p.StartTime.UnixNano(), Time: p.Time.UnixNano(),
			Count: &p.Count, Sum: &p.Sum, Bounds: p.Bounds,
		}
		for _, n := range p.BucketCounts {
			out.Counts = append(out.Counts, fmt.Sprint(n))
		}
		all = append(all, out)
	}
	return all
}
