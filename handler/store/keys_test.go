package store

import (
	"errors"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func TestDigestKeepsOwnersApart(t *testing.T) {
	for owner, want := range map[chat.Owner]string{
		{TenantID: "72f988bf-86f1-41af-91ab-2d7cd011db47", UserID: "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ"}: "ORU-fQY9IP_fk20aXDGqQX7gUKg8kV-VojtBo5JUq4M",
		{TenantID: "t", UserID: "a:b"}: "ZJ6ZlvAzp90JPyXXfR1OWQO8d8hvJYz-x-LOHrcOEY8",
		{TenantID: "t:a", UserID: "b"}: "BUzJzEGcxWdddUZeP8XbrBG8wHRG9nt61G8xBxMde4A",
	} {
		require.Equal(t, want, digest(owner.TenantID, owner.UserID))
	}
	seen := map[string]chat.Owner{}
	parts := []string{"", "a", "b", "ab", "a}", "{a", ":", "a:b", "\x00", "\x00\x00\x00\x01a", "é", strings.Repeat("a", 255)}
	for _, tenant := range parts {
		for _, user := range parts {
			owner := chat.Owner{TenantID: tenant, UserID: user}
			d := digest(tenant, user)
			require.NotContains(t, seen, d, "%q meets %q", owner, seen[d])
			require.Regexp(t, `^[A-Za-z0-9_-]{43}$`, d)
			seen[d] = owner
		}
	}
}

func TestEveryKeyHasTheOwnersTagAndNothingPersonal(t *testing.T) {
	server := redistest.Start(t)
	w := openRedis(t, server.Addr)
	w.owner = chat.Owner{TenantID: "tenant", UserID: "alice@example.com}{"}
	id := w.start()
	b := begin("one", "question")
	b.Records = []chat.IdempotencyRecord{recordNamed("key:alice@example.com")}
	w.begin(id, b)
	w.add(id, "one", say(1, 2, "told", "x"))
	w.update(id, chat.Update{Status: new(chat.Completed)})
	w.update(w.start(), chat.Update{Status: new(chat.Archived)})
	w.start()
	keys := strings.Fields(server.CLI("keys", "*"))
	require.ElementsMatch(t, conversationKeys(w.owner, id), slices.DeleteFunc(slices.Clone(keys), func(key string) bool {
		return strings.Contains(key, ":c:") && !strings.HasSuffix(key, id)
	}), "a key that keys.go does not know")
	for _, key := range keys {
		require.True(t, strings.HasPrefix(key, "chat:{"+digest(w.owner.TenantID, w.owner.UserID)+"}:"), key)
		require.Equal(t, 1, strings.Count(key, "{"))
		require.NotContains(t, key, "alice")
		require.NotContains(t, key, "tenant")
	}
	require.NotContains(t, server.CLI("hgetall", tagOf(w.owner)+"idem"), "alice", "callers choose what they call their requests")
}

// What Redis holds is a format on disk; a change of it must be meant.
func TestFormat(t *testing.T) {
	files, err := filepath.Glob("testdata/format*.json")
	require.NoError(t, err)
	text, err := os.ReadFile(slices.Max(files))
	require.NoError(t, err)
	var want []dumpedKey
	require.NoError(t, json.Unmarshal(text, &want))

	w, server := openFrozen(t)
	w.at(goldenTime)
	w.Store = w.open(goldenLimits)
	makeGolden(t, w.Store.(*Redis))
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = client.Close() })
	got := dump(t, client)
	for _, dumped := range [][]dumpedKey{want, got} {
		for _, key := range dumped {
			for name, value := range key.Hash {
				if object := jsontext.Value(value); object.Canonicalize() == nil { // the order of members means nothing
					key.Hash[name] = string(object)
				}
			}
		}
	}
	require.Equal(t, want, got)
}

