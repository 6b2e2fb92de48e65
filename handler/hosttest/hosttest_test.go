package hosttest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	hostJSON = `{"version":"2.0",%s"customHandler":{"description":{"defaultExecutablePath":"handler"},"enableProxyingHttpRequest":true},
"extensions":{"http":{"routePrefix":""}}}`
	anything = `"methods":["get","post","options"],"route":"api/{*rest}"`
)

var build = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "hosttest")
	if err != nil {
		return "", err
	}
	file := filepath.Join(folder, "handler")
	return file, exec.Command("go", "build", "-o", file, "./testdata/handler").Run()
})

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "20") // the tests wait more than they compute
	code := m.Run()
	if file, err := build(); err == nil {
		_ = os.RemoveAll(filepath.Dir(file))
	}
	os.Exit(code)
}

// stage makes a script root of the small handler with functions, each a route and its methods.
func stage(t *testing.T, functions map[string]string) string {
	t.Helper()
	dist := t.TempDir()
	handler, err := build()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(handler, filepath.Join(dist, "handler")))
	require.NoError(t, os.WriteFile(filepath.Join(dist, "host.json"), fmt.Appendf(nil, hostJSON, ""), 0o600))
	for name, trigger := range functions {
		require.NoError(t, os.Mkdir(filepath.Join(dist, name), 0o700))
		config := `{"bindings":[{"type":"httpTrigger","direction":"in","name":"req","authLevel":"anonymous",` + trigger +
			`},{"type":"http","direction":"out","name":"res"}]}`
		require.NoError(t, os.WriteFile(filepath.Join(dist, name, "function.json"), []byte(config), 0o600))
	}
	return dist
}

// stageImpatient is stage with one function for everything, and a functionTimeout of half a second.
func stageImpatient(t *testing.T) string {
	t.Helper()
	dist := stage(t, map[string]string{"any": anything})
	require.NoError(t, os.WriteFile(filepath.Join(dist, "host.json"), fmt.Appendf(nil, hostJSON, `"functionTimeout":"00:00:00.5",`), 0o600))
	return dist
}

type received struct{ PID int }

// ask makes a request; do is what the handler does with it. The status is 0 when no whole answer came.
func ask(t *testing.T, url, method string, header http.Header, do ...string) (int, http.Header, received) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	maps.Copy(request.Header, header)
	if len(do) > 0 {
		steps, _ := json.Marshal(do)
		request.Header.Set("X-Do", string(steps))
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, received{}
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, nil, received{}
	}
	var got received
	_ = json.Unmarshal(text, &got)
	return response.StatusCode, response.Header, got
}

// dial opens a connection to the host and sends this.
func dial(t *testing.T, h *Host, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.URL, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	return conn, bufio.NewReader(conn)
}

// once is a request with a body, which the host sends once, and what the handler does with it.
func once(do string) string {
	return "POST /api/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nX-Do: [\"" + do + "\"]\r\n\r\n."
}

// listen opens a stream that has no end, and returns when it has begun. The channel closes when it is cut.
func listen(t *testing.T, h *Host) <-chan struct{} {
	t.Helper()
	_, in := dial(t, h, "GET /api/x HTTP/1.1\r\nHost: h\r\nX-Do: [\"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n1\\r\\n!\\r\\n\", \"<left>\"]\r\n\r\n")
	_, err := in.ReadString('!')
	require.NoError(t, err)
	cut := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(cut)
	}()
	return cut
}

func status(t *testing.T, in *bufio.Reader) string {
	t.Helper()
	line, err := in.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line)
}

func refuses(h *Host) func() bool {
	return func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.URL, "http://"))
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}
}

const soon, tick = 20 * time.Second, 10 * time.Millisecond

func TestExitCodes(t *testing.T) {
	t.Parallel()
	h := Start(t, stage(t, map[string]string{"any": anything}))
	for i, code := range []int{200, 3, 200, 4, 5} {
		_, _, before := ask(t, h.URL+"/api/x", "GET", nil)
		require.NotZero(t, before.PID)
		dial(t, h, once(fmt.Sprintf("<exit %d>", code)))
		require.Eventually(t, func() bool { return len(h.Exits()) == i+1 }, soon, tick)
	}
	require.Equal(t, []int{200, 3, 200, 4, 5}, h.Exits(), "200 does not count, and the third that does is the last")
	require.Eventually(t, refuses(h), soon, tick, "the host has stopped")
}

