package auth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatkeep/handler/auth"
	"chatkeep/handler/auth/authtest"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const tenant = authtest.LocalTenant

// keyServer serves an issuer's keys and counts how often it is asked. Answer replaces what it serves.
type keyServer struct {
	url    string
	asked  atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
}

func serveKeys(t *testing.T, issuer *authtest.Issuer) *keyServer {
	t.Helper()
	s := &keyServer{}
	s.set(issuer.ServeHTTP)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		(*s.answer.Load())(w, r)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *keyServer) set(answer http.HandlerFunc) { s.answer.Store(&answer) }

func verifier(url string) *auth.Verifier {
	return auth.New(auth.Config{Issuer: authtest.LocalIssuer, Audiences: []string{"other", authtest.LocalAudience}, KeysURL: url})
}

func user(t *testing.T, v *auth.Verifier, token string) (auth.User, error) {
	t.Helper()
	return v.User(t.Context(), http.Header{"Authorization": {"Bearer " + token}})
}

func TestTokens(t *testing.T) {
	issuer := authtest.New()
	v := verifier(serveKeys(t, issuer).url)
	now := time.Now()
	token := func(changes map[string]any) string { return issuer.Token(tenant, "alice", changes) }
	header := func(changes map[string]any) string {
		h := map[string]any{"alg": "RS256", "typ": "JWT", "kid": issuer.KeyID()}
		for name, value := range changes {
			h[name] = value
			if value == nil {
				delete(h, name)
			}
		}
		return issuer.Sign(h, jwt.MapClaims{
			"iss": issuer.Name, "aud": issuer.Audience, "sub": "alice", "tid": tenant, "exp": now.Add(time.Hour).Unix(),
		})
	}
	good := token(nil)
	parts := strings.Split(good, ".")
	signedBy := func(method jwt.SigningMethod, key any) string {
		made := jwt.NewWithClaims(method, jwt.MapClaims{
			"iss": issuer.Name, "aud": issuer.Audience, "sub": "alice", "tid": tenant, "exp": now.Add(time.Hour).Unix(),
		})
		made.Header["kid"] = issuer.KeyID()
		text, err := made.SignedString(key)
		require.NoError(t, err)
		return text
	}

	for name, text := range map[string]string{
		"good":                      good,
		"aud in an array":           token(map[string]any{"aud": []string{"x", issuer.Audience}}),
		"no nbf and no iat":         token(map[string]any{"nbf": nil, "iat": nil}),
		"just expired":              token(map[string]any{"exp": now.Add(-auth.Leeway + 10*time.Second).Unix()}),
		"nbf a little ahead":        token(map[string]any{"nbf": now.Add(auth.Leeway - 10*time.Second).Unix()}),
		"at+jwt":                    header(map[string]any{"typ": "at+JWT"}),
		"no typ":                    header(map[string]any{"typ": nil}),
		"SUB beside sub is ignored": token(map[string]any{"SUB": "mallory", "Tid": "x"}),
	} {
		u, err := user(t, v, text)
		require.NoError(t, err, name)
		require.Equal(t, "alice", u.ID, name)
		require.Equal(t, tenant, u.TenantID, name)
	}

	for name, text := range map[string]string{
		"no signature":         parts[0] + "." + parts[1] + ".",
		"flipped signature":    parts[0] + "." + parts[1] + "." + strings.Map(flip, parts[2]),
		"changed claims":       parts[0] + "." + parts[1][:10] + "A" + parts[1][11:] + "." + parts[2],
		"two segments":         parts[0] + "." + parts[1],
		"five segments":        good + ".a.b",
		"dots":                 strings.Repeat(".", 8000),
		"another key":          authtest.New().Token(tenant, "alice", nil),
		"alg none":             signedBy(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"HS256 by the modulus": signedBy(jwt.SigningMethodHS256, issuer.Key.N.Bytes()),
		"PS256":                signedBy(jwt.SigningMethodPS256, issuer.Key),
		"RS512":                signedBy(jwt.SigningMethodRS512, issuer.Key),
		"alg in small letters": header(map[string]any{"alg": "rs256"}),
		"no kid":               header(map[string]any{"kid": nil}),
		"a number as kid":      header(map[string]any{"kid": 1}),
		"a path as kid":        header(map[string]any{"kid": "../../etc/passwd"}),
		"endless kid":          header(map[string]any{"kid": strings.Repeat("k", 2000)}),
		"crit":                 header(map[string]any{"crit": []string{}}),
		"jku":                  header(map[string]any{"jku": "https://evil"}),
		"jwk":                  header(map[string]any{"jwk": map[string]string{}}),
		"b64":                  header(map[string]any{"b64": false}),
		"zip":                  header(map[string]any{"zip": "DEF"}),
		"another typ":          header(map[string]any{"typ": "logout+jwt"}),
		"exp missing":          token(map[string]any{"exp": nil}),
		"exp 0":                token(map[string]any{"exp": 0}),
		"exp as text":          token(map[string]any{"exp": "9999999999"}),
		"exp with a fraction":  token(map[string]any{"exp": 9999999999.5}),
		"exp beyond time":      token(map[string]any{"exp": 1e18}),
		"nbf ahead":            token(map[string]any{"nbf": now.Add(auth.Leeway + 10*time.Second).Unix()}),
		"iat ahead":            token(map[string]any{"iat": now.Add(auth.Leeway + 10*time.Second).Unix()}),
		"another audience":     token(map[string]any{"aud": issuer.Audience + "x"}),
		"no audience":          token(map[string]any{"aud": nil}),
		"empty audience":       token(map[string]any{"aud": []string{}}),
		"another issuer":       token(map[string]any{"iss": issuer.Name + "/"}),
		"no issuer":            token(map[string]any{"iss": nil}),
		"no sub":               token(map[string]any{"sub": nil}),
		"only Sub":             token(map[string]any{"sub": nil, "Sub": "alice"}),
		"empty sub":            token(map[string]any{"sub": ""}),
		"sub a number":         token(map[string]any{"sub": 7}),
		"sub with a space":     token(map[string]any{"sub": "a b"}),
		"sub with NUL":         token(map[string]any{"sub": "a\x00"}),
		"sub in other letters": token(map[string]any{"sub": "é"}),
		"endless sub":          token(map[string]any{"sub": strings.Repeat("a", 256)}),
		"no tid":               token(map[string]any{"tid": nil}),
		"empty tid":            token(map[string]any{"tid": ""}),
	} {
		_, err := user(t, v, text)
		require.ErrorIs(t, err, auth.ErrInvalidToken, name)
		require.Equal(t, `Bearer error="invalid_token"`, auth.Challenge(err), name)
		require.Equal(t, auth.ErrInvalidToken.Error(), err.Error(), "%s: the error tells which check failed", name)
	}
	_, err := user(t, v, token(map[string]any{"exp": now.Add(-auth.Leeway - 10*time.Second).Unix()}))
	require.ErrorIs(t, err, auth.ErrExpired)
}

func flip(r rune) rune {
	if r == 'A' {
		return 'B'
	}
	return 'A'
}

// A signature is no help to members that stand twice.
func TestRepeatedMembersAreRefused(t *testing.T) {
	issuer := authtest.New()
	v := verifier(serveKeys(t, issuer).url)
	sign := func(header, claims string) string {
		encode := func(s string) string { return (&jwt.Token{}).EncodeSegment([]byte(s)) }
		text := encode(header) + "." + encode(claims)
		signature, err := jwt.SigningMethodRS256.Sign(text, issuer.Key)
		require.NoError(t, err)
		return text + "." + (&jwt.Token{}).EncodeSegment(signature)
	}
	header := `{"alg":"RS256","kid":"` + issuer.KeyID() + `"}`
	claims := `{"iss":"` + issuer.Name + `","aud":"` + issuer.Audience + `","sub":"alice","tid":"t","exp":9999999999}`
	_, err := user(t, v, sign(header, claims))
	require.NoError(t, err)
	for _, text := range []string{
		sign(`{"alg":"none",`+header[1:], claims), sign(`{"kid":"x",`+header[1:], claims),
		sign(header, `{"sub":"mallory",`+claims[1:]), sign(header, `{"\u0073ub":"mallory",`+claims[1:]),
		sign(header, `{"exp":1,`+claims[1:]), sign(header, "null"), sign(header, claims+"{}"), sign(header, `{"x":"`+"\xff"+`",`+claims[1:]),
	} {
		_, err := user(t, v, text)
		require.ErrorIs(t, err, auth.ErrInvalidToken)
	}
}

func TestKeysAreFetchedOnceByManyCallers(t *testing.T) {
	issuer := authtest.New()
	server := serveKeys(t, issuer)
	v := verifier(server.url)
	require.Zero(t, server.asked.Load(), "fetched before it was needed")
	token := issuer.Token(tenant, "alice", nil)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			_, err := user(t, v, token)
			assert.NoError(t, err)
		})
	}
	all.Wait()
	require.Equal(t, int64(1), server.asked.Load())
	_, rest, _ := strings.Cut(token, ".")
	for i := range 1000 {
		name := fmt.Appendf(nil, `{"alg":"RS256","kid":"forged-%d"}`, i)
		_, err := user(t, v, (&jwt.Token{}).EncodeSegment(name)+"."+rest)
		require.ErrorIs(t, err, auth.ErrInvalidToken)
	}
	require.Equal(t, int64(1), server.asked.Load(), "forged names made it ask")
}

