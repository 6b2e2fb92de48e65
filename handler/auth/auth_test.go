package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chatkeep/handler/auth/authtest"
	"chatkeep/handler/auth/authtest/attack"

	"github.com/stretchr/testify/require"
)

// keyPair is shared, because making one takes longer than most tests.
var keyPair = sync.OnceValue(authtest.NewKey)

const (
	tenant      = authtest.LocalTenant
	otherTenant = "bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee"
)

// accepts returns the configuration of an API that accepts the issuer's tokens of any tenant.
func accepts(i *authtest.Issuer, keysURL string) Config {
	return Config{Issuer: i.Name, Audiences: []string{i.Audience}, KeysURL: keysURL, Scope: authtest.Scope}
}

// keyFile writes the issuer's key set to a file.
func keyFile(t testing.TB, i *authtest.Issuer) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(path, i.KeySet(), 0o600))
	return path
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func bearerOf(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

func TestTokenNamesItsUser(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	v := New(accepts(issuer, keyFile(t, issuer)), quiet())

	alice, err := v.User(t.Context(), bearerOf(issuer.Token(tenant, "alice", nil)))
	require.NoError(t, err)
	require.Equal(t, "alice", alice.ID)
	require.Equal(t, tenant, alice.TenantID)
	require.Regexp(t, guid, alice.ObjectID)

	namesake, err := v.User(t.Context(), bearerOf(issuer.Token(otherTenant, "alice", nil)))
	require.NoError(t, err)
	require.Equal(t, otherTenant, namesake.TenantID)
	require.NotEqual(t, alice, namesake)

	token := issuer.Token(tenant, "alice", map[string]any{"oid": nil})
	bare, err := v.User(t.Context(), bearerOf(token))
	require.NoError(t, err)
	require.Equal(t, User{ID: "alice", TenantID: tenant, Token: token}, bare)
}

func TestAttacks(t *testing.T) {
	var trapped atomic.Int64
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { trapped.Add(1) }))
	defer trap.Close()
	issuer, attacks := attack.All(trap.URL)
	var fetches atomic.Int64
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		issuer.ServeHTTP(w, r)
	}))
	defer keys.Close()

	var log bytes.Buffer
	cfg := accepts(issuer, keys.URL+authtest.KeysPath)
	cfg.Tenants = []string{tenant}
	v := New(cfg, slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	good := remembered(t, v, issuer.Token(tenant, "alice", nil))

	// A good token of the same user is remembered in the first round, and all accepted attacks in the second.
	for _, round := range []string{"first", "again"} {
		for _, attack := range attacks {
			t.Run(fmt.Sprintf("%s/%d/%s", round, attack.Row, attack.Name), func(t *testing.T) {
				user, err := v.User(t.Context(), attack.Header)
				require.Equal(t, attack.Status, status(err), "%v", err)
				require.Equal(t, attack.Challenge, v.Challenge(err))
				if attack.Status == http.StatusOK {
					require.Equal(t, attack.Subject, user.ID)
					require.Equal(t, tenant, user.TenantID)
					require.Contains(t, attack.Header.Get("Authorization"), user.Token)
					return
				}
				require.Equal(t, User{}, user)
				requireConstant(t, err, attack.Header)
			})
		}
	}
	require.Zero(t, trapped.Load(), "a token made the verifier fetch something")
	require.EqualValues(t, 1+maxSearches, fetches.Load(), "the first load, and one for each unknown kid")
	require.Empty(t, log.String())
	_, err := v.User(t.Context(), good)
	require.NoError(t, err)
}

func TestOddKidsAreOnlyUnknown(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	keys := keyFile(t, issuer)
	for _, kid := range []string{"' OR 1=1; DROP TABLE keys; --", "*)(uid=*))(|(uid=*", "%s%s%n", "\x00", " ", "\u200f", strings.Repeat("k", longestKid)} {
		header, err := json.Marshal(map[string]string{"alg": "RS256", "kid": kid})
		require.NoError(t, err)
		_, err = New(accepts(issuer, keys), quiet()).User(t.Context(), bearerOf(issuer.Sign(string(header), "{}")))
		require.EqualError(t, err, "invalid token: kid is unknown to the issuer", kid)
	}
}