func TestGetThatEndsTheProcess(t *testing.T) {
	t.Parallel()
	h := Start(t, stage(t, map[string]string{"any": anything}), "DELAY=0s")
	asked := 0
	for ; len(h.Exits()) < 3; asked++ {
		status, _, _ := ask(t, h.URL+"/api/x", "GET", nil, "<exit 7>")
		require.Equal(t, 500, status)
	}
	require.Less(t, asked, 3, "it was sent again, to the next process")
	require.Equal(t, []int{7, 7, 7}, h.Exits())
	require.Eventually(t, refuses(h), soon, tick, "the host went with the third")
}

func TestExitZero(t *testing.T) {
	t.Parallel()
	h := Start(t, stage(t, map[string]string{"any": anything}))
	dial(t, h, once("<exit 0>"))
	h.Wait()
	asked := time.Now()
	status, _, _ := ask(t, h.URL+"/api/x", "GET", nil)
	require.Equal(t, 500, status)
	require.GreaterOrEqual(t, time.Since(asked), 1850*time.Millisecond)
	require.Equal(t, []int{0}, h.Exits(), "never restarted")
}

func TestExitZeroAtStart(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	h := start(t, &Host{
		dist: stage(t, map[string]string{"any": anything}), env: []string{"EXIT_ZERO_ONCE=" + filepath.Join(t.TempDir(), "once")}, probeLimit: 3 * time.Second,
	})
	require.GreaterOrEqual(t, time.Since(begun), 3*time.Second, "missed when the probe gave up")
	require.Equal(t, []int{0}, h.Exits())
	status, _, _ := ask(t, h.URL+"/api/x", "GET", nil)
	require.Equal(t, 200, status)
}

func TestNeverReady(t *testing.T) {
	t.Parallel()
	h := &Host{dist: stage(t, map[string]string{"any": anything}), env: []string{"DELAY=1m"}, probeLimit: 200 * time.Millisecond}
	open(t, h)
	require.Eventually(t, refuses(h), soon, tick)
	require.Equal(t, []int{-1, -1, -1}, h.Exits())
}

func TestFirstRequestWaitsUntilReady(t *testing.T) {
	t.Parallel()
	h := &Host{dist: stage(t, map[string]string{"any": anything}), env: []string{"DELAY=500ms"}}
	open(t, h)
	status, _, _ := ask(t, h.URL+"/api/x", "GET", nil)
	require.Equal(t, 200, status)
	require.Equal(t, []string{"listening"}, h.Stdout())
}

func TestFunctionTimeout(t *testing.T) {
	t.Parallel()
	h := Start(t, stageImpatient(t))
	_, _, before := ask(t, h.URL+"/api/x", "GET", nil)
	begun := time.Now()
	_, in := dial(t, h, once("<left>"))
	time.Sleep(time.Second)
	bystander := listen(t, h)
	require.Equal(t, "HTTP/1.1 500 Internal Server Error", status(t, in))
	require.GreaterOrEqual(t, time.Since(begun), 2500*time.Millisecond)
	<-bystander
	var after received
	require.Eventually(t, func() bool {
		_, _, after = ask(t, h.URL+"/api/x", "GET", nil)
		return after.PID != 0
	}, soon, tick)
	require.NotEqual(t, before.PID, after.PID)
	require.Equal(t, []int{-1}, h.Exits())
	require.Zero(t, h.errors, "the kill does not count")
}

func TestSlowReaderRunsIntoFunctionTimeout(t *testing.T) {
	t.Parallel()
	h := Start(t, stageImpatient(t))
	dial(t, h, "GET /api/x HTTP/1.1\r\nHost: h\r\nX-Do: [\"HTTP/1.1 200 OK\\r\\nContent-Length: 90000000\\r\\n\\r\\n\", \"<fill 90000000>\"]\r\n\r\n")
	require.Eventually(t, func() bool { return len(h.Exits()) == 1 }, soon, tick)
}

