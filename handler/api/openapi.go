package api

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// openapiJSON is openapi.yaml at the root, as JSON: go test ./handler/contract -run TestContractAsJSON -update writes it.
//
//go:embed openapi.json
var openapiJSON []byte

// openapiTag is the contract's.
var openapiTag = sync.OnceValue(func() string {
	digest := sha256.Sum256(openapiJSON)
	return `"` + base64.RawURLEncoding.EncodeToString(digest[:12]) + `"`
})

// openapi answers with the contract of this API, to anybody: it is the same for all, and changes with a deployment alone.
func (s *Server) openapi(w *response, r *http.Request) error {
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Header().Set("ETag", openapiTag())
	isKnown := func(tag string) bool { return tag == "*" || strings.TrimPrefix(tag, "W/") == openapiTag() }
	if slices.ContainsFunc(tagsOf(r.Header.Values("If-None-Match")), isKnown) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return respond(w, http.StatusOK, openapiJSON)
}