// status is how the API answers an error.
func status(err error) int {
	switch {
	case err == nil:
		return http.StatusOK
	case errors.Is(err, ErrBadRequest):
		return http.StatusBadRequest
	case errors.Is(err, ErrNoToken), errors.Is(err, ErrInvalidToken):
		return http.StatusUnauthorized
	case errors.Is(err, ErrInsufficientScope):
		return http.StatusForbidden
	case errors.Is(err, ErrKeysUnavailable):
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// requireConstant fails if the error contains a part of the request.
func requireConstant(t *testing.T, err error, h http.Header) {
	t.Helper()
	require.Regexp(t, `^[a-zA-Z0-9 ,:.+'-]{1,120}$`, err.Error())
	for _, values := range h {
		for _, value := range values {
			for _, part := range strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" .,", r) }) {
				if len(part) > 8 {
					require.NotContains(t, err.Error(), part)
				}
			}
		}
	}
}

func TestDatesHaveAMinuteOfLeeway(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	keys := keyFile(t, issuer)
	synctest.Test(t, func(t *testing.T) { // whose clock stands still
		v := New(accepts(issuer, keys), quiet())
		for _, row := range []struct {
			claim  string
			offset time.Duration
			want   error
		}{
			{"exp", 0, nil},
			{"exp", -59 * time.Second, nil},
			{"exp", -60 * time.Second, ErrExpired},
			{"exp", -61 * time.Second, ErrExpired},
			{"nbf", 59 * time.Second, nil},
			{"nbf", 60 * time.Second, nil},
			{"nbf", 61 * time.Second, ErrInvalidToken},
			{"iat", 59 * time.Second, nil},
			{"iat", 60 * time.Second, nil},
			{"iat", 61 * time.Second, ErrInvalidToken},
		} {
			claim := map[string]any{row.claim: time.Now().Add(row.offset).Unix()}
			_, err := v.User(t.Context(), bearerOf(issuer.Token(tenant, "alice", claim)))
			require.ErrorIs(t, err, row.want, "%s %v", row.claim, row.offset)
			require.Equal(t, errors.Is(row.want, ErrExpired), errors.Is(err, ErrExpired))
		}
		token := issuer.Token(tenant, "alice", nil)
		time.Sleep(time.Hour + leeway - time.Millisecond)
		_, err := v.User(t.Context(), bearerOf(token))
		require.NoError(t, err)
		time.Sleep(time.Millisecond)
		_, err = v.User(t.Context(), bearerOf(token))
		require.ErrorIs(t, err, ErrExpired)
		require.ErrorIs(t, err, ErrInvalidToken)
	})
}

