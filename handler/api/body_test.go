package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A client that promises a body and does not send it is answered all the same, and then let go.
func TestABodyThatStallsIsAnswered(t *testing.T) {
	s := open(t)
	s.server.bodyTime = 100 * time.Millisecond
	id := s.start("alice")
	token := "Authorization: Bearer " + s.issuer.Token(tenant, "alice", nil) + "\r\n"
	whole := fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)
	for name, row := range map[string]struct {
		method, path, token string
		status              int
		code                string
	}{
		"no token":                 {"POST", "/api/chat/send", "", 401, "unauthenticated"},
		"unknown path":             {"POST", "/api/chat/nothing", token, 404, "not_found"},
		"wrong method":             {"PUT", "/api/chat/send", token, 405, "method_not_allowed"},
		"a body that is read":      {"POST", "/api/chat/send", token, 408, "request_timeout"},
		"an optional body":         {"POST", "/api/chat/start", token, 408, "request_timeout"},
		"a body that is not read":  {"GET", "/api/chat/conversations/" + id, token, 200, ""},
		"one that nobody expected": {"GET", "/health", "", 200, ""},
		"a probe":                  {"HEAD", "/", "", 200, ""},
	} {
		for shape, body := range map[string]string{
			"nothing of it":            "Content-Length: 100\r\n\r\n",
			"one byte short":           fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(whole)+1, whole),
			"no chunk":                 "Transfer-Encoding: chunked\r\n\r\n",
			"a chunk without its end":  fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(whole), whole),
			"a client that is patient": "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
		} {
			t.Run(name+"/"+shape, func(t *testing.T) {
				t.Parallel()
				conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
				require.NoError(t, err)
				defer func() { _ = conn.Close() }()
				began := time.Now()
				_ = conn.SetDeadline(began.Add(10 * time.Second))
				_, err = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s%s", row.method, row.path, row.token, body)
				require.NoError(t, err)
				request, _ := http.NewRequestWithContext(t.Context(), row.method, "/", nil)
				lines := bufio.NewReader(conn)
				status, last, text := readResponse(t, lines, request)
				if status == http.StatusContinue {
					require.Equal(t, 408, row.status, "a body is asked for that is not wanted")
					status, last, text = readResponse(t, lines, request)
				}
				require.Equal(t, row.status, status, text)
				require.Contains(t, text, row.code)
				require.True(t, last)
				_, err = lines.ReadByte()
				require.ErrorIs(t, err, io.EOF, "the connection stays open")
				require.Less(t, time.Since(began), 5*time.Second)
			})
		}
	}
}

// A body that nobody reads, but that comes, does not cost the connection.
func TestABodyThatComesKeepsTheConnection(t *testing.T) {
	s := open(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	lines := bufio.NewReader(conn)
	for _, size := range []int{2, 1000, 500_000} {
		for path, status := range map[string]int{"/api/chat/send": 401, "/nothing": 404} {
			_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, size, strings.Repeat("x", size))
			require.NoError(t, err)
			got, last, _ := readResponse(t, lines, nil)
			require.Equal(t, status, got)
			require.False(t, last)
		}
	}
}

func TestABodyThatIsAskedForKeepsTheConnection(t *testing.T) {
	s := open(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	lines := bufio.NewReader(conn)
	_, err = fmt.Fprintf(conn, "POST /api/chat/start HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", s.issuer.Token(tenant, "alice", nil))
	require.NoError(t, err)
	status, _, _ := readResponse(t, lines, nil)
	require.Equal(t, http.StatusContinue, status)
	_, err = io.WriteString(conn, "{}")
	require.NoError(t, err)
	status, last, text := readResponse(t, lines, nil)
	require.Equal(t, 201, status, text)
	require.False(t, last)
}

// readResponse also tells whether it is the last one of its connection.
func readResponse(t *testing.T, from *bufio.Reader, request *http.Request) (status int, last bool, text string) {
	t.Helper()
	response, err := http.ReadResponse(from, request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, response.Close, string(body)
}
