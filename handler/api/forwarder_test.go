package api

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatkeep/handler/hosttest"

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

// startForwarder starts the host's forwarding part over our functions. Each call that ends is sent to calls.
func startForwarder(t *testing.T, handler string) (url string, calls <-chan string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	dist := t.TempDir()
	require.NoError(t, os.CopyFS(dist, os.DirFS(filepath.Join(root, "functions"))))
	host, err := os.ReadFile(filepath.Join(root, "host.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dist, "host.json"), host, 0o600))
	ended := make(chan string, 100)
	return hosttest.StartForwarder(t, dist, handler, func(line string) { ended <- line }), ended
}
