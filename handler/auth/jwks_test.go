package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"testing"

	"chatkeep/handler/auth/authtest"

	"github.com/stretchr/testify/require"
)

// goodKey returns a key as the issuer publishes it.
func goodKey(t testing.TB) map[string]any {
	t.Helper()
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	require.NoError(t, json.Unmarshal(authtest.WithKey(keyPair()).KeySet(), &set))
	return set.Keys[0]
}

// keySetOf returns a key set as JSON.
func keySetOf(t testing.TB, keys ...any) []byte {
	t.Helper()
	document, err := json.Marshal(map[string]any{"keys": keys})
	require.NoError(t, err)
	return document
}

func TestKeysThatAreNotForUsAreIgnored(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	point, err := curve.PublicKey.Bytes()
	require.NoError(t, err)
	encode := base64.RawURLEncoding.EncodeToString

	for name, changes := range map[string]map[string]any{
		"elliptic curve":            {"kty": "EC", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:]), "n": nil, "e": nil},
		"elliptic curve, P-224":     {"kty": "EC", "crv": "P-224", "x": "AA", "y": "AA", "n": nil, "e": nil},
		"octet key pair":            {"kty": "OKP", "crv": "Ed25519", "x": encode(point[1:33]), "n": nil, "e": nil},
		"symmetric":                 {"kty": "oct", "k": "AAAA", "n": nil, "e": nil},
		"RSA with a symmetric part": {"k": "AAAA"},
		"RSA in lower case":         {"kty": "rsa"},
		"no kty":                    {"kty": nil},
		"1024 bits":                 {"n": encode(small.N.Bytes())},
		"2047 bits":                 {"n": encode(append([]byte{0x7f}, keyPair().N.Bytes()[1:]...))},
		"no n":                      {"n": nil},
		"n padded":                  {"n": encode(keyPair().N.Bytes()) + "=="},
		"n in plain base64":         {"n": base64.StdEncoding.EncodeToString(keyPair().N.Bytes())},
		"e 1":                       {"e": "AQ"},
		"e 3":                       {"e": "Aw"},
		"e 65535":                   {"e": "__8"},
		"e 0":                       {"e": "AA"},
		"e empty":                   {"e": ""},
		"e of 4 bytes and more":     {"e": "AQAAAAE"},
		"e of 32 bits":              {"e": "_____w"},
		"e a number":                {"e": 65537},
		"for encryption":            {"use": "enc"},
		"for SIG":                   {"use": "SIG"},
		"key_ops without verify":    {"key_ops": []string{"encrypt", "sign"}},
		"key_ops empty":             {"key_ops": []string{}},
		"key_ops a string":          {"key_ops": "verify"},
		"alg PS256":                 {"alg": "PS256"},
		"alg RS512":                 {"alg": "RS512"},
		"alg none":                  {"alg": "none"},
		"no kid":                    {"kid": nil},
		"kid empty":                 {"kid": ""},
		"kid a number":              {"kid": 1},
		"private, d":                {"d": "AAAA"},
		"private, p":                {"p": "AAAA"},
		"private, qi":               {"qi": "AAAA"},
		"private, oth":              {"oth": []any{}},
	} {
		t.Run(name, func(t *testing.T) {
			bad := goodKey(t)
			for member, value := range changes {
				if bad[member] = value; value == nil {
					delete(bad, member)
				}
			}
			_, err := parseKeys(keySetOf(t, bad), false)
			require.ErrorContains(t, err, "no usable key among 1: ")

			good := goodKey(t)
			good["kid"] = "good"
			keys, err := parseKeys(keySetOf(t, bad, good), false)
			require.NoError(t, err)
			require.Len(t, keys, 1)
			require.Contains(t, keys, "good")
		})
	}
}

func TestUsualKeysAreTaken(t *testing.T) {
	for name, changes := range map[string]map[string]any{
		"as Entra publishes it": {"x5t": "abc", "x5c": []string{"MIIC"}, "cloud_instance_name": "microsoftonline.com"},
		"with alg":              {"alg": "RS256"},
		"without use":           {"use": nil},
		"key_ops verify":        {"use": nil, "key_ops": []string{"verify"}},
		"without an issuer":     {"issuer": nil},
	} {
		k := goodKey(t)
		maps.Copy(k, changes)
		maps.DeleteFunc(k, func(_ string, value any) bool { return value == nil })
		keys, err := parseKeys(keySetOf(t, k), false)
		require.NoError(t, err, name)
		require.True(t, keyPair().PublicKey.Equal(keys[k["kid"].(string)].public))
	}
}

func TestRepeatedKidIsNobodys(t *testing.T) {
	one, two, other := goodKey(t), goodKey(t), goodKey(t)
	two["kty"] = "EC" // also beside a key that would be ignored
	other["kid"] = "other"
	for _, set := range [][]any{{one, one, other}, {one, two, other}, {two, one, other}, {one, one, one, other}} {
		keys, err := parseKeys(keySetOf(t, set...), false)
		require.NoError(t, err)
		require.Len(t, keys, 1)
		require.Contains(t, keys, "other")
	}
}

func TestKeysOfSeveralTenantsNeedAnIssuer(t *testing.T) {
	silent, says := goodKey(t), goodKey(t)
	delete(silent, "issuer")
	says["kid"] = "says"
	keys, err := parseKeys(keySetOf(t, silent, says), true)
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.Contains(t, keys, "says")
	_, err = parseKeys(keySetOf(t, silent), true)
	require.ErrorContains(t, err, "issuer")
}