// TestIssuers tries the tokens of each cloud with the configuration of each other.
func TestIssuers(t *testing.T) {
	clouds := map[string]string{
		"Entra, one tenant":      "https://login.microsoftonline.com/" + tenant + "/v2.0",
		"Entra, several tenants": "https://login.microsoftonline.com/{tenantid}/v2.0",
		"US Government":          "https://login.microsoftonline.us/" + tenant + "/v2.0",
		"US Government, several": "https://login.microsoftonline.us/{tenantid}/v2.0",
		"China":                  "https://login.partner.microsoftonline.cn/" + tenant + "/v2.0",
		"France":                 "https://login.sovcloud-identity.fr/" + tenant + "/v2.0",
		"External ID":            "https://" + tenant + ".ciamlogin.com/" + tenant + "/v2.0",
		"External ID, several":   "https://{tenantid}.ciamlogin.com/{tenantid}/v2.0",
		"local":                  authtest.LocalIssuer,
	}
	for cloud, name := range clouds {
		t.Run(cloud, func(t *testing.T) {
			issuer := authtest.WithKey(keyPair())
			issuer.Name = name
			cfg := accepts(issuer, keyFile(t, issuer))
			if strings.Contains(name, tenantID) {
				cfg.Tenants = []string{tenant}
			}
			v := New(cfg, quiet())
			user, err := v.User(t.Context(), bearerOf(issuer.Token(tenant, "alice", nil)))
			require.NoError(t, err)
			require.Equal(t, tenant, user.TenantID)

			_, err = v.User(t.Context(), bearerOf(issuer.Token(otherTenant, "alice", nil)))
			if cloud == "local" {
				require.NoError(t, err, "the issuer names no tenant, so it vouches for all")
			} else {
				require.ErrorIs(t, err, ErrInvalidToken)
			}

			genuine := issuer.Token(tenant, "alice", nil)
			for other, name := range clouds {
				stranger := authtest.WithKey(keyPair()) // the same key, so that only the name differs
				stranger.Name = name
				same := strings.ReplaceAll(name, tenantID, tenant) == strings.ReplaceAll(clouds[cloud], tenantID, tenant)
				_, err := v.User(t.Context(), bearerOf(stranger.Token(tenant, "alice", nil)))
				require.Equal(t, same, err == nil, "%s: %v", other, err)
			}
			_, err = v.User(t.Context(), bearerOf(genuine))
			require.NoError(t, err)
		})
	}
}

func TestSeveralTenantsOfOneIssuer(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	issuer.Name = "https://login.microsoftonline.com/{tenantid}/v2.0"
	cfg := accepts(issuer, keyFile(t, issuer))
	cfg.Tenants = []string{tenant, otherTenant}
	v := New(cfg, quiet())
	for tid, want := range map[string]error{tenant: nil, otherTenant: nil, "cccccccc-bbbb-cccc-dddd-eeeeeeeeeeee": ErrInvalidToken} {
		_, err := v.User(t.Context(), bearerOf(issuer.Token(tid, "alice", nil)))
		require.ErrorIs(t, err, want)
	}
}

// TestKeyVouchesForItsIssuerOnly tries keys that name another issuer than the token's, and keys that name none.
func TestKeyVouchesForItsIssuerOnly(t *testing.T) {
	const template, exact = "https://login.microsoftonline.com/{tenantid}/v2.0", "https://login.microsoftonline.com/" + tenant + "/v2.0"
	for name, row := range map[string]struct {
		issuer, keyIssuer string
		want              error
	}{
		"a shared key, several tenants":          {template, template, nil},
		"a shared key, one tenant":               {exact, template, nil},
		"the tenant's key, several tenants":      {template, exact, nil},
		"the tenant's key, one tenant":           {exact, exact, nil},
		"the consumers' key, several tenants":    {template, "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", ErrInvalidToken},
		"the consumers' key, one tenant":         {exact, "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", ErrInvalidToken},
		"another cloud's key":                    {exact, "https://login.microsoftonline.us/{tenantid}/v2.0", ErrInvalidToken},
		"a key that does not say, one tenant":    {exact, "", nil},
		"a key that does not say, several":       {template, "", ErrKeysUnavailable},
		"a key of v1.0":                          {exact, "https://sts.windows.net/{tenantid}/", ErrInvalidToken},
		"an issuer that looks like the template": {template, "{tenantid}", ErrInvalidToken},
	} {
		t.Run(name, func(t *testing.T) {
			publisher := authtest.WithKey(keyPair())
			publisher.Name = row.keyIssuer
			issuer := authtest.WithKey(keyPair())
			issuer.Name = row.issuer
			cfg := accepts(issuer, keyFile(t, publisher))
			cfg.Tenants = []string{tenant}
			_, err := New(cfg, quiet()).User(t.Context(), bearerOf(issuer.Token(tenant, "alice", nil)))
			require.ErrorIs(t, err, row.want)
		})
	}
}

