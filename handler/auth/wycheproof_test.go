package auth

import (
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/c2sp/wycheproof"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// vectors is a file of Project Wycheproof on JWS or JWK.
type vectors struct {
	NumberOfTests int `json:"numberOfTests"`
	TestGroups    []struct {
		Public  json.RawMessage `json:"public"`
		Private json.RawMessage `json:"private"`
		JWK     json.RawMessage `json:"keyJwk"`
		Tests   []struct {
			ID      int             `json:"tcId"`
			Comment string          `json:"comment"`
			JWS     json.RawMessage `json:"jws"` // a string in compact form, an object in JSON form
			Msg     string          `json:"msg"`
			Sig     string          `json:"sig"`
			Result  string          `json:"result"`
		} `json:"tests"`
	} `json:"testGroups"`
}

func readVectors(t *testing.T, name string) vectors {
	t.Helper()
	text, err := fs.ReadFile(wycheproof.TestVectors, name)
	require.NoError(t, err)
	var v vectors
	require.NoError(t, json.Unmarshal(text, &v))
	return v
}

// verifies reports whether we accept a JWS by one of the keys. It skips the claims, because the vectors have none.
func verifies(t *testing.T, keySet, jws string) bool {
	t.Helper()
	keys, err := parseKeys([]byte(keySet), false)
	if err != nil {
		return false
	}
	v := New(Config{}, quiet())
	for kid, k := range keys {
		v.keys.keys[kid] = heldKey{key: k, until: time.Now().Add(time.Hour)}
	}
	token, err := bearer(http.Header{"Authorization": {"Bearer " + jws}})
	if err != nil {
		return false
	}
	_, _, err = v.verifyJWS(t.Context(), token)
	return err == nil
}

// algorithmOf returns the alg of a JWS in compact form.
func algorithmOf(jws string) string {
	segment, _, _ := strings.Cut(jws, ".")
	text, _ := base64url.DecodeString(segment)
	var h struct {
		Alg string `json:"alg"`
	}
	_ = json.Unmarshal(text, &h)
	return h.Alg
}

// disagreements are the vectors in which we differ from the label, by file and tcId.
var disagreements = map[string]map[int]string{
	"json_web_signature_test.json": {},
	"json_web_key_test.json": {
		7: "a key that a broken generator made (ROCA, CVE-2017-15361): nothing but the issuer can make the keys that we load",
	},
}

// TestWycheproof expects us to accept the vectors that are valid and RS256, and to refuse all others.
func TestWycheproof(t *testing.T) {
	for file, skip := range disagreements {
		t.Run(file, func(t *testing.T) {
			all := readVectors(t, file)
			seen, taken := 0, []int{}
			for _, group := range all.TestGroups {
				keySet := string(group.Public)
				if keySet == "" {
					keySet = string(group.Private) // of a symmetric key, which has no public part
				}
				if !strings.Contains(keySet, `"keys"`) {
					keySet = `{"keys":[` + keySet + `]}`
				}
				for _, test := range group.Tests {
					seen++
					var jws string
					if json.Unmarshal(test.JWS, &jws) != nil {
						jws = string(test.JWS)
					}
					want := test.Result == "valid" && algorithmOf(jws) == "RS256"
					got := verifies(t, keySet, jws)
					if got {
						taken = append(taken, test.ID)
					}
					if why, ok := skip[test.ID]; ok {
						require.NotEqual(t, want, got, "tcId %d agrees now, and is to be taken off the list: %s", test.ID, why)
						continue
					}
					require.Equal(t, want, got, "tcId %d: %s", test.ID, test.Comment)
				}
			}
			require.Equal(t, all.NumberOfTests, seen)
			require.Equal(t, map[string][]int{
				"json_web_signature_test.json": {33, 259, 260, 261, 262, 263, 345, 349},
				"json_web_key_test.json":       {5, 7},
			}[file], taken)
		})
	}
}

// TestWycheproofSignatures tries paddings of an RS256 signature, with keys that parseKeys has read.
func TestWycheproofSignatures(t *testing.T) {
	seen := 0
	for _, group := range readVectors(t, "rsa_signature_2048_sha256_test.json").TestGroups {
		keys, err := parseKeys([]byte(`{"keys":[`+string(group.JWK)+`]}`), false)
		if strings.Contains(string(group.JWK), `"e": "Aw"`) {
			require.ErrorContains(t, err, "e is not from 65537") // so none of its signatures can ever be good
			continue
		}
		require.NoError(t, err)
		for _, test := range group.Tests {
			seen++
			message, err := hex.DecodeString(test.Msg)
			require.NoError(t, err)
			signature, err := hex.DecodeString(test.Sig)
			require.NoError(t, err)
			err = jwt.SigningMethodRS256.Verify(string(message), signature, keys["none"].public)
			// What is merely acceptable lacks a NULL that RFC 8017 wants.
			require.Equal(t, test.Result == "valid", err == nil, "tcId %d: %s", test.ID, test.Comment)
		}
	}
	require.Greater(t, seen, 200)
}
