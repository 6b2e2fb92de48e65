package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/nodetest"

	"github.com/stretchr/testify/require"
)

// runScript is make run with these variables; it ends with the test at the latest.
func runScript(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute) // on a new machine it builds
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, "../scripts/run.sh")
	command.Env = append(os.Environ(), env...)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	return command
}

// served is what make run prints with these variables, when it serves at a port of its own. It ends with the test, as by Ctrl-C.
func served(t *testing.T, env ...string) (printed, port, issuerPort string) {
	t.Helper()
	port, issuerPort = freePort(t), freePort(t)
	command := runScript(t, append([]string{"PORT=" + port, "ISSUER_PORT=" + issuerPort, "REDIS_URL=", "REDIS_HOSTNAME="}, env...)...)
	stdout, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	lines := bufio.NewScanner(stdout)
	for !strings.Contains(printed, "Another user:") && lines.Scan() {
		printed += lines.Text() + "\n"
	}
	t.Cleanup(func() { // all of it
		require.NoError(t, command.Process.Signal(syscall.SIGTERM))
		for lines.Scan() {
		}
		require.NoError(t, command.Wait())
		for _, p := range []string{port, issuerPort} {
			_, err := net.Dial("tcp", "127.0.0.1:"+p)
			require.Error(t, err)
		}
	})
	return printed, port, issuerPort
}

// A newcomer types what make run prints, and starts it once more.
func TestMakeRun(t *testing.T) {
	printed, port, issuerPort := served(t, "AUTH_TENANT_ID=contoso.com")
	typed := strings.Join(regexp.MustCompile(`(?m)^(TOKEN=|ID=|curl ).*$`).FindAllString(printed, -1), "\n")
	out, err := exec.Command("bash", "-euc", typed).Output()
	require.NoError(t, err, "%s", printed)
	require.Contains(t, string(out), `"role":"assistant","kind":"text","text":"Hello"`)
	_, other, _ := strings.Cut(printed, "Another user: ")
	bob := exec.Command("bash", "-euc", other+"\n"+strings.Split(typed, "\n")[1])
	bob.Dir = ".."
	out, err = bob.Output()
	require.NoError(t, err)
	require.Regexp(t, "^[0-9a-f-]{36}\n$", string(out))

	for name, env := range map[string][]string{"PORT": {"PORT=" + port}, "ISSUER_PORT": {"PORT=" + freePort(t), "ISSUER_PORT=" + issuerPort}} {
		out, err := runScript(t, env...).CombinedOutput()
		require.Error(t, err)
		require.Regexp(t, `^Port \d+ is taken: end what listens there, or choose another, such as `+name+`=\d+ make run\n$`, string(out))
	}
}

// With a model behind it, a newcomer does what docs/agents.md says: watches the words come, hangs up, resumes, and gets the whole answer.
func TestMakeRunWithAModel(t *testing.T) {
	page, err := os.ReadFile("../docs/agents.md")
	require.NoError(t, err)
	fixtures := regexp.MustCompile(`echo '(.*)' >fixtures.json`).FindSubmatch(page)
	curls := regexp.MustCompile(`(?m)^curl .*"\$URL/.*\$ID.*$`).FindAllString(string(page), -1)
	require.NotNil(t, fixtures)
	require.Len(t, curls, 3)
	file, mockPort := filepath.Join(t.TempDir(), "fixtures.json"), freePort(t)
	require.NoError(t, os.WriteFile(file, fixtures[1], 0o600))
	mock := nodetest.Command(t, "agent/testdata/aimock-node", "node_modules/@copilotkit/aimock/dist/cli.js", "-p", mockPort, "-f", file, "--latency", "50", "--chunk-size", "5")
	require.NoError(t, mock.Start())
	t.Cleanup(func() { _ = mock.Process.Kill(); _ = mock.Wait() })
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+mockPort)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)

	printed, port, _ := served(t, "AGENT=openai", "OPENAI_BASE_URL=http://127.0.0.1:"+mockPort+"/v1", "OPENAI_MODEL=any", "OPENAI_API_KEY=none")
	set := "URL=http://127.0.0.1:" + port + "\n" + strings.Join(regexp.MustCompile(`(?m)^(TOKEN|ID)=.*$`).FindAllString(printed, -1), "\n") + "\n"
	id, err := exec.Command("bash", "-euc", set).Output()
	require.NoError(t, err)
	set += "ID=" + strings.TrimSpace(string(id)) + "\n"

	send := exec.Command("bash", "-euc", set+"exec "+curls[0])
	stdout, err := send.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, send.Start())
	var lastID string
	var told strings.Builder
	lines := bufio.NewScanner(stdout)
	tell := func(lines *bufio.Scanner, deltas int) {
		for deltas > 0 && lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				lastID = id
			}
			var delta struct{ MessageID, Text string }
			data, _ := strings.CutPrefix(lines.Text(), "data: ")
			if json.Unmarshal([]byte(data), &delta) == nil && delta.MessageID != "" {
				told.WriteString(delta.Text)
				deltas--
			}
		}
	}
	tell(lines, 2)
	require.NoError(t, mock.Process.Signal(syscall.SIGSTOP)) // the answer is not complete before the client has left
	require.NoError(t, send.Process.Signal(syscall.SIGINT))
	for lines.Scan() {
		require.NotContains(t, lines.Text(), "event: done")
	}
	require.Error(t, send.Wait())
	require.NoError(t, mock.Process.Signal(syscall.SIGCONT))

	rest, err := exec.Command("bash", "-euc", set+strings.Replace(curls[1], "1-3", lastID, 1)).Output()
	require.NoError(t, err)
	tell(bufio.NewScanner(strings.NewReader(string(rest))), math.MaxInt)
	require.Equal(t, "1-19999", lastID)
	require.Equal(t, "Hello from the mock. It takes its time, for you to watch.", told.String())
	whole, err := exec.Command("bash", "-euc", set+curls[2]).Output()
	require.NoError(t, err)
	require.Contains(t, string(whole), `"role":"assistant","kind":"text","text":"`+told.String()+`"`)
}

