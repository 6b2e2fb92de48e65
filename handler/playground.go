//go:build playground

package main

import (
	"context"
	"log/slog"
	"net/http"

	"chatkeep/handler/auth"
	"chatkeep/handler/chat"
	"chatkeep/handler/playground"
	"chatkeep/handler/store"
)

// withPlayground adds what make run alone has to the program.
func withPlayground(
	api http.Handler, cfg config, conversations chat.Store, verifier *auth.Verifier, getenv func(string) string, log *slog.Logger,
) http.Handler {
	s := playground.Settings{
		Issuer: cfg.auth.Issuer, Agent: cfg.agent,
		Limits: playground.Limits{
			Bytes: cfg.limits.Bytes, Conversations: cfg.limits.Conversations, TurnsPerMinute: cfg.limits.TurnsPerMinute,
		},
	}
	if cfg.redis != nil {
		s.Redis = playground.Redis{Config: getenv("PLAYGROUND_REDIS"), Socket: cfg.redis.Addr}
	}
	s.Usage = func(ctx context.Context, header http.Header) (playground.Usage, error) {
		user, err := verifier.User(ctx, header)
		if err != nil {
			return playground.Usage{}, err
		}
		owner := chat.Owner{TenantID: user.TenantID, UserID: user.ID}
		var has store.Usage
		switch kept := conversations.(type) {
		case *store.Redis:
			has, err = kept.Usage(ctx, owner, func(int) {})
		case *store.Memory:
			has = kept.Usage(owner)
		}
		return playground.Usage{Bytes: has.Bytes, Conversations: has.Conversations}, err
	}
	return playground.New(api, s, log)
}
