package otlp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/telemetry"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// network is what requests to a collector meet.
type network func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (n network) RoundTrip(r *http.Request) (*http.Response, error) { return n(r) }

func answer(status int, body string, headers ...string) *http.Response {
	a := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		a.Header.Set(name, value)
	}
	return a
}

// silent is a collector that answers nothing.
func silent(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func config(n network) Config {
	return Config{
		Traces: "http://collector/v1/traces", Metrics: "http://collector/v1/metrics", Timeout: 10 * time.Second, Interval: time.Minute,
		Sampler: sdktrace.AlwaysSample(), transport: n,
	}
}

func logTo(b *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// A request is sent again when that may help, and not for ever.
//
//nolint:bodyclose // of answers that hold nothing
func TestAttempts(t *testing.T) {
	refused := errors.New("connection refused")
	for name, row := range map[string]struct {
		answers []*http.Response // a nil one is an error
		sent    int
		took    time.Duration
		err     string
	}{
		"taken":                            {[]*http.Response{answer(200, "{}")}, 1, 0, ""},
		"taken, in another form":           {[]*http.Response{answer(202, "thanks")}, 1, 0, ""},
		"busy, then taken":                 {[]*http.Response{answer(503, ""), answer(200, "{}")}, 2, time.Second, ""},
		"busy for as long as said":         {[]*http.Response{answer(429, "", "Retry-After: 4"), answer(200, "{}")}, 2, 4 * time.Second, ""},
		"busy for longer than the timeout": {[]*http.Response{answer(429, "", "Retry-After: 3600")}, 1, 0, "status 429"},
		"busy until a date":                {[]*http.Response{answer(503, "", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"), answer(200, "{}")}, 2, time.Second, ""},
		"always busy":                      {[]*http.Response{answer(502, ""), answer(504, ""), answer(503, "")}, 3, 3 * time.Second, "status 503"},
		"not there, then there":            {[]*http.Response{nil, answer(200, "{}")}, 2, time.Second, ""},
		"not there":                        {[]*http.Response{nil, nil, nil}, 3, 3 * time.Second, "connection refused"},
		"refused":                          {[]*http.Response{answer(400, "")}, 1, 0, "status 400"},
		"not allowed":                      {[]*http.Response{answer(401, "")}, 1, 0, "status 401"},
		"a bug of theirs":                  {[]*http.Response{answer(500, "")}, 1, 0, "status 500"},
		"elsewhere":                        {[]*http.Response{answer(307, "", "Location: http://elsewhere/")}, 1, 0, "status 307"},
		"taken in part":                    {[]*http.Response{answer(200, `{"partialSuccess":{"rejectedSpans":"3","errorMessage":"x"}}`)}, 1, 0, "3 rejected"},
		"taken whole, with a warning":      {[]*http.Response{answer(200, `{"partialSuccess":{"rejectedDataPoints":0,"errorMessage":"x"}}`)}, 1, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent := 0
				s := newSender(config(func(r *http.Request) (*http.Response, error) {
					body, err := io.ReadAll(r.Body)
					require.NoError(t, err)
					require.Equal(t, `{"a":1}`, string(body), "each attempt has it whole")
					sent++
					if a := row.answers[sent-1]; a != nil {
						return a, nil
					}
					return nil, refused
				}), "http://collector/v1/traces?", "traces", slog.New(slog.DiscardHandler))
				began := time.Now()
				err := s.send(t.Context(), map[string]int{"a": 1})
				require.Equal(t, row.sent, sent)
				require.Equal(t, row.took, time.Since(began))
				if row.err == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, row.err, "and nothing of the URL")
				}
			})
		})
	}
}

func TestALossIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		status := 500
		s := newSender(config(func(*http.Request) (*http.Response, error) { return answer(status, ""), nil }), "http://collector", "traces", logTo(&log))
		for range 2 {
			for _, status = range []int{500, 401, 500, 200, 200} {
				_ = s.send(t.Context(), nil)
			}
		}
		var told []string
		for line := range strings.Lines(log.String()) {
			_, line, _ = strings.Cut(line, "level=")
			told = append(told, strings.TrimSpace(line))
		}
		lost, taken := `WARN msg="the collector does not take telemetry, which is lost" signal=traces err="status 500"`, `INFO msg="the collector takes telemetry again" signal=traces`
		require.Equal(t, []string{lost, taken, lost, taken}, told)
	})
}

// A collector that is silent holds nobody up, and no more than some spans; the end waits for it only as long as it was told.
func TestNothingWaitsForACollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := &telemetry.Recorder{}
		export := Start(config(silent), r, logTo(&log))
		began := time.Now()
		for range 20 {
			for range 1000 {
				ctx, whole := r.Tracer.Start(t.Context(), "GET", trace.WithSpanKind(trace.SpanKindServer))
				_, part := telemetry.Begin(ctx, "begin", trace.SpanKindClient)
				telemetry.End(part, "unknown")
				whole.End()
			}
			synctest.Wait()
		}
		require.Zero(t, time.Since(began))
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		export.Close(ctx)
		require.Equal(t, 2*time.Second, time.Since(began))
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, signal := range []string{"traces", "metrics"} {
			require.Equal(t, 1, strings.Count(log.String(), `msg="the collector does not take telemetry, which is lost" signal=`+signal), log.String())
		}
		require.Equal(t, 2, strings.Count(log.String(), "\n"))
	})
}

// A bug where spans and figures are written ends neither the process nor the sending.
func TestAPanicLosesARequestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		taken := make(map[string]int)
		isBroken := true
		r := &telemetry.Recorder{Client: func() telemetry.Client {
			if isBroken {
				panic("a bug")
			}
			return telemetry.Client{}
		}}
		export := Start(config(func(r *http.Request) (*http.Response, error) {
			if isBroken {
				panic("a bug")
			}
			taken[r.URL.Path]++
			return answer(200, "{}"), nil
		}), r, logTo(&log))
		span := func() {
			_, s := r.Tracer.Start(t.Context(), "GET")
			s.End()
		}
		span()
		time.Sleep(90 * time.Second)
		synctest.Wait()
		isBroken = false
		span()
		time.Sleep(time.Minute)
		synctest.Wait()
		export.Close(t.Context())
		require.Equal(t, map[string]int{"/v1/traces": 1, "/v1/metrics": 2}, taken)
		require.Equal(t, 2, strings.Count(log.String(), "msg=panic"))
		require.NotContains(t, log.String(), "a bug")
	})
}

// The bounds of metrics are among those by which durations are counted: nothing is put into a neighbour's bucket.
func TestBoundsAreExact(t *testing.T) {
	for name, bounds := range map[string][]time.Duration{"requests": requestBounds, "store": storeBounds, "turns": turnBounds} {
		var r telemetry.Recorder
		for _, bound := range bounds {
			r.StoreCall(telemetry.StoreCall{}, bound)
			r.StoreCall(telemetry.StoreCall{}, bound+1)
		}
		want := []uint64{1}
		for range bounds[1:] {
			want = append(want, 2)
		}
		require.Equal(t, append(want, 1), r.Figures().StoreCalls[telemetry.StoreCall{}].UpTo(bounds), name)
	}
}
