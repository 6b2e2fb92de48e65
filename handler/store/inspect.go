package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"chatkeep/handler/chat"

	"github.com/redis/go-redis/v9"
)

// What operators ask of Redis as a whole. Each looks at every key, in steps that do not hold Redis, and tells look how many it has seen.
// Keys that come or go meanwhile may be seen or not.

// scanStep is how many keys Redis looks at in one step.
const scanStep = 1000

// FindOwners returns the users of a tenant who have a conversation with the Entra object id, in the order of their ids.
func (r *Redis) FindOwners(ctx context.Context, tenantID, objectID string, look func(keys int)) ([]chat.Owner, error) {
	found := make(map[chat.Owner]bool)
	err := r.scan(ctx, "chat:{*}:c:*", look, func(ctx context.Context, client *redis.Client, keys []string) error {
		replies, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, key := range keys {
				p.HMGet(ctx, key, "tenantId", "userId", "objectId")
			}
			return nil
		})
		for _, reply := range replies {
			values := reply.(*redis.SliceCmd).Val()
			if len(values) == 3 && values[0] == tenantID && values[2] == objectID {
				found[chat.Owner{TenantID: tenantID, UserID: fmt.Sprint(values[1])}] = true
			}
		}
		return err
	})
	owners := make([]chat.Owner, 0, len(found))
	for owner := range found {
		owners = append(owners, owner)
	}
	slices.SortFunc(owners, func(a, b chat.Owner) int { return strings.Compare(a.UserID, b.UserID) })
	return owners, err
}

// Usage is what an owner has.
type Usage struct {
	Owner         chat.Owner // empty, where no conversation tells
	Digest        string     // by which keys name the owner
	Bytes         int64      // as they are counted for the quota
	Conversations int64
	Records       int64 // of idempotency
	Keys          int64
	Memory        int64 // bytes in Redis, of long values estimated; 0 when it was not asked for
}

// Usage returns what an owner has, with its memory.
func (r *Redis) Usage(ctx context.Context, owner chat.Owner, look func(keys int)) (Usage, error) {
	tag := tagOf(owner)
	u := Usage{Owner: owner, Digest: digestOf(tag)}
	err := r.scan(ctx, tag+"*", look, func(ctx context.Context, client *redis.Client, keys []string) error {
		replies, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, key := range keys {
				p.MemoryUsage(ctx, key)
			}
			return nil
		})
		for _, reply := range replies {
			u.Memory += reply.(*redis.IntCmd).Val() // 0 of one that has gone
		}
		u.Keys += int64(len(keys))
		if err == redis.Nil { //nolint:errorlint // go-redis compares it so
			return nil
		}
		return err
	})
	if err != nil {
		return u, err
	}
	return u, r.count(ctx, tag, &u)
}

// count reads what is counted of an owner.
func (r *Redis) count(ctx context.Context, tag string, u *Usage) error {
	var bytes *redis.StringCmd
	var conversations, records *redis.IntCmd
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		bytes, conversations, records = p.HGet(ctx, tag+"usage", "bytes"), p.ZCard(ctx, tag+"exp"), p.HLen(ctx, tag+"idem")
		return nil
	})
	if err != nil && err != redis.Nil { //nolint:errorlint // go-redis compares it so
		return fmt.Errorf("redis: usage: %w", unavailable(err))
	}
	u.Bytes, _ = strconv.ParseInt(bytes.Val(), 10, 64)
	u.Conversations, u.Records = conversations.Val(), records.Val()
	return nil
}

