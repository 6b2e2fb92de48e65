package main

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"testing"

	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/redistest"

	"github.com/stretchr/testify/require"
)

// TestSmoke runs scripts/smoke.sh against the program behind the played host, with a Front Door before it that does what ours is
// deployed to do.
func TestSmoke(t *testing.T) {
	const frontDoorID = "0f7d3b1e-5a52-4ee2-9a0c-3b8f4f6d2b11"
	d := deploy(t, "REDIS_URL=redis://"+redistest.Start(t).Addr, "FRONT_DOOR_ID="+frontDoorID)
	origin, err := url.Parse(d.host.URL)
	require.NoError(t, err)
	frontDoor := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(origin)
			r.Out.Header.Set("X-Azure-FDID", frontDoorID)
		},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set("X-Azure-Ref", "20261124T000000Z-1")
			r.Header.Set("X-Cache", "CONFIG_NOCACHE")
			r.Header.Set("Strict-Transport-Security", "max-age=31536000")
			return nil
		},
	})
	t.Cleanup(frontDoor.Close)

	alice := d.issuer.Token(authtest.LocalTenant, "alice", nil)
	bob := d.issuer.Token(authtest.LocalTenant, "bob", nil)
	smoke := func(address, origin, token, other string) (string, error) {
		command := exec.CommandContext(t.Context(), "../scripts/smoke.sh", address)
		command.Env = []string{"PATH=" + os.Getenv("PATH"), "TOKEN=" + token, "OTHER_TOKEN=" + other, "ORIGIN_URL=" + origin, "FRONT_DOOR=yes"}
		output, err := command.CombinedOutput()
		require.NotContains(t, string(output), token, "it shows the token")
		return string(output), err
	}

	output, err := smoke(frontDoor.URL, d.host.URL, alice, bob)
	require.NoError(t, err, output)
	require.Contains(t, output, "0 failed")
	require.NotContains(t, output, "–", "something was left out")

	for name, c := range map[string]struct{ address, origin, token, other, says string }{
		"an app that answers everybody":   {frontDoor.URL, frontDoor.URL, alice, bob, "FAIL  past Front Door"},
		"a token of a stranger":           {frontDoor.URL, d.host.URL, authtest.New().Token(authtest.LocalTenant, "alice", nil), bob, "FAIL  start"},
		"the other user is the same user": {frontDoor.URL, d.host.URL, alice, alice, "FAIL  another user"},
		"no Front Door":                   {d.host.URL, d.host.URL, alice, bob, "FAIL"},
	} {
		t.Run(name, func(t *testing.T) {
			output, err := smoke(c.address, c.origin, c.token, c.other)
			require.Error(t, err, output)
			require.Contains(t, output, c.says)
		})
	}
}
