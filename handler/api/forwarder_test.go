package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The Functions host reads an answer only when it has sent the caller's body, so an upload that is slow enough lives on after a refusal,
// until the host notices that the connection is closed: after two writes of 4 KB.
func TestASlowUploadDoesNotLiveOnInTheHost(t *testing.T) {
	s := open(t)
	s.server.bodyTime = time.Second
	url, calls := startForwarder(t, s.url)
	for name, token := range map[string]string{"with a token": "Authorization: Bearer " + s.issuer.Token(tenant, "alice", nil) + "\r\n", "without": ""} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			_, err = fmt.Fprintf(conn, "POST /api/chat/send HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", token)
			require.NoError(t, err)
			began := time.Now()
			go func() {
				for { // 2,000 B/s
					if _, err := io.WriteString(conn, "c8\r\n"+strings.Repeat(" ", 200)+"\r\n"); err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			}()
			select {
			case call := <-calls:
				require.Contains(t, call, "POST /api/chat/send")
			case <-time.After(30 * time.Second):
				require.Fail(t, "the call lives on in the host")
			}
			lived := time.Since(began)
			t.Logf("the call lived for %v", lived.Round(time.Millisecond))
			require.Less(t, lived, s.server.bodyTime+10*time.Second, "the connection was not closed at once")
		})
	}
}

// startForwarder starts the host's forwarding part, where it is beside the repository. Each call that ends is sent to calls.
func startForwarder(t *testing.T, handler string) (url string, calls <-chan string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	program := filepath.Join(filepath.Dir(root), "shared", "tools", "forwarder")
	if _, err := os.Stat(program); err != nil {
		t.Skip("no forwarder beside the repository")
	}
	dist := t.TempDir()
	require.NoError(t, os.CopyFS(dist, os.DirFS(filepath.Join(root, "functions"))))
	host, err := os.ReadFile(filepath.Join(root, "host.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dist, "host.json"), host, 0o600))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url = "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	command := exec.Command(program, dist, handler, url)
	out, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	lines := bufio.NewScanner(out)
	isListening := false
	for !isListening && lines.Scan() {
		isListening = lines.Text() == "forwarder: listening"
	}
	ended := make(chan string, 100)
	go func() {
		for lines.Scan() {
			ended <- lines.Text()
		}
	}()
	return url, ended
}
