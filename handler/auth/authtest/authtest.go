// Package authtest is a token issuer for tests and for local use.
package authtest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// What the issuer of make run uses. Its keys are at LocalIssuer + KeysPath.
const (
	LocalIssuer   = "http://127.0.0.1:7072"
	LocalAudience = "11111111-2222-3333-4444-555555555555"
	LocalTenant   = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	LocalClient   = "99999999-8888-7777-6666-555555555555"
	Scope         = "access_as_user"
	KeysPath      = "/keys"
)

// Issuer signs tokens and, as an http.Handler, publishes the key to verify them with. It is safe for concurrent use, once its name and
// audience are set.
type Issuer struct {
	Name     string // iss, with {tenantid} for the tenant of a token, or without
	Audience string // aud

	mu     sync.Mutex
	key    *rsa.PrivateKey
	others []publicKey // of other issuers in the same set
}

// publicKey is a key of the set (RFC 7517) as Entra writes it: without alg, but with the issuer whose tokens it signs.
type publicKey struct {
	Type     string `json:"kty"`
	Use      string `json:"use"`
	ID       string `json:"kid"`
	Modulus  string `json:"n"`
	Exponent string `json:"e"`
	Issuer   string `json:"issuer"`
}

// New returns the local issuer with a new key, which takes a noticeable part of a second to make.
func New() *Issuer { return WithKey(NewKey()) }

// WithKey returns the local issuer with this key.
func WithKey(key *rsa.PrivateKey) *Issuer {
	return &Issuer{Name: LocalIssuer, Audience: LocalAudience, key: key}
}

// NewKey makes a key pair as Entra has them.
func NewKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // only when the machine has no randomness
	}
	return key
}

// Token returns a token for a user of a tenant, good for an hour, with what Entra puts into a v2.0 access token. Changes replace
// claims; nil removes one.
func (i *Issuer) Token(tenant, user string, changes map[string]any) string {
	now := time.Now()
	claims := map[string]any{
		"ver": "2.0", "iss": i.issuer(tenant), "aud": i.Audience, "tid": tenant, "sub": user, "oid": objectID(tenant, user),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"scp": Scope, "azp": LocalClient, "azpacr": "0", "name": "Somebody", "preferred_username": "somebody@example.com",
		"aio": rand.Text(), "rh": "0.AAAA.", "uti": rand.Text(),
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return i.Sign(text(i.header()), text(claims))
}

// Sign returns a token with exactly this header and this payload. The signature is RS256, whatever the header says.
func (i *Issuer) Sign(header, payload string) string {
	return sign(jwt.SigningMethodRS256, i.signer(), header, payload)
}

// KeyID is the kid of the key that signs now.
func (i *Issuer) KeyID() string { return keyID(&i.signer().PublicKey) }

// Rotate goes over to a new key. The old one is no longer published.
func (i *Issuer) Rotate() {
	key := NewKey()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key = key
}

// KeySet is the JSON Web Key Set (RFC 7517) of the issuer.
func (i *Issuer) KeySet() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	keys := append([]publicKey{publish(&i.key.PublicKey, i.Name)}, i.others...)
	return []byte(text(map[string]any{"keys": keys}))
}

// ServeHTTP serves the key set and, for the tenant in the path, the metadata that name it (OpenID Connect Discovery 1.0).
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tenant, isMetadata := strings.CutSuffix(r.URL.Path, "/.well-known/openid-configuration")
	switch {
	case r.URL.Path == KeysPath:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(i.KeySet())
	case isMetadata:
		tenant = strings.TrimSuffix(strings.TrimPrefix(tenant, "/"), "/v2.0")
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(text(map[string]any{
			"issuer": i.issuer(tenant), "jwks_uri": "http://" + r.Host + KeysPath,
			"id_token_signing_alg_values_supported": []string{"RS256"}, "subject_types_supported": []string{"pairwise"},
		})))
	default:
		http.NotFound(w, r)
	}
}

func (i *Issuer) issuer(tenant string) string {
	return strings.ReplaceAll(i.Name, "{tenantid}", tenant)
}

func (i *Issuer) header() map[string]any {
	return map[string]any{"typ": "JWT", "alg": "RS256", "kid": i.KeyID()}
}

func (i *Issuer) signer() *rsa.PrivateKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.key
}

// publishForeign puts another issuer's key into the set.
func (i *Issuer) publishForeign(key *rsa.PublicKey, issuer string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.others = append(i.others, publish(key, issuer))
}

func publish(key *rsa.PublicKey, issuer string) publicKey {
	return publicKey{Type: "RSA", Use: "sig", ID: keyID(key), Modulus: modulus(key), Exponent: exponent(key), Issuer: issuer}
}

// keyID is the thumbprint of a key (RFC 7638).
func keyID(key *rsa.PublicKey) string {
	digest := sha256.Sum256([]byte(`{"e":"` + exponent(key) + `","kty":"RSA","n":"` + modulus(key) + `"}`))
	return encode(digest[:])
}

func modulus(key *rsa.PublicKey) string { return encode(key.N.Bytes()) }

func exponent(key *rsa.PublicKey) string { return encode(big.NewInt(int64(key.E)).Bytes()) }

// objectID is the same GUID every time for one user of one tenant.
func objectID(tenant, user string) string {
	digest := sha256.Sum256([]byte(tenant + " " + user))
	h := hex.EncodeToString(digest[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func sign(method jwt.SigningMethod, key any, header, payload string) string {
	signed := encode([]byte(header)) + "." + encode([]byte(payload))
	signature, err := method.Sign(signed, key)
	if err != nil {
		panic(err) // the method and the key are ours
	}
	return signed + "." + encode(signature)
}

func encode(bytes []byte) string { return base64.RawURLEncoding.EncodeToString(bytes) }

func text(value any) string {
	bytes, err := json.Marshal(value)
	if err != nil {
		panic(err) // what we make always encodes
	}
	return string(bytes)
}
