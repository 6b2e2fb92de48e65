package store

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// counted adds up what Redis holds of an owner's that counts: see prelude.lua.
func counted(t *testing.T, client *redis.Client, owner chat.Owner) int {
	t.Helper()
	ctx, sum := t.Context(), 0
	tag := strings.TrimSuffix(ownerKeys(owner)[0], "exp")
	for _, key := range client.Keys(ctx, tag+"c:*").Val() {
		id := strings.TrimPrefix(key, tag+"c:")
		for _, element := range client.LRange(ctx, tag+"m:"+id, 0, -1).Val() {
			sum += len(element)
		}
		for _, attribute := range []string{"objectId", "externalId", "agentRef", "title", "metadata"} {
			sum += len(client.HGet(ctx, key, attribute).Val())
		}
	}
	for _, record := range client.HVals(ctx, tag+"idem").Val() {
		sum += len(record)
	}
	return sum
}

// TestBytesAreCounted compares an owner's count with what Redis holds, along random histories.
func TestBytesAreCounted(t *testing.T) {
	clock := redistest.NewClock(t)
	client := redis.NewClient(&redis.Options{Addr: clock.Start(t).Addr})
	t.Cleanup(func() { _ = client.Close() })
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	l := withLimits(func(l *chat.Limits) { l.IdempotencyRecords, l.Bytes = 20, 60_000 })
	w := newWorld(t, func(chat.Limits) chat.Store { return newRedis(t, client, l, 10*time.Second) }, time.Now().UTC().Truncate(time.Second), clock.Freeze)
	w.at(w.now)
	text := func() string { return strings.Repeat("é\n", random.IntN(300)) + "x" }
	var ids []string
	for step := range 600 {
		if len(ids) == 0 || random.IntN(10) == 0 {
			id := newID()
			s := chat.Start{
				Conversation: chat.Conversation{ID: id, Title: []string{"", text()}[random.IntN(2)], ObjectID: "oid", ExternalID: text(), Metadata: map[string]string{"a": text()}},
				Messages:     [][]byte{answer(1, text())}, AgentRef: "ref",
			}
			if random.IntN(2) == 0 {
				r := recordNamed(newID())
				s.Record, s.Token = &r, "claim"
				_, err := w.Claim(t.Context(), w.owner, chat.Claim{Record: r, Token: "claim", Lease: lease})
				require.NoError(t, err)
			}
			if _, err := w.Start(t.Context(), w.owner, s); err == nil {
				ids = append(ids, id)
			} else {
				require.ErrorIs(t, err, chat.ErrQuota)
			}
		}
		if len(ids) == 0 {
			continue
		}
		id := ids[random.IntN(len(ids))]
		b := begin(newID(), text())
		b.Title = text()
		if random.IntN(3) == 0 {
			b.Records = nil
		}
		turn, err := w.Begin(t.Context(), w.owner, id, b)
		if err == nil {
			f := answerTo(b, turn.Message.Seq, text(), text())
			switch random.IntN(5) {
			case 0:
				f = failed(b, turn.Message.Seq, chat.ErrAgentFailed)
			case 1:
				f = failed(b, turn.Message.Seq, chat.ErrNotAsked)
			case 2:
				w.sleep(lease) // it dies
			}
			f.AgentRef = text()
			for range 1 + random.IntN(2) { // executed twice, now and then
				_, _ = w.Finish(t.Context(), w.owner, id, f)
			}
			if f.Failure == chat.ErrNotAsked.Code && b.Records != nil {
				w.begin(id, retry(b, newID())) // taken up again
			}
		}
		title := text()
		_, _ = w.Update(t.Context(), w.owner, id, chat.Update{Title: &title, Metadata: map[string]string{"b": text()}})
		_, _, _ = w.Get(t.Context(), w.owner, id, page)
		w.sleep(time.Duration(random.IntN(200)) * time.Second)
		if random.IntN(40) == 0 {
			w.sleep(gone)
			ids = nil
		}
		if step%20 == 0 {
			_, _, err := w.List(t.Context(), w.owner, chat.List{Limit: 1}) // purges
			require.NoError(t, err)
			w.isKnown("nothing") // purges the records
			has, _ := strconv.Atoi(client.HGet(t.Context(), ownerKeys(w.owner)[7], "bytes").Val())
			require.Equal(t, counted(t, client, w.owner), has, "step %d", step)
		}
	}
}

