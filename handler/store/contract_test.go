package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/go-json-experiment/json"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The promises of chat.Store, each a rule, over every store. The rules stand in contract_*_test.go, by subject.
//
// A rule moves the store's clock. Memory has that of its synctest bubble, and a Redis server one of redistest, which stands still between
// the moves. It is a day or more off the process' clock, so a store that asks that one fails.

var limits = chat.Limits{
	TTL: time.Hour, Messages: 1_000, Conversations: 300, Bytes: 32 << 20, TurnsPerMinute: 100_000, IdempotencyRecords: 10_000,
}

// A conversation lives for so long after its last counted access, and is gone after so long. In the millisecond between them stores differ.
var (
	lives = limits.TTL + limits.Lag() - time.Millisecond
	gone  = limits.TTL + limits.Lag() + time.Millisecond
)

// lease is that of begin.
const lease = 30 * time.Second

// rule checks a promise. Its world has an owner, and a time, of its own.
type rule func(*testing.T, *world)

func TestContract(t *testing.T) {
	stores := map[string]func(*testing.T) func(*testing.T, rule){
		"memory": func(*testing.T) func(*testing.T, rule) { return inMemory },
		"redis": func(t *testing.T) func(*testing.T, rule) {
			clock := redistest.NewClock(t)
			return inRedis(t, clock, redis.NewClient(&redis.Options{Addr: clock.Start(t).Addr}))
		},
		"tls": func(t *testing.T) func(*testing.T, rule) {
			clock := redistest.NewClock(t)
			server := clock.StartTLS(t)
			return inRedis(t, clock, redis.NewClient(&redis.Options{Addr: server.Addr, TLSConfig: server.TLS}))
		},
		"cluster": func(t *testing.T) func(*testing.T, rule) {
			clock := redistest.NewClock(t)
			return inRedis(t, clock, redis.NewClusterClient(&redis.ClusterOptions{Addrs: clock.StartCluster(t, 3, 0).Addrs}))
		},
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := open(t)
			all := []map[string]rule{startRules, turnRules, recordRules, messageIDRules, accessRules, ownerRules, listRules, updateRules, updateRecordRules, deleteRules, eraseRules, titleRules, ageRules, boundsRules, logRules}
			if name != "memory" {
				all = append(all, backwardRules, newAgeRules) // the clock of a bubble only goes forward, and its store is new
			}
			for _, rules := range all {
				for name, check := range rules {
					t.Run(name, func(t *testing.T) { run(t, check) })
				}
			}
		})
	}
}

// inMemory checks a rule on a store of its own.
func inMemory(t *testing.T, check rule) {
	synctest.Test(t, func(t *testing.T) {
		check(t, newWorld(t,
			func(l chat.Limits) chat.Store { return NewMemory(l) },
			time.Now().UTC().Truncate(time.Millisecond),
			func(at time.Time) { time.Sleep(time.Until(at)) },
		))
	})
}

// inRedis returns what checks rules one after another, on one server or cluster. A rule begins long after the last one's end.
func inRedis(t *testing.T, clock *redistest.Clock, client redis.UniversalClient) func(*testing.T, rule) {
	t.Cleanup(func() { _ = client.Close() })
	next := time.Now().UTC().Truncate(time.Millisecond).Add(48 * time.Hour)
	return func(t *testing.T, check rule) {
		w := newWorld(t, func(l chat.Limits) chat.Store { return newRedis(t, client, l, 10*time.Second) }, next, clock.Freeze)
		w.at(next)
		defer func() { next = later(next, w.now).Add(48 * time.Hour) }()
		check(t, w)
		everyKeyExpires(t, client)
	}
}

// everyKeyExpires is a promise of every rule. It clears the server for the next one.
func everyKeyExpires(t *testing.T, client redis.UniversalClient) {
	look := func(ctx context.Context, node *redis.Client) error {
		keys, err := node.Keys(ctx, "*").Result()
		for _, key := range keys {
			assert.GreaterOrEqual(t, node.PTTL(ctx, key).Val(), time.Duration(0), "%s has no expiry", key)
		}
		return errors.Join(err, node.FlushAll(ctx).Err())
	}
	if cluster, isCluster := client.(*redis.ClusterClient); isCluster {
		require.NoError(t, cluster.ForEachMaster(t.Context(), look))
		return
	}
	require.NoError(t, look(t.Context(), client.(*redis.Client)))
}

