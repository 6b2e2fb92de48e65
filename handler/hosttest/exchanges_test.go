package hosttest

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden file")

// exchange is a request, byte by byte, and what the handler does with it.
type exchange struct {
	name  string
	line  string   // GET /api/echo/x HTTP/1.1, if empty
	host  string   // h, if empty; "none" leaves the line out
	head  []string // further lines
	body  []string // pieces with a pause between them
	raw   string   // instead of all that
	do    []string // 200 ok, if empty
	leave string   // the caller hangs up when it has read this, or with "at once" when all is sent

	asked   bool // the body is sent when 100 Continue asks for it
	unheard bool // the host does not call the handler
}

const (
	pause   = 200 * time.Millisecond
	okay    = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	chunked = "Transfer-Encoding: chunked"
	stream  = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)

// difference is what the forwarder does otherwise than the host, and so than hosttest.
type difference struct{ exchange, forwarder, reason string }

var differences = []difference{
	{`path "/"`, "404 Not Found", "the forwarder has no page at /"},
	{`path "/?a=b"`, "404 Not Found", "the same"},
	{"left in a body with a length", "-- cut", "the host reads a body with a length whole first, and so calls nobody; the forwarder streams it"},
	{"a WebSocket", "101 Switching", "WebSockets are left out"},
}

// TestExchanges sends each exchange through hosttest, whose outcome is a golden file, and through the forwarder, where there is one.
func TestExchanges(t *testing.T) {
	t.Parallel()
	record := filepath.Join(t.TempDir(), "record")
	dist := stage(t, map[string]string{
		"echo":      `"methods":["get","head","post","put","patch","delete","options"],"route":"api/echo/{*rest}"`,
		"item":      `"methods":["get","head","post"],"route":"api/items/{id}"`,
		"item-list": `"methods":["get","post"],"route":"api/items/list"`,
		"items":     `"methods":["post"],"route":"api/items"`,
		"only-get":  `"methods":["get"],"route":"api/get"`,
	})
	h := Start(t, dist, "RECORD="+record, "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT=300000")
	require.GreaterOrEqual(t, len(exchanges), 100)
	played := runExchanges(t, h.URL, record, h.running.upstream.addr, func(e exchange) bool { return e.leave != "" && !e.unheard })

	golden := filepath.Join("testdata", "exchanges.txt")
	if *update {
		var all strings.Builder
		for _, e := range exchanges {
			fmt.Fprintf(&all, "## %s\n%s\n", e.name, played[e.name])
		}
		require.NoError(t, os.WriteFile(golden, []byte(all.String()), 0o600))
	}
	text, err := os.ReadFile(golden)
	require.NoError(t, err)
	expected := make(map[string]string)
	for _, section := range strings.Split(string(text), "## ")[1:] {
		name, outcome, _ := strings.Cut(section, "\n")
		expected[name] = strings.TrimSuffix(outcome, "\n")
	}
	require.Len(t, expected, len(exchanges), "the golden file is of another list: run with -update")
	for _, e := range exchanges {
		t.Run(e.name, func(t *testing.T) { require.Equal(t, expected[e.name], played[e.name]) })
	}
	t.Run("the forwarder does the same", func(t *testing.T) {
		url := StartForwarder(t, dist, h.HandlerURL(), nil, "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT=300000")
		forwarded := runExchanges(t, url, record, h.running.upstream.addr, func(e exchange) bool { return e.leave != "" })
		for _, e := range exchanges {
			t.Run(e.name, func(t *testing.T) {
				i := slices.IndexFunc(differences, func(d difference) bool { return d.exchange == e.name })
				if i < 0 {
					require.Equal(t, forwarded[e.name], played[e.name])
					return
				}
				require.NotEqual(t, forwarded[e.name], played[e.name], "no difference any more")
				require.Contains(t, forwarded[e.name], differences[i].forwarder)
			})
		}
	})
}