// longest returns the longest that a script held Redis since the last call, as the slow log has it.
func longest(t *testing.T, client *redis.Client) time.Duration {
	t.Helper()
	var most time.Duration
	for _, entry := range client.SlowLogGet(t.Context(), 128).Val() {
		if strings.HasPrefix(strings.ToLower(entry.Args[0]), "eval") {
			most = max(most, entry.Duration)
		}
	}
	require.NoError(t, client.Do(t.Context(), "SLOWLOG", "RESET").Err())
	return most
}

// TestNoScriptHoldsRedis runs each script on the largest that is legal, five times, and looks at the quickest: the machine is shared, and
// what takes long does so each time. 10 ms is what a script may take; twice that is the test's margin.
func TestNoScriptHoldsRedis(t *testing.T) {
	clock := redistest.NewClock(t)
	client := redis.NewClient(&redis.Options{Addr: clock.Start(t, "--slowlog-log-slower-than", "0").Addr})
	t.Cleanup(func() { _ = client.Close() })
	l := withLimits(func(l *chat.Limits) { l.Messages, l.Conversations, l.Bytes = 1_000_000, 1_000_000, 1<<40 })
	w := newWorld(t, func(chat.Limits) chat.Store { return newRedis(t, client, l, 30*time.Second) }, time.Now().UTC(),
		func(at time.Time) { clock.Ahead(time.Until(at)) }) // it runs: the slow log is measured by it
	quick := func(what string, do func()) {
		least := time.Hour
		for range 5 {
			longest(t, client)
			do()
			least = min(least, longest(t, client))
		}
		t.Logf("%-40s %v", what, least)
		require.Less(t, least, 20*time.Millisecond, what)
	}
	get := func(id string, before int64) func() {
		return func() {
			_, _, err := w.Get(t.Context(), w.owner, id, chat.Page{Before: before, Limit: 1000})
			require.NoError(t, err)
		}
	}
	id := w.start()
	large := strings.Repeat("x", 1_000_000)
	send := func(question, answer string, context int) func() {
		return func() {
			b := begin(newID(), question)
			b.Context, b.ContextBytes = context, 256<<10
			turn := w.begin(id, b)
			w.finish(id, answerTo(b, turn.Message.Seq, answer))
		}
	}
	quick("an answer of 1 MB", send("q", large, 0))
	for range 20 {
		send(strings.Repeat("x", 32_000), large, 0)()
	}
	quick("a page of answers of 1 MB", get(id, 0))
	quick("a page of an answer of 1 MB", get(id, 9))
	for range 500 {
		send(strings.Repeat("x", 15_000), strings.Repeat("x", 15_000), 0)()
	}
	quick("a page of 1,000 long messages", get(id, 0))
	quick("a context of 1,000 long messages", send("q", "a", 1000))

	metadata := map[string]string{}
	for i := range 16 {
		metadata[fmt.Sprint(i)] = strings.Repeat("x", 600)
	}
	w.owner = someone()
	for i := range 10_000 {
		c := chat.Conversation{ID: newID(), Title: strings.Repeat("t", 200)}
		if i%100 == 0 {
			c.Metadata = metadata
		}
		_, err := w.Start(t.Context(), w.owner, chat.Start{Conversation: c})
		require.NoError(t, err)
	}
	quick("a list of 100 among 10,000", func() {
		_, _, err := w.List(t.Context(), w.owner, chat.List{Limit: 100})
		require.NoError(t, err)
	})
	w.at(time.Now().Add(limits.TTL / 2))
	alive := w.start()
	w.at(w.now.Add(limits.TTL/2 + 2*time.Minute))
	var listed []string
	var after *chat.Cursor
	list := func() {
		page, next, err := w.List(t.Context(), w.owner, chat.List{Limit: 100, After: after})
		require.NoError(t, err)
		listed, after = append(listed, idsOf(page)...), next
	}
	quick("10,000 conversations that expire at once", list)
	for after != nil {
		list()
	}
	require.Equal(t, []string{alive}, listed)
}

func TestMetadataIsKeptOnce(t *testing.T) {
	server := redistest.Start(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = client.Close() })
	r := newRedis(t, client, limits, 10*time.Second)
	owner, record := someone(), recordNamed("key")
	_, err := r.Claim(t.Context(), owner, chat.Claim{Record: record, Token: "claim", Lease: lease})
	require.NoError(t, err)
	_, err = r.Start(t.Context(), owner, chat.Start{
		Conversation: chat.Conversation{ID: newID(), Metadata: map[string]string{"a": "once-and-for-all"}}, Record: &record, Token: "claim",
	})
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(fmt.Sprint(dump(t, client)), "once-and-for-all"))
}
