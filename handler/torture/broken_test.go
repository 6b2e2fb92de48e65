package torture

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// edit breaks one rule in a file: the old text, which must be there once, becomes the new one.
type edit struct{ file, old, new string }

// broken are programs that break a promise, each by one rule left out. The faults are those that show it.
var broken = map[string]struct {
	faults []string
	lasts  time.Duration // until the end, where some show at the latest
	edits  []edit
}{
	// A handler that is stopped for longer than its lease comes back and commits over the next turn.
	"no fencing": {
		[]string{"handler stopped"},
		30 * time.Second,
		[]edit{{"store/finish.lua", "if c.turn ~= token or c.lease <= now then return {'lost'} end", ""}},
	},
	// Two handlers both find the conversation free.
	"a script in two": {
		nil,
		4 * time.Second,
		[]edit{
			{"store/begin.lua", "elseif c.lease > 0 then", "elseif false then"},
			{"store/redis.go", "	args := []any{r.options.Limits.TTL.Milliseconds(), r.options.Limits.Messages, b.Token", `
	if _, last, err := r.Get(ctx, owner, id, chat.Page{Limit: 1, Now: b.Now}); err == nil && len(last) == 1 && last[0].State == chat.Pending {
		return chat.Turn{}, &chat.BusyError{Left: b.Lease}
	}
	args := []any{r.options.Limits.TTL.Milliseconds(), r.options.Limits.Messages, b.Token`},
		},
	},
	// Everybody is one.
	"an owner forgotten": {
		nil,
		4 * time.Second,
		[]edit{{"api/start.go", "UserID: u.ID}", `UserID: "everybody"}`}},
	},
	// A request that is repeated is done again.
	"no idempotency of a send": {
		nil,
		4 * time.Second,
		[]edit{{"store/begin.lua", "past = past or known", ""}},
	},
	"no idempotency of a start": {
		nil,
		4 * time.Second,
		[]edit{{"store/claim.lua", "if past and past.made then return {'ok', past.id, past.made} end", ""}},
	},
	// A reply is lost, the client repeats the script, and the answer that is stored is reported as lost.
	"a finish that does not know itself": {
		[]string{"replies lost"},
		30 * time.Second,
		[]edit{{"store/finish.lua", "if known[1] == token and known[2] then return {'ok', known[2]} end", ""}},
	},
	// The answer is given although it could not be stored.
	"an acknowledgement before the store's": {
		[]string{"link cut", "Redis killed"},
		40 * time.Second,
		[]edit{{"chat/service.go", "	at, err := s.finish(ctx, owner, id, end)\n	if err != nil {", "	at, err := s.finish(ctx, owner, id, end)\n	if false {"}},
	},
	// A handler dies, and its turn never ends.
	"no end of a dead turn": {
		[]string{"handler killed"},
		8 * time.Second,
		[]edit{{"store/conversation.lua", "if c.lease > 0 and c.lease <= now then", "if false then"}},
	},
	"messages without an expiry": {
		nil,
		2 * time.Second,
		[]edit{{"store/conversation.lua", "  redis.call('PEXPIRE', KEYS[8], text(c.expires - now))\n", ""}},
	},
	// The list names what is gone.
	"an index that outlives its data": {
		nil,
		4 * time.Second,
		[]edit{{"store/conversation.lua", "redis.call('PEXPIRE', KEYS[7], text(c.expires - now))", "redis.call('PEXPIRE', KEYS[7], '300')"}},
	},
	"an index out of order": {
		nil,
		2 * time.Second,
		[]edit{{"store/conversation.lua", "redis.call('ZADD', KEYS[3], text", "redis.call('ZADD', KEYS[3], 'NX', text"}},
	},
	// The cached page is taken for the newest.
	"a version that stands still": {
		nil,
		4 * time.Second,
		[]edit{{"store/conversation.lua", "c.version = c.version + 1", ""}},
	},
	"an error that is not documented": {
		[]string{"link cut"},
		30 * time.Second,
		[]edit{{"store/unavailable.go", `return fmt.Errorf("%w, %s: %w", chat.ErrUnavailable, class, err)`, `return fmt.Errorf("%s: %w", class, err)`}},
	},
}

// TestTheCheckerCatchesEveryBrokenRule shows that the torture test can fail: of every broken program it finds a violation.
func TestTheCheckerCatchesEveryBrokenRule(t *testing.T) {
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			replaced := commanded()
			texts := make(map[string]string)
			for _, e := range b.edits {
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
			chosen := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return !slices.Contains(b.faults, f.name) })
			require.Len(t, chosen, len(b.faults))
			w := newWorld(t, build(t, replaced), rand.Uint64())
			w.torture(b.lasts, 40, chosen)
			require.NotEmpty(t, w.books.violations, "nobody noticed; seed %d", w.seed)
			t.Logf("caught: %.200s", w.books.violations[0])
		})
	}
}
