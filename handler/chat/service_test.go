package chat_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	alice  = chat.Caller{Owner: chat.Owner{TenantID: "t", UserID: "alice"}, ObjectID: "alice's object", Token: "alice's token"}
	limits = chat.Limits{
		TTL: time.Hour, Messages: 10_000, Conversations: 10_000, Bytes: 1 << 40, TurnsPerMinute: 1 << 40, IdempotencyRecords: 10_000,
	}
	settings = chat.Settings{
		Context: 50, ContextBytes: 1 << 20, AgentTimeout: 200 * time.Second, TurnWait: 10 * time.Second, TurnLease: 30 * time.Second,
		IdempotencyTTL: time.Hour,
	}
)

// agentFunc answers by a function, and has no greeting.
type agentFunc func(context.Context, chat.Question) (chat.Reply, error)

func (agentFunc) Open(context.Context, chat.Caller, string) (chat.Reply, error) {
	return chat.Reply{}, nil
}

func (f agentFunc) Answer(ctx context.Context, _ chat.Caller, q chat.Question, _ func(chat.Event)) (chat.Reply, error) {
	return f(ctx, q)
}

// greeter opens by a function, and echoes.
type greeter struct {
	agent.Echo
	open func(context.Context) (chat.Reply, error)
}

func (g greeter) Open(ctx context.Context, _ chat.Caller, _ string) (chat.Reply, error) {
	return g.open(ctx)
}

// saying is a reply of texts.
func saying(texts ...string) chat.Reply {
	var r chat.Reply
	for _, text := range texts {
		r.Messages = append(r.Messages, chat.Message{Kind: chat.Text, Text: text})
	}
	return r
}

// slow takes as long as the question says.
var slow = agentFunc(func(ctx context.Context, q chat.Question) (chat.Reply, error) {
	d, err := time.ParseDuration(q.Message.Text)
	select {
	case <-time.After(d):
		return saying("done"), err
	case <-ctx.Done():
		return chat.Reply{}, ctx.Err()
	}
})

// between is a store between whose calls and their callers a test can stand, and which counts the calls.
type between struct {
	chat.Store
	before, after func(ctx context.Context, call string) error // an error is returned instead of the store's answer; may be nil

	mu       sync.Mutex
	calls    map[string]int
	begun    chat.Begin // the last
	finished chat.Finish
}

func call[T any](ctx context.Context, b *between, name string, call func() (T, error)) (T, error) {
	var none T
	b.mu.Lock()
	if b.calls == nil {
		b.calls = make(map[string]int)
	}
	b.calls[name]++
	b.mu.Unlock()
	if b.before != nil {
		if err := b.before(ctx, name); err != nil {
			return none, err
		}
	}
	result, err := call()
	if b.after != nil {
		if err := b.after(ctx, name); err != nil {
			return none, err
		}
	}
	return result, err
}

func (b *between) count(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls[name]
}

func (b *between) Claim(ctx context.Context, owner chat.Owner, c chat.Claim) (*chat.Conversation, error) {
	return call(ctx, b, "claim", func() (*chat.Conversation, error) { return b.Store.Claim(ctx, owner, c) })
}

func (b *between) Start(ctx context.Context, owner chat.Owner, s chat.Start) (chat.Conversation, error) {
	return call(ctx, b, "start", func() (chat.Conversation, error) { return b.Store.Start(ctx, owner, s) })
}

func (b *between) Begin(ctx context.Context, owner chat.Owner, id string, req chat.Begin) (chat.Turn, error) {
	b.mu.Lock()
	b.begun = req
	b.mu.Unlock()
	return call(ctx, b, "begin", func() (chat.Turn, error) { return b.Store.Begin(ctx, owner, id, req) })
}

func (b *between) Append(ctx context.Context, owner chat.Owner, id string, a chat.Append) (chat.Appended, error) {
	return call(ctx, b, "append", func() (chat.Appended, error) { return b.Store.Append(ctx, owner, id, a) })
}

func (b *between) Events(ctx context.Context, owner chat.Owner, id string, after *chat.EventID) (chat.Log, error) {
	return call(ctx, b, "events", func() (chat.Log, error) { return b.Store.Events(ctx, owner, id, after) })
}

func (b *between) Finish(ctx context.Context, owner chat.Owner, id string, f chat.Finish) (chat.Finished, error) {
	b.mu.Lock()
	b.finished = f
	b.mu.Unlock()
	return call(ctx, b, "finish", func() (chat.Finished, error) { return b.Store.Finish(ctx, owner, id, f) })
}

func serve(t *testing.T, s chat.Store, a chat.Agent) *chat.Service {
	t.Helper()
	return serveWith(t, s, a, settings, slog.DiscardHandler)
}

func serveWith(t *testing.T, s chat.Store, a chat.Agent, with chat.Settings, log slog.Handler) *chat.Service {
	t.Helper()
	service := chat.NewService(s, a, with, slog.New(log))
	t.Cleanup(func() { service.Close(context.Background()) })
	return service
}

func start(t *testing.T, s *chat.Service) string {
	t.Helper()
	started, err := s.Start(t.Context(), alice, chat.Opening{})
	require.NoError(t, err)
	return started.Conversation.ID
}

func say(text string) chat.Input { return chat.Input{Text: &text} }

// keyed is input with an idempotency key.
func keyed(key, text string) chat.Input {
	return chat.Input{Idempotency: chat.Idempotency{Key: key, Fingerprint: text}, Text: &text}
}

