package api

import (
	"crypto/subtle"
	"net/http"
	"slices"
)

// Edge is what stands between callers and this program.
type Edge struct {
	FrontDoorID string   // admit only what came through this Front Door; empty: whatever the platform lets through
	Origins     []string // whose pages may call from a browser, where no platform answers for CORS
}

// admit refuses a request that did not come through our Front Door. It is the second lock behind the platform's access restriction,
// and proves nothing of the caller. Probes come from the platform itself.
func (e Edge) admit(r *http.Request) error {
	if e.FrontDoorID == "" || r.URL.Path == "/" || r.URL.Path == "/health" {
		return nil
	}
	ids := r.Header.Values("X-Azure-FDID")
	if len(ids) != 1 || subtle.ConstantTimeCompare([]byte(ids[0]), []byte(e.FrontDoorID)) != 1 {
		return errForbidden
	}
	return nil
}

// preflight adds the CORS headers (https://fetch.spec.whatwg.org) for a page of ours, and answers a preflight; then it is true.
func (e Edge) preflight(w http.ResponseWriter, r *http.Request) bool {
	if len(e.Origins) == 0 {
		return false
	}
	header := w.Header()
	header.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !slices.Contains(e.Origins, origin) {
		return false
	}
	header.Set("Access-Control-Allow-Origin", origin)
	header.Set("Access-Control-Expose-Headers", "ETag, Idempotency-Replayed, Location, Retry-After, WWW-Authenticate, X-Request-Id")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	header.Set("Access-Control-Allow-Methods", "GET, HEAD, POST")
	header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, If-None-Match, Traceparent")
	header.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}
