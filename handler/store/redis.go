// Package store stores conversations, in Redis or in memory.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/logs"
	"chatkeep/handler/telemetry"

	"github.com/redis/go-redis/v9"
)

// Redis is a chat.Store in Redis 6.0 or later, alone or a cluster. Each method is one script in one round trip, which recognises
// its own second execution, so the client may retry. Only list needs a second trip, for metadata. The clock is Redis' own.
type Redis struct {
	client   redis.UniversalClient
	options  Options
	recorder *telemetry.Recorder
	breaker  *breaker
	monitor  *monitor
	log      *slog.Logger
	damaged  damagedEntries
	shares   *shares
	watcher  *watcher

	eraseLogEvery time.Duration // see Erase
}

// Options configure a Redis store.
type Options struct {
	Limits   chat.Limits
	Timeout  time.Duration // after which a call is given up
	Replicas int           // that must have a write before it is acknowledged
	Share    int           // calls of one owner at once, so that others find a connection; 0: any number
	Recorder *telemetry.Recorder
}

// NewRedis returns a store that uses client for its calls, and health to ask how Redis is. It does not connect.
// Close it; the clients remain the caller's.
func NewRedis(client, health redis.UniversalClient, o Options, log *slog.Logger) *Redis {
	return &Redis{
		client: client, options: o, recorder: cmp.Or(o.Recorder, &telemetry.Recorder{}), log: log, shares: newShares(o.Share),
		breaker: newBreaker(func(ctx context.Context) error { return health.Ping(ctx).Err() }, log),
		monitor: &monitor{client: health, replicas: o.Replicas, log: log}, watcher: newWatcher(client, log),
		eraseLogEvery: time.Second,
	}
}

// Close ends what the store does in the background.
func (r *Redis) Close() {
	r.breaker.close()
	r.watcher.close()
}

// Claim implements chat.Store.
func (r *Redis) Claim(ctx context.Context, owner chat.Owner, c chat.Claim) (*chat.Conversation, error) {
	reply, err := r.run(ctx, claimScript, ownerKeys(owner),
		c.Token, c.Lease.Milliseconds(), c.Record.Fingerprint, digest(c.Record.Name), r.recordTTL(c.Record), r.options.Limits.IdempotencyRecords)
	if err != nil || len(reply) == 0 {
		return nil, err
	}
	var numbers [3]int64
	for i := range numbers {
		if numbers[i], err = strconv.ParseInt(reply[1+i], 10, 64); err != nil {
			return nil, fmt.Errorf("redis: claim: %w", err)
		}
	}
	at := fromMilli(numbers[0])
	return &chat.Conversation{
		ID: reply[0], Owner: owner, ExternalID: reply[4], Status: chat.Active, MessageCount: numbers[2], Version: 1,
		CreatedAt: at, UpdatedAt: at, LastAccessedAt: at, ExpiresAt: fromMilli(numbers[1]),
	}, nil
}

// Start implements chat.Store.
func (r *Redis) Start(ctx context.Context, owner chat.Owner, s chat.Start) (chat.Conversation, error) {
	c := s.Conversation
	metadata, err := encodeMetadata(c.Metadata)
	if err != nil {
		return chat.Conversation{}, err
	}
	var record chat.IdempotencyRecord
	var name string
	if s.Record != nil {
		record = *s.Record
		name = digest(record.Name)
	}
	args := append(r.accessArgsOf(owner, c.ID, 16+len(s.Messages)),
		r.options.Limits.Conversations, r.options.Limits.Bytes, r.options.Limits.TurnsPerMinute, c.ObjectID, c.ExternalID, s.AgentRef, c.Title, metadata,
		s.Token, record.Fingerprint, name, r.recordTTL(record), r.options.Limits.IdempotencyRecords, digest(tombstone(c.ID).Name), s.Preview)
	reply, err := r.run(ctx, startScript, conversationKeys(owner, c.ID), appendAll(args, s.Messages)...)
	if err != nil {
		return chat.Conversation{}, err
	}
	created, err := strconv.ParseInt(reply[0], 10, 64)
	if err != nil {
		return chat.Conversation{}, fmt.Errorf("redis: start: %w", err)
	}
	expires, err := strconv.ParseInt(reply[1], 10, 64)
	if err != nil {
		return chat.Conversation{}, fmt.Errorf("redis: start: %w", err)
	}
	at := fromMilli(created)
	c.Owner, c.Status, c.Version, c.MessageCount = owner, chat.Active, 1, int64(len(s.Messages))
	c.CreatedAt, c.UpdatedAt, c.LastAccessedAt, c.ExpiresAt = at, at, at, fromMilli(expires)
	c.Metadata = maps.Clone(c.Metadata)
	return c, nil
}

