package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatkeep/handler/auth"
	"chatkeep/handler/auth/authtest"

	"github.com/stretchr/testify/require"
)

func TestTokenIsGoodForTheServedKeys(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"token", "-dir", dir, "-user", "bob"}, &out))
	again, err := open(dir)
	require.NoError(t, err)
	keys := filepath.Join(dir, "keys.json")
	require.NoError(t, os.WriteFile(keys, again.KeySet(), 0o600))

	v := auth.New(auth.Config{Issuer: authtest.LocalIssuer, Audiences: []string{authtest.LocalAudience}, KeysURL: keys})
	user, err := v.User(t.Context(), http.Header{"Authorization": {"Bearer " + strings.TrimSpace(out.String())}})
	require.NoError(t, err)
	require.Equal(t, auth.User{ID: "bob", TenantID: authtest.LocalTenant, ObjectID: "oid-bob"}, user)

	private, err := os.Stat(filepath.Join(dir, "issuer.pem"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), private.Mode().Perm())
}

func TestServeRefusesOtherAddressesThanLoopback(t *testing.T) {
	err := run(t.Context(), []string{"serve", "-dir", t.TempDir(), "-addr", "0.0.0.0:7072"}, nil)
	require.ErrorContains(t, err, "loopback")
}

func TestServeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, run(ctx, []string{"serve", "-dir", t.TempDir(), "-addr", "127.0.0.1:0"}, nil))
}
