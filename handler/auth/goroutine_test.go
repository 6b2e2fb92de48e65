package auth

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/auth/authtest"

	"github.com/stretchr/testify/require"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A panic of a fetch ends neither the process nor those who wait for it, and the next fetch is made as after any failure.
func TestAPanicOfAFetch(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		v := New(accepts(issuer, "https://issuer/keys"), slog.New(slog.NewJSONHandler(&log, nil)))
		fetches := 0
		v.keys.client.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
			fetches++
			panic("what alice said")
		})
		for range 2 {
			_, err := v.User(t.Context(), bearerOf(issuer.Token(tenant, "alice", nil)))
			require.ErrorIs(t, err, ErrKeysUnavailable)
			time.Sleep(longestPause)
			synctest.Wait()
		}
		require.Equal(t, 2, fetches)
		require.Equal(t, 2, strings.Count(log.String(), `"msg":"panic"`))
		require.NotContains(t, log.String(), "alice")
	})
}