// Begin implements chat.Store.
func (r *Redis) Begin(ctx context.Context, owner chat.Owner, id string, b chat.Begin) (chat.Turn, error) {
	var fingerprint string
	if len(b.Records) > 0 {
		fingerprint = b.Records[0].Fingerprint
	}
	args := append(r.accessArgsOf(owner, id, 13+2*len(b.Records)),
		r.options.Limits.Messages, r.options.Limits.Bytes, r.options.Limits.TurnsPerMinute, b.Token, b.Lease.Milliseconds(),
		b.Context, b.ContextBytes, b.MessageID, b.JSON, b.Title, b.Preview, fingerprint, r.options.Limits.IdempotencyRecords)
	for _, record := range b.Records {
		args = append(args, digest(record.Name), r.recordTTL(record))
	}
	reply, err := r.run(ctx, beginScript, conversationKeys(owner, id), args...)
	if err != nil {
		return chat.Turn{}, err
	}
	turn, err := decodeTurn(reply)
	if err != nil {
		return chat.Turn{}, fmt.Errorf("redis: begin: %w", err)
	}
	return turn, nil
}

// Append implements chat.Store.
func (r *Redis) Append(ctx context.Context, owner chat.Owner, id string, a chat.Append) (chat.Appended, error) {
	args := append(r.accessArgsOf(owner, id, 2+4*len(a.Entries)), a.Token, a.Lease.Milliseconds())
	reply, err := r.run(ctx, appendScript, conversationKeys(owner, id), appendEntries(args, a.Entries)...)
	if err != nil {
		return chat.Appended{}, err
	}
	return chat.Appended{Cancelled: reply[0] != "", Dropped: reply[1] != ""}, nil
}

// Finish implements chat.Store.
func (r *Redis) Finish(ctx context.Context, owner chat.Owner, id string, f chat.Finish) (chat.Finished, error) {
	args := append(r.argsOf(owner, id, 9+len(f.Records)+len(f.Replies)+4*len(f.Entries)),
		f.Token, f.Seq, string(f.State), f.ExternalID, f.AgentRef, f.Failure, f.Preview, len(f.Records), len(f.Replies))
	for _, record := range f.Records {
		args = append(args, digest(record.Name))
	}
	reply, err := r.run(ctx, finishScript, conversationKeys(owner, id), appendEntries(appendAll(args, f.Replies), f.Entries)...)
	if err != nil {
		return chat.Finished{}, err
	}
	at, err := strconv.ParseInt(reply[0], 10, 64)
	if err != nil {
		return chat.Finished{}, fmt.Errorf("redis: finish: %w", err)
	}
	return chat.Finished{At: fromMilli(at), Dropped: reply[1] != ""}, nil
}

// Update implements chat.Store.
func (r *Redis) Update(ctx context.Context, owner chat.Owner, id string, u chat.Update) (chat.Conversation, error) {
	var record chat.IdempotencyRecord
	var name string
	if u.Record != nil {
		record = *u.Record
		name = digest(record.Name)
	}
	args := append(r.argsOf(owner, id, 12), u.Version, r.options.Limits.Bytes,
		r.options.Limits.IdempotencyRecords, record.Fingerprint, name, r.recordTTL(record))
	if u.Title != nil {
		args = append(args, "title", *u.Title)
	}
	if u.Metadata != nil {
		metadata, err := encodeMetadata(u.Metadata)
		if err != nil {
			return chat.Conversation{}, err
		}
		args = append(args, "metadata", metadata)
	}
	if u.Status != nil {
		args = append(args, "status", string(*u.Status))
	}
	reply, err := r.run(ctx, updateScript, conversationKeys(owner, id), args...)
	if err != nil {
		return chat.Conversation{}, err
	}
	c, _, err := shown(reply).conversation(owner, id)
	if err != nil {
		return chat.Conversation{}, fmt.Errorf("redis: update: %w", err)
	}
	return c, nil
}

// never is a lag within which any access lies, in ms, so that none is counted.
const never = 1 << 53

