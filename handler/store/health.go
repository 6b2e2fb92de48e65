package store

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"chatkeep/handler/chat"

	"github.com/redis/go-redis/v9"
)

const (
	pingEvery   = time.Second            // however often one asks
	pingBudget  = 500 * time.Millisecond // for one answer
	policyEvery = time.Hour
)

// pulse pings Redis through a client of its own, so that it never waits behind calls, at most once in pingEvery.
type pulse struct {
	client redis.UniversalClient
	log    *slog.Logger

	mu      sync.Mutex // held during a ping: who asks meanwhile shares its outcome
	at      time.Time
	vitals  chat.Vitals
	err     error
	checked time.Time // the eviction policy
}

// Ping implements chat.Store.
func (p *pulse) ping() (chat.Vitals, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.at) < pingEvery {
		return p.vitals, p.err
	}
	// Not the caller's context: the outcome is not the caller's alone.
	ctx, cancel := context.WithTimeout(context.Background(), pingBudget)
	defer cancel()
	asked := time.Now()
	p.err = p.client.Ping(ctx).Err()
	p.at, p.vitals.Latency = time.Now(), time.Since(asked)
	if p.err == nil && time.Since(p.checked) >= policyEvery {
		p.checkPolicy(ctx)
	}
	if p.err != nil {
		p.err = fmt.Errorf("redis: ping: %w", unavailable(p.err))
	}
	return p.vitals, p.err
}

var (
	maxMemory = regexp.MustCompile(`(?m)^maxmemory:(\d+)`)
	eviction  = regexp.MustCompile(`(?m)^maxmemory_policy:([a-z-]+)`)
)

// checkPolicy looks whether Redis may drop conversations when its memory is full. CONFIG is not for us on Azure, INFO is;
// where it does not tell, nothing is said.
func (p *pulse) checkPolicy(ctx context.Context) {
	info, err := p.client.Info(ctx, "memory").Result()
	if err != nil {
		return // asked again with the next ping
	}
	p.checked, p.vitals.Warning = time.Now(), ""
	limit, policy := maxMemory.FindStringSubmatch(info), eviction.FindStringSubmatch(info)
	if policy == nil || policy[1] == "noeviction" || limit != nil && limit[1] == "0" {
		return
	}
	p.vitals.Warning = "Redis may evict conversations: its maxmemory-policy is " + policy[1] + ", set noeviction"
	p.log.Warn("redis may evict conversations, set maxmemory-policy to noeviction", "policy", policy[1])
}
