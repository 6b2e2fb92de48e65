//go:build !playground

package main

import (
	"log/slog"
	"net/http"

	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
)

// withPlayground adds nothing to what is deployed: see playground.go.
func withPlayground(api http.Handler, _ config, _ chat.Store, _ *auth.Verifier, _ func(string) string, _ *slog.Logger) http.Handler {
	return api
}
