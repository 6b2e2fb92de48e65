package api

import (
	"strings"
	"testing"

	"chatkeep/handler/agent"

	"github.com/stretchr/testify/require"
)

// A host from before enableProxyingHttpRequest calls the functions by their names, and is told; its operator is, once.
func TestAHostThatIsTooOldIsTold(t *testing.T) {
	const invocation = `{"Data":{"req":{"Url":"http://x/health","Method":"GET","Query":"{}","Headers":{"Host":["x"]},"Params":{}}},
		"Metadata":{"sys":{"MethodName":"health","UtcNow":"2026-01-01T00:00:00Z","RandGuid":"x"}}}`
	s := openBehind(t, agent.Echo{}, Edge{FrontDoorID: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"})
	for _, function := range []string{"start", "send", "get", "list-conversations", "health"} {
		requireProblem(t, s.send("POST", "/"+function, nobody, invocation, "Content-Type: application/json; charset=utf-8"), 501, "host_too_old")
	}
	require.Equal(t, 1, strings.Count(s.log.String(), "\n"), s.log.String())
	require.Contains(t, s.log.String(), `"level":"ERROR"`)
	require.Contains(t, s.log.String(), "update the Functions runtime")
}

func TestOnlyAnInvocationIsOne(t *testing.T) {
	s := open(t)
	both := `{"Data":{},"Metadata":{}}`
	for name, row := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
	}{
		"a request of ours":    {"POST", "/api/chat/start", both, nil, 400},
		"another method":       {"PUT", "/start", both, nil, 404},
		"no function":          {"POST", "/other", both, nil, 404},
		"another body":         {"POST", "/start", `{"title":"x"}`, nil, 404},
		"no body":              {"POST", "/start", "", nil, 404},
		"half of it":           {"POST", "/send", `{"Data":{}}`, nil, 404},
		"other types":          {"POST", "/get", `{"Data":1,"Metadata":[]}`, nil, 404},
		"other letters":        {"POST", "/get", `{"data":{},"metadata":{}}`, nil, 404},
		"not JSON":             {"POST", "/start", both, []string{"Content-Type: text/plain"}, 404},
		"a body that is large": {"POST", "/start", both + strings.Repeat(" ", maxBody), nil, 404},
		"a probe's path":       {"POST", "/", both, nil, 405},
		"health":               {"POST", "/health", `{}`, nil, 405},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, row.status, s.send(row.method, row.path, "alice", row.body, row.headers...).status)
		})
	}
	require.Empty(t, s.log.String())
}