// Largest returns the owners with the most bytes, at most as many as most, and how many owners there are.
func (r *Redis) Largest(ctx context.Context, most int, look func(keys int)) (largest []Usage, owners int, err error) {
	err = r.scan(ctx, "chat:{*}:usage", look, func(ctx context.Context, client *redis.Client, keys []string) error {
		replies, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, key := range keys {
				p.HGet(ctx, key, "bytes")
			}
			return nil
		})
		if err != nil && err != redis.Nil { //nolint:errorlint // go-redis compares it so
			return err
		}
		for i, reply := range replies {
			bytes, _ := strconv.ParseInt(reply.(*redis.StringCmd).Val(), 10, 64)
			largest = append(largest, Usage{Digest: digestOf(keys[i]), Bytes: bytes})
		}
		owners += len(keys)
		slices.SortFunc(largest, func(a, b Usage) int {
			if a.Bytes != b.Bytes {
				return int(b.Bytes - a.Bytes)
			}
			return strings.Compare(a.Digest, b.Digest)
		})
		largest = largest[:min(most, len(largest))]
		return nil
	})
	for i := range largest {
		if err == nil {
			err = r.name(ctx, &largest[i])
		}
	}
	return largest, owners, err
}

// name fills in who an owner is, as one of the conversations tells, and what is counted.
func (r *Redis) name(ctx context.Context, u *Usage) error {
	tag := "chat:{" + u.Digest + "}:"
	ids, err := r.client.ZRange(ctx, tag+"exp", 0, 0).Result()
	if err == nil && len(ids) > 0 {
		var values []any
		values, err = r.client.HMGet(ctx, conversationKey(tag, ids[0]), "tenantId", "userId").Result()
		if err == nil && values[0] != nil && values[1] != nil {
			u.Owner = chat.Owner{TenantID: fmt.Sprint(values[0]), UserID: fmt.Sprint(values[1])}
		}
	}
	if err != nil {
		return fmt.Errorf("redis: usage: %w", unavailable(err))
	}
	return r.count(ctx, tag, u)
}

// WithoutExpiry counts the keys that have no expiry, by what their names have after the owner, up to an id: it must find none.
func (r *Redis) WithoutExpiry(ctx context.Context, look func(keys int)) (map[string]int, error) {
	found := make(map[string]int)
	err := r.scan(ctx, "chat:{*", look, func(ctx context.Context, client *redis.Client, keys []string) error {
		replies, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, key := range keys {
				p.PTTL(ctx, key)
			}
			return nil
		})
		for i, reply := range replies {
			if reply.(*redis.DurationCmd).Val() == -1 {
				found[kindOf(keys[i])]++
			}
		}
		return err
	})
	return found, err
}

// kindOf is what a key holds, without whose it is.
func kindOf(key string) string {
	_, name, _ := strings.Cut(key, "}:")
	for _, ofConversation := range []string{"c:", "m:", "e:"} {
		if strings.HasPrefix(name, ofConversation) {
			return ofConversation + "*"
		}
	}
	return name
}

// digestOf is an owner's digest in a key.
func digestOf(key string) string {
	_, rest, _ := strings.Cut(key, "{")
	name, _, _ := strings.Cut(rest, "}")
	return name
}

// scan calls visit with the keys of a pattern, some at a time, on each master. It calls visit and look for one at a time.
func (r *Redis) scan(
	ctx context.Context, pattern string, look func(keys int), visit func(ctx context.Context, client *redis.Client, keys []string) error,
) error {
	var one sync.Mutex
	seen := 0
	ofMaster := func(ctx context.Context, client *redis.Client) error {
		for cursor := uint64(0); ; {
			keys, next, err := client.Scan(ctx, cursor, pattern, scanStep).Result()
			if err != nil {
				return err
			}
			one.Lock()
			if len(keys) > 0 {
				err = visit(ctx, client, keys)
			}
			seen += len(keys)
			look(seen)
			one.Unlock()
			if cursor = next; err != nil || cursor == 0 {
				return err
			}
		}
	}
	var err error
	switch client := r.client.(type) {
	case *redis.ClusterClient:
		err = client.ForEachMaster(ctx, ofMaster)
	case *redis.Client:
		err = ofMaster(ctx, client)
	}
	if err != nil {
		return fmt.Errorf("redis: scan: %w", unavailable(err))
	}
	return nil
}
