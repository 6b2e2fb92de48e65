package store

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden file of the present format; files of earlier formats stay as they are")

// goldenTime is when the golden conversations live.
var goldenTime = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// dumpedKey is a key of Redis, in a form that every version of Redis can load.
type dumpedKey struct {
	Key      string             `json:"key"`
	ExpireAt int64              `json:"expireAt"` // ms
	String   string             `json:"string,omitzero"`
	Hash     map[string]string  `json:"hash,omitzero"`
	List     []string           `json:"list,omitzero"`
	ZSet     map[string]float64 `json:"zset,omitzero"`
	Stream   []dumpedEntry      `json:"stream,omitzero"`
}

type dumpedEntry struct {
	ID     string   `json:"id"`
	Fields []string `json:"fields"` // and their values, in order
}

func dump(t *testing.T, client *redis.Client) []dumpedKey {
	t.Helper()
	ctx := t.Context()
	keys := client.Keys(ctx, "*").Val()
	slices.Sort(keys)
	var all []dumpedKey
	for _, key := range keys {
		d := dumpedKey{Key: key, ExpireAt: goldenTime.Add(client.PTTL(ctx, key).Val()).UnixMilli()}
		switch kind := client.Type(ctx, key).Val(); kind {
		case "string":
			d.String = client.Get(ctx, key).Val()
		case "hash":
			d.Hash = client.HGetAll(ctx, key).Val()
		case "list":
			d.List = client.LRange(ctx, key, 0, -1).Val()
		case "zset":
			d.ZSet = make(map[string]float64)
			for _, z := range client.ZRangeWithScores(ctx, key, 0, -1).Val() {
				d.ZSet[z.Member.(string)] = z.Score
			}
		case "stream":
			entries, err := client.Do(ctx, "XRANGE", key, "-", "+").Slice()
			require.NoError(t, err)
			for _, entry := range entries {
				pair := entry.([]any)
				e := dumpedEntry{ID: pair[0].(string)}
				for _, field := range pair[1].([]any) {
					e.Fields = append(e.Fields, field.(string))
				}
				d.Stream = append(d.Stream, e)
			}
		default:
			require.Fail(t, "a type that the dump does not know", kind)
		}
		all = append(all, d)
	}
	return all
}

func load(t *testing.T, client *redis.Client, all []dumpedKey) {
	t.Helper()
	ctx := t.Context()
	for _, d := range all {
		switch {
		case d.Hash != nil:
			require.NoError(t, client.HSet(ctx, d.Key, d.Hash).Err())
		case d.List != nil:
			require.NoError(t, client.RPush(ctx, d.Key, d.List).Err())
		case d.ZSet != nil:
			for member, score := range d.ZSet {
				require.NoError(t, client.ZAdd(ctx, d.Key, redis.Z{Member: member, Score: score}).Err())
			}
		case d.Stream != nil:
			for _, e := range d.Stream {
				require.NoError(t, client.XAdd(ctx, &redis.XAddArgs{Stream: d.Key, ID: e.ID, Values: e.Fields}).Err())
			}
		default:
			require.NoError(t, client.Set(ctx, d.Key, d.String, 0).Err())
		}
		require.NoError(t, client.PExpireAt(ctx, d.Key, time.UnixMilli(d.ExpireAt)).Err())
	}
}

// The golden conversations.
var (
	goldenOwner  = chat.Owner{TenantID: "11111111-2222-3333-4444-555555555555", UserID: "golden"}
	goldenLimits = chat.Limits{TTL: time.Hour, Messages: 100, Conversations: 100, IdempotencyRecords: 100, Bytes: 1 << 20, TurnsPerMinute: 100}

	goldenID          = "01900000-0000-7000-8000-000000000001"
	goldenCompletedID = "01900000-0000-7000-8000-000000000002"
	goldenArchivedID  = "01900000-0000-7000-8000-000000000003"

	goldenKey   = chat.IdempotencyRecord{Name: "key:golden", Fingerprint: "fingerprint", TTL: time.Hour}
	goldenStart = chat.IdempotencyRecord{Name: "key:start", Fingerprint: "fingerprint", TTL: time.Hour}
)

func goldenQuestion(n byte, token string) chat.Begin {
	id := "01900000-0000-7000-8000-0000000001" + string([]byte{'0', '0' + n})
	return chat.Begin{
		Title: "question", Preview: "question " + string([]byte{'0' + n}),
		MessageID: id, JSON: []byte(`{"id":"` + id + `","role":"user","kind":"text","text":"question ` + string([]byte{'0' + n}) + `"}`),
		Token: token, Lease: time.Minute,
	}
}