func TestEveryKeyExpiresAndTheIndexShrinks(t *testing.T) {
	w, server := openFrozen(t)
	early := w.start()
	w.turn(early, "x")
	w.sleep(30 * time.Minute)
	late := w.start()
	w.turn(late, "x")
	tag := tagOf(w.owner)
	keys := strings.Fields(server.CLI("keys", "*"))
	require.ElementsMatch(t, []string{
		tag + "exp", tag + "sum", tag + "idx:active", tag + "idem", tag + "idem:exp", tag + "usage",
		tag + "c:" + early, tag + "m:" + early, tag + "c:" + late, tag + "m:" + late,
	}, keys)
	for _, key := range keys {
		ttl, err := strconv.Atoi(server.CLI("pttl", key))
		require.NoError(t, err)
		require.Positive(t, ttl, key)
		require.LessOrEqual(t, ttl, int((limits.TTL + 2*limits.Lag()).Milliseconds()), key)
	}
	require.Equal(t, "1", server.CLI("hlen", tag+"idem"), "the record of the first turn has expired")
	require.Equal(t, "1", server.CLI("zcard", tag+"idem:exp"))

	w.sleep(gone - 30*time.Minute)
	require.Equal(t, []string{late}, w.list())
	for _, key := range []string{"exp", "idx:active"} {
		require.Equal(t, "1", server.CLI("zcard", tag+key), key)
	}
	require.Equal(t, "1", server.CLI("hlen", tag+"sum"))
	w.turn(late, "purges the records")
	require.Equal(t, "1", server.CLI("hlen", tag+"idem"))
	w.sleep(gone)
	require.Empty(t, w.list())
	w.sleep(2 * limits.Lag())
	require.Eventually(t, func() bool { return server.CLI("dbsize") == "0" }, 10*time.Second, 20*time.Millisecond,
		"the server ends what nobody asks for again")
}

