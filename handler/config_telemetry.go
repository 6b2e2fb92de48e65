package main

import (
	"cmp"
	"crypto/rand"
	"net/url"
	"regexp"
	"strings"

	"chatkeep/handler/otlp"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// telemetry reads where spans and metrics go, by the names that OpenTelemetry gives its settings.
func (e *environment) telemetry(c *config) {
	var o otlp.Config
	var endpoint, protocol, sampler, service string
	var attributes map[string]string
	var ratio float64
	var isDisabled bool
	e.read("Telemetry",
		setting{"OTEL_EXPORTER_OTLP_ENDPOINT", "", "URL of an OpenTelemetry collector, for OTLP/HTTP in JSON: `/v1/traces` and `/v1/metrics` are added; none: nothing is sent", text(&endpoint)},
		setting{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "instead, for traces: the whole URL", text(&o.Traces)},
		setting{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "", "instead, for metrics: the whole URL", text(&o.Metrics)},
		setting{"OTEL_EXPORTER_OTLP_HEADERS", "", "headers of each request, such as a key: name=value pairs separated by commas, percent-encoded", pairs(&o.Headers)},
		setting{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "`http/json` is what there is; any other stops the program", oneOf(&protocol, "http/json")},
		setting{"OTEL_EXPORTER_OTLP_TIMEOUT", "10000", "ms for a request to the collector with its retries", milliseconds(&o.Timeout, 100, 60_000)},
		setting{"OTEL_METRIC_EXPORT_INTERVAL", "60000", "ms between two sendings of the metrics", milliseconds(&o.Interval, 1000, 3_600_000)},
		setting{
			"OTEL_TRACES_SAMPLER", "parentbased_always_on", "which requests are traced: `always_on`, `always_off` or `traceidratio`, or the same after `parentbased_`: then the caller's trace decides, if there is one",
			oneOf(&sampler, "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"),
		},
		setting{"OTEL_TRACES_SAMPLER_ARG", "1", "with `traceidratio`: the share of requests that is traced", share(&ratio)},
		setting{"OTEL_SERVICE_NAME", "", "the service's name; none: that of the attributes, or chatkeep", text(&service)},
		setting{"OTEL_RESOURCE_ATTRIBUTES", "", "what else is said of the service: name=value pairs separated by commas, percent-encoded", pairs(&attributes)},
		setting{"OTEL_SDK_DISABLED", "false", "true: nothing is sent all the same", boolean(&isDisabled)},
	)
	for _, url := range []struct{ name, text string }{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint}, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", o.Traces}, {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", o.Metrics},
	} {
		e.checkCollector(url.name, url.text, len(o.Headers) > 0)
	}
	for name, value := range o.Headers {
		if !headerName.MatchString(name) || !headerValue.MatchString(value) {
			e.refuse("OTEL_EXPORTER_OTLP_HEADERS", "must hold names and values that HTTP headers can have")
		}
	}
	if isDisabled {
		return
	}
	if endpoint != "" {
		base := strings.TrimSuffix(endpoint, "/")
		o.Traces, o.Metrics = cmp.Or(o.Traces, base+"/v1/traces"), cmp.Or(o.Metrics, base+"/v1/metrics")
	}
	o.Sampler = samplerOf(sampler, ratio)
	attributes["service.name"] = cmp.Or(service, attributes["service.name"], "chatkeep")
	for name, value := range attributes {
		o.Attributes = append(o.Attributes, attribute.String(name, value))
	}
	o.Attributes = append(o.Attributes,
		attribute.String("service.version", version), attribute.String("service.instance.id", rand.Text()), attribute.String("chatkeep.agent", c.agent))
	c.telemetry = o
}

var (
	headerName  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	headerValue = regexp.MustCompile("^[ -~]*$")
)

// checkCollector refuses what is no collector's URL. Headers, which may hold a secret, go nowhere unencrypted.
func (e *environment) checkCollector(name, text string, hasHeaders bool) {
	u, err := url.Parse(text)
	switch {
	case text == "":
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		e.refuse(name, "must be an http or https URL without user, query and fragment, such as http://127.0.0.1:4318")
	case hasHeaders && !isHTTPS(text):
		e.refuse(name, "must be an https URL, or http on loopback, because OTEL_EXPORTER_OTLP_HEADERS may hold a secret")
	}
}

func samplerOf(name string, ratio float64) sdktrace.Sampler {
	name, isParentBased := strings.CutPrefix(name, "parentbased_")
	sampler := sdktrace.AlwaysSample()
	switch name {
	case "always_off":
		sampler = sdktrace.NeverSample()
	case "traceidratio":
		sampler = sdktrace.TraceIDRatioBased(ratio)
	}
	if isParentBased {
		return sdktrace.ParentBased(sampler)
	}
	return sampler
}