func goldenAnswer(seq string, text string) []byte {
	return []byte(`{"id":"01900000-0000-7000-8000-000000` + seq + `","role":"assistant","kind":"text","text":"` + text + `"}`)
}

// makeGolden makes a conversation with all that can be in one, and one of each other status.
func makeGolden(t *testing.T, r *Redis) {
	t.Helper()
	ctx := t.Context()
	_, err := r.Claim(ctx, goldenOwner, chat.Claim{Record: goldenStart, Token: "start", Lease: time.Minute})
	require.NoError(t, err)
	_, err = r.Start(ctx, goldenOwner, chat.Start{
		Conversation: chat.Conversation{
			ID: goldenID, ObjectID: "oid", ExternalID: "external", Title: `Golden "title" / é`, Metadata: map[string]string{"a": "1", "b": ""},
		},
		Messages: [][]byte{
			goldenAnswer("000001", "welcome"),
			[]byte(`{"id":"01900000-0000-7000-8000-000000000002","role":"assistant","kind":"adaptiveCard","cardJson":{"type":"AdaptiveCard"},"cardId":"c1"}`),
		},
		Preview: "welcome", AgentRef: "ref", Record: &goldenStart, Token: "start",
	})
	require.NoError(t, err)
	first := goldenQuestion(1, "first")
	first.Records = []chat.IdempotencyRecord{goldenKey}
	turn, err := r.Begin(ctx, goldenOwner, goldenID, first)
	require.NoError(t, err)
	_, err = r.Finish(ctx, goldenOwner, goldenID, chat.Finish{
		Token: "first", Seq: turn.Message.Seq, Records: first.Records, State: chat.Complete, Replies: [][]byte{goldenAnswer("000004", "answer 1")},
		Preview:  "answer 1",
		AgentRef: "ref2", ExternalID: "external2",
	})
	require.NoError(t, err)
	turn, err = r.Begin(ctx, goldenOwner, goldenID, goldenQuestion(2, "second"))
	require.NoError(t, err)
	_, err = r.Finish(ctx, goldenOwner, goldenID, chat.Finish{Token: "second", Seq: turn.Message.Seq, State: chat.Failed, Failure: "agent_failed"})
	require.NoError(t, err)
	_, err = r.Begin(ctx, goldenOwner, goldenID, goldenQuestion(3, "third"))
	require.NoError(t, err)
	_, err = r.Append(ctx, goldenOwner, goldenID, chat.Append{Token: "third", Lease: time.Minute, Entries: []chat.Entry{
		{ID: chat.EventID{Seq: 6, N: 2}, Kind: chat.StatusEvent, Text: "thinking"},
		{ID: chat.EventID{Seq: 6, N: 3}, Kind: chat.DeltaEvent, Text: "hal", MessageID: "01900000-0000-7000-8000-000000000007"},
	}})
	require.NoError(t, err)
	for id, status := range map[string]chat.Status{goldenCompletedID: chat.Completed, goldenArchivedID: chat.Archived} {
		_, err = r.Start(ctx, goldenOwner, chat.Start{Conversation: chat.Conversation{ID: id}})
		require.NoError(t, err)
		_, err = r.Update(ctx, goldenOwner, id, chat.Update{Status: &status})
		require.NoError(t, err)
	}
}

// TestEveryFormatIsRead loads what each format has written, and reads, replays and goes on with it. A file is never changed once a
// program that writes it is deployed.
func TestEveryFormatIsRead(t *testing.T) {
	clock := redistest.NewClock(t)
	server := clock.Start(t)
	clock.Freeze(goldenTime)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = client.Close() })
	ctx := t.Context()
	r := NewRedis(client, client, Options{Limits: goldenLimits, Timeout: 10 * time.Second}, slog.New(slog.DiscardHandler))
	t.Cleanup(r.Close)
	if *update {
		makeGolden(t, r)
		text, err := json.Marshal(dump(t, client), json.Deterministic(true), jsontext.WithIndent("\t"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile("testdata/format3.json", append(text, '\n'), 0o600))
	}
	files, err := filepath.Glob("testdata/format*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			require.NoError(t, client.FlushAll(ctx).Err())
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			var all []dumpedKey
			require.NoError(t, json.Unmarshal(text, &all))
			load(t, client, all)
			checkGolden(ctx, t, r)
		})
	}
}

