package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/redistest"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

const token = "header.payload.signature-of-alice"

// connect returns a connection to a yardstick with an empty Redis.
func connect(t *testing.T) *conn {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: redistest.Start(t).Addr})
	t.Cleanup(func() { _ = client.Close() })
	return connectTo(t, newYardstick(client))
}

func connectTo(t *testing.T, handler http.Handler) *conn {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := dial(server.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.tcp.Close() })
	require.NoError(t, c.tcp.SetDeadline(time.Now().Add(time.Minute)))
	return c
}

// ask sends a request and returns the answer's members.
func ask(t *testing.T, c *conn, status int, request []byte) map[string]any {
	t.Helper()
	got, err := c.do(request)
	require.NoError(t, err)
	require.Equal(t, status, got, "%s", c.body)
	var answer map[string]any
	require.NoError(t, json.Unmarshal(c.body, &answer))
	return answer
}

func members(t *testing.T, object any) []string {
	t.Helper()
	require.IsType(t, map[string]any{}, object)
	return slices.Sorted(maps.Keys(object.(map[string]any)))
}

// pick returns a member of each object.
func pick(objects any, name string) []any {
	var values []any
	for _, object := range objects.([]any) {
		values = append(values, object.(map[string]any)[name])
	}
	return values
}

func TestYardstickAnswersLikeTheAPI(t *testing.T) {
	c := connect(t)
	conversation := []string{"createdAt", "id", "messageCount", "metadata", "status", "title", "updatedAt", "userId"}

	answer := ask(t, c, 201, startMessage(token, map[string]string{"source": "web"}))
	require.Equal(t, []string{"conversation", "conversationId", "messages"}, members(t, answer))
	require.Equal(t, conversation, members(t, answer["conversation"]))
	require.Equal(t, map[string]any{"source": "web"}, answer["conversation"].(map[string]any)["metadata"])
	require.Equal(t, []any{}, answer["messages"])
	id := answer["conversationId"].(string)

	answer = ask(t, c, 200, sendMessage(token, id))
	require.Equal(t, []string{"conversationId", "message", "messages"}, members(t, answer))
	said := answer["message"].(map[string]any)
	require.Equal(t, []string{"createdAt", "id", "kind", "role", "seq", "state", "text"}, members(t, said))
	require.Equal(t, []any{"user", question, 1.0}, []any{said["role"], said["text"], said["seq"]})
	require.Equal(t, []any{"assistant"}, pick(answer["messages"], "role"))
	require.Equal(t, []any{said["id"]}, pick(answer["messages"], "inReplyTo"))
	ask(t, c, 200, sendMessage(token, id))

	answer = ask(t, c, 200, getMessage(token, id, 50, ""))
	require.Equal(t, []string{"conversation", "hasMore", "messages"}, members(t, answer))
	require.Equal(t, conversation, members(t, answer["conversation"]))
	require.EqualValues(t, 4, answer["conversation"].(map[string]any)["messageCount"])
	require.Equal(t, []any{1.0, 2.0, 3.0, 4.0}, pick(answer["messages"], "seq"))
	require.Equal(t, []any{"user", "assistant", "user", "assistant"}, pick(answer["messages"], "role"))
	require.Equal(t, false, answer["hasMore"])

	answer = ask(t, c, 200, getMessage(token, id, 3, ""))
	require.Equal(t, []any{2.0, 3.0, 4.0}, pick(answer["messages"], "seq"))
	require.Equal(t, true, answer["hasMore"])

	for range 2 {
		ask(t, c, 201, startMessage(token, nil))
	}
	answer = ask(t, c, 200, post("/api/chat/list-conversations", token, map[string]any{"limit": 2}))
	require.Equal(t, []string{"conversations", "hasMore", "nextCursor"}, members(t, answer))
	require.Len(t, answer["conversations"], 2)
	require.Equal(t, conversation, members(t, answer["conversations"].([]any)[0]))
	require.Equal(t, true, answer["hasMore"])
	answer = ask(t, c, 200, post("/api/chat/list-conversations", token, map[string]any{"limit": 2, "cursor": answer["nextCursor"]}))
	require.Equal(t, []any{id}, pick(answer["conversations"], "id"), "last updated first")
	require.Nil(t, answer["nextCursor"])
	require.Equal(t, false, answer["hasMore"])

	answer = ask(t, c, 200, post("/api/chat/list-conversations", "header.payload.signature-of-bob--", map[string]any{"limit": 2}))
	require.Empty(t, answer["conversations"])
}

