package api

import (
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The host's limit for a body is a setting beside the code: our largest body and 64 KiB more, so that what is a little too large gets our 413.
func TestTheHostsBodyLimitFollowsOurs(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	ofUI := regexp.MustCompile("\\| `MAX_UI_BODY` \\| (\\d+) \\| (\\d+) to (\\d+) \\|").FindSubmatch(readme)
	require.NotNil(t, ofUI)
	largest, err := strconv.Atoi(string(ofUI[1]))
	require.NoError(t, err)
	require.Equal(t, string(ofUI[1]), string(ofUI[3]), "the default is the most")
	require.Equal(t, strconv.Itoa(maxBody), string(ofUI[2]), "the least is what other functions take")

	s := open(t)
	s.server.limits.UIBody = largest
	id := s.start("alice")
	for _, route := range s.server.routes() {
		if route.method == http.MethodPost || route.method == http.MethodPatch {
			path := strings.Replace(route.path, "{conversationId}", id, 1)
			requireProblem(t, s.send(route.method, path, "alice", strings.Repeat(" ", largest+1)), 413, "payload_too_large")
		}
	}

	s.server.limits.UIBody = maxBody
	requireProblem(t, s.send("POST", "/api/chat/ui", "alice", strings.Repeat(" ", maxBody+1)), 413, "payload_too_large")

	for file, setting := range map[string]*regexp.Regexp{
		"../../local.settings.json.example":      regexp.MustCompile(`"FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "(\d+)"`),
		"../../infra/modules/function-app.bicep": regexp.MustCompile(`FUNCTIONS_REQUEST_BODY_SIZE_LIMIT: .* : '(\d+)'\n`),
	} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		found := setting.FindAllSubmatch(text, -1)
		require.Len(t, found, 1, file)
		require.Equal(t, strconv.Itoa(largest+64<<10), string(found[0][1]), file)
	}
	app, err := os.ReadFile("../../infra/modules/function-app.bicep")
	require.NoError(t, err)
	require.Contains(t, string(app), "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT: smallInstances ? '"+strconv.Itoa(maxBody+64<<10)+"' :")
}

// The host goes on with a caller that sends or takes 240 bytes a second on the whole, whatever we have answered meanwhile: until a body that
// came quickly at first would have come so, and until what is left of an answer in the system's buffers is taken. A call that lasts longer
// than functionTimeout ends the process, and everybody's calls: so none can.
func TestNoCallerOutlastsTheHostsTimeout(t *testing.T) {
	const (
		leastRate = 240             // bytes a second, of the host's web server
		body      = 1<<20 + 64<<10  // at most
		left      = 6<<20 + 128<<10 // of an answer: in the host's buffer as Linux has it, and in ours
	)
	text, err := os.ReadFile("../../host.json")
	require.NoError(t, err)
	found := regexp.MustCompile(`"functionTimeout": "(\d\d):(\d\d):00"`).FindSubmatch(text)
	require.NotNil(t, found)
	hours, _ := strconv.Atoi(string(found[1]))
	minutes, _ := strconv.Atoi(string(found[2]))
	timeout := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	require.Less(t, hours, 24, "which .NET takes for days")
	require.Greater(t, timeout, (body+left)*time.Second/leastRate+time.Hour)
}