func TestKeySourceDown(t *testing.T) {
	issuer := authtest.New()
	token := issuer.Token(tenant, "alice", nil)
	for name, answer := range map[string]http.HandlerFunc{
		"error":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"HTML":     func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"empty":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) },
		"huge":     func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 2<<20)) },
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serveKeys(t, issuer)
			server.set(answer)
			v := verifier(server.url)
			for range 5 {
				_, err := user(t, v, token)
				require.ErrorIs(t, err, auth.ErrKeysUnavailable)
				require.Empty(t, auth.Challenge(err))
			}
			require.LessOrEqual(t, server.asked.Load(), int64(2), "a failing source is asked for every request")
			server.set(issuer.ServeHTTP)
			require.Eventually(t, func() bool {
				_, err := user(t, v, token)
				return err == nil
			}, 10*time.Second, 20*time.Millisecond)
			server.set(answer)
			_, err := user(t, v, token)
			require.NoError(t, err, "held keys are forgotten")
		})
	}
}

func TestKeysThatAreNotUsed(t *testing.T) {
	issuer := authtest.New()
	set := string(issuer.KeySet())
	for name, text := range map[string]string{
		"for encryption": strings.Replace(set, `"use":"sig"`, `"use":"enc"`, 1),
		"another kind":   strings.Replace(set, `"kty":"RSA"`, `"kty":"oct"`, 1),
		"another alg":    strings.Replace(set, `"kty":"RSA"`, `"kty":"RSA","alg":"PS256"`, 1),
		"private":        strings.Replace(set, `"kty":"RSA"`, `"kty":"RSA","d":"AQAB"`, 1),
		"exponent 1":     strings.Replace(set, `"e":"AQAB"`, `"e":"AQ"`, 1),
		"short":          strings.Replace(set, `"n":"`, `"n":"AQAB","x":"`, 1),
		"twice":          strings.Replace(set, `{"keys":[`, `{"keys":[{"kty":"oct","kid":"`+issuer.KeyID()+`"},`, 1),
	} {
		require.NotEqual(t, set, text, name)
		file := filepath.Join(t.TempDir(), "keys.json")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		_, err := user(t, verifier(file), issuer.Token(tenant, "alice", nil))
		require.ErrorIs(t, err, auth.ErrKeysUnavailable, name)
	}
}

