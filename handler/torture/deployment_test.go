package torture

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/hosttest"
	"chatkeep/handler/redistest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// newer is a build that knows one attribute more, in the conversation, its summary and its idempotency records.
var newer = []hosttest.Edit{
	{File: "store/prelude.lua", Old: "  title = 'string', status", New: "  pinned = 'string', title = 'string', status"},
	{File: "store/start.lua", Old: "accessedAt = now, bytes = 0", New: "accessedAt = now, pinned = '1', bytes = 0"},
	{File: "store/begin.lua", Old: "turnToken = token, questionSeq = seq}", New: "turnToken = token, questionSeq = seq, pinned = '1'}"},
}

// TestTwoBuildsWorkOnTheSameConversations has clients use a build and a newer one in turn, as in a rolling deployment. Neither loses what
// the other wrote, also what it does not know.
func TestTwoBuildsWorkOnTheSameConversations(t *testing.T) {
	w := newWorld(t, plain(t), rand.Uint64())
	w.hosts[1].Stop()
	w.dist = altered(t, newer)
	w.hosts[1] = w.host(1)
	w.torture(6*time.Second, nil)
	w.report()

	client := redis.NewClient(&redis.Options{Addr: w.master.Addr})
	t.Cleanup(func() { _ = client.Close() })
	pinned, plain := 0, 0
	for _, key := range client.Keys(t.Context(), "*:c:*").Val() {
		owner, id, _ := strings.Cut(key, ":c:")
		var summary struct{ Pinned string }
		require.NoError(t, json.Unmarshal([]byte(client.HGet(t.Context(), owner+":sum", id).Val()), &summary))
		require.Equal(t, client.HGet(t.Context(), key, "pinned").Val(), summary.Pinned, "the other build lost it")
		if summary.Pinned == "1" {
			pinned++
		} else {
			plain++
		}
	}
	require.Greater(t, pinned, 10)
	require.Greater(t, plain, 10)
}

// TestTheProcessClockDoesNotCount runs the handlers 12 minutes before and behind Redis: nobody sees a difference.
func TestTheProcessClockDoesNotCount(t *testing.T) {
	dist := plain(t)
	for _, ahead := range []time.Duration{-12 * time.Minute, 12 * time.Minute} {
		t.Run(fmt.Sprint(-ahead), func(t *testing.T) {
			clock := redistest.NewClock(t)
			clock.Ahead(ahead)
			w := newWorldAt(t, clock, dist, rand.Uint64())
			w.env = append(w.env, "REDIS_TTL=600", "IDEMPOTENCY_TTL=600")
			for i, old := range w.hosts {
				old.Stop()
				w.hosts[i] = w.host(i)
			}
			w.torture(4*time.Second, []fault{{"handler killed", (*world).kill}})
			w.report()
		})
	}
}
