package store

import (
	"regexp"
	"strconv"
	"testing"

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
