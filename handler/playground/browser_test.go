package playground

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatkeep/handler/nodetest"

	"github.com/stretchr/testify/require"
)

// makeRun is make run with these variables, on ports of its own; it ends with the test at the latest.
func makeRun(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute) // on a new machine it builds
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, "../../scripts/run.sh")
	own := []string{"PORT=" + freePort(t), "ISSUER_PORT=" + freePort(t), "LOCAL_FOLDER=" + t.TempDir(), "REDIS_URL=", "REDIS_HOSTNAME="}
	command.Env = slices.Concat(os.Environ(), own, env)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGINT) } // Ctrl-C is for all that a terminal started
	return command
}

// refused is what make run says that cannot begin.
func refused(t *testing.T, env ...string) string {
	t.Helper()
	output, err := makeRun(t, env...).CombinedOutput()
	require.Error(t, err, "%s", output)
	return string(output)
}

// runs starts make run REDIS=1 in a folder of its own, and returns what it printed when it serves, and what ends it as Ctrl-C does.
func runs(t *testing.T, folder, port, issuerPort string) (printed string, end func()) {
	t.Helper()
	command := makeRun(t, "LOCAL_FOLDER="+folder, "REDIS=1", "PORT="+port, "ISSUER_PORT="+issuerPort)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	stdout, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	end = func() {
		if command.ProcessState != nil { // it has ended
			return
		}
		require.NoError(t, command.Cancel())
		_, _ = io.Copy(io.Discard, stdout)
		require.NoError(t, command.Wait())
	}
	t.Cleanup(end)
	var text strings.Builder
	lines := bufio.NewScanner(stdout)
	for !strings.Contains(text.String(), "Another user:") && lines.Scan() {
		text.WriteString(lines.Text() + "\n")
	}
	if !strings.Contains(text.String(), "Another user:") {
		_ = command.Wait() // then stderr is whole
		require.Fail(t, "it does not serve", "%s%s", text.String(), stderr.String())
	}
	return text.String(), end
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	return port
}

// The page in Chromium, as make run serves it. Screenshots are in .local/screenshots.
func TestThePageInABrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	require.NoError(t, err, "make tools installs it")
	folder, port, issuerPort := t.TempDir(), freePort(t), freePort(t)
	printed, end := runs(t, folder, port, issuerPort)
	address := "http://127.0.0.1:" + port + "/playground/"
	require.Contains(t, printed, "Try it in a browser: "+address+"\n")
	require.Contains(t, refused(t, "LOCAL_FOLDER="+folder, "REDIS=1"), "Another make run keeps conversations in "+folder+"/redis.")

	screenshots, err := filepath.Abs("../../.local/screenshots")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(screenshots, 0o755))
	output, err := nodetest.Command(t, filepath.Join("testdata", "node"), "browser.mjs", address, chromium, screenshots).CombinedOutput()
	require.NoError(t, err, "%s", output)
	t.Logf("%s", output)

	// What is kept survives the end of all of it, and the tokens are still good.
	end()
	_, err = net.Dial("tcp", "127.0.0.1:"+port)
	require.Error(t, err)
	_, after, _ := strings.Cut(printed, "\nTOKEN=")
	token, _, _ := strings.Cut(after, "\n")
	runs(t, folder, port, issuerPort)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:"+port+"/api/chat/list-conversations", strings.NewReader("{}"))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	answer, err := (&http.Client{Timeout: time.Minute}).Do(r)
	require.NoError(t, err)
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), `"title":"Dinner"`)

	// The test that the package holds nothing of the page looks for what is in this.
	program, err := os.ReadFile(filepath.Join(folder, "handler"))
	require.NoError(t, err)
	for _, of := range []string{"chatkeep/handler/playground.", "AdaptiveCards"} {
		require.True(t, bytes.Contains(program, []byte(of)), of)
	}
}

// REDIS=1 says what to do where it can do nothing.
func TestRunSaysWhatRedisNeeds(t *testing.T) {
	bin := t.TempDir()
	for _, tool := range []string{"bash", "env", "dirname"} {
		path, err := exec.LookPath(tool)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, filepath.Join(bin, tool)))
	}
	require.Contains(t, refused(t, "REDIS=1", "PATH="+bin), "REDIS=1 needs redis-server and redis-cli. Install them")
	require.Contains(t, refused(t, "REDIS=1", "REDIS_URL=redis://127.0.0.1:6379"), "leave one out")
}