func checkGolden(ctx context.Context, t *testing.T, r *Redis) {
	c, messages, err := r.Get(ctx, goldenOwner, goldenID, chat.Page{Limit: 100})
	require.NoError(t, err)
	require.Equal(t, chat.Conversation{
		ID: goldenID, Owner: goldenOwner, ObjectID: "oid", ExternalID: "external2", Title: `Golden "title" / é`, Status: chat.Active,
		Metadata: map[string]string{"a": "1", "b": ""}, MessageCount: 6, Version: 6,
		CreatedAt: goldenTime, UpdatedAt: goldenTime, LastAccessedAt: goldenTime, ExpiresAt: goldenTime.Add(time.Hour),
	}, c)
	var states []chat.State
	for _, m := range messages {
		states = append(states, m.State)
		_, err := m.Message()
		require.NoError(t, err)
	}
	require.Equal(t, []chat.State{chat.Complete, chat.Complete, chat.Complete, chat.Complete, chat.Failed, chat.Pending}, states)
	card, err := messages[1].Message()
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"AdaptiveCard"}`, string(card.CardJSON))

	for _, status := range chat.Statuses {
		listed, next, err := r.List(ctx, goldenOwner, chat.List{Status: status, Limit: 10})
		require.NoError(t, err)
		require.Nil(t, next)
		require.Len(t, listed, 1)
		if status == chat.Active {
			c.ObjectID = ""                // only get knows it
			if listed[0].Last.Role != "" { // the first formats have no previews
				c.Last = chat.Preview{Role: chat.User, Text: "question 3"}
			}
			require.Equal(t, c, listed[0])
		}
	}
	repeated := goldenQuestion(1, "repeated")
	repeated.Records = []chat.IdempotencyRecord{goldenKey}
	turn, err := r.Begin(ctx, goldenOwner, goldenID, repeated)
	require.NoError(t, err)
	require.True(t, turn.Replayed)
	require.Len(t, turn.Replies, 1)
	made, err := r.Claim(ctx, goldenOwner, chat.Claim{Record: goldenStart, Token: "repeated", Lease: time.Minute})
	require.NoError(t, err)
	require.Equal(t, goldenID, made.ID)
	require.Equal(t, int64(2), made.MessageCount)
	for _, id := range []string{goldenQuestion(1, "").MessageID, "01900000-0000-7000-8000-000000000004"} {
		taken := goldenQuestion(4, "taken")
		taken.MessageID = id
		_, err = r.Begin(ctx, goldenOwner, goldenID, taken)
		require.ErrorIs(t, err, chat.ErrMessageIDTaken)
	}
	_, err = r.Append(ctx, goldenOwner, goldenID, chat.Append{Token: "third", Lease: time.Minute, Entries: []chat.Entry{
		{ID: chat.EventID{Seq: 6, N: 4}, Kind: chat.DeltaEvent, Text: "f", MessageID: "x"},
	}})
	require.NoError(t, err)
	log, err := r.Events(ctx, goldenOwner, goldenID, nil)
	require.NoError(t, err)
	require.True(t, log.IsLive)
	require.Equal(t, messages[5:], log.Messages)
	require.Equal(t, "f", log.Entries[len(log.Entries)-1].Text)
	if len(log.Entries) > 1 { // the first format has no log
		require.Equal(t, "hal", log.Entries[1].Text)
		require.Equal(t, "agent_failed", messages[4].Failure)
	}
	_, err = r.Finish(ctx, goldenOwner, goldenID, chat.Finish{
		Token: "third", Seq: 6, State: chat.Complete, Replies: [][]byte{goldenAnswer("000007", "answer 3")},
	})
	require.NoError(t, err)
	active := chat.Active
	_, err = r.Update(ctx, goldenOwner, goldenArchivedID, chat.Update{Status: &active, Version: 2})
	require.NoError(t, err)
	turn, err = r.Begin(ctx, goldenOwner, goldenArchivedID, goldenQuestion(5, "fifth"))
	require.NoError(t, err)
	require.Equal(t, int64(1), turn.Message.Seq)
	c, _, err = r.Get(ctx, goldenOwner, goldenArchivedID, chat.Page{Limit: 1})
	require.NoError(t, err)
	require.Equal(t, "question", c.Title)
	c, _, err = r.Get(ctx, goldenOwner, goldenCompletedID, chat.Page{Limit: 1})
	require.NoError(t, err)
	require.Empty(t, c.Title)
}
