package api

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"chatkeep/handler/chat"

	"github.com/stretchr/testify/require"
)

// serve adds a handler for a signed-in caller.
func (s *service) serve(path string, handle func(w *response) error) {
	route := s.server.signedIn(func(w *response, _ *http.Request, _ chat.Caller) error { return handle(w) })
	s.server.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		answer := w.(*response)
		s.server.end(answer, r, route(answer, r))
	})
}

func TestAPanicIs500AndOneLineOfTheLog(t *testing.T) {
	s := open(t)
	s.serve("/boom", func(*response) error { return deep(200) })
	requireProblem(t, s.send("GET", "/boom", "alice", ""), 500, "internal")
	require.Equal(t, 1, strings.Count(s.log.String(), "\n"))
	require.Regexp(t, `"caller":"[0-9a-f]{12}"`, s.log.String())
	require.Contains(t, s.log.String(), "panic: string")
	require.Contains(t, s.log.String(), "response_test.go", "the stack does not show where")
	require.Less(t, s.log.Len(), 8<<10)
}

func deep(n int) error {
	if n == 0 {
		panic("boom" + strings.Repeat("é", 10_000))
	}
	return errors.Join(deep(n - 1))
}

// The first byte of an answer cannot be taken back, so what goes wrong after it is told by cutting the connection.
func TestAnAnswerThatHasBegunIsCutShort(t *testing.T) {
	for name, fail := range map[string]func() error{
		"an error":             func() error { return errors.New("too late") },
		"a panic":              func() error { panic("too late") },
		"a refusal":            func() error { return chat.ErrNotFound },
		"net/http's own panic": func() error { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			s.serve("/half", func(w *response) error {
				w.Header().Set("Content-Type", "text/plain")
				_, _ = w.Write([]byte("the first half, "))
				_ = http.NewResponseController(w).Flush()
				return fail()
			})
			server := httptest.NewUnstartedServer(s.server)
			var complaints strings.Builder
			server.Config.ErrorLog = log.New(&complaints, "", 0)
			server.Start()
			request, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/half", nil)
			require.NoError(t, err)
			request.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, "alice", nil))
			answer, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			text, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			server.Close()
			require.Equal(t, 200, answer.StatusCode)
			require.Equal(t, "the first half, ", string(text), "something was appended")
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "the answer looks whole")
			require.Empty(t, complaints.String(), "net/http complains")
			require.Equal(t, strings.Contains(name, "an error"), strings.Contains(s.log.String(), "too late"))
			require.Equal(t, name == "a panic", strings.Contains(s.log.String(), "panic: string"), "or its value, which may quote a user")
		})
	}
}

// Before the first byte, no handler can have the connection dropped.
func TestAHandlerCannotCutWhatHasNotBegun(t *testing.T) {
	s := open(t)
	s.serve("/abort", func(*response) error { panic(http.ErrAbortHandler) })
	requireProblem(t, s.send("GET", "/abort", "alice", ""), 500, "internal")
}

// Whatever the request line says, the answer is ours and not net/http's.
func TestStrangeTargets(t *testing.T) {
	s := open(t)
	for method, target := range map[string]string{"OPTIONS": "*", "CONNECT": "chat.example.com:443"} {
		recorder := httptest.NewRecorder()
		s.server.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), method, target, nil))
		require.Equal(t, 404, recorder.Code, method)
		require.Contains(t, recorder.Body.String(), `"code":"not_found"`)
	}
}
