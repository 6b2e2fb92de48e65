package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/logs"

	"github.com/redis/go-redis/v9"
)

var errTooFewReplicas = logs.Because(logs.NoReplicas, errors.New("too few replicas"))

// runAndWait evaluates a script and waits until replicas have what it wrote, on the same connection and within the timeout.
// Too few of them: the write stands, but is reported as of unknown outcome, for a fail-over may lose it.
func runAndWait(
	ctx context.Context, client redis.UniversalClient, script *redis.Script, replicas int, timeout time.Duration, keys []string, args ...any,
) ([]string, error) {
	node := client
	if cluster, ok := client.(*redis.ClusterClient); ok {
		master, err := cluster.MasterForKey(ctx, keys[0])
		if err != nil {
			return nil, err
		}
		node = master
	}
	run := func(eval func(redis.Pipeliner) *redis.Cmd) ([]string, error) {
		var reply, reached *redis.Cmd
		_, err := node.Pipelined(ctx, func(p redis.Pipeliner) error {
			reply = eval(p)
			reached = p.Do(ctx, "WAIT", replicas, timeout.Milliseconds())
			return nil
		})
		if err != nil {
			return nil, err
		}
		if n, err := reached.Int64(); err != nil || n < int64(replicas) {
			return nil, fmt.Errorf("%w, %s: %w: %d of %d have it", chat.ErrUnavailable, unknown, errTooFewReplicas, n, replicas)
		}
		return elements(reply)
	}
	reply, err := run(func(p redis.Pipeliner) *redis.Cmd { return script.EvalSha(ctx, p, keys, args...) })
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		reply, err = run(func(p redis.Pipeliner) *redis.Cmd { return script.Eval(ctx, p, keys, args...) })
	}
	if cluster, ok := client.(*redis.ClusterClient); ok && redis.HasErrorPrefix(err, "MOVED") {
		cluster.ReloadState(ctx)
		return nil, fmt.Errorf("%w, %s: %w", chat.ErrUnavailable, notExecuted, logs.Because(logs.Moved, err))
	}
	return reply, err
}
