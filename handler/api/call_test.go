package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/agent"
	"chatkeep/handler/auth"
	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/chat"
	"chatkeep/handler/store"
	"chatkeep/handler/telemetry"

	"github.com/stretchr/testify/require"
)

// How long a call may take: over connections in memory, where synctest's clock passes.

// memoryNet is a listener whose connections are in memory. They hold nothing: what one side writes waits for the other to read.
type memoryNet struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (m *memoryNet) Accept() (net.Conn, error) {
	select {
	case conn := <-m.conns:
		return conn, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memoryNet) Close() error   { m.once.Do(func() { close(m.closed) }); return nil }
func (m *memoryNet) Addr() net.Addr { return &net.TCPAddr{} }

// timed is the API in a bubble of synctest.
type timed struct {
	t      *testing.T
	server *Server
	net    *memoryNet
	token  string
	log    *bytes.Buffer
}

// atSomeTime calls test in a bubble.
func atSomeTime(t *testing.T, a chat.Agent, s chat.Settings, test func(t *testing.T, s *timed)) {
	t.Helper()
	issuer := authtest.New()
	keys := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(keys, issuer.KeySet(), 0o600))
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := slog.New(slog.NewJSONHandler(&log, nil))
		verifier := auth.New(auth.Config{Issuer: issuer.Name, Audiences: []string{issuer.Audience}, KeysURL: keys, Scope: authtest.Scope}, logger)
		service := chat.NewService(store.NewMemory(limits()), a, s, logger)
		in := &timed{
			t: t, net: &memoryNet{conns: make(chan net.Conn), closed: make(chan struct{})}, log: &log,
			token:  "Authorization: Bearer " + issuer.Token(tenant, "alice", map[string]any{"exp": time.Now().Add(time.Hour).Unix()}) + "\r\n",
			server: New(service, verifier, About{Store: "memory"}, Edge{}, Limits{Requests: 32, UIBody: 1 << 20, Call: 225 * time.Second}, &telemetry.Recorder{}, logger),
		}
		server := &http.Server{Handler: in.server, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 120 * time.Second}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(in.net) })
		test(t, in)
		_ = server.Close()
		serving.Wait()
		service.Close(context.Background())
	})
}

func (s *timed) dial() net.Conn {
	ours, theirs := net.Pipe()
	s.net.conns <- theirs
	return ours
}

func (s *timed) serve(path string, handle func(w *response, r *http.Request) error) {
	s.server.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		answer := w.(*response)
		s.server.end(answer, r, handle(answer, r))
	})
}

func (s *timed) write(conn net.Conn, text string) {
	s.t.Helper()
	_, err := io.WriteString(conn, text)
	require.NoError(s.t, err)
}

// A client that takes nothing of an answer is let go after 30 s.
func TestAClientThatTakesNothingIsCut(t *testing.T) {
	for name, size := range map[string]int{"a large answer": 10 << 20, "a small one": 10, "an empty one": 0} {
		t.Run(name, func(t *testing.T) {
			atSomeTime(t, agent.Echo{}, settings, func(t *testing.T, s *timed) {
				s.serve("/answer", func(w *response, _ *http.Request) error {
					if size == 0 {
						w.WriteHeader(http.StatusNoContent)
						return nil
					}
					write(w, http.StatusOK, "text/plain", make([]byte, size))
					return nil
				})
				conn := s.dial()
				began := time.Now()
				s.write(conn, "GET /answer HTTP/1.1\r\nHost: x\r\n\r\n")
				_, err := conn.Write(make([]byte, 1<<20)) // goes on until the other side closes
				require.ErrorIs(t, err, io.ErrClosedPipe)
				require.InDelta(t, 30, time.Since(began).Seconds(), 1)
			})
		})
	}
}

