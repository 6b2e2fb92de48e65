package auth

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"chatkeep/handler/auth/authtest"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// The corpora in testdata/fuzz come from the attacks of authtest/attack and from long runs.

func FuzzBearer(f *testing.F) {
	f.Add("Bearer a.b.c", "", false)
	f.Add("Bearer a", "Bearer b", true)
	f.Add("", "", true)
	f.Add("Bearer "+strings.Repeat("A", longestToken+1), "", false)
	f.Fuzz(func(t *testing.T, one, two string, both bool) {
		h := http.Header{"Authorization": {one}}
		if both {
			h.Add("Authorization", two)
		}
		token, err := bearer(h)
		if err != nil {
			require.Empty(t, token)
			require.Contains(t, []int{http.StatusUnauthorized, http.StatusBadRequest}, status(err))
			require.Equal(t, errors.Is(err, ErrInvalidToken), strings.Contains(err.Error(), "more than one credential"))
			requireConstant(t, err, nil)
			return
		}
		require.False(t, both, "two headers are never one token")
		require.Regexp(t, `^[A-Za-z0-9_.-]+$`, token)
		require.LessOrEqual(t, len(token), longestToken)
		scheme, rest, found := strings.Cut(one, " ")
		require.True(t, found)
		require.Equal(t, "bearer", strings.ToLower(scheme))
		require.Equal(t, token, strings.Trim(rest, " "))
	})
}

// FuzzToken compares accepted tokens with golang-jwt, which must accept them too and see the same user.
func FuzzToken(f *testing.F) {
	issuer := authtest.WithKey(keyPair())
	v := New(accepts(issuer, keyFile(f, issuer)), quiet())
	good := issuer.Token(tenant, "alice", map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()})
	_, err := v.User(f.Context(), bearerOf(good))
	require.NoError(f, err)
	f.Add(good)
	f.Add(good[:strings.LastIndex(good, ".")] + ".AAAA") // corpora know no kid of a key that is made anew
	f.Add(good + "A")
	f.Add("A.e30.QQ")
	f.Add(strings.Repeat("A", longestHeader+1) + ".e30.QQ")
	second := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithStrictDecoding(), jwt.WithLeeway(leeway),
		jwt.WithIssuer(issuer.Name), jwt.WithAudience(issuer.Audience),
		jwt.WithExpirationRequired(), jwt.WithNotBeforeRequired(), jwt.WithIssuedAt())
	f.Fuzz(func(t *testing.T, token string) {
		user, err := v.User(t.Context(), bearerOf(token))
		if err != nil {
			require.Equal(t, User{}, user)
			require.Contains(t, []int{
				http.StatusUnauthorized, http.StatusBadRequest, http.StatusForbidden, http.StatusServiceUnavailable, // the last for an unknown kid
			}, status(err))
			requireConstant(t, err, bearerOf(token))
			return
		}
		claims := jwt.MapClaims{}
		_, err = second.ParseWithClaims(strings.TrimLeft(token, " "), claims, func(*jwt.Token) (any, error) { return &keyPair().PublicKey, nil })
		require.NoError(t, err)
		require.Equal(t, claims["sub"], user.ID)
		require.Equal(t, claims["tid"], user.TenantID)
	})
}

// FuzzClaims takes the claims of a token whose signature is valid, so that it need not sign.
func FuzzClaims(f *testing.F) {
	v := New(Config{
		Issuer: "https://login.microsoftonline.com/{tenantid}/v2.0", Audiences: []string{authtest.LocalAudience},
		Tenants: []string{tenant}, Scope: authtest.Scope,
	}, quiet())
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := parseClaims(payload)
		if err == nil {
			err = v.check(c, key{issuer: v.cfg.Issuer})
		}
		if err != nil {
			requireConstant(t, err, nil)
			return
		}
		require.True(t, utf8.Valid(payload))
		var members map[string]any // in which names are exact, and of two with one name the last counts
		require.NoError(t, json.Unmarshal(payload, &members))
		require.Equal(t, members["sub"], c.Sub)
		require.Equal(t, tenant, members["tid"])
		require.Equal(t, authtest.LocalAudience, members["aud"])
		require.Contains(t, members["scp"], authtest.Scope)
		require.Regexp(t, `^[!-~]{1,255}$`, c.Sub)
		require.Greater(t, members["exp"], float64(time.Now().Add(-2*leeway).Unix()))
	})
}
