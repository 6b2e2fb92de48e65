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
	const useChat = 1 << 20 // bytes of a whole history, for which the setting has room already
	largest := max(maxBody, useChat)

	s := open(t)
	id := s.start("alice")
	for _, route := range s.server.routes() {
		if route.method == http.MethodPost || route.method == http.MethodPatch {
			path := strings.Replace(route.path, "{conversationId}", id, 1)
			requireProblem(t, s.send(route.method, path, "alice", strings.Repeat(" ", largest+1)), 413, "payload_too_large")
		}
	}

	for file, setting := range map[string]*regexp.Regexp{
		"../../local.settings.json.example":      regexp.MustCompile(`"FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "(\d+)"`),
		"../../infra/modules/function-app.bicep": regexp.MustCompile(`FUNCTIONS_REQUEST_BODY_SIZE_LIMIT: '(\d+)'`),
	} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		found := setting.FindAllSubmatch(text, -1)
		require.Len(t, found, 1, file)
		require.Equal(t, strconv.Itoa(largest+64<<10), string(found[0][1]), file)
	}
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