// newRedis returns a store over a client, which its health uses too.
func newRedis(t testing.TB, client redis.UniversalClient, l chat.Limits, timeout time.Duration) *Redis {
	r := NewRedis(client, client, Options{Limits: l, Timeout: timeout}, slog.New(slog.DiscardHandler))
	t.Cleanup(r.Close)
	return r
}

// world is a store, its clock, and the owner whom a rule is about.
type world struct {
	chat.Store
	t     *testing.T
	owner chat.Owner
	now   time.Time                    // what the store's clock shows, if it is a test's
	set   func(time.Time)              // the store's clock
	open  func(chat.Limits) chat.Store // another store over the same keys, with the same clock
}

func newWorld(t *testing.T, open func(chat.Limits) chat.Store, now time.Time, set func(time.Time)) *world {
	return &world{Store: open(limits), t: t, owner: someone(), now: now, set: set, open: open}
}

// at sets the store's clock.
func (w *world) at(now time.Time) {
	w.set(now)
	w.now = now
}

// sleep moves the store's clock on.
func (w *world) sleep(d time.Duration) { w.at(w.now.Add(d)) }

// start starts an empty conversation.
func (w *world) start() string {
	w.t.Helper()
	c, err := w.Start(w.t.Context(), w.owner, chat.Start{Conversation: chat.Conversation{ID: newID()}})
	require.NoError(w.t, err)
	return c.ID
}

// begin begins a turn and returns it.
func (w *world) begin(id string, b chat.Begin) chat.Turn {
	w.t.Helper()
	turn, err := w.Begin(w.t.Context(), w.owner, id, b)
	require.NoError(w.t, err)
	return turn
}

// refuse has a turn refused, for the want error.
func (w *world) refuse(id string, b chat.Begin, want error, why ...any) {
	w.t.Helper()
	_, err := w.Begin(w.t.Context(), w.owner, id, b)
	require.ErrorIs(w.t, err, want, why...)
}

// wait has a turn wait for another one, and returns for how long at most.
func (w *world) wait(id string, b chat.Begin) time.Duration {
	w.t.Helper()
	_, err := w.Begin(w.t.Context(), w.owner, id, b)
	var busy *chat.BusyError
	require.ErrorAs(w.t, err, &busy)
	return busy.Left
}

// renew moves the end of a turn's lease.
func (w *world) renew(owner chat.Owner, id, token string, lease time.Duration) error {
	_, err := w.Append(w.t.Context(), owner, id, chat.Append{Token: token, Lease: lease})
	return err
}

// finish ends a turn and returns the stamp.
func (w *world) finish(id string, f chat.Finish) time.Time {
	w.t.Helper()
	done, err := w.Finish(w.t.Context(), w.owner, id, f)
	require.NoError(w.t, err)
	return done.At
}

// turn is a question and one answer.
func (w *world) turn(id, text string) {
	w.t.Helper()
	b := begin(newID(), text)
	turn := w.begin(id, b)
	w.finish(id, answerTo(b, turn.Message.Seq, "re "+text))
}

// get returns a conversation with all of its messages.
func (w *world) get(id string) (chat.Conversation, []chat.StoredMessage) {
	w.t.Helper()
	c, messages, err := w.Get(w.t.Context(), w.owner, id, page)
	require.NoError(w.t, err)
	require.Equal(w.t, id, c.ID)
	return c, messages
}

// look returns a conversation as it is, without an access.
func (w *world) look(id string) (chat.Conversation, error) {
	return w.Update(w.t.Context(), w.owner, id, chat.Update{})
}

// update changes a conversation.
func (w *world) update(id string, u chat.Update) chat.Conversation {
	w.t.Helper()
	c, err := w.Update(w.t.Context(), w.owner, id, u)
	require.NoError(w.t, err)
	return c
}