// Whatever happens, each conversation stands once in every index, an owner's bytes are the sum of what is stored, and every key expires.
func TestTheKeysOfAnOwnerAgree(t *testing.T) {
	w, server := openFrozen(t)
	w.Store = w.open(withLimits(func(l *chat.Limits) { l.Conversations, l.Messages, l.IdempotencyRecords = 8, 20, 5 }))
	client := redis.NewClient(&redis.Options{Addr: server.Addr, ReadTimeout: 10 * time.Second})
	t.Cleanup(func() { _ = client.Close() })
	tag := tagOf(w.owner)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	lengths := []int{0, 1, 100, 20_000}
	text := func() string { return strings.Repeat("x", lengths[random.IntN(len(lengths))]) }
	var ids []string
	running := map[string]chat.Begin{}
	for step := range 400 {
		var id string
		if len(ids) > 0 {
			id = ids[random.IntN(len(ids))]
		}
		var err error
		switch random.IntN(10) {
		case 0:
			id = newID()
			s := chat.Start{
				Conversation: chat.Conversation{ID: id, Title: text(), ObjectID: newID(), Metadata: map[string]string{"k": text()}},
				Messages:     [][]byte{answer(1, text())}, AgentRef: text(),
			}
			if random.IntN(2) == 0 {
				record := recordNamed(newID())
				_, err := w.Claim(t.Context(), w.owner, chat.Claim{Record: record, Token: "x", Lease: lease})
				require.NoError(t, err)
				s.Record, s.Token = &record, "x"
			}
			if _, err = w.Start(t.Context(), w.owner, s); err == nil {
				ids = append(ids, id)
			}
		case 1, 2:
			b := begin(newID(), text())
			if before, ok := running[id]; ok && random.IntN(2) == 0 {
				b = retry(before, newID(), before.Records[0], recordNamed(newID()))
			}
			var turn chat.Turn
			if turn, err = w.Begin(t.Context(), w.owner, id, b); err == nil && !turn.Replayed {
				running[id] = b
			}
		case 3, 4:
			b := running[id]
			f := chat.Finish{Token: b.Token, Records: b.Records, State: chat.Complete, AgentRef: text(), ExternalID: text()}
			if f.Replies = [][]byte{answer(1, text())}; random.IntN(3) == 0 {
				f.State, f.Failure, f.Replies = chat.Failed, chat.ErrNotAsked.Code, nil
			}
			_, err = w.Finish(t.Context(), w.owner, id, f)
		case 5:
			_, err = w.Update(t.Context(), w.owner, id, chat.Update{
				Title: new(text()), Metadata: map[string]string{"m": text()}, Status: new(chat.Statuses[random.IntN(3)]),
			})
		case 6:
			_, _, err = w.Get(t.Context(), w.owner, id, page)
		case 7:
			_, _, err = w.List(t.Context(), w.owner, chat.List{Limit: 3})
		case 8:
			w.sleep([]time.Duration{time.Millisecond, lease, time.Minute, 20 * time.Minute}[random.IntN(4)])
		case 9:
			_, err = w.Delete(t.Context(), w.owner, id, chat.Deletion{Token: newID(), Record: new(recordNamed(newID()))})
		}
		_, isBusy := errors.AsType[*chat.BusyError](err)
		if err != nil && !isBusy {
			require.True(t, slices.ContainsFunc([]error{
				chat.ErrNotFound, chat.ErrClosed, chat.ErrFull, chat.ErrTooMany, chat.ErrTurnLost,
			}, func(refusal error) bool { return errors.Is(err, refusal) }), "step %d: %v", step, err)
		}

		known := client.HGetAll(t.Context(), tag+"sum").Val()
		indexed := map[string]int{}
		for _, status := range chat.Statuses {
			for _, id := range client.ZRange(t.Context(), tag+"idx:"+string(status), 0, -1).Val() {
				indexed[id]++
				require.Contains(t, known[id], `"status":"`+string(status)+`"`, "step %d", step)
			}
		}
		sum := 0
		for id, summary := range known {
			require.Equal(t, 1, indexed[id], "step %d", step)
			delete(indexed, id)
			if c := client.HGetAll(t.Context(), tag+"c:"+id).Val(); len(c) > 0 {
				bytes := 0
				for _, element := range client.LRange(t.Context(), tag+"m:"+id, 0, -1).Val() {
					bytes += len(element)
				}
				for _, attribute := range []string{"objectId", "externalId", "agentRef", "title", "metadata"} {
					bytes += len(c[attribute])
				}
				require.Equal(t, strconv.Itoa(bytes), c["bytes"], "step %d", step)
			}
			match := regexp.MustCompile(`"bytes":(\d+)`).FindStringSubmatch(summary)
			require.NotNil(t, match, summary)
			bytes, err := strconv.Atoi(match[1])
			require.NoError(t, err)
			sum += bytes
		}
		require.Empty(t, indexed, "step %d", step)
		require.Len(t, client.ZRange(t.Context(), tag+"exp", 0, -1).Val(), len(known), "step %d", step)
		records := client.HGetAll(t.Context(), tag+"idem").Val()
		for _, record := range records {
			sum += len(record)
		}
		require.LessOrEqual(t, len(records), 5)
		require.Len(t, client.ZRange(t.Context(), tag+"idem:exp", 0, -1).Val(), len(records), "step %d", step)
		if used := client.HGet(t.Context(), tag+"usage", "bytes").Val(); used != "" || sum > 0 {
			require.Equal(t, strconv.Itoa(sum), used, "step %d", step)
		}
		for _, key := range client.Keys(t.Context(), "*").Val() {
			require.Positive(t, client.PTTL(t.Context(), key).Val(), "step %d: %s", step, key)
		}
	}
}

// All summaries of an owner may be lost at once, as by an eviction.
func TestLostOwnerKeysAreRepairedAndExpire(t *testing.T) {
	for _, lost := range []string{"sum", "idx:active", "exp", "usage", "idem", "idem:exp"} {
		t.Run(lost, func(t *testing.T) {
			w, server := openFrozen(t)
			id := w.start()
			w.turn(id, "before")
			server.CLI("del", tagOf(w.owner)+lost)
			w.turn(id, "after")
			_, messages := w.get(id)
			require.Len(t, messages, 4)
			w.update(id, chat.Update{Title: new("changed")})
			for key := range strings.FieldsSeq(server.CLI("keys", tagOf(w.owner)+"*")) {
				require.NotEqual(t, "-1", server.CLI("pttl", key), "%s never expires", key)
			}
			require.Equal(t, []string{id}, w.list())
			w.sleep(limits.TTL - time.Millisecond)
			require.Equal(t, []string{id}, w.list(), "its list ends before it")
		})
	}
}