func read(t *testing.T, m chat.StoredMessage) chat.Message {
	t.Helper()
	message, err := m.Message()
	require.NoError(t, err)
	return message
}

func history(t *testing.T, s *chat.Service, id string) []string {
	t.Helper()
	_, messages, err := s.Get(t.Context(), alice.Owner, id, chat.Page{Limit: 1000})
	require.NoError(t, err)
	var all []string
	for i, stored := range messages {
		require.Equal(t, int64(i+1), stored.Seq)
		m := read(t, stored)
		all = append(all, fmt.Sprintf("%s %s %s", m.Role, m.Text, stored.State))
	}
	return all
}

func isBusy(t *testing.T, err error) {
	t.Helper()
	var busy *chat.BusyError
	require.ErrorAs(t, err, &busy)
}

// buffer holds the log.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestWhatCannotBeMeantReachesNoStore(t *testing.T) {
	id, text, empty, long := "01890a5d-ac96-774b-bcce-b302099a8057", "hello", "", strings.Repeat("x", 32_769)
	upper := strings.ToUpper(id)
	s := serve(t, nil, nil)
	send := func(id string, in chat.Input) error {
		_, err := s.Send(t.Context(), alice, id, in)
		return err
	}
	get := func(id string, p chat.Page) error {
		_, _, err := s.Get(t.Context(), alice.Owner, id, p)
		return err
	}
	list := func(l chat.List) error {
		_, _, err := s.ListConversations(t.Context(), alice.Owner, l)
		return err
	}
	open := func(o chat.Opening) error {
		_, err := s.Start(t.Context(), alice, o)
		return err
	}
	const value = "value must be a JSON object of at most 32768 bytes"
	const page, before = "limit must be one whole number from 1 to 1000", "before must be one whole number from 1 to 9007199254740992"
	for want, err := range map[string]error{
		"title must be at most 200 characters long":                   open(chat.Opening{Title: long}),
		"title must be valid UTF-8 without NUL":                       open(chat.Opening{Title: "\xff"}),
		"metadata.a must be valid UTF-8 without NUL":                  open(chat.Opening{Metadata: map[string]string{"a": "\xff"}}),
		"metadata.a must have no control characters":                  open(chat.Opening{Metadata: map[string]string{"a": "b\x7f"}}),
		"metadata has a key that must have no control characters":     open(chat.Opening{Metadata: map[string]string{"\x1f": "b"}}),
		"metadata must have at most 10240 bytes in all":               open(chat.Opening{Metadata: pairs("é")}),
		"metadata must have no empty key":                             open(chat.Opening{Metadata: map[string]string{"": "a"}}),
		"conversation id must be a UUID in lower case, such as " + id: send(upper, chat.Input{Text: &text}),
		"message id must be a UUID in lower case, such as " + id:      send(id, chat.Input{Text: &text, MessageID: &upper}),
		"text is missing: give text, or value":                        send(id, chat.Input{}),
		"text must be 1 to 32768 bytes long":                          send(id, chat.Input{Text: &empty}),
		"text must be 1 to 32768 bytes long; " + value:                send(id, chat.Input{Text: &long, Value: []byte(`[]`)}),
		value:       send(id, chat.Input{Value: []byte(`{"a": "\ud800"}`)}),
		value + " ": send(id, chat.Input{Value: valueOf(32<<10 + 1)}),
		"conversation id must be a UUID in lower case, such as " + id + "; " + page: get("", chat.Page{}),
		page:                 get(id, chat.Page{Limit: 1001}),
		page + "; " + before: get(id, chat.Page{Limit: -1, Before: -1}),
		"limit must be from 1 to 100; status must be active, completed or archived": list(chat.List{Status: "open"}),
		"limit must be from 1 to 100": list(chat.List{Limit: 101}),
	} {
		invalid, ok := errors.AsType[*chat.InvalidError](err)
		require.True(t, ok, "%v in place of %q", err, want)
		require.Equal(t, strings.TrimSpace(want), invalid.Error())
	}
}

// pairs are 16 pairs, each as long as its own limits allow, of one character.
func pairs(character string) map[string]string {
	all := map[string]string{}
	for i := range 16 {
		all[fmt.Sprintf("%02d", i)+strings.Repeat(character, 62)] = strings.Repeat(character, 512)
	}
	return all
}

// valueOf is a value of a length, with spaces between its tokens that do not count.
func valueOf(length int) []byte {
	return []byte(`{ "a" : "` + strings.Repeat("x", length-len(`{"a":""}`)) + `" }`)
}

func TestTheLimitsThemselvesAreAllowed(t *testing.T) {
	s := serve(t, store.NewMemory(limits), agent.Echo{})
	id := start(t, s)
	_, err := s.Start(t.Context(), alice, chat.Opening{Metadata: pairs("x")})
	require.NoError(t, err)
	_, err = s.Send(t.Context(), alice, id, chat.Input{Value: valueOf(32 << 10)})
	require.NoError(t, err)
	for _, p := range []chat.Page{{Limit: 1}, {Limit: 1000, Before: 1 << 53}} {
		_, _, err := s.Get(t.Context(), alice.Owner, id, p)
		require.NoError(t, err)
	}
	for _, l := range []chat.List{{Limit: 1}, {Limit: 100, Status: chat.Archived}} {
		_, _, err := s.ListConversations(t.Context(), alice.Owner, l)
		require.NoError(t, err)
	}
	_, err = s.Send(t.Context(), alice, id, say(strings.Repeat("x", 32_768)))
	require.NoError(t, err)
}