func TestATakenPortSaysHowToChooseAnother(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	err = run(t.Context(), settings(vars{"PORT": port}), io.Discard)
	require.ErrorContains(t, err, "address already in use: end what listens there, or choose another PORT")
	err = run(t.Context(), settings(vars{"FUNCTIONS_CUSTOMHANDLER_PORT": port}), io.Discard)
	require.ErrorContains(t, err, "address already in use")
	require.NotContains(t, err.Error(), "PORT", "the host chose it")
}

// The warnings of the settings are in the log.
func TestWarningsAreLogged(t *testing.T) {
	var log strings.Builder
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, run(ctx, settings(vars{"REDIS_URL": "redis://redis.example:6379", "PORT": freePort(t)}), &log))
	require.Contains(t, log.String(), `"level":"WARN","msg":"doubtful setting","warning":"REDIS_URL begins with redis://`)
}

func TestGarbageIsCollectedSeldom(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64)
	defer func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	env := vars{"REDIS_URL": "redis://redis.example:6379", "PORT": freePort(t), "GOGC": "100"}
	require.NoError(t, run(ctx, settings(env), io.Discard))
	require.Equal(t, 100, debug.SetGCPercent(100), "the environment wins")
	env["GOGC"] = ""
	require.NoError(t, run(ctx, settings(env), io.Discard))
	require.Equal(t, 400, debug.SetGCPercent(100))
	require.EqualValues(t, 512<<20, debug.SetMemoryLimit(-1))
	debug.SetMemoryLimit(300 << 20)
	collectSeldom()
	require.EqualValues(t, 300<<20, debug.SetMemoryLimit(-1), "more than the container has")
}

// Without a grace, the end waits for no request.
func TestNoGraceIsNone(t *testing.T) {
	issuer := authtest.New()
	keys := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(keys, issuer.KeySet(), 0o600))
	port := freePort(t)
	env := settings(vars{
		"AUTH_ISSUER": issuer.Name, "AUTH_AUDIENCE": issuer.Audience, "AUTH_JWKS_URL": keys, "PORT": port, "SHUTDOWN_GRACE": "0s",
	})
	ctx, end := context.WithCancel(t.Context())
	defer end()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, env, io.Discard) }()

	var conn net.Conn
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		conn = c
		return err == nil
	}, 10*time.Second, 5*time.Millisecond)
	defer func() { _ = conn.Close() }()
	_, err := fmt.Fprintf(conn, "POST /api/chat/start HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", issuer.Token(authtest.LocalTenant, "alice", nil))
	require.NoError(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "100 Continue", "the request runs")

	end()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		require.Fail(t, "it waits for the request")
	}
}

// What is set for callers is what they meet.
func TestLimitsOfCallersAreThoseThatAreSet(t *testing.T) {
	issuer := authtest.New()
	keys := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(keys, issuer.KeySet(), 0o600))
	address := "127.0.0.1:" + freePort(t)
	env := settings(vars{
		"AUTH_ISSUER": issuer.Name, "AUTH_AUDIENCE": issuer.Audience, "AUTH_JWKS_URL": keys, "PORT": strings.TrimPrefix(address, "127.0.0.1:"),
		"MAX_CONCURRENT_REQUESTS_PER_USER": "1", "CALL_MAX": "3s", "AGENT_TIMEOUT": "1s", "TURN_WAIT": "1s",
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, env, io.Discard) }()
	upload := func() net.Conn {
		var conn net.Conn
		require.Eventually(t, func() (isOpen bool) {
			var err error
			conn, err = net.Dial("tcp", address)
			return err == nil
		}, 10*time.Second, 5*time.Millisecond)
		_, err := fmt.Fprintf(conn, "POST /api/chat/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"+
			"Expect: 100-continue\r\nAuthorization: Bearer %s\r\n\r\n", issuer.Token(authtest.LocalTenant, "alice", nil))
		require.NoError(t, err)
		return conn
	}
	began := time.Now()
	first := upload()
	asked := make([]byte, len("HTTP/1.1 100"))
	_, err := io.ReadFull(first, asked)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100", string(asked))
	answer, err := io.ReadAll(upload())
	require.NoError(t, err)
	require.Contains(t, string(answer), `"code":"rate_limited"`)
	answer, err = io.ReadAll(first)
	require.NoError(t, err)
	require.Contains(t, string(answer), `"code":"request_timeout"`)
	require.Less(t, time.Since(began), 15*time.Second, "a body has 30 s, but a call less")
	cancel()
	require.NoError(t, <-ended)
}