// runExchanges returns for each exchange what came back, and what the handler at addr received. It waits until the handler has noticed the end of
// those that are cut.
func runExchanges(t *testing.T, url, record, addr string, cut func(exchange) bool) map[string]string {
	t.Helper()
	require.NoError(t, os.RemoveAll(record))
	answers := make([]string, len(exchanges))
	var running sync.WaitGroup
	places := make(chan struct{}, 80)
	for i, e := range exchanges {
		places <- struct{}{}
		running.Go(func() {
			answers[i] = e.run(strings.TrimPrefix(url, "http://"))
			<-places
		})
	}
	running.Wait()
	var received map[string]string
	for end, missing := time.Now().Add(soon), "-"; missing != ""; {
		received, missing = recorded(t, record, addr), ""
		for _, e := range exchanges {
			if cut(e) && !noticed.MatchString(received[e.name]) {
				missing = e.name
			}
		}
		require.True(t, missing == "" || time.Now().Before(end), "the handler has not noticed the end of: %s", missing)
		time.Sleep(tick)
	}
	outcome := make(map[string]string)
	for i, e := range exchanges {
		outcome[e.name] = answers[i] + cmp.Or(received[e.name], "-- the handler received nothing\n")
	}
	return outcome
}

// pieces are what the caller sends.
func (e exchange) pieces() []string {
	if e.raw != "" {
		return []string{e.raw}
	}
	do, _ := json.Marshal(e.do)
	if len(e.do) == 0 {
		do, _ = json.Marshal([]string{okay})
	}
	var head strings.Builder
	head.WriteString(cmp.Or(e.line, "GET /api/echo/x HTTP/1.1") + "\r\n")
	if e.host != "none" {
		head.WriteString("Host: " + cmp.Or(e.host, "h") + "\r\n")
	}
	for _, line := range append(e.head, "X-Case: "+e.name, "X-Do: "+string(do)) {
		head.WriteString(line + "\r\n")
	}
	if len(e.body) == 0 {
		return []string{head.String() + "\r\n"}
	}
	return append([]string{head.String() + "\r\n" + e.body[0]}, e.body[1:]...)
}

// run sends the request, and tells the answer in words.
func (e exchange) run(addr string) string {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(conn)
	ask := make(chan struct{})
	go func() {
		for i, piece := range e.pieces() {
			if i > 0 && e.asked {
				<-ask
			} else if i > 0 {
				time.Sleep(pause)
			}
			if _, err := io.WriteString(conn, piece); err != nil {
				return
			}
		}
		if e.leave == "at once" {
			time.Sleep(10 * pause) // the request reaches the handler: of a caller who has left before it hears nothing
			_ = conn.Close()
		}
	}()
	if e.leave != "" {
		for got := ""; !strings.HasSuffix(got, e.leave); {
			b, err := in.ReadByte()
			if err != nil {
				return "-- the caller left\n"
			}
			got += string(b)
		}
		return "-- the caller read " + e.leave + ", and left\n"
	}
	var answer string
	if e.asked {
		answer, _ = in.ReadString('\n')
		_, _ = in.ReadString('\n')
		close(ask)
	}
	answer += readAnswer(in, strings.HasPrefix(e.line, "HEAD "))
	_, _ = io.WriteString(conn, "GET /api/echo/again HTTP/1.1\r\nHost: h\r\n\r\n")
	if _, err := in.Peek(1); err != nil {
		return answer + "-- the connection is closed\n"
	}
	if end := readAnswer(in, false); strings.Contains(e.raw, "pipelined") {
		return answer + end
	}
	return answer + "-- the connection is open\n"
}

