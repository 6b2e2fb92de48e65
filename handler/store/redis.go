// Package store keeps conversations, in Redis or in memory.
package store

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"chatkeep/handler/chat"

	"github.com/redis/go-redis/v9"
)

//go:embed conversation.lua
var conversationLua string

var (
	//go:embed claim.lua
	claimLua string
	//go:embed start.lua
	startLua string
	//go:embed begin.lua
	beginLua string
	//go:embed renew.lua
	renewLua string
	//go:embed finish.lua
	finishLua string
	//go:embed get.lua
	getLua string
	//go:embed list.lua
	listLua string

	claimScript  = redis.NewScript(conversationLua + claimLua)
	startScript  = redis.NewScript(conversationLua + startLua)
	beginScript  = redis.NewScript(conversationLua + beginLua)
	renewScript  = redis.NewScript(conversationLua + renewLua)
	finishScript = redis.NewScript(conversationLua + finishLua)
	getScript    = redis.NewScript(conversationLua + getLua)
	listScript   = redis.NewScript(conversationLua + listLua)

	// writing are the scripts whose effect is acknowledged to callers.
	writing = []*redis.Script{claimScript, startScript, beginScript, finishScript}
)

// Redis is a chat.Store in Redis 6.0 or later, alone or a cluster. Each method is one script in one round trip, which recognises
// its own second execution, so the client may retry.
type Redis struct {
	client  redis.UniversalClient
	options Options
	breaker *breaker
	pulse   *pulse
}

// Options are what a Redis store keeps to.
type Options struct {
	Limits   chat.Limits
	Timeout  time.Duration // after which a call is given up
	Replicas int           // that must have a write before it is acknowledged
}

// NewRedis returns a store that uses client for its calls, and health to ask how Redis is. It does not connect.
// Close it; the clients remain the caller's.
func NewRedis(client, health redis.UniversalClient, o Options, log *slog.Logger) *Redis {
	return &Redis{
		client: client, options: o,
		breaker: newBreaker(func(ctx context.Context) error { return health.Ping(ctx).Err() }, log),
		pulse:   &pulse{client: health, log: log},
	}
}

// Close ends what the store does in the background.
func (r *Redis) Close() {
	r.breaker.close()
}

// Claim implements chat.Store.
func (r *Redis) Claim(ctx context.Context, owner chat.Owner, c chat.Claim) (chat.Conversation, bool, error) {
	reply, err := r.eval(ctx, claimScript, guardKeys(owner, c.Guard),
		c.Now.UnixMilli(), c.Token, c.Lease.Milliseconds(), c.Guard.Request, r.guardTTL(c.Guard))
	if err != nil {
		return chat.Conversation{}, false, fmt.Errorf("redis: claim: %w", err)
	}
	if len(reply) == 0 {
		return chat.Conversation{}, false, nil
	}
	made, err := decodeSummary(owner, reply[0], reply[1])
	return made, true, err
}

// Start implements chat.Store.
func (r *Redis) Start(ctx context.Context, owner chat.Owner, s chat.Start) (chat.Conversation, error) {
	about, err := encodeRecord(s.Conversation, s.Now)
	if err != nil {
		return chat.Conversation{}, err
	}
	greeting, err := encodeMessages(s.Messages)
	if err != nil {
		return chat.Conversation{}, err
	}
	id := s.Conversation.ID
	var guards []chat.Guard
	claim := []any{s.Token, "", 0}
	if s.Guard != nil {
		guards = append(guards, *s.Guard)
		claim = []any{s.Token, s.Guard.Request, r.guardTTL(*s.Guard)}
	}
	reply, err := r.run(ctx, startScript, owner, id, guards, s.Now, slices.Concat([]any{
		r.options.Limits.TTL.Milliseconds(), r.options.Limits.Conversations, about, s.Conversation.ExternalID, s.AgentRef,
	}, claim, greeting)...)
	if err != nil {
		return chat.Conversation{}, fmt.Errorf("redis: start: %w", err)
	}
	return decodeSummary(owner, id, reply[0])
}

// Begin implements chat.Store.
func (r *Redis) Begin(ctx context.Context, owner chat.Owner, id string, b chat.Begin) (chat.Turn, error) {
	question, err := encodeMessage(b.Message)
	if err != nil {
		return chat.Turn{}, err
	}
	args := []any{r.options.Limits.TTL.Milliseconds(), r.options.Limits.Messages, b.Token, b.Lease.Milliseconds(), b.Context, question, b.Guards[0].Request}
	for _, g := range b.Guards {
		args = append(args, r.guardTTL(g))
	}
	reply, err := r.run(ctx, beginScript, owner, id, b.Guards, b.Now, args...)
	if err != nil {
		return chat.Turn{}, fmt.Errorf("redis: begin: %w", err)
	}
	turn, err := decodeTurn(reply)
	if err != nil {
		return chat.Turn{}, fmt.Errorf("redis: begin: %w", err)
	}
	return turn, nil
}

// Renew implements chat.Store.
func (r *Redis) Renew(ctx context.Context, owner chat.Owner, id, token string, now time.Time, lease time.Duration) error {
	if _, err := r.run(ctx, renewScript, owner, id, nil, now, token, lease.Milliseconds()); err != nil {
		return fmt.Errorf("redis: renew: %w", err)
	}
	return nil
}