// A header gives a user only if it is exactly one bearer token that we would accept.
func FuzzBearer(f *testing.F) {
	issuer := authtest.New()
	file := filepath.Join(f.TempDir(), "keys.json")
	require.NoError(f, os.WriteFile(file, issuer.KeySet(), 0o600))
	v := verifier(file)
	good := issuer.Token(tenant, "alice", nil)
	for _, value := range []string{"", "Bearer", "Bearer ", "bearer  " + good, "Bearer " + good, "Bearer " + good + ", Bearer x", "Basic x", "Bearer a.b.c"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		_, err := v.User(t.Context(), http.Header{"Authorization": {value}})
		if err == nil {
			scheme, token, _ := strings.Cut(value, " ")
			require.True(t, strings.EqualFold(scheme, "Bearer"))
			require.Equal(t, good, strings.TrimLeft(token, " "))
			return
		}
		require.NotErrorIs(t, err, auth.ErrKeysUnavailable)
		require.NotEmpty(t, auth.Challenge(err))
	})
}

func BenchmarkUser(b *testing.B) {
	issuer := authtest.New()
	file := filepath.Join(b.TempDir(), "keys.json")
	require.NoError(b, os.WriteFile(file, issuer.KeySet(), 0o600))
	v := verifier(file)
	header := http.Header{"Authorization": {"Bearer " + issuer.Token(tenant, "alice", nil)}}
	b.ReportAllocs()
	for b.Loop() {
		_, err := v.User(b.Context(), header)
		require.NoError(b, err)
	}
}
