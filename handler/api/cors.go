package api

import (
	"net/http"
	"slices"
	"strings"
)

// corsHeaders are the headers that a page may send to every route: the ones we read, and those that client libraries add.
var corsHeaders = []string{
	"Authorization", "Content-Type", "Last-Event-ID", "request-context", "request-id", "traceparent", "tracestate", "User-Agent",
}

// allowOrigin lets a page of ours read the answer (CORS, https://fetch.spec.whatwg.org).
func (e Edge) allowOrigin(w http.ResponseWriter, r *http.Request) {
	if len(e.Origins) == 0 {
		return
	}
	w.Header().Add("Vary", "Origin")
	if origin := r.Header.Get("Origin"); slices.Contains(e.Origins, origin) {
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Expose-Headers", "ETag, Idempotency-Replayed, Link, Location, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-Id")
	}
}

// isPreflight reports whether a browser asks for a page of ours what it may send.
func (e Edge) isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" &&
		slices.Contains(e.Origins, r.Header.Get("Origin"))
}

// allow answers a preflight.
func (at *resource) allow(w http.ResponseWriter) {
	w.Header().Set("Access-Control-Allow-Methods", strings.Join(at.methods, ", "))
	w.Header().Set("Access-Control-Allow-Headers", strings.Join(at.headers, ", "))
	w.Header().Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}