func TestBodyWithLengthWaitsInTheHost(t *testing.T) {
	t.Parallel()
	record := filepath.Join(t.TempDir(), "record")
	h := start(t, &Host{dist: stageImpatient(t), env: []string{"RECORD=" + record}})
	probed, err := os.ReadFile(record)
	require.NoError(t, err)
	conn, in := dial(t, h, strings.TrimSuffix(once("HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n"), "."))
	time.Sleep(2800 * time.Millisecond)
	now, err := os.ReadFile(record)
	require.NoError(t, err)
	require.Equal(t, string(probed), string(now), "the handler hears of it before it is whole")
	_, err = io.WriteString(conn, ".")
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 200 OK", status(t, in))
	require.Empty(t, h.Exits(), "its time is not the call's")
}

func TestUploadBelow240BytesASecond(t *testing.T) {
	t.Parallel()
	h := Start(t, stage(t, map[string]string{"any": anything}))
	begun := time.Now()
	_, in := dial(t, h, "POST /api/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	require.Equal(t, "HTTP/1.1 500 Internal Server Error", status(t, in))
	require.GreaterOrEqual(t, time.Since(begun), 6800*time.Millisecond)
	require.Less(t, time.Since(begun), 15*time.Second)
}

func TestNothingFor240Seconds(t *testing.T) {
	t.Parallel()
	h := start(t, &Host{dist: stage(t, map[string]string{"any": anything}), idleLimit: time.Second})
	begun := time.Now()
	status, _, _ := ask(t, h.URL+"/api/x", "GET", nil, "<left>")
	require.Equal(t, 500, status)
	require.Less(t, time.Since(begun), 5*time.Second, "it was not sent again")
	<-listen(t, h)
}

func TestTerminate(t *testing.T) {
	t.Parallel()
	require.Equal(t, 30*time.Second, stopGrace)
	record := filepath.Join(t.TempDir(), "record")
	h := start(t, &Host{dist: stage(t, map[string]string{"any": anything}), env: []string{"RECORD=" + record}, stopGrace: 2 * time.Second})
	endless := listen(t, h)
	idle, _ := dial(t, h, "")
	_, in := dial(t, h, once(`<pause 700>", "HTTP/1.1 201 Done\r\nContent-Length: 0\r\n\r\n`))
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(record)
		return bytes.Contains(text, []byte("pause 700"))
	}, soon, tick)
	begun := time.Now()
	done := make(chan struct{})
	go func() {
		h.Terminate()
		close(done)
	}()
	require.Eventually(t, refuses(h), soon, tick)
	_, err := idle.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, "HTTP/1.1 201 Done", status(t, in), "a call goes on")
	<-endless
	require.GreaterOrEqual(t, time.Since(begun), 2*time.Second)
	<-done
	require.Equal(t, []int{-1}, h.Exits())
}

