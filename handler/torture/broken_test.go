package torture

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"chatkeep/handler/hosttest"

	"github.com/stretchr/testify/require"
)

// broken are programs that break a promise, each by one rule left out. The faults are those that show it. They are what the contract of the
// stores cannot catch, whose broken scripts are in store/mutants_test.go: Go code, and what needs two processes.
var broken = map[string]struct {
	faults []string
	lasts  time.Duration // until the end, where some show at the latest
	edits  []hosttest.Edit
}{
	// Two handlers both find the conversation free.
	"a script in two": {
		nil,
		4 * time.Second,
		[]hosttest.Edit{
			{File: "store/begin.lua", Old: "if live then return {'busy', text(c.turnLeaseUntil - now)} end\nif c.messageCount", New: "if c.messageCount"},
			{File: "store/redis.go", Old: "	var fingerprint string\n", New: `
	if _, last, err := r.Get(ctx, owner, id, chat.Page{Limit: 1}); err == nil && len(last) == 1 && last[0].State == chat.Pending {
		return chat.Turn{}, &chat.BusyError{Left: b.Lease}
	}
	var fingerprint string
`},
		},
	},
	// Everybody is one.
	"an owner forgotten": {
		nil,
		4 * time.Second,
		[]hosttest.Edit{{File: "api/request.go", Old: "UserID: u.ID}", New: `UserID: "everybody"}`}},
	},
	// The answer is given although it could not be stored.
	"an acknowledgement before the store's": {
		[]string{"link cut", "Redis killed"},
		40 * time.Second,
		[]hosttest.Edit{{File: "chat/turn.go", Old: "	if err != nil {\n		return Sent{}, err\n	}\n	for i := range sent.Replies", New: "	for i := range sent.Replies"}},
	},
	// A request ends the process. One send in a hundred panics, and a slow machine sends few.
	"a panic that is let through": {
		nil,
		30 * time.Second,
		[]hosttest.Edit{{File: "panics/panics.go", Old: "if bug := recover(); bug != nil {", New: "if bug := any(nil); bug != nil {"}},
	},
	// What the log has already is told by its turn again.
	"an event that is told twice": {
		nil,
		20 * time.Second,
		[]hosttest.Edit{{File: "chat/stream.go", Old: "return after(st.at, events), err", New: "return events, err"}},
	},
	// The log keeps the last batch alone.
	"deltas that are forgotten": {
		nil,
		20 * time.Second,
		[]hosttest.Edit{{File: "store/prelude.lua", Old: "isFirst and {'MAXLEN', kept + 1} or {}", New: "{'MAXLEN', 1}"}},
	},
	// What is kept of an answer that was cancelled is not what the agent said.
	"a partial answer that is made up": {
		nil,
		20 * time.Second,
		[]hosttest.Edit{{File: "chat/telling.go", Old: "Message{Kind: Text, Text: string(text)})", New: `Message{Kind: Text, Text: string(text) + "…"})`}},
	},
	// Streams that are read from the log share one, whosever it is.
	"a stream of somebody else": {
		nil,
		20 * time.Second,
		[]hosttest.Edit{{File: "chat/watch.go", Old: "	w, ok := s.watches[st.key]\n", New: "	var w *watch\n	for _, w = range s.watches {\n	}\n	ok := w != nil\n"}},
	},
	"an error that is not documented": {
		[]string{"link cut"},
		30 * time.Second,
		[]hosttest.Edit{{File: "store/errors.go", Old: `return fmt.Errorf("%w, %s: %w", chat.ErrUnavailable, class, err)`, New: `return fmt.Errorf("%s: %w", class, err)`}},
	},
}

// TestTheCheckerCatchesEveryBrokenRule shows that the torture test can fail: of every broken program it finds a violation.
func TestTheCheckerCatchesEveryBrokenRule(t *testing.T) {
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			chosen := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return !slices.Contains(b.faults, f.name) })
			require.Len(t, chosen, len(b.faults))
			w := newWorld(t, altered(t, b.edits), rand.Uint64())
			w.torture(b.lasts, chosen)
			require.NotEmpty(t, w.books.violations, "nobody noticed; seed %d", w.seed)
			t.Logf("caught: %.200s", w.books.violations[0])
		})
	}
}