// Get implements chat.Store.
func (r *Redis) Get(ctx context.Context, owner chat.Owner, id string, p chat.Page) (chat.Conversation, []chat.StoredMessage, error) {
	args := append(r.accessArgsOf(owner, id, 4), p.Before, p.Limit, p.Known, cmp.Or(p.Bytes, chat.PageBytes))
	if p.Unseen {
		args[4], args[5] = int64(never), 0 // which ends nothing
	}
	reply, err := r.run(ctx, getScript, conversationKeys(owner, id), args...)
	if err != nil {
		return chat.Conversation{}, nil, err
	}
	c, pending, err := shown(reply).conversation(owner, id)
	if err != nil {
		return chat.Conversation{}, nil, fmt.Errorf("redis: get: %w", err)
	}
	reply = reply[attributesShown:]
	if len(reply) == 0 {
		return c, nil, nil
	}
	first, err := strconv.ParseInt(reply[0], 10, 64)
	if err != nil {
		return chat.Conversation{}, nil, fmt.Errorf("redis: get: %w", err)
	}
	messages, err := decodeMessages(reply[1:], first, pending)
	if err != nil {
		return chat.Conversation{}, nil, fmt.Errorf("redis: get: %w", err)
	}
	return c, messages, nil
}

// List implements chat.Store.
func (r *Redis) List(ctx context.Context, owner chat.Owner, l chat.List) ([]chat.Conversation, *chat.Cursor, error) {
	var at, after string
	if l.After != nil {
		at, after = strconv.FormatInt(l.After.UpdatedAt.UnixMilli(), 10), l.After.ID
	}
	args := []any{l.Limit, at, after}
	if l.Status != "" {
		args = append(args, string(l.Status))
	} else {
		for _, status := range chat.Statuses {
			args = append(args, string(status))
		}
	}
	reply, err := r.run(ctx, listScript, ownerKeys(owner), args...)
	if err != nil {
		return nil, nil, err
	}
	hasMore, entries := reply[0] != "", reply[1:]
	conversations := make([]chat.Conversation, 0, len(entries)/3)
	var described []int // those with metadata
	var last *chat.Cursor
	size := int64(0)
	for ; len(entries) >= 3; entries = entries[3:] {
		id, text := entries[0], entries[2]
		updatedAt, err := strconv.ParseInt(entries[1], 10, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("redis: list: %w", err)
		}
		place := &chat.Cursor{UpdatedAt: fromMilli(updatedAt), ID: id}
		if text == "-" { // expired
			last = place
			continue
		}
		c, metadataBytes, err := decodeSummary(owner, id, text)
		if err != nil {
			last = place
			r.warnOfDamage(ctx, owner, id)
			continue
		}
		size += int64(len(text)) + metadataBytes
		if size > chat.ListBytes && len(conversations) > 0 {
			hasMore = true
			break
		}
		last = place
		c.UpdatedAt = place.UpdatedAt
		if metadataBytes > 0 {
			described = append(described, len(conversations))
		}
		conversations = append(conversations, c)
	}
	if len(described) > 0 {
		if err := r.describe(ctx, owner, conversations, described); err != nil {
			return nil, nil, err
		}
	}
	if !hasMore {
		last = nil
	}
	return conversations, last, nil
}

// describe fills in the metadata of the conversations with the given indices.
func (r *Redis) describe(ctx context.Context, owner chat.Owner, conversations []chat.Conversation, places []int) error {
	tag := tagOf(owner)
	keys := make([]string, len(places))
	for i, place := range places {
		keys[i] = conversationKey(tag, conversations[place].ID)
	}
	reply, err := r.run(ctx, describeScript, keys)
	if err != nil {
		return err
	}
	for i, place := range places {
		c := &conversations[place]
		if c.Metadata, err = decodeMetadata(reply[i]); err != nil {
			r.warnOfDamage(ctx, owner, c.ID)
		}
	}
	return nil
}

// damagedEntries are the list entries that this process has warned of.
type damagedEntries struct {
	mu    sync.Mutex
	known map[string]bool
}

const maxDamagedEntries = 10_000 // beyond that many it warns no more

// warnOfDamage logs, once per process and entry, that list cannot show a conversation, or its metadata.
func (r *Redis) warnOfDamage(ctx context.Context, owner chat.Owner, id string) {
	entry := digest(owner.TenantID, owner.UserID, id)
	r.damaged.mu.Lock()
	defer r.damaged.mu.Unlock()
	if r.damaged.known[entry] || len(r.damaged.known) >= maxDamagedEntries {
		return
	}
	if r.damaged.known == nil {
		r.damaged.known = make(map[string]bool)
	}
	r.damaged.known[entry] = true
	r.log.WarnContext(ctx, "a damaged entry of a list, opening the conversation repairs it", "conversation", id)
}

// Ping implements chat.Store.
func (r *Redis) Ping(context.Context) (chat.Health, error) {
	return r.monitor.ping()
}