// TestTenantIsAGUID uses an issuer that names no tenant, so that no other check refuses these.
func TestTenantIsAGUID(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	v := New(accepts(issuer, keyFile(t, issuer)), quiet())
	for _, tid := range []string{
		"", "common", strings.ToUpper(tenant), "{" + tenant + "}", tenant[:35], tenant + "0", tenant + "\n", strings.ReplaceAll(tenant, "-", ""), "a}:{b",
	} {
		_, err := v.User(t.Context(), bearerOf(issuer.Token(tid, "alice", nil)))
		require.EqualError(t, err, "invalid token: tid is not a GUID in lower case", tid)
	}
}

func TestOnlyAllowedClients(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	cfg := accepts(issuer, keyFile(t, issuer))
	cfg.Clients = []string{"x", authtest.LocalClient}
	v := New(cfg, quiet())
	for name, row := range map[string]struct {
		changes map[string]any
		want    error
	}{
		"an allowed client": {nil, nil},
		"another client":    {map[string]any{"azp": authtest.LocalAudience}, ErrInsufficientScope},
		"no client":         {map[string]any{"azp": nil}, ErrInsufficientScope},
		"appid of v1.0":     {map[string]any{"azp": nil, "appid": authtest.LocalClient}, ErrInsufficientScope},
		"an array":          {map[string]any{"azp": []string{authtest.LocalClient}}, ErrInvalidToken},
	} {
		_, err := v.User(t.Context(), bearerOf(issuer.Token(tenant, "alice", row.changes)))
		require.ErrorIs(t, err, row.want, name)
	}
}

func TestEachAudienceIsAccepted(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	cfg := accepts(issuer, keyFile(t, issuer))
	cfg.Audiences = append(cfg.Audiences, "api://second")
	v := New(cfg, quiet())
	for aud, want := range map[string]error{issuer.Audience: nil, "api://second": nil, "api://third": ErrInvalidToken, "": ErrInvalidToken} {
		_, err := v.User(t.Context(), bearerOf(issuer.Token(tenant, "alice", map[string]any{"aud": aud})))
		require.ErrorIs(t, err, want, aud)
	}
}

func TestErrorsSayWhichCheckFailedWithoutTheToken(t *testing.T) {
	issuer := authtest.WithKey(keyPair())
	v := New(accepts(issuer, keyFile(t, issuer)), quiet())
	for want, changes := range map[string]map[string]any{
		"invalid token: aud is not this API":                              {"aud": "secret"},
		"invalid token: iss is not the configured issuer":                 {"iss": "secret"},
		"invalid token: sub is missing or malformed":                      {"sub": "se cret"},
		"invalid token: expired":                                          {"exp": 1},
		"insufficient scope: scp lacks the required scope":                {"scp": "secret"},
		"insufficient scope: the token is an application's, not a user's": {"scp": nil, "roles": []string{"secret"}},
	} {
		_, err := v.User(t.Context(), bearerOf(issuer.Token(tenant, "alice", changes)))
		require.EqualError(t, err, want)
	}
	for want, token := range map[string]string{
		"invalid token: not three segments":                              issuer.Token(tenant, "alice", nil) + ".secret",
		"invalid token: kid is missing or longer than 128 bytes":         issuer.Sign(`{"alg":"RS256","kid":"`+strings.Repeat("s", 129)+`"}`, "{}"),
		"invalid token: kid is unknown to the issuer":                    issuer.Sign(`{"alg":"RS256","kid":"`+strings.Repeat("s", 128)+`"}`, "{}"),
		"malformed Authorization header: the token is longer than 8 KiB": strings.Repeat("s", longestToken+1),
	} {
		_, err := v.User(t.Context(), bearerOf(token))
		require.EqualError(t, err, want)
	}
}

func TestKeysUnavailableHasNoChallenge(t *testing.T) {
	v := New(Config{}, quiet())
	require.Empty(t, v.Challenge(nil))
	require.Empty(t, v.Challenge(errors.New("another")))
	require.Empty(t, v.Challenge(fmt.Errorf("wrapped: %w", ErrKeysUnavailable)))
	require.Equal(t, `Bearer error="invalid_token"`, v.Challenge(fmt.Errorf("wrapped: %w", ErrInvalidToken)))
}
