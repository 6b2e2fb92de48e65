package api

import (
	_ "embed"
	"net/http"
)

// openapiJSON is openapi.yaml at the root, as JSON: go test ./handler/contract -run TestContractAsJSON -update writes it.
//
//go:embed openapi.json
var openapiJSON []byte

// openapi answers with the contract of this API, to anybody.
func (s *Server) openapi(w *response, _ *http.Request) error {
	return respond(w, http.StatusOK, openapiJSON)
}