// list returns the ids of all conversations, or of those with one of the statuses.
func (w *world) list(statuses ...chat.Status) []string {
	w.t.Helper()
	if len(statuses) == 0 {
		statuses = []chat.Status{""}
	}
	var ids []string
	for _, status := range statuses {
		conversations, next, err := w.List(w.t.Context(), w.owner, chat.List{Status: status, Limit: 1000})
		require.NoError(w.t, err)
		require.Nil(w.t, next)
		for _, c := range conversations {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// isKnown tells whether the owner has an idempotency record of a name. It makes none.
func (w *world) isKnown(name string) bool {
	w.t.Helper()
	r := chat.IdempotencyRecord{Name: name, Fingerprint: "not " + recordNamed(name).Fingerprint, TTL: time.Minute}
	made, err := w.Claim(w.t.Context(), w.owner, chat.Claim{Record: r, Token: newID()})
	if errors.Is(err, chat.ErrKeyReused) {
		return true
	}
	require.NoError(w.t, err)
	require.Nil(w.t, made)
	return false
}

// newID returns a fresh UUID.
func newID() string {
	var u [16]byte
	_, _ = rand.Read(u[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// someone is an owner whom no other test knows.
func someone() chat.Owner {
	return chat.Owner{TenantID: newID(), UserID: rand.Text()}
}

// page holds every message.
var page = chat.Page{Limit: 1000}

// begin is a question with one record.
func begin(token, text string) chat.Begin {
	id := newID()
	return chat.Begin{
		MessageID: id, JSON: encode(chat.Message{ID: id, Role: chat.User, Kind: chat.Text, Text: text}),
		Records: []chat.IdempotencyRecord{recordNamed(newID())}, Token: token, Context: 50, ContextBytes: 1 << 20, Lease: lease,
	}
}

// retry is the same request under another token, with the records by which it is recognised.
func retry(b chat.Begin, token string, records ...chat.IdempotencyRecord) chat.Begin {
	again := begin(token, "again")
	again.Records = b.Records
	if len(records) > 0 {
		again.Records = records
	}
	return again
}

// answerTo is the end of the turn of b, whose message has the seq.
func answerTo(b chat.Begin, seq int64, texts ...string) chat.Finish {
	f := chat.Finish{Token: b.Token, Seq: seq, Records: b.Records, State: chat.Complete}
	for i, text := range texts {
		f.Replies = append(f.Replies, answer(seq+1+int64(i), text))
	}
	return f
}

// failed is the end of a turn that failed.
func failed(b chat.Begin, seq int64, failure *chat.Failure) chat.Finish {
	return chat.Finish{Token: b.Token, Seq: seq, Records: b.Records, State: chat.Failed, Failure: failure.Code}
}

// recordNamed is a record with the fingerprint that all requests of a test have unless it gives another.
func recordNamed(name string) chat.IdempotencyRecord {
	return chat.IdempotencyRecord{Name: name, Fingerprint: "request", TTL: time.Minute}
}

// answer is the agent's message with the seq.
func answer(seq int64, text string) []byte {
	return encode(chat.Message{ID: chat.NewMessageID(seq), Role: chat.Assistant, Kind: chat.Text, Text: text})
}

func encode(m chat.Message) []byte {
	text, err := json.Marshal(m, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	return text
}

// texts are the texts of messages, and their states.
func texts(messages []chat.StoredMessage) []string {
	var all []string
	for _, stored := range messages {
		m, err := stored.Message()
		if err != nil {
			panic(err)
		}
		all = append(all, m.Text+" "+string(stored.State))
	}
	return all
}

// idsOf are the ids of conversations.
func idsOf(conversations []chat.Conversation) []string {
	var ids []string
	for _, c := range conversations {
		ids = append(ids, c.ID)
	}
	return ids
}

// withLimits are the limits of the contract, some of them changed.
func withLimits(change func(*chat.Limits)) chat.Limits {
	l := limits
	change(&l)
	return l
}
