package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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

// counting says a number a second, until it has said sixty.
type counting struct{ agent.Echo }

func (counting) Answer(ctx context.Context, _ chat.Caller, _ chat.Question, emit func(chat.Event)) (chat.Reply, error) {
	var said strings.Builder
	for n := range 60 {
		word := fmt.Sprint(n, " ")
		said.WriteString(word)
		emit(chat.Event{Kind: chat.DeltaEvent, Text: word})
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return chat.Reply{}, context.Cause(ctx)
		}
	}
	return chat.Reply{Messages: []chat.Message{{Kind: chat.Text, Text: said.String()}}}, nil
}

// A stream ends in order when its call may last no longer: in time, with a whole frame, and where clients take a stream that ends for a whole
// answer with an error. Its turn goes on, and with the last id nothing is missed.
func TestAStreamEndsBeforeItsCallMust(t *testing.T) {
	const callMax = 20 * time.Second
	long := settings
	long.AgentTimeout = 100 * time.Second
	atSomeTime(t, counting{}, long, func(t *testing.T, s *timed) {
		s.server.limits.Call, s.server.limits.Stream = callMax, time.Hour
		client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return s.dial(), nil }}}
		defer client.CloseIdleConnections()
		call := func(method, path, body string, headers ...string) *eventReader {
			request, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, strings.NewReader(body))
			require.NoError(t, err)
			for _, header := range append(headers, strings.TrimSpace(s.token), "Accept: text/event-stream", "Content-Type: application/json") {
				name, value, _ := strings.Cut(header, ": ")
				request.Header.Set(name, value)
			}
			answer, err := client.Do(request)
			require.NoError(t, err)
			t.Cleanup(func() { _ = answer.Body.Close() })
			return &eventReader{t: t, answer: answer, lines: bufio.NewReader(answer.Body)}
		}
		start := func() string {
			answer := call("POST", "/api/chat/start", "{}").answer
			var started struct{ ConversationID string }
			require.NoError(t, json.NewDecoder(answer.Body).Decode(&started))
			require.NoError(t, answer.Body.Close())
			return started.ConversationID
		}
		// until reads a stream that must end in time, and from wherever it ends the rest of its turn.
		until := func(id string, e *eventReader) (all []event, calls int) {
			for {
				began := time.Now()
				all = append(all, e.rest()...)
				require.Less(t, time.Since(began), callMax)
				calls++
				require.Less(t, calls, 10)
				if all[len(all)-1].name == "done" {
					return all, calls
				}
				e = call("GET", "/api/chat/conversations/"+id+"/stream", "", "Last-Event-ID: "+all[len(all)-1].id)
			}
		}
		id := start()
		send := fmt.Sprintf(`{"conversationId":%q,"text":"hi"}`, id)
		sent, calls := until(id, call("POST", "/api/chat/send", send, "Idempotency-Key: k"))
		require.Equal(t, 4, calls, "of 60 s")
		whole := call("POST", "/api/chat/send", send, "Idempotency-Key: k").rest()
		require.Equal(t, whole, sent, "what was read in pieces is not the turn")

		follower := call("GET", "/api/chat/conversations/"+id+"/stream?follow=true", "")
		require.NoError(t, call("POST", "/api/chat/send", send, "Idempotency-Key: l").answer.Body.Close()) // a hang-up stops nothing
		followed, calls := until(id, follower)
		require.Equal(t, 4, calls)
		whole = call("POST", "/api/chat/send", send, "Idempotency-Key: l").rest()
		require.Equal(t, whole, followed)

		id = start()
		frames := uiFrames(call("POST", "/api/chat/ui", submit(id, "m", "hi")))
		require.Regexp(t, `^start text-start( text-delta)+ text-end data-error error$`, types(frames))
		require.Equal(t, "timeout", frames[len(frames)-2]["data"].(map[string]any)["code"])
		frames = uiFrames(call("GET", "/api/chat/ui/"+id+"/stream", ""))
		require.Equal(t, "error", frames[len(frames)-1]["type"])
		time.Sleep(10 * time.Second)
		frames = uiFrames(call("GET", "/api/chat/ui/"+id+"/stream", ""))
		require.Equal(t, "finish", frames[len(frames)-1]["type"], "the turn did not go on")
		var joined strings.Builder
		for _, frame := range frames {
			if frame["type"] == "text-delta" {
				joined.WriteString(frame["delta"].(string))
			}
		}
		require.Equal(t, whole[len(whole)-2].body["text"], joined.String())
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
