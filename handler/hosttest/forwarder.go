package hosttest

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// StartForwarder starts the host's own forwarding part in front of a handler that runs, over a script root, and returns its URL. It skips the test
// where that program is not beside the repository. Each call's end is told to ended, if that is given, in a line; ended must not block.
func StartForwarder(t *testing.T, dist, handlerURL string, ended func(line string), env ...string) string {
	t.Helper()
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	require.NoError(t, err)
	program := filepath.Join(filepath.Dir(strings.TrimSpace(string(root))), "shared", "tools", "forwarder")
	if _, err := os.Stat(program); err != nil {
		t.Skip("no forwarder beside the repository")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url := "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	command := exec.Command(program, dist, handlerURL, url)
	command.Env = append(os.Environ(), env...)
	out, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	lines := bufio.NewScanner(out)
	isListening := false
	for !isListening && lines.Scan() {
		isListening = lines.Text() == "forwarder: listening"
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines.Scan() {
			if ended != nil {
				ended(lines.Text())
			}
		}
	}()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-read
		_ = command.Wait()
	})
	require.True(t, isListening, "the forwarder ended")
	return url
}