func TestRestartStartsTheNewProcessFirst(t *testing.T) {
	t.Parallel()
	dist := stage(t, map[string]string{"any": anything})
	h := Start(t, dist, "DELAY=1s")
	_, _, before := ask(t, h.URL+"/api/x", "GET", nil)
	stream := listen(t, h)
	more := filepath.Join(dist, "more")
	require.NoError(t, os.Mkdir(more, 0o700))
	config, err := os.ReadFile(filepath.Join(dist, "any", "function.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(more, "function.json"), bytes.ReplaceAll(config, []byte("api/"), []byte("more/")), 0o600))

	done := make(chan error)
	go func() { done <- h.Restart() }()
	require.Eventually(t, func() bool { return len(h.loaded().functions) == 2 }, soon, tick) // the new process has been started
	_, _, meanwhile := ask(t, h.URL+"/api/x", "GET", nil)
	require.Equal(t, before.PID, meanwhile.PID, "the old process answers until the new one does")
	require.Empty(t, h.Exits())
	require.NoError(t, <-done)
	<-stream
	status, _, after := ask(t, h.URL+"/more/x", "GET", nil)
	require.Equal(t, 200, status, "function.json was read again")
	require.NotEqual(t, before.PID, after.PID)
	require.Equal(t, []int{-1}, h.Exits())
}

func TestFlexAnswersPreflights(t *testing.T) {
	t.Parallel()
	dist := stage(t, map[string]string{"any": anything})
	const origin = "https://a.example"
	preflight := http.Header{
		"Origin": {origin}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"authorization,content-type"},
	}
	h := StartFlex(t, dist, []string{origin})
	for _, path := range []string{"/api/x", "/nowhere"} {
		status, header, _ := ask(t, h.URL+path, "OPTIONS", preflight)
		require.Equal(t, 204, status)
		require.Equal(t, origin, header.Get("Access-Control-Allow-Origin"))
		require.Equal(t, "POST", header.Get("Access-Control-Allow-Methods"))
		require.Equal(t, "authorization,content-type", header.Get("Access-Control-Allow-Headers"))
		require.Empty(t, header.Values("Vary"))
	}
	for path, want := range map[string]int{"/api/x": 200, "/nowhere": 404} {
		status, header, _ := ask(t, h.URL+path, "GET", http.Header{"Origin": {origin}})
		require.Equal(t, want, status)
		require.Equal(t, origin, header.Get("Access-Control-Allow-Origin"))
		require.Empty(t, header.Values("Vary"))
		require.Empty(t, header.Values("Access-Control-Expose-Headers"))
	}
	preflight.Set("Origin", "https://evil.example")
	status, header, _ := ask(t, h.URL+"/api/x", "OPTIONS", preflight)
	require.Equal(t, 204, status)
	require.Empty(t, header.Get("Access-Control-Allow-Origin"))
	status, header, _ = ask(t, h.URL+"/api/x", "GET", preflight)
	require.Equal(t, 200, status)
	require.Empty(t, header.Get("Access-Control-Allow-Origin"))

	status, header, got := ask(t, Start(t, dist).URL+"/api/x", "OPTIONS", preflight)
	require.Equal(t, 200, status)
	require.NotZero(t, got.PID, "on other plans the handler has it")
	require.Empty(t, header.Get("Access-Control-Allow-Origin"))
}

func TestBodyLimitOf100MiB(t *testing.T) {
	t.Parallel()
	h := Start(t, stage(t, map[string]string{"any": anything}))
	_, in := dial(t, h, "POST /api/x HTTP/1.1\r\nHost: h\r\nContent-Length: 104857601\r\n\r\n")
	require.Equal(t, "HTTP/1.1 500 Internal Server Error", status(t, in))
}

func TestHomepage(t *testing.T) {
	t.Parallel()
	dist := stage(t, map[string]string{"any": anything})
	status, _, _ := ask(t, Start(t, dist).URL+"/", "GET", nil)
	require.Equal(t, 200, status)
	status, _, _ = ask(t, Start(t, dist, "AzureWebJobsDisableHomepage=true").URL+"/", "GET", nil)
	require.Equal(t, 204, status)
}

func TestLoadRefusesWhatTheHostCannotServe(t *testing.T) {
	t.Parallel()
	for name, functions := range map[string]map[string]string{
		"no function":                  {},
		"a key would be asked for":     {"a": `"authLevel":"function","methods":["get"],"route":"a"`},
		"a bad name":                   {"1a": `"methods":["get"],"route":"a"`},
		"a reserved route":             {"a": `"methods":["get"],"route":"administrators"`},
		"two functions with one route": {"a": `"methods":["get"],"route":"x"`, "b": `"methods":["post","get"],"route":"X"`},
		"a constraint":                 {"a": `"methods":["get"],"route":"a/{id:int}"`},
	} {
		_, err := load(stage(t, functions))
		require.Error(t, err, name)
	}
	dist := stage(t, map[string]string{"a": `"methods":["get"],"route":"a"`})
	require.NoError(t, os.WriteFile(filepath.Join(dist, "a", "function.json"), []byte(`{"bindings":[{"type":"httpTrigger","direction":"in"}]}`), 0o600))
	_, err := load(dist)
	require.ErrorContains(t, err, "one http output")
}
