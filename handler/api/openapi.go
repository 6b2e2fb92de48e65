package api

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strings"
)

// openapiJSON is openapi.yaml at the root, as JSON: go test ./handler/contract -run TestContractAsJSON -update writes it.
//
//go:embed openapi.json
var openapiJSON []byte

// openapi answers with the contract of this API, to anybody: it is the same for all, and changes with a deployment alone.
func (s *Server) openapi(w *response, r *http.Request) error {
	digest := sha256.Sum256(openapiJSON)
	tag := `"` + base64.RawURLEncoding.EncodeToString(digest[:12]) + `"`
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Header().Set("ETag", tag)
	for known := range strings.SplitSeq(strings.Join(r.Header.Values("If-None-Match"), ","), ",") {
		if known = strings.TrimSpace(known); known == "*" || strings.TrimPrefix(known, "W/") == tag {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	return respond(w, http.StatusOK, openapiJSON)
}