// A client that takes some every 20 s is not cut for that, but when the call may last no longer.
func TestACallEndsWhateverTheClientTakes(t *testing.T) {
	for pieces, whole := range map[int]bool{5: true, 20: false} {
		atSomeTime(t, agent.Echo{}, settings, func(t *testing.T, s *timed) {
			s.serve("/answer", func(w *response, _ *http.Request) error {
				write(w, http.StatusOK, "text/plain", make([]byte, pieces*maxPiece))
				return nil
			})
			conn := s.dial()
			began := time.Now()
			s.write(conn, "GET /answer HTTP/1.1\r\nHost: x\r\n\r\n")
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // the connection is closed at the end
			require.NoError(t, err)
			var got int64
			for err == nil && got < int64(pieces*maxPiece) {
				var n int64
				n, err = io.CopyN(io.Discard, answer.Body, maxPiece)
				got += n
				time.Sleep(20 * time.Second)
			}
			if whole {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.InDelta(t, 225+20, time.Since(began).Seconds(), 21)
		})
	}
}

// A client that sends a byte now and then has as long for its body as any other, and its connection is closed with the answer.
func TestABodyThatDribblesIsAnswered(t *testing.T) {
	for token, status := range map[bool]int{true: 408, false: 401} {
		atSomeTime(t, agent.Echo{}, settings, func(t *testing.T, s *timed) {
			conn := s.dial()
			began := time.Now()
			header := "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
			if token {
				header = s.token + header
			}
			s.write(conn, "POST /api/chat/send HTTP/1.1\r\nHost: x\r\n"+header)
			closed := make(chan time.Duration)
			go func() {
				for {
					if _, err := io.WriteString(conn, "1\r\n \r\n"); err != nil {
						closed <- time.Since(began)
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			}()
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // the connection is closed at the end
			require.NoError(t, err)
			require.Equal(t, status, answer.StatusCode)
			_, err = io.ReadAll(answer.Body)
			require.NoError(t, err)
			answered := time.Since(began)
			if token {
				require.InDelta(t, 30, answered.Seconds(), 1)
			} else {
				require.Less(t, answered, time.Second)
			}
			require.Less(t, <-closed, answered+time.Second, "the connection outlives the answer")
		})
	}
}

// slow answers after a while, or when it is stopped.
type slow struct {
	agent.Echo
	takes time.Duration
}

func (a slow) Answer(ctx context.Context, c chat.Caller, q chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	select {
	case <-time.After(a.takes):
		return a.Echo.Answer(ctx, c, q, emit)
	case <-ctx.Done():
		return chat.Reply{}, context.Cause(ctx)
	}
}

// Reading, handling and writing are within one deadline. What could not be answered in it goes on.
func TestACallThatTakesTooLongIsAnswered(t *testing.T) {
	patient := settings
	patient.AgentTimeout, patient.TurnWait = 300*time.Second, 10*time.Second
	atSomeTime(t, slow{takes: 250 * time.Second}, patient, func(t *testing.T, s *timed) {
		conn := s.dial()
		lines := bufio.NewReader(conn)
		ask := func(method, path, body string, pause time.Duration) (int, string) {
			s.write(conn, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", method, path, s.token, len(body)))
			time.Sleep(pause)
			if body != "" {
				s.write(conn, body)
			}
			status, last, text := readResponse(t, lines, nil)
			require.False(t, last)
			return status, text
		}
		_, text := ask("POST", "/api/chat/start", "{}", 0)
		id := text[len(`{"conversationId":"`):][:36]
		began := time.Now()
		status, text := ask("POST", "/api/chat/send", fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id), 29*time.Second)
		require.Equal(t, 503, status, text)
		require.Contains(t, text, `"code":"timeout"`)
		require.InDelta(t, 225, time.Since(began).Seconds(), 2)
		time.Sleep(100 * time.Second) // the connection is as good as new
		status, text = ask("GET", "/api/chat/conversations/"+id, "", 0)
		require.Equal(t, 200, status)
		require.Contains(t, text, `"role":"assistant"`, "the turn was ended with its request")
	})
}

// Even a handler that cannot be stopped is heard: the host sends a GET without an answer again and again.
func TestALateAnswerIsSent(t *testing.T) {
	atSomeTime(t, agent.Echo{}, settings, func(t *testing.T, s *timed) {
		s.serve("/late", func(*response, *http.Request) error {
			time.Sleep(230 * time.Second)
			return errors.New("late")
		})
		conn := s.dial()
		s.write(conn, "GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
		status, _, _ := readResponse(t, bufio.NewReader(conn), nil)
		require.Equal(t, 500, status)
	})
}