func TestEveryRequestIsAnswered(t *testing.T) {
	c := connect(t)
	for _, o := range operations() {
		for _, r := range append(o.alone, o.loaded) {
			t.Run(r.name, func(t *testing.T) {
				requests, err := r.prepare(c, token)
				require.NoError(t, err)
				repeated := caller{conn: c, requests: requests, status: r.status}
				for range 2 * len(requests) {
					require.NoError(t, repeated.call())
				}
			})
		}
	}
}

func TestAnotherStatusIsAnError(t *testing.T) {
	c := connect(t)
	lost := caller{conn: c, requests: [][]byte{getMessage(token, "unknown", 50, "")}, status: 200}
	require.ErrorContains(t, lost.call(), "no such conversation")
}

func TestChunkedBody(t *testing.T) {
	long := strings.Repeat("0123456789", 1000)
	c := connectTo(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			_, _ = w.Write([]byte(long))
			_ = http.NewResponseController(w).Flush()
		}
	}))
	for range 2 {
		status, err := c.do(getMessage(token, "any", 50, ""))
		require.NoError(t, err)
		require.Equal(t, 200, status)
		require.Equal(t, strings.Repeat(long, 3), string(c.body))
	}
}

func TestCountersOfRedis(t *testing.T) {
	const scripted = "# Commandstats\r\n" +
		"cmdstat_evalsha:calls=2,usec=100,usec_per_call=50.00,rejected_calls=0,failed_calls=0\r\n" +
		"cmdstat_hset:calls=3,usec=21,usec_per_call=7.00,rejected_calls=0,failed_calls=0\r\n" +
		"cmdstat_hget:calls=4,usec=8,usec_per_call=2.00,rejected_calls=0,failed_calls=0\r\n" +
		"cmdstat_ping:calls=9,usec=9,usec_per_call=1.00,rejected_calls=0,failed_calls=0\r\n" +
		"cmdstat_client|setinfo:calls=9,usec=9,usec_per_call=1.00,rejected_calls=0,failed_calls=0\r\n" +
		"# Persistence\r\naof_current_size:4711\r\naof_base_size:88\r\n"
	c, err := parseInfo(scripted)
	require.NoError(t, err)
	require.Equal(t, counters{commands: 7, commandMicros: 29, scripts: 2, scriptMicros: 100, aof: 4711}, c)
	require.EqualValues(t, 100, c.micros(), "a script's time holds that of its commands")

	plain := c.minus(counters{scripts: 2, commands: 1})
	require.EqualValues(t, 6, plain.commands)
	require.EqualValues(t, 29, plain.micros())

	_, err = parseInfo("cmdstat_hset:calls=many\r\n")
	require.ErrorContains(t, err, "cmdstat_hset")
}

// TestCosts reads them from the Redis that is installed.
func TestCosts(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: redistest.Start(t, "--appendonly", "yes", "--appendfsync", "no").Addr})
	t.Cleanup(func() { _ = client.Close() })
	c := connectTo(t, newYardstick(client))
	s := &server{client: client}
	cost := func(prepare preparation, status int) map[string]float64 {
		requests, err := prepare(c, token)
		require.NoError(t, err)
		repeated := &caller{conn: c, requests: requests, status: status}
		require.NoError(t, repeated.call(), "the first one loads the script")
		var total tally
		for range perRound {
			require.NoError(t, s.cost(t.Context(), []*caller{repeated}, &total))
		}
		figures := map[string]float64{}
		for i, value := range oneByOne.values(total) {
			figures[oneByOne.figures[i]] = value
		}
		return figures
	}

	start := cost(toStart(nil), 201)
	require.InDelta(t, 4, start[commands], 0)
	require.InDelta(t, 0, start[scripts], 0)
	require.Positive(t, start[redisTime])
	require.Greater(t, start[aofBytes], 300.0)

	list := cost(toList(20), 200)
	require.InDelta(t, 22, list[commands], 0, "ZREVRANGE, and HMGET of each and of the one that tells of more")
	require.InDelta(t, 1, list[scripts], 0)
	require.Positive(t, list[redisTime])
	require.InDelta(t, 0, list[aofBytes], 0)
}

