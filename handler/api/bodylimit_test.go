package api

import (
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

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