// readAnswer reads an answer, and tells it in words. Order and case of header names do not matter; dates and the length of chunks neither.
func readAnswer(in *bufio.Reader, head bool) string {
	text := textproto.NewReader(in)
	status, err := text.ReadLine()
	if err != nil {
		return "-- no answer\n"
	}
	var lines []string
	for {
		line, err := text.ReadLine()
		if err != nil || line == "" {
			break
		}
		lines = append(lines, line)
	}
	header := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		header.Add(name, value)
	}
	var body []byte
	switch length := header.Get("Content-Length"); {
	case head || strings.Contains(status, " 204 ") || strings.Contains(status, " 304 "):
	case header.Get("Transfer-Encoding") != "":
		if body, err = io.ReadAll(httputil.NewChunkedReader(in)); err == nil {
			for line := "-"; line != ""; line, err = text.ReadLine() {
				if line != "-" {
					lines = append(lines, "trailer "+line)
				}
			}
		}
	case length != "":
		n := 0
		_, _ = fmt.Sscan(length, &n)
		body = make([]byte, n)
		n, err = io.ReadFull(in, body)
		body = body[:n]
	default:
		body, err = io.ReadAll(in)
	}
	out := status + "\n" + tell(lines, string(body))
	if err != nil && !errors.Is(err, io.EOF) {
		out += "-- cut\n"
	}
	return out
}

// added is what the handler finds in each request.
var added = []string{
	"Host: HANDLER", "X-Azure-Functions-Hostversion: 4.1052.200", "X-Azure-Functions-Invocationid: GUID", "X-Forwarded-For: 127.0.0.1",
	"X-Forwarded-Proto: http", "X-Ms-Invocation-Id: GUID",
}

// tell tells a header and a body.
func tell(lines []string, body string) string {
	var told []string
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		name = textproto.CanonicalMIMEHeaderKey(name)
		if _, err := http.ParseTime(value); name == "Date" && err == nil || name == "X-Case" || name == "X-Do" {
			continue
		}
		told = append(told, brief(name+": "+value))
	}
	slices.Sort(told)
	own := func(line string) bool { return slices.Contains(added, line) }
	if others := slices.DeleteFunc(slices.Clone(told), own); len(told)-len(others) == len(added) {
		others = append(others, "and what the host adds")
		told = others
	}
	if body != "" {
		told = append(told, "= "+brief(fmt.Sprintf("%q", body)))
	}
	if len(told) == 0 {
		return ""
	}
	return strings.Join(told, "\n") + "\n"
}

func brief(text string) string {
	if len(text) > 200 {
		return fmt.Sprintf("%s… (%d)", text[:50], len(text))
	}
	return text
}

var noticed = regexp.MustCompile(`(?m)^(left|-- cut)$`)

var guid = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// recorded tells for each exchange what the handler received.
func recorded(t *testing.T, record, addr string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(record)
	require.NoError(t, err)
	told := make(map[string][]string)
	for line := range bytes.Lines(text) {
		var r struct {
			Line   string
			Header []string
			Body   string
			Cut    bool
		}
		line = guid.ReplaceAll(bytes.ReplaceAll(line, []byte(addr), []byte("HANDLER")), []byte("GUID"))
		require.NoError(t, json.Unmarshal(line, &r))
		name := ""
		for _, h := range r.Header {
			if value, ok := strings.CutPrefix(h, "X-Case: "); ok {
				name = value
			}
		}
		one := r.Line + "\n"
		if r.Cut && len(r.Body) > 100 {
			r.Body = "" // how much came is a matter of time
		}
		if r.Line != "left" {
			one = brief(r.Line) + "\n" + tell(r.Header, r.Body)
		}
		if r.Cut {
			one += "-- cut\n"
		}
		told[name] = append(told[name], one)
	}
	out := make(map[string]string)
	for name, each := range told {
		slices.Sort(each)
		for len(each) > 0 {
			n := 1
			for n < len(each) && each[n] == each[0] {
				n++
			}
			out[name] += fmt.Sprintf("-- the handler received %d times\n%s", n, each[0])
			each = each[n:]
		}
	}
	return out
}
