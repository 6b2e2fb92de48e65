package store

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/chat"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/require"
)

// TestWhatATurnCosts counts the commands that scripts call, and the bytes that the append-only file of Redis grows by.
func TestWhatATurnCosts(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0")
	w := openRedis(t, server.Addr)
	id := w.start()
	w.turn(id, "loads the scripts")
	w.get(id)
	w.events(id, chat.EventID{})
	info := func(section, name string) int {
		n := 0
		for _, match := range regexp.MustCompile(name+`(\d+)`).FindAllStringSubmatch(server.CLI("info", section), -1) {
			more, err := strconv.Atoi(match[1])
			require.NoError(t, err)
			n += more
		}
		return n
	}
	for _, row := range []struct {
		name            string
		commands, bytes int // at most
		do              func()
	}{
		{"a start", 14, 1 << 20, func() { w.start() }},
		{"a send", 28, 2560, func() {
			b := begin(newID(), "Hello")
			b.Records, b.Context, b.Title, b.Preview = nil, 0, "Hello", "Hello"
			f := answerTo(b, w.begin(id, b).Message.Seq, "Hello")
			f.Preview = "Hello"
			w.finish(id, f)
		}},
		{"a get", 5, 0, func() { w.get(id) }},
		{"a look while nothing happens", 3, 0, func() { w.events(id, chat.EventID{}) }},
	} {
		commands, bytes := info("commandstats", `cmdstat_[^e:][^:]*:calls=`), info("persistence", "aof_current_size:")
		row.do()
		commands = info("commandstats", `cmdstat_[^e:][^:]*:calls=`) - commands - 2 // the two that ask
		bytes = info("persistence", "aof_current_size:") - bytes
		t.Logf("%s: %d commands, %d bytes", row.name, commands, bytes)
		require.LessOrEqual(t, commands, row.commands, row.name)
		require.LessOrEqual(t, bytes, row.bytes, row.name)
	}
}

// TestAListCostsItsPage counts the commands of a page, which are of O(log n) and the page, as long as each has a limit.
func TestAListCostsItsPage(t *testing.T) {
	server := redistest.Start(t)
	client := connect(t, Connection{Addr: server.Addr})
	w := &world{Store: newRedis(t, client, withLimits(func(l *chat.Limits) { l.Conversations = 10_000 }), 10*time.Second), t: t, owner: someone()}
	add := func(status chat.Status, n int) {
		for range n {
			w.update(w.start(), chat.Update{Status: &status})
		}
	}
	costs := func() map[chat.Status]int {
		all := make(map[chat.Status]int)
		for _, status := range []chat.Status{"", chat.Active, chat.Completed, chat.Archived} {
			require.NoError(t, client.Do(t.Context(), "CONFIG", "RESETSTAT").Err())
			first, next, err := w.List(t.Context(), w.owner, chat.List{Status: status, Limit: 10})
			require.NoError(t, err)
			require.Len(t, first, 10)
			_, _, err = w.List(t.Context(), w.owner, chat.List{Status: status, Limit: 10, After: next})
			require.NoError(t, err)
			for _, match := range regexp.MustCompile(`cmdstat_\w+:calls=(\d+)`).FindAllStringSubmatch(server.CLI("info", "commandstats"), -1) {
				n, err := strconv.Atoi(match[1])
				require.NoError(t, err)
				all[status] += n
			}
		}
		return all
	}
	for _, status := range chat.Statuses {
		add(status, 12)
	}
	w.list() // loads the script
	few := costs()
	add(chat.Archived, 2000)
	require.Equal(t, few, costs())
	require.Equal(t, few[chat.Active], few[chat.Archived])
	call := regexp.MustCompile(`redis\.call\('Z(?:REV)?RANGE\w*'[^)]*\)`)
	for _, read := range call.FindAllString(listLua+purgeLua(t), -1) {
		require.True(t, strings.Contains(read, "'LIMIT'") || strings.Contains(read, "index, at, at,"), "without a limit: %s", read)
	}
}

// purgeLua is the part of the prelude that list runs beside its own script.
func purgeLua(t *testing.T) string {
	_, purge, isThere := strings.Cut(preludeLua, "local function purge(now)")
	require.True(t, isThere)
	purge, _, _ = strings.Cut(purge, "\nend")
	return purge
}