// recordTTL is how long a record lives, in ms: no longer than the conversation that it leads to.
func (r *Redis) recordTTL(record chat.IdempotencyRecord) int64 {
	return min(record.TTL, r.options.Limits.TTL).Milliseconds()
}

// argsOf returns the arguments that every script on a conversation has first, with room for more.
func (r *Redis) argsOf(owner chat.Owner, id string, more int) []any {
	return append(make([]any, 0, 3+more), id, owner.TenantID, owner.UserID)
}

// accessArgsOf returns those that every script that counts an access has first.
func (r *Redis) accessArgsOf(owner chat.Owner, id string, more int) []any {
	l := r.options.Limits
	return append(r.argsOf(owner, id, 3+more), l.TTL.Milliseconds(), l.Lag().Milliseconds(), l.Age.Milliseconds())
}

func appendAll(args []any, messages [][]byte) []any {
	for _, m := range messages {
		args = append(args, m)
	}
	return args
}

// run evaluates a script, unless Redis is known to be down, and returns what follows the outcome 'ok'; any other outcome is an error.
func (r *Redis) run(ctx context.Context, s *script, keys []string, args ...any) ([]string, error) {
	reply, err := r.evaluate(ctx, s, keys, args...)
	if err != nil {
		return nil, fmt.Errorf("redis: %s: %w", s.name, unavailable(err))
	}
	if err := r.outcome(reply); err != nil {
		return nil, fmt.Errorf("redis: %s: %w", s.name, err)
	}
	return reply[1:], nil
}

func (r *Redis) evaluate(ctx context.Context, s *script, keys []string, args ...any) (reply []string, err error) {
	if err := r.breaker.admit(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.options.Timeout)
	defer cancel()
	leave, err := r.shares.enter(ctx, keys[0][:strings.IndexByte(keys[0], '}')])
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, evaluation := r.beginEvaluation(ctx, s.name)
	defer func() { evaluation.end(err) }()
	if r.options.Replicas > 0 && s.writes {
		reply, err = runAndWait(ctx, r.client, s.lua, r.options.Replicas, r.options.Timeout*3/4, keys, args...)
	} else {
		reply, err = elements(s.lua.Run(ctx, r.client, keys, args...))
	}
	r.breaker.note(err)
	if cluster, ok := r.client.(*redis.ClusterClient); ok && !answered(err) {
		cluster.ReloadState(ctx) // somebody else may be the master now; by itself the client looks only now and then
	}
	return reply, err
}

// elements returns those of a script's reply: strings and whole numbers.
func elements(reply *redis.Cmd) ([]string, error) {
	values, err := reply.Slice()
	if err != nil {
		return nil, err
	}
	all := make([]string, len(values))
	for i, element := range values {
		switch element := element.(type) {
		case string:
			all[i] = element
		case int64:
			all[i] = strconv.FormatInt(element, 10)
		default:
			return nil, fmt.Errorf("a reply with a %T", element)
		}
	}
	return all, nil
}

// outcome is the error that a script's reply tells of.
func (r *Redis) outcome(reply []string) error {
	if len(reply) == 0 {
		return errors.New("empty reply")
	}
	switch reply[0] {
	case "ok":
		return nil
	case "missing":
		return chat.ErrNotFound
	case "closed":
		return chat.ErrClosed
	case "full":
		return chat.ErrFull
	case "too many":
		return chat.ErrTooMany
	case "reused":
		return chat.ErrKeyReused
	case "taken":
		return chat.ErrMessageIDTaken
	case "quota":
		return chat.ErrQuota
	case "rate":
		left, err := strconv.ParseInt(reply[1], 10, 64)
		if err != nil {
			return err
		}
		return &chat.RateError{Left: time.Duration(left) * time.Millisecond, Quota: r.options.Limits.TurnsPerMinute}
	case "version":
		return chat.ErrVersion
	case "lost":
		return chat.ErrTurnLost
	case "cancelled":
		return chat.ErrCancelled
	case "damaged":
		return chat.ErrDamaged
	case "newer":
		return logs.Because(logs.Newer, fmt.Errorf("%w: a newer version of this program wrote the conversation", chat.ErrUnavailable))
	case "busy":
		left, err := strconv.ParseInt(reply[1], 10, 64)
		if err != nil {
			return err
		}
		busy := &chat.BusyError{Left: time.Duration(left) * time.Millisecond}
		if len(reply) > 2 {
			if busy.Seq, err = strconv.ParseInt(reply[2], 10, 64); err != nil {
				return err
			}
		}
		return busy
	default:
		return fmt.Errorf("unknown outcome %q", reply[0])
	}
}
