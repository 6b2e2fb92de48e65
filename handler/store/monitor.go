package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/logs"

	"github.com/redis/go-redis/v9"
)

const (
	pingEvery  = time.Second            // at most, however many ask
	pingBudget = 500 * time.Millisecond // for one answer
	infoEvery  = 10 * time.Second
	warnEvery  = time.Minute

	healthKey  = "chat:{health}"
	nearlyFull = 0.9 // of maxmemory
)

// monitor finds out what callers get from Redis, at most once in pingEvery: it runs a script that writes, through a client of its own, so
// that it never waits behind calls.
type monitor struct {
	client   redis.UniversalClient
	replicas int // that must have a write
	log      *slog.Logger

	mu      sync.Mutex // held during a ping, whose outcome all share who ask meanwhile
	at      time.Time
	health  chat.Health
	err     error
	asked   time.Time // when INFO was read
	warning error     // by INFO
	told    string    // what was logged last, at toldAt
	toldAt  time.Time
}

// ping returns what callers get, as of pingEvery ago at most: an error when nothing is served, a warning when only writes fail, or when
// INFO gives reason for one.
func (m *monitor) ping() (chat.Health, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.at.IsZero() && time.Since(m.at) < pingEvery {
		return m.health, m.err
	}
	// Not the caller's context: the outcome is not the caller's alone.
	ctx, cancel := context.WithTimeout(context.Background(), pingBudget)
	defer cancel()
	asked := time.Now()
	err := m.write(ctx)
	m.at, m.health, m.err = time.Now(), chat.Health{Latency: time.Since(asked)}, nil
	var warning error
	if reason := whyOnlyReads(err); reason != "" {
		warning = logs.Because(logs.CauseOf(unavailable(err)), errors.New("Conversations can be read, but not changed: "+reason))
	} else if err != nil {
		m.err = fmt.Errorf("redis: health: %w", unavailable(err))
		return m.health, m.err
	}
	if time.Since(m.asked) >= infoEvery {
		m.readInfo(ctx)
	}
	if warning == nil {
		warning = m.warning
	}
	m.warn(warning)
	return m.health, nil
}

// warn says in health and log what endangers conversations; in the log once a minute at most, while it is the same.
func (m *monitor) warn(warning error) {
	if warning == nil {
		return
	}
	m.health.Warning = warning.Error()
	if m.health.Warning != m.told || time.Since(m.toldAt) >= warnEvery {
		m.told, m.toldAt = m.health.Warning, time.Now()
		m.log.Warn("redis endangers conversations", "err", warning)
	}
}

// write runs a script like those that change something.
func (m *monitor) write(ctx context.Context) error {
	args := []any{(10 * time.Minute).Milliseconds()}
	if m.replicas > 0 {
		_, err := runAndWait(ctx, m.client, healthScript.lua, m.replicas, pingBudget/2, []string{healthKey}, args...)
		return err
	}
	return healthScript.lua.Run(ctx, m.client, []string{healthKey}, args...).Err()
}

// whyOnlyReads returns why Redis refused the write of a script that it ran: then scripts that only read go on. It is empty for every other
// error, and for none.
func whyOnlyReads(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, errTooFewReplicas), hasCode(err, "NOREPLICAS"):
		return "too few replicas have what is written"
	case hasCode(err, "OOM"):
		return "Redis is out of memory"
	case hasCode(err, "READONLY"):
		return "Redis is a read-only replica"
	case hasCode(err, "MISCONF"):
		return "Redis cannot save to its disk"
	default:
		return ""
	}
}

// hasCode reports whether Redis refused a command with the code. Redis 6 puts a script's own error and position before it.
func hasCode(err error, code string) bool {
	return strings.HasPrefix(err.Error(), code+" ") || strings.Contains(err.Error(), "-"+code+" ")
}

var infoNumber = regexp.MustCompile(`(?m)^(maxmemory|used_memory):(\d+)`)
var infoPolicy = regexp.MustCompile(`(?m)^maxmemory_policy:([a-z-]+)`)

// readInfo looks whether Redis' memory is nearly full, and whether Redis may evict conversations then. Azure allows INFO, but not CONFIG.
// If INFO fails too, there is no warning.
func (m *monitor) readInfo(ctx context.Context) {
	info, err := m.client.Info(ctx, "memory").Result()
	if err != nil {
		return // the next ping reads it
	}
	numbers := make(map[string]float64)
	for _, found := range infoNumber.FindAllStringSubmatch(info, -1) {
		numbers[found[1]], _ = strconv.ParseFloat(found[2], 64)
	}
	m.asked, m.warning = time.Now(), nil
	limit := numbers["maxmemory"]
	if limit == 0 {
		return
	}
	if numbers["used_memory"] > nearlyFull*limit {
		m.warning = logs.Because(logs.Memory, errors.New("Redis is nearly full: above 90 % of its maxmemory"))
	}
	if policy := infoPolicy.FindStringSubmatch(info); policy != nil && policy[1] != "noeviction" {
		m.warning = logs.Because(logs.Eviction, errors.New("Redis may evict conversations: its maxmemory-policy is "+policy[1]+", set noeviction"))
	}
}
