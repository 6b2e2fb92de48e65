package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// collector takes OTLP/HTTP in JSON, and reads it as the official types.
type collector struct {
	t   *testing.T
	URL string

	mu      sync.Mutex
	bodies  []byte // all
	spans   []*traces.Span
	service []*common.KeyValue
	metrics map[string]*metrics.Metric // as last told
}

func collect(t *testing.T) *collector {
	t.Helper()
	c := &collector{t: t, metrics: make(map[string]*metrics.Metric)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
		assert.Equal(t, "the key", r.Header.Get("X-Key"))
		c.mu.Lock()
		defer c.mu.Unlock()
		c.bodies = append(c.bodies, body...)
		switch r.URL.Path {
		case "/v1/traces":
			var request traces.TracesData // as ExportTraceServiceRequest is, whose package brings gRPC
			read(t, body, &request)
			for _, of := range request.ResourceSpans {
				c.service = of.Resource.Attributes
				for _, of := range of.ScopeSpans {
					c.spans = append(c.spans, of.Spans...)
				}
			}
		case "/v1/metrics":
			var request metrics.MetricsData
			read(t, body, &request)
			for _, of := range request.ResourceMetrics {
				for _, of := range of.ScopeMetrics {
					for _, m := range of.Metrics {
						c.metrics[m.Name] = m
					}
				}
			}
		default:
			assert.Fail(t, "no such path", r.URL.Path)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

// read reads OTLP's JSON, which differs from that of protobuf in the ids alone: they are in hex. Unknown fields are errors.
func read(t *testing.T, body []byte, into proto.Message) {
	var tree any
	numbers := json.NewDecoder(bytes.NewReader(body))
	numbers.UseNumber()
	assert.NoError(t, numbers.Decode(&tree))
	var walk func(any)
	walk = func(node any) {
		switch node := node.(type) {
		case []any:
			for _, element := range node {
				walk(element)
			}
		case map[string]any:
			for name, field := range node {
				walk(field)
				if name == "traceId" || name == "spanId" || name == "parentSpanId" {
					id, err := hex.DecodeString(field.(string))
					assert.NoError(t, err)
					node[name] = base64.StdEncoding.EncodeToString(id)
				}
			}
		}
	}
	walk(tree)
	body, err := json.Marshal(tree)
	assert.NoError(t, err)
	assert.NoError(t, protojson.Unmarshal(body, into), "%s", body)
}

// attributesOf are attributes by name, as text.
func attributesOf(all []*common.KeyValue) map[string]string {
	named := make(map[string]string)
	for _, a := range all {
		named[a.Key] = fmt.Sprint(a.Value.GetStringValue())
		if n := a.Value.GetIntValue(); n != 0 {
			named[a.Key] = fmt.Sprint(n)
		}
	}
	return named
}

// A send of the built program, told to a collector: its whole trace, which its caller began, and metrics.
func TestASendIsTold(t *testing.T) {
	c := collect(t)
	d := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL+"/",
		"OTEL_EXPORTER_OTLP_HEADERS=x-key=the%20key", "OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test")
	id := d.start("alice")
	d.must(200, "POST", "/api/chat/send", "alice", said(id, "Hello")) // loads the scripts

	const traceID, callerID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	request, err := http.NewRequestWithContext(t.Context(), "POST", d.host.URL+"/api/chat/send", strings.NewReader(said(id, "Hello again")))
	require.NoError(t, err)
	token := d.issuer.Token(authtest.LocalTenant, "alice", nil)
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Traceparent", "00-"+traceID+"-"+callerID+"-01")
	request.Header.Set("Tracestate", "secret=alice")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	_ = response.Body.Close()
	require.Equal(t, 200, response.StatusCode)
	d.must(404, "GET", "/api/chat/conversations/"+id, "bob", "")
	d.host.Signal(syscall.SIGTERM)
	d.host.Wait()
	require.Regexp(t, `"msg":"vitals","requests":4,"errors5xx":0,"requestP95Ms":[0-9.]+,"sendOwnP95Ms":[0-9.]+,"storeP95Ms":[0-9.]+,`, strings.Join(d.host.Stdout(), "\n"))
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := make(map[string][]*traces.Span) // of the trace, by name
	for _, s := range c.spans {
		if hex.EncodeToString(s.TraceId) == traceID {
			spans[s.Name] = append(spans[s.Name], s)
		}
	}
	require.Len(t, spans["POST /api/chat/send"], 1)
	whole := spans["POST /api/chat/send"][0]
	require.Equal(t, callerID, hex.EncodeToString(whole.ParentSpanId))
	require.Equal(t, traces.Span_SPAN_KIND_SERVER, whole.Kind)
	require.Empty(t, whole.TraceState)
	attributes := attributesOf(whole.Attributes)
	require.Equal(t, response.Header.Get("X-Request-Id"), attributes["chatkeep.request.id"])
	delete(attributes, "chatkeep.request.id")
	require.Equal(t, map[string]string{
		"http.request.method": "POST", "http.route": "/api/chat/send", "http.response.status_code": "200", "url.scheme": "http",
	}, attributes)
	for name, want := range map[string]struct {
		kind       traces.Span_SpanKind
		attributes map[string]string
	}{
		"verify token": {traces.Span_SPAN_KIND_INTERNAL, map[string]string{}},
		"agent answer": {traces.Span_SPAN_KIND_CLIENT, map[string]string{}},
		"begin":        {traces.Span_SPAN_KIND_CLIENT, map[string]string{"db.system.name": "redis", "db.operation.name": "begin", "chatkeep.store.round_trips": "1"}},
		"finish":       {traces.Span_SPAN_KIND_CLIENT, map[string]string{"db.system.name": "redis", "db.operation.name": "finish", "chatkeep.store.round_trips": "1"}},
	} {
		require.Len(t, spans[name], 1, name)
		span := spans[name][0]
		require.Equal(t, whole.SpanId, span.ParentSpanId, name)
		require.Equal(t, want.kind, span.Kind, name)
		require.Equal(t, want.attributes, attributesOf(span.Attributes), name)
		require.GreaterOrEqual(t, span.StartTimeUnixNano, whole.StartTimeUnixNano, name)
		require.Greater(t, span.EndTimeUnixNano, span.StartTimeUnixNano, name)
		require.WithinDuration(t, time.Now(), time.Unix(0, int64(span.EndTimeUnixNano)), time.Minute)
	}
	service := attributesOf(c.service)
	require.Equal(t, "chatkeep", service["service.name"])
	require.Equal(t, "test", service["deployment.environment.name"])
	require.NotEmpty(t, service["service.instance.id"])

	for _, personal := range []string{"eyJ", token, "alice", "bob", "Hello", "e2e", id, authtest.LocalTenant, "chat:", "secret", "the key"} {
		require.NotContains(t, string(c.bodies), personal)
	}
	for name, row := range map[string]struct {
		unit       string
		attributes map[string]string // of the point that is looked at
		n          uint64            // how many were counted
	}{
		"http.server.request.duration": {"s", map[string]string{
			"http.request.method": "POST", "http.route": "/api/chat/send", "http.response.status_code": "200", "url.scheme": "http",
		}, 2},
		"db.client.operation.duration":      {"s", map[string]string{"db.system.name": "redis", "db.operation.name": "begin"}, 2},
		"db.client.connection.wait_time":    {"s", map[string]string{"db.client.connection.pool.name": "store"}, 0},
		"chatkeep.turn.duration":            {"s", map[string]string{"chatkeep.turn.state": "complete"}, 2},
		"chatkeep.turn.own_duration":        {"s", map[string]string{}, 2},
		"chatkeep.turn.time_to_first_delta": {"s", map[string]string{}, 2},
		"chatkeep.turn.running":             {"{turn}", map[string]string{}, 0},
		"chatkeep.request.replays":          {"{request}", map[string]string{}, 0},
		"chatkeep.request.rate_limited":     {"{request}", map[string]string{}, 0},
		"chatkeep.request.quota_refusals":   {"{request}", map[string]string{}, 0},
		"chatkeep.store.breaker.open":       {"1", map[string]string{}, 0},
		"chatkeep.event.dropped":            {"{event}", map[string]string{}, 0},
	} {
		require.Contains(t, c.metrics, name)
		require.Equal(t, row.unit, c.metrics[name].Unit, name)
		require.Equal(t, row.n, counted(c.metrics[name], row.attributes), name)
	}
	require.Len(t, c.metrics, 12)
}

// counted is how many a metric has counted with these attributes: how many it is, or of durations how many there were.
func counted(m *metrics.Metric, attributes map[string]string) uint64 {
	for _, p := range m.GetHistogram().GetDataPoints() {
		if maps.Equal(attributesOf(p.Attributes), attributes) {
			var n uint64
			for _, in := range p.BucketCounts {
				n += in
			}
			if n == p.Count && len(p.BucketCounts) == len(p.ExplicitBounds)+1 {
				return n
			}
		}
	}
	for _, p := range append(m.GetSum().GetDataPoints(), m.GetGauge().GetDataPoints()...) {
		if maps.Equal(attributesOf(p.Attributes), attributes) {
			return uint64(p.GetAsInt())
		}
	}
	return math.MaxUint64
}

// A collector that takes connections and answers nothing holds nobody up, not even the end.
func TestASilentCollectorHoldsNobody(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	d := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+listener.Addr().String(), "OTEL_EXPORTER_OTLP_TIMEOUT=60000")
	id := d.start("alice")
	for range 5 {
		d.must(200, "POST", "/api/chat/send", "alice", said(id, "Hello"))
	}
	d.host.Signal(syscall.SIGTERM)
	require.Eventually(t, func() bool { return len(d.host.Exits()) > 0 }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, []int{200}, d.host.Exits())
	log := strings.Join(d.host.Stdout(), "\n")
	for _, signal := range []string{"traces", "metrics"} {
		require.Equal(t, 1, strings.Count(log, `"msg":"the collector does not take telemetry, which is lost","signal":"`+signal+`"`), log)
	}
	require.Empty(t, d.host.Stderr())
}