func TestFiguresUnderLoad(t *testing.T) {
	total := tally{inTime: 98, length: 2 * time.Second, serverCPU: 20 * time.Millisecond, redisCPU: 10 * time.Millisecond}
	for i := range 100 {
		total.latencies = append(total.latencies, time.Duration(100-i)*time.Millisecond)
	}
	require.InDeltaSlice(t, []float64{49, 51, 100, 200, 100}, underLoad.values(total), 1e-9)
}

func TestCallThatEndsTooLate(t *testing.T) {
	c := connectTo(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	latencies, inTime, err := callFor([]*caller{{conn: c, requests: [][]byte{getMessage(token, "any", 1, "")}, status: 200}}, 0)
	require.NoError(t, err)
	require.Len(t, latencies, 1, "each caller calls at least once")
	require.Zero(t, inTime)
}

func TestProcessorTime(t *testing.T) {
	d, err := parseCPU("42 (a) name (x)) S 1 42 42 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 9 0 1 2 3\n")
	require.NoError(t, err)
	require.Equal(t, 3250*time.Millisecond, d)

	_, err = parseCPU("")
	require.Error(t, err)
}

func TestTimeOfOthers(t *testing.T) {
	busy, total, err := parseBusy("cpu  100 20 30 400 50 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	require.NoError(t, err)
	require.EqualValues(t, 100+20+30+6+7+8, busy)
	require.EqualValues(t, 171+450, total)
	require.InDelta(t, 0.25, others{busy: 300, total: 1200, ours: 60}.since(others{busy: 200, total: 1000, ours: 10}), 1e-9)

	_, _, err = parseBusy("")
	require.Error(t, err)
}

func TestRatioIsTheMedianOfTheRounds(t *testing.T) {
	r := row{handler: []float64{10, 1, 30}, yardstick: []float64{20, 100, 20}} // ratios of 0.5, 0.01 and 1.5
	require.InDelta(t, 0.5, r.ratio(), 1e-9)
	require.InDelta(t, 15, median([]float64{30, 10, 20, 1}), 1e-9)
}

func TestTable(t *testing.T) {
	var b strings.Builder
	require.NoError(t, printTable(&b, 1, 0.125,
		[]row{{"get", throughput, []float64{1234.5}, []float64{2469}, "≥ 0.9 ×"}},
		[]row{{"get", commands, []float64{5}, []float64{4}, ""}, {"get", aofBytes, []float64{0}, []float64{0}, "0"}}))
	require.Contains(t, b.String(), "Other programs had 12 % of the processors")
	require.Equal(t, []string{
		"get requests/s 1234 2469 0.50 ≥ 0.9 ×",
		"get commands, EVALSHA aside 5 4 1.25",
		"get append-only file, bytes 0 0 – 0",
	}, linesWith(b.String(), "get"))
}

// linesWith returns the lines that begin so, with single spaces.
func linesWith(text, prefix string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	return lines
}

func TestOperationsAreChosenByName(t *testing.T) {
	chosen, err := selectOperations([]string{"send", "start"})
	require.NoError(t, err)
	require.Equal(t, []string{"send", "start"}, []string{chosen[0].name, chosen[1].name})

	_, err = selectOperations([]string{"sent"})
	require.ErrorContains(t, err, `"sent" is none of start,send,send-50,get-50,get-304,list-20`)
}
