package torture

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/redistest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// newer is a build that knows one attribute more, in the conversation, its summary and its idempotency records.
var newer = []edit{
	{"store/prelude.lua", "  title = 'string', status", "  pinned = 'string', title = 'string', status"},
	{"store/start.lua", "expiresAt = now + ttl, bytes = 0", "expiresAt = now + ttl, pinned = '1', bytes = 0"},
	{"store/begin.lua", "turnToken = token, questionSeq = seq}", "turnToken = token, questionSeq = seq, pinned = '1'}"},
}

// edited are the replacements by which a build has the edits.
func edited(t *testing.T, edits []edit) map[string]string {
	t.Helper()
	replaced := commanded()
	texts := make(map[string]string)
	for _, e := range edits {
		path := filepath.Join(root(), "handler", e.file)
		text, isEdited := texts[path]
		if !isEdited {
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			text = string(content)
		}
		require.Equal(t, 1, strings.Count(text, e.old), "%s: %s", e.file, e.old)
		texts[path] = strings.Replace(text, e.old, e.new, 1)
	}
	for path, text := range texts {
		replaced[path] = filepath.Join(t.TempDir(), filepath.Base(path))
		require.NoError(t, os.WriteFile(replaced[path], []byte(text), 0o600))
	}
	return replaced
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
