package hosttest

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const proxied = `{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"handler"},"enableProxyingHttpRequest":true},
"extensions":{"http":{"routePrefix":""}}}`

// stage makes a script root of the small handler with functions, each a route and its methods.
func stage(t *testing.T, functions map[string]string) string {
	t.Helper()
	dist := t.TempDir()
	out, err := exec.Command("go", "build", "-o", filepath.Join(dist, "handler"), "./testdata/handler").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.WriteFile(filepath.Join(dist, "host.json"), []byte(proxied), 0o600))
	for name, trigger := range functions {
		require.NoError(t, os.Mkdir(filepath.Join(dist, name), 0o700))
		config := `{"bindings":[{"type":"httpTrigger","direction":"in","name":"req","authLevel":"anonymous",` + trigger +
			`},{"type":"http","direction":"out","name":"res"}]}`
		require.NoError(t, os.WriteFile(filepath.Join(dist, name, "function.json"), []byte(config), 0o600))
	}
	return dist
}

type received struct {
	Method, URI, Host, Body string
	Header                  http.Header
	PID                     int
}

func call(t *testing.T, method, url, body string, header http.Header) (*http.Response, received) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	maps.Copy(request.Header, header)
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	var got received
	if response.StatusCode == http.StatusOK {
		require.NoError(t, json.NewDecoder(response.Body).Decode(&got))
	}
	return response, got
}

func TestHost(t *testing.T) {
	dist := stage(t, map[string]string{
		"list": `"methods":["get"],"route":"items/list"`, "get": `"methods":["get","post"],"route":"items/{id}"`,
		"post": `"methods":["post"],"route":"items"`,
	})
	h := Start(t, dist, "ONLY=this")

	t.Run("a request arrives as the host passes it on", func(t *testing.T) {
		response, got := call(t, "POST", h.URL+"/ITEMS?a=1&a=2", "body", http.Header{
			"Authorization": {"Bearer a", "Bearer b"}, "X-Forwarded-For": {"6.6.6.6"}, "Forwarded": {"for=6.6.6.6"},
			"X-Azure-Functions-Invocationid": {"forged"}, "X-Azure-Clientip": {"6.6.6.6"}, "Cookie": {"c=1"},
			"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		})
		require.Equal(t, "/ITEMS?a=1&a=2", got.URI)
		require.Equal(t, "body", got.Body)
		require.Equal(t, h.addr, got.Host)
		require.Equal(t, []string{"Bearer a, Bearer b"}, got.Header["Authorization"])
		require.Equal(t, []string{"127.0.0.1"}, got.Header["X-Forwarded-For"])
		require.Empty(t, got.Header["Forwarded"])
		require.Len(t, got.Header.Get("X-Azure-Functions-InvocationId"), 36)
		require.Equal(t, "6.6.6.6", got.Header.Get("X-Azure-ClientIP"))
		require.Equal(t, "c=1", got.Header.Get("Cookie"))
		require.NotEmpty(t, got.Header.Get("Traceparent"))
		require.Empty(t, response.Header.Get("Strict-Transport-Security"))
		require.Equal(t, "yes", response.Header.Get("X-Kept"))
	})
	t.Run("the first function by name wins, and escapes change as measured", func(t *testing.T) {
		_, got := call(t, "GET", h.URL+"/items/list", "", nil)
		require.Equal(t, "/items/list", got.URI)
		_, got = call(t, "GET", h.URL+"/items/a%2Fb?y=%2F", "", nil)
		require.Equal(t, "/items/a%252Fb?y=%2F", got.URI)
		_, got = call(t, "GET", h.URL+"/x/%2e%2e/items/z", "", nil)
		require.Equal(t, "/items/z", got.URI)
	})
	t.Run("a wrong method is the host's own 404", func(t *testing.T) {
		response, _ := call(t, "DELETE", h.URL+"/items", "", nil)
		require.Equal(t, 404, response.StatusCode)
		require.Empty(t, response.Header.Get("X-Kept"))
	})
	t.Run("an answer streams, and a client that leaves is noticed", func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		request, err := http.NewRequestWithContext(ctx, "GET", h.URL+"/items/x?stream", nil)
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		line, err := bufio.NewReader(response.Body).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "first\n", line)
		leave()
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		require.Eventually(t, func() bool { return len(h.Stderr()) == 1 }, 10*time.Second, 10*time.Millisecond)
	})
	t.Run("exit 200 restarts uncounted, the third other exit stops, and requests in flight get 500", func(t *testing.T) {
		for _, code := range []string{"200", "3", "4"} {
			_, before := call(t, "GET", h.URL+"/items/x", "", nil)
			response, _ := call(t, "POST", h.URL+"/items/x?exit="+code, "", nil)
			require.Equal(t, 500, response.StatusCode)
			require.Eventually(t, func() bool {
				_, after := call(t, "GET", h.URL+"/items/x", "", nil)
				return after.PID != 0 && after.PID != before.PID
			}, 20*time.Second, 20*time.Millisecond)
		}
		call(t, "POST", h.URL+"/items/x?exit=5", "", nil)
		require.Eventually(t, func() bool { return len(h.Exits()) == 4 }, 10*time.Second, 10*time.Millisecond)
		require.Equal(t, []int{200, 3, 4, 5}, h.Exits())
		response, _ := call(t, "GET", h.URL+"/items/x", "", nil)
		require.Equal(t, 500, response.StatusCode)
	})
}

func TestExitZeroIsNeverRestarted(t *testing.T) {
	h := Start(t, stage(t, map[string]string{"get": `"methods":["get","post"],"route":"x"`}))
	call(t, "POST", h.URL+"/x?exit=0", "", nil)
	h.Wait()
	response, _ := call(t, "GET", h.URL+"/x", "", nil)
	require.Equal(t, 500, response.StatusCode)
	require.Equal(t, []int{0}, h.Exits())
}

func TestLoadRefusesWhatTheHostCannotServe(t *testing.T) {
	for name, functions := range map[string]map[string]string{
		"no function":                  {},
		"a key would be asked for":     {"a": `"authLevel":"function","methods":["get"],"route":"a"`},
		"a bad name":                   {"1a": `"methods":["get"],"route":"a"`},
		"a reserved route":             {"a": `"methods":["get"],"route":"administrators"`},
		"two functions with one route": {"a": `"methods":["get"],"route":"x"`, "b": `"methods":["post","get"],"route":"X"`},
	} {
		_, _, err := load(stage(t, functions))
		require.Error(t, err, name)
	}
	dist := stage(t, map[string]string{"a": `"methods":["get"],"route":"a"`})
	require.NoError(t, os.WriteFile(filepath.Join(dist, "a", "function.json"), []byte(`{"bindings":[{"type":"httpTrigger","direction":"in"}]}`), 0o600))
	_, _, err := load(dist)
	require.ErrorContains(t, err, "one http output")
}
