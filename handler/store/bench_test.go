package store

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// The cost of a turn does not depend on how long the conversation is.
func BenchmarkTurn(b *testing.B) {
	server := redistest.Start(b)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	b.Cleanup(func() { _ = client.Close() })
	many := withLimits(func(l *chat.Limits) { l.Messages, l.Bytes, l.TurnsPerMinute = 1<<40, 1<<40, 1<<40 })
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprintf("after %d messages", n), func(b *testing.B) {
			s := newRedis(b, client, many, time.Minute)
			owner := someone()
			greeting := make([][]byte, n)
			for i := range greeting {
				greeting[i] = answer(int64(i+1), "x")
			}
			c, err := s.Start(b.Context(), owner, chat.Start{Conversation: chat.Conversation{ID: newID()}, Messages: greeting})
			require.NoError(b, err)
			for b.Loop() {
				question := begin(newID(), "question")
				turn, err := s.Begin(b.Context(), owner, c.ID, question)
				require.NoError(b, err)
				_, err = s.Finish(b.Context(), owner, c.ID, answerTo(question, turn.Message.Seq, "a"))
				require.NoError(b, err)
			}
		})
	}
}

// BenchmarkMemory measures what conversations cost in Redis: one of 10 messages of about 500 bytes of text, with all that belongs to
// it but idempotency records; each further message of a long one; and a record. docs/deploy.md has the figures.
func BenchmarkMemory(b *testing.B) {
	server := redistest.Start(b)
	client := NewClient(Connection{Network: "tcp", Addr: server.Addr, PoolSize: 1, DialTimeout: time.Second, CommandTimeout: time.Minute, PoolTimeout: time.Second})
	b.Cleanup(func() { _ = client.Close() })
	s := newRedis(b, client, withLimits(func(l *chat.Limits) {
		l.Messages, l.Conversations, l.Bytes, l.TurnsPerMinute = 1<<40, 1<<40, 1<<40, 1<<40
	}), time.Minute)
	used := func() float64 {
		match := regexp.MustCompile(`used_memory:(\d+)`).FindStringSubmatch(server.CLI("info", "memory"))
		n, err := strconv.ParseFloat(match[1], 64)
		require.NoError(b, err)
		return n
	}
	text := strings.Repeat("Chat text. ", 46)[:500]
	turns := func(owner chat.Owner, id string, n int, withRecords bool) {
		for range n {
			question := begin(newID(), text)
			question.Context = 0
			if !withRecords {
				question.Records = nil
			}
			turn, err := s.Begin(b.Context(), owner, id, question)
			require.NoError(b, err)
			_, err = s.Finish(b.Context(), owner, id, answerTo(question, turn.Message.Seq, text))
			require.NoError(b, err)
		}
	}
	start := func(owner chat.Owner) string {
		c, err := s.Start(b.Context(), owner, chat.Start{Conversation: chat.Conversation{ID: newID(), Title: "Trip to Rome", ObjectID: newID()}})
		require.NoError(b, err)
		return c.ID
	}
	for b.Loop() {
		const users, conversations, messages = 20, 50, 2_000
		server.CLI("flushall")
		before := used()
		for range users {
			owner := someone()
			for range conversations {
				turns(owner, start(owner), 5, false)
			}
		}
		b.ReportMetric((used()-before)/users/conversations, "B/conversation")
		owner := someone()
		id := start(owner)
		before = used()
		turns(owner, id, messages/2, false)
		short := used() - before
		b.ReportMetric(short/messages, "B/message")
		turns(owner, id, messages/2, true)
		b.ReportMetric((used()-before-2*short)/(messages/2), "B/record")
	}
}