// Finish implements chat.Store.
func (r *Redis) Finish(ctx context.Context, owner chat.Owner, id string, f chat.Finish) (time.Time, error) {
	replies, err := encodeMessages(f.Replies)
	if err != nil {
		return time.Time{}, err
	}
	reply, err := r.run(ctx, finishScript, owner, id, f.Guards, f.Now, append([]any{
		f.Token, string(f.State), f.ExternalID, f.AgentRef, string(f.Failure),
	}, replies...)...)
	if err != nil {
		return time.Time{}, fmt.Errorf("redis: finish: %w", err)
	}
	at, err := strconv.ParseInt(reply[0], 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("redis: finish: %w", err)
	}
	return fromMilli(at), nil
}

// Get implements chat.Store.
func (r *Redis) Get(ctx context.Context, owner chat.Owner, id string, p chat.Page) (chat.Conversation, []chat.Message, error) {
	reply, err := r.run(ctx, getScript, owner, id, nil, p.Now, r.options.Limits.TTL.Milliseconds(), p.Before, p.Limit)
	if err != nil {
		return chat.Conversation{}, nil, fmt.Errorf("redis: get: %w", err)
	}
	conversation, err := decodeSummary(owner, id, reply[0])
	if err != nil {
		return chat.Conversation{}, nil, fmt.Errorf("redis: get: %w", err)
	}
	first, err := strconv.ParseInt(reply[1], 10, 64)
	if err != nil {
		return chat.Conversation{}, nil, fmt.Errorf("redis: get: %w", err)
	}
	messages, err := decodeMessages(reply[2:], first)
	if err != nil {
		return chat.Conversation{}, nil, fmt.Errorf("redis: get: %w", err)
	}
	return conversation, messages, nil
}

// List implements chat.Store. It asks for one more than the limit, to know whether more follow.
func (r *Redis) List(ctx context.Context, owner chat.Owner, l chat.List) ([]chat.Conversation, bool, error) {
	index := 3
	if l.Status != "" {
		index = 4 + slices.Index(chat.Statuses, l.Status)
	}
	var at, id string
	if l.After != nil {
		at, id = strconv.FormatInt(l.After.UpdatedAt.UnixMilli(), 10), l.After.ID
	}
	reply, err := r.eval(ctx, listScript, ownerKeys(owner), l.Now.UnixMilli(), index, l.Limit+1, at, id)
	if err != nil {
		return nil, false, fmt.Errorf("redis: list: %w", err)
	}
	conversations := make([]chat.Conversation, 0, l.Limit)
	for i := 0; i+1 < len(reply) && len(conversations) < l.Limit; i += 2 {
		c, err := decodeSummary(owner, reply[i], reply[i+1])
		if err != nil {
			return nil, false, fmt.Errorf("redis: list: %w", err)
		}
		conversations = append(conversations, c)
	}
	return conversations, len(reply)/2 > l.Limit, nil
}

// Ping implements chat.Store.
func (r *Redis) Ping(context.Context) (chat.Vitals, error) {
	return r.pulse.ping()
}

// guardTTL is how long a guard is kept, in ms: no longer than the conversation that it leads to.
func (r *Redis) guardTTL(g chat.Guard) int64 {
	return min(g.TTL, r.options.Limits.TTL).Milliseconds()
}

// run evaluates a script on one conversation, for a request with these guards.
func (r *Redis) run(
	ctx context.Context, script *redis.Script, owner chat.Owner, id string, guards []chat.Guard, now time.Time, args ...any,
) ([]string, error) {
	name, err := encodeOwner(owner)
	if err != nil {
		return nil, err
	}
	keys := append(conversationKeys(owner, id), guardKeys(owner, guards...)...)
	return r.eval(ctx, script, keys, append([]any{id, now.UnixMilli(), name}, args...)...)
}

// eval evaluates a script and returns what follows the outcome 'ok'; any other outcome is an error.
func (r *Redis) eval(ctx context.Context, script *redis.Script, keys []string, args ...any) ([]string, error) {
	if err := r.breaker.admit(); err != nil {
		return nil, unavailable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.options.Timeout)
	defer cancel()
	var reply []string
	var err error
	if r.options.Replicas > 0 && slices.Contains(writing, script) {
		reply, err = runAndWait(ctx, r.client, script, r.options.Replicas, r.options.Timeout*3/4, keys, args...)
	} else {
		reply, err = script.Run(ctx, r.client, keys, args...).StringSlice()
	}
	r.breaker.note(err)
	if cluster, ok := r.client.(*redis.ClusterClient); ok && !answered(err) {
		cluster.ReloadState(ctx) // somebody else may be the master now; by itself the client looks only now and then
	}
	if err != nil {
		return nil, unavailable(err)
	}
	if len(reply) == 0 {
		return nil, errors.New("empty reply")
	}
	switch reply[0] {
	case "ok":
		return reply[1:], nil
	case "missing":
		return nil, chat.ErrNotFound
	case "closed":
		return nil, chat.ErrClosed
	case "full":
		return nil, chat.ErrFull
	case "too many":
		return nil, chat.ErrTooMany
	case "reused":
		return nil, chat.ErrKeyReused
	case "lost":
		return nil, chat.ErrTurnLost
	case "damaged":
		return nil, chat.ErrDamaged
	case "busy":
		left, err := strconv.ParseInt(reply[1], 10, 64)
		if err != nil {
			return nil, err
		}
		return nil, &chat.BusyError{Left: time.Duration(left) * time.Millisecond}
	default:
		return nil, fmt.Errorf("unknown outcome %q", reply[0])
	}
}
