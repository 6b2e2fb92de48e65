package api

import (
	"net/http/httptest"
	"testing"

	"chatkeep/handler/agent"

	"github.com/stretchr/testify/require"
)

func TestOnlyOurFrontDoorIsAdmitted(t *testing.T) {
	const id = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
	s := openBehind(t, agent.Echo{}, Edge{FrontDoorID: id})
	for name, row := range map[string]struct {
		path   string
		ids    []string
		status int
	}{
		"ours":                 {"/api/chat/start", []string{id}, 201},
		"none":                 {"/api/chat/start", nil, 403},
		"another":              {"/api/chat/start", []string{"1" + id[1:]}, 403},
		"a part":               {"/api/chat/start", []string{id[:35]}, 403},
		"two":                  {"/api/chat/start", []string{id, id}, 403},
		"before anything else": {"/api/chat//nothing", nil, 403},
		"health is for anyone": {"/health", nil, 405},
		"and the probe":        {"/", nil, 405},
	} {
		t.Run(name, func(t *testing.T) {
			request := httptest.NewRequestWithContext(t.Context(), "POST", row.path, nil)
			request.Header["X-Azure-Fdid"] = row.ids
			request.Header.Set("Authorization", "Bearer "+s.issuer.Token(tenant, "alice", nil))
			recorder := httptest.NewRecorder()
			s.server.ServeHTTP(recorder, request)
			require.Equal(t, row.status, recorder.Code)
			if row.status == 403 {
				require.Contains(t, recorder.Body.String(), `"code":"forbidden"`)
			}
		})
	}
}
